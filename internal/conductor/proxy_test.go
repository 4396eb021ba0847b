package conductor

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// request is one of a client as it goes over the wire.
func request(client, text string) []byte {
	body := binary.BigEndian.AppendUint64(nil, 0) // key, version, correlation
	body = binary.BigEndian.AppendUint16(body, uint16(len(client)))
	body = append(append(body, client...), text...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// A broker takes connections for a test.
type broker struct {
	listener net.Listener
	proxy    *Proxy
}

func newBroker(t *testing.T) broker {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := NewProxy(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		listener.Close()
		proxy.Close()
	})
	return broker{listener, proxy}
}

// connect makes a connection whose first request has arrived.
func (b broker) connect(t *testing.T, id string) (client, server net.Conn) {
	t.Helper()
	client, err := net.Dial("tcp", b.proxy.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	first := request(id, "hello\n")
	if _, err := client.Write(first); err != nil {
		t.Fatal(err)
	}
	if server, err = b.listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	got := make([]byte, len(first))
	if _, err := io.ReadFull(server, got); err != nil || string(got) != string(first) {
		t.Fatalf("the broker got %q, %v; want %q", got, err, first)
	}
	return client, server
}

// line reads one within the time. It returns the error instead if there is one.
func line(conn net.Conn, within time.Duration) string {
	_ = conn.SetReadDeadline(time.Now().Add(within))
	text, err := bufio.NewReaderSize(conn, 16).ReadString('\n')
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "nothing"
	case err != nil:
		return "closed"
	}
	return text
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, conn net.Conn, what, want string, within time.Duration) {
	t.Helper()
	if got := line(conn, within); got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

const (
	soon  = 5 * time.Second
	quiet = 150 * time.Millisecond
)

func TestProxyPasses(t *testing.T) {
	b := newBroker(t)
	client, server := b.connect(t, "i1")
	send(t, client, "ask\n")
	expect(t, server, "upstream", "ask\n", soon)
	send(t, server, "answer\n")
	expect(t, client, "downstream", "answer\n", soon)
	server.Close()
	expect(t, client, "after the broker has closed", "closed", soon)
}

func TestProxyCutsOneClient(t *testing.T) {
	b := newBroker(t)
	client, server := b.connect(t, "i1")
	other, otherServer := b.connect(t, "i2")
	b.proxy.Trouble("i1", Trouble{Cut: true})
	expect(t, client, "the client", "closed", soon)
	expect(t, server, "the broker", "closed", soon)
	send(t, other, "ask\n")
	expect(t, otherServer, "another client", "ask\n", soon)
	again, err := net.Dial("tcp", b.proxy.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	_, _ = again.Write(request("i1", ""))
	expect(t, again, "a new connection", "closed", soon)
	b.proxy.Trouble("i1", Trouble{})
	accepted, err := b.listener.Accept() // of the connection that was cut
	if err != nil {
		t.Fatal(err)
	}
	accepted.Close()
	b.connect(t, "i1")
}

func TestProxyStalls(t *testing.T) {
	b := newBroker(t)
	client, server := b.connect(t, "i1")
	b.proxy.Trouble("i1", Trouble{Stall: true})
	send(t, client, "ask\n")
	expect(t, server, "while it stalls", "nothing", quiet)
	b.proxy.Trouble("i1", Trouble{})
	expect(t, server, "afterwards", "ask\n", soon)
}

func TestProxyDelays(t *testing.T) {
	b := newBroker(t)
	client, server := b.connect(t, "i1")
	b.proxy.Trouble("i1", Trouble{Delay: quiet})
	began := time.Now()
	send(t, client, "ask\n")
	expect(t, server, "in the end", "ask\n", soon)
	if took := time.Since(began); took < quiet {
		t.Errorf("it took %v, want %v at least", took, quiet)
	}
}

// TestProxyDeliversLate holds a request up until its sender is gone.
func TestProxyDeliversLate(t *testing.T) {
	b := newBroker(t)
	client, server := b.connect(t, "i1")
	b.proxy.HoldUp("i1", quiet, quiet)
	send(t, client, "late\n")
	expect(t, client, "the client", "closed", soon)
	fresh, freshServer := b.connect(t, "i1")
	send(t, fresh, "new\n")
	expect(t, freshServer, "a request on a new connection", "new\n", soon)
	expect(t, server, "the request that was held up", "late\n", soon)
	expect(t, server, "after it", "closed", soon)
}
