package transform

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"time"
	"unicode"
)

// A direct transport speaks HTTP/1.1 with workers that need neither TLS nor a proxy. The
// goroutine of the attempt writes the request and reads the reply. That of net/http has two
// more for each connection, and to hand a call over to them and back takes a quarter of all
// that the call takes. Requests and replies are written and read by net/http all the same.
//
// There are never more connections to an address than there were requests at once.
type direct struct {
	*http.Transport // for https, and for names that must be translated for DNS

	mu   sync.Mutex
	idle map[string][]*connection // by address, the one that was used last at the end
	reap *time.Timer              // closes them in time; nil while there are none
}

func newDirect(secure *http.Transport) *direct {
	return &direct{Transport: secure, idle: make(map[string][]*connection)}
}

// RoundTrip sends a request, and again only if nothing of it was written to a connection
// that turned out to be closed. The body of the reply is to be closed by the caller.
func (d *direct) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "http" || strings.ContainsFunc(req.URL.Host, foreign) {
		return d.Transport.RoundTrip(req)
	}
	ctx := req.Context()
	address := net.JoinHostPort(req.URL.Hostname(), cmp.Or(req.URL.Port(), "80"))
	trace := httptrace.ContextClientTrace(ctx)
	for {
		c, err := d.take(ctx, address)
		if err != nil {
			return nil, err
		}
		if trace != nil && trace.GotConn != nil {
			trace.GotConn(httptrace.GotConnInfo{Conn: c.Conn, Reused: c.used})
		}
		unlink := context.AfterFunc(ctx, c.interrupt)
		resp, err := c.ask(req)
		if err == nil {
			resp.Body = &replyBody{from: resp.Body, of: c, direct: d, unlink: unlink, ended: resp.Body == http.NoBody, last: resp.Close || resp.StatusCode < http.StatusOK}
			return resp, nil
		}
		unlink()
		if c.hangUp(); !c.used || c.wrote > 0 || ctx.Err() != nil {
			return nil, err
		}
		if req.ContentLength > 0 {
			if req.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

func foreign(r rune) bool { return r > unicode.MaxASCII }

// take returns a connection for one request.
func (d *direct) take(ctx context.Context, address string) (*connection, error) {
	for {
		c := d.pop(address)
		if c == nil {
			break
		}
		if time.Since(c.since) < idleTimeout && c.stands() {
			return c, nil
		}
		_ = c.Close()
	}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return newConnection(conn, address), nil
}

// pop returns the connection that was used last, because the others may have their rest.
func (d *direct) pop(address string) *connection {
	d.mu.Lock()
	defer d.mu.Unlock()
	conns := d.idle[address]
	last := len(conns) - 1
	if last < 0 {
		return nil
	}
	c := conns[last]
	conns[last] = nil
	d.idle[address] = conns[:last]
	return c
}

// put keeps a connection for the next request.
func (d *direct) put(c *connection) {
	c.used, c.since = true, time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.idle[c.address] = append(d.idle[c.address], c)
	if d.reap == nil {
		d.reap = time.AfterFunc(idleTimeout, func() { d.closeIdle(idleTimeout) })
	}
}

// CloseIdleConnections closes the connections that no request uses.
func (d *direct) CloseIdleConnections() {
	d.closeIdle(0)
	d.Transport.CloseIdleConnections()
}

// closeIdle closes the connections that no request has used for so long, and has the others
// closed in time.
func (d *direct) closeIdle(idle time.Duration) {
	now := time.Now()
	next := time.Duration(-1)
	d.mu.Lock()
	defer d.mu.Unlock()
	for address, conns := range d.idle {
		old := 0
		for ; old < len(conns) && now.Sub(conns[old].since) >= idle; old++ {
			_ = conns[old].Close()
		}
		if old == len(conns) {
			delete(d.idle, address)
			continue
		}
		d.idle[address] = append([]*connection(nil), conns[old:]...)
		if left := idleTimeout - now.Sub(conns[old].since); next < 0 || left < next {
			next = left
		}
	}
	switch {
	case next >= 0:
		d.reap.Reset(next)
	case d.reap != nil:
		d.reap.Stop()
		d.reap = nil
	}
}
