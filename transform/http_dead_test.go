package transform

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"seriatim/processor"
)

// A connection that was used before leads nowhere any more: nothing is answered on it, and
// nothing closes it. The attempt that meets it times out, and the next one has another.
func TestHTTPHalfOpenConnection(t *testing.T) {
	worker := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(worker.Close)
	proxy := newFreezer(t, worker.Listener.Addr().String())
	client, err := HTTP(HTTPOptions{URLs: []string{"http://" + proxy.Addr().String()}, Timeout: 300 * time.Millisecond, Connections: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	testDeadConnection(t, client, proxy, "no complete reply within 300ms")
}

// With HTTP/2 it is noticed long before the attempt's time is over.
func TestHTTP2DeadConnection(t *testing.T) {
	url := http2Worker(t, (*httptest.Server).Start, func(http.ResponseWriter, *http.Request) {})
	proxy := newFreezer(t, strings.TrimPrefix(url, "http://"))
	client := http2Client(t, HTTPOptions{URLs: []string{"http://" + proxy.Addr().String()}, Timeout: time.Hour})
	pings := client.transport.(*http.Transport).HTTP2
	if pings.SendPingTimeout != 5*time.Second || pings.PingTimeout != 10*time.Second {
		t.Errorf("pings are %+v, want one after 5s of silence with 10s for an answer", pings)
	}
	pings.SendPingTimeout, pings.PingTimeout = 50*time.Millisecond, 50*time.Millisecond
	testDeadConnection(t, client, proxy, "closed the connection")
}

// testDeadConnection allows for a busy machine, which may be slower than the short times of
// the client: it asks until it is answered, and until the connection was there to be frozen.
func testDeadConnection(t *testing.T, client *Client, proxy *freezer, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	answered := func(when string) {
		t.Helper()
		for {
			_, err := attempt(ctx, client, "v")
			if err == nil {
				return
			}
			if ctx.Err() != nil {
				t.Fatalf("%s: no attempt is answered: %v", when, err)
			}
		}
	}
	answered("before")
	var err error
	for err == nil {
		proxy.freeze()
		_, err = attempt(ctx, client, "v")
	}
	var f *processor.Failure
	if !errors.As(err, &f) || f.Kind != processor.Retry || !strings.Contains(err.Error(), want) {
		t.Fatalf("got error %v, want retry: … %s", err, want)
	}
	answered("after")
}

// A freezer forwards connections, until those that there are are frozen: they stay open,
// and nothing comes through any more.
type freezer struct {
	net.Listener

	mu     sync.Mutex
	frozen chan struct{} // closed when the connections of now are
	conns  []net.Conn
}

func newFreezer(t *testing.T, to string) *freezer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &freezer{Listener: listener, frozen: make(chan struct{})}
	var forwarding sync.WaitGroup
	forwarding.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			f.mu.Lock()
			frozen := f.frozen
			f.conns = append(f.conns, in, out)
			f.mu.Unlock()
			forwarding.Go(func() { forward(in, out, frozen) })
			forwarding.Go(func() { forward(out, in, frozen) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		f.mu.Lock()
		for _, c := range f.conns {
			_ = c.Close()
		}
		f.mu.Unlock()
		forwarding.Wait()
	})
	return f
}

// forward copies until the connections are frozen.
func forward(from, to net.Conn, frozen <-chan struct{}) {
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		select {
		case <-frozen:
			return
		default:
		}
		if _, errWrite := to.Write(buffer[:n]); err != nil || errWrite != nil {
			return
		}
	}
}

func (f *freezer) freeze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.frozen)
	f.frozen = make(chan struct{})
}
