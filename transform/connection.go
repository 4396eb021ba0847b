package transform

import (
	"bufio"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"syscall"
	"time"
)

const (
	// inlineBody is the largest body that is written before the reply is read. Sockets take
	// as much at once: a worker that answers before it has read all, and reads no more, is
	// heard nevertheless. Larger ones are written beside that.
	inlineBody = 16 << 10
	// outBuffer holds such a body with the usual headers, which take one call of the system
	// to write then.
	outBuffer = inlineBody + 4<<10
	// writeGrace is how long a large request may still be written once the reply is here: a
	// worker that has read it all may be heard before the goroutine that wrote it is.
	writeGrace = 50 * time.Millisecond
)

// A connection is one of HTTP/1.1, for one request at a time. It belongs to whoever sends
// that.
type connection struct {
	net.Conn

	address   string
	in        *bufio.Reader
	out       *bufio.Writer
	interrupt func()          // ends reading and writing for good
	written   chan struct{}   // closed when the request is written, or cannot be; nil if it is not written beside
	failed    error           // why it cannot be
	wrote     int             // bytes of the request
	left      int64           // bytes that the head of the reply may still have
	socket    syscall.RawConn // nil: nothing can be asked of it
	probe     func(fd uintptr) bool
	silent    bool      // as the last probe found it
	used      bool      // for a request before
	since     time.Time // it is idle
}

func newConnection(conn net.Conn, address string) *connection {
	c := &connection{Conn: conn, address: address}
	c.in, c.out = bufio.NewReader(c), bufio.NewWriterSize(c, outBuffer)
	c.interrupt = func() { _ = conn.SetDeadline(time.Unix(1, 0)) }
	if socket, ok := conn.(syscall.Conn); ok {
		c.socket, _ = socket.SyscallConn() // it is open
	}
	var stray [1]byte
	c.probe = func(fd uintptr) bool {
		_, err := syscall.Read(int(fd), stray[:])
		c.silent = errors.Is(err, syscall.EAGAIN)
		return true // do not wait
	}
	return c
}

var errHead = errors.New("the head of the reply is too large")

// Read reads for the buffer, which never holds more of a head than it may have.
func (c *connection) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errHead
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// Write writes what the buffer held.
func (c *connection) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.wrote += n
	return n, err
}

// ask sends the request and returns the reply, whose body is still to be read.
func (c *connection) ask(req *http.Request) (*http.Response, error) {
	c.wrote, c.left, c.written, c.failed = 0, maxHeaders, nil, nil
	if req.ContentLength > inlineBody {
		c.written = make(chan struct{})
		go func() {
			c.failed = c.write(req)
			close(c.written)
		}()
	} else if c.failed = c.write(req); c.failed != nil && c.wrote == 0 {
		return nil, c.failed
	}
	// Where the worker takes no more of the request its reply may be here all the same.
	for {
		resp, err := http.ReadResponse(c.in, req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode/100 != 1 || resp.StatusCode == http.StatusSwitchingProtocols {
			c.left = math.MaxInt64
			return resp, nil
		}
	}
}

func (c *connection) write(req *http.Request) error {
	if err := req.Write(c.out); err != nil {
		return err
	}
	return c.out.Flush()
}

// finish waits until the request is written, and reports whether it is.
func (c *connection) finish() bool {
	if c.written != nil {
		_ = c.SetWriteDeadline(time.Now().Add(writeGrace))
		<-c.written
		_ = c.SetWriteDeadline(time.Time{})
	}
	return c.failed == nil
}

// hangUp closes the connection. Nobody writes the request any more when it returns.
func (c *connection) hangUp() {
	_ = c.Close()
	if c.written != nil {
		<-c.written
	}
}

// stands reports whether the worker has neither closed an idle connection nor sent what
// nobody has asked for.
func (c *connection) stands() bool {
	if c.socket == nil {
		return true
	}
	c.silent = false
	return c.socket.Read(c.probe) == nil && c.silent
}

// A replyBody is the body of a reply. With its end the connection is free.
type replyBody struct {
	from   io.ReadCloser
	of     *connection
	direct *direct
	unlink func() bool // from the context of the request
	ended  bool
	last   bool // reply on the connection
}

// Read reads the body.
func (b *replyBody) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	b.ended = b.ended || errors.Is(err, io.EOF)
	return n, err
}

// Close ends the call. It is to be called once.
func (b *replyBody) Close() error {
	if b.ended && !b.last && b.of.in.Buffered() == 0 && b.of.finish() && b.unlink() {
		b.direct.put(b.of)
		return nil
	}
	b.unlink()
	b.of.hangUp()
	return nil
}
