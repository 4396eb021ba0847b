package conductor

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// A Proxy stands in front of one broker. It knows which client a connection
// belongs to by the client id in its first request, so that the connections of
// one client can be cut, slowed or held up alone.
type Proxy struct {
	listener net.Listener
	broker   string
	conns    sync.WaitGroup

	mu     sync.Mutex
	links  map[*link]struct{}
	rules  map[string]Trouble // by the beginning of a client id
	closed bool
}

// Trouble is what happens to connections. The zero Trouble is none.
type Trouble struct {
	Cut   bool          // closed at once, and each new one too
	Stall bool          // open, but nothing passes
	Delay time.Duration // of each piece that is read, both ways
}

// A link is one connection of a client and its continuation to the broker.
type link struct {
	client, broker net.Conn
	id             string
	changed        chan struct{} // closed when the rules change; guarded by the proxy
	hold           *hold
}

// A hold keeps what the client sends and delivers it when the client is gone.
type hold struct{ deliver time.Time }

// NewProxy listens on loopback for clients of a broker.
func NewProxy(broker string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: listener, broker: broker, links: make(map[*link]struct{}), rules: make(map[string]Trouble)}
	p.conns.Go(p.accept)
	return p, nil
}

// Addr returns host:port for clients.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Close closes all connections and waits for their ends.
func (p *Proxy) Close() {
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for l := range p.links {
		l.close()
		l.tell()
	}
	p.mu.Unlock()
	p.conns.Wait()
}

// Trouble sets what happens to the connections of the clients whose id begins
// with the given text, until it is set anew.
func (p *Proxy) Trouble(client string, t Trouble) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules[client] = t
	if t == (Trouble{}) {
		delete(p.rules, client)
	}
	for l := range p.links {
		if strings.HasPrefix(l.id, client) {
			if t.Cut {
				reset(l.client)
				l.close()
			}
			l.tell()
		}
	}
}

// HoldUp keeps what the clients whose id begins with the given text send on the
// connections that are open now, cuts these connections after a time, and
// delivers what it kept after one more time: the broker gets requests whose
// sender has given up on them and sent others since.
func (p *Proxy) HoldUp(client string, cut, deliver time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		if l.hold == nil && l.id != "" && strings.HasPrefix(l.id, client) {
			l.hold = &hold{deliver: time.Now().Add(cut + deliver)}
			p.conns.Go(func() {
				<-time.After(cut)
				l.client.Close()
			})
		}
	}
}

func (p *Proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.conns.Go(func() { p.serve(conn) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	broker, err := net.DialTimeout("tcp", p.broker, 5*time.Second)
	if err != nil {
		reset(client) // as near to a refused connection as can be
		return
	}
	l := &link{client: client, broker: broker, changed: make(chan struct{})}
	defer broker.Close()
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.links[l] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.links, l)
		p.mu.Unlock()
	}()
	first, err := firstRequest(client)
	if err != nil {
		return
	}
	p.mu.Lock()
	l.id = clientID(first)
	p.mu.Unlock()
	var up sync.WaitGroup
	up.Go(func() {
		defer l.close()
		switch {
		case !p.pass(l):
			reset(client)
		case write(broker, first):
			p.upstream(l)
		}
	})
	p.downstream(l)
	up.Wait()
}

// reset has the client see a broken connection instead of an orderly end.
func reset(client net.Conn) {
	if tcp, ok := client.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	client.Close()
}

// upstream carries what the client sends.
func (p *Proxy) upstream(l *link) {
	var kept []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := l.client.Read(buf)
		if !p.pass(l) {
			return
		}
		p.mu.Lock()
		h := l.hold
		p.mu.Unlock()
		switch {
		case h != nil:
			kept = append(kept, buf[:n]...)
		case !write(l.broker, buf[:n]):
			return
		}
		if err == nil {
			continue
		}
		if h != nil && len(kept) > 0 {
			<-time.After(time.Until(h.deliver))
			if write(l.broker, kept) {
				// The broker handles it before it sees that the connection is closed.
				_ = l.broker.SetReadDeadline(time.Now().Add(time.Second))
				_, _ = io.Copy(io.Discard, l.broker)
			}
		}
		return
	}
}

// downstream carries what the broker answers.
func (p *Proxy) downstream(l *link) {
	buf := make([]byte, 64<<10)
	for {
		n, err := l.broker.Read(buf)
		p.mu.Lock()
		held := l.hold != nil
		p.mu.Unlock()
		if held {
			return // the client hears nothing more; upstream has the connection now
		}
		if !p.pass(l) || !write(l.client, buf[:n]) || err != nil {
			l.close()
			return
		}
	}
}

// pass waits as long as the rules want. It reports false if the connection is cut.
func (p *Proxy) pass(l *link) bool {
	for {
		p.mu.Lock()
		var t Trouble
		for client, rule := range p.rules {
			if l.id != "" && strings.HasPrefix(l.id, client) {
				t = rule
			}
		}
		changed, closed := l.changed, p.closed
		p.mu.Unlock()
		switch {
		case closed || t.Cut:
			return false
		case t.Stall:
			<-changed
		case t.Delay > 0:
			<-time.After(t.Delay)
			return true
		default:
			return true
		}
	}
}

// tell has what waits look at the rules again. The proxy is locked.
func (l *link) tell() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *link) close() {
	l.client.Close()
	l.broker.Close()
}

func write(conn net.Conn, data []byte) bool {
	_, err := conn.Write(data)
	return err == nil
}

// firstRequest reads one whole request.
func firstRequest(r io.Reader) ([]byte, error) {
	request := make([]byte, 4)
	if _, err := io.ReadFull(r, request); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(request)
	if size > 1<<20 {
		return nil, io.ErrUnexpectedEOF
	}
	request = append(request, make([]byte, size)...)
	_, err := io.ReadFull(r, request[4:])
	return request, err
}

// clientID reads the client id from a request: length, key, version, correlation,
// then a string with two bytes of length.
func clientID(request []byte) string {
	const at = 4 + 2 + 2 + 4
	if len(request) < at+2 {
		return ""
	}
	n := int(int16(binary.BigEndian.Uint16(request[at:])))
	if n < 0 || len(request) < at+2+n {
		return ""
	}
	return string(request[at+2 : at+2+n])
}
