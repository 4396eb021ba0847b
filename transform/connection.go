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
	// writeGrace is how long a large request may still be written once the reply is here: a
	// worker that has read it all may be heard before the goroutine that wrote it is.
	writeGrace = 50 * time.Millisecond
	// unwatched is how long a connection may be idle without being asked whether it still
	// stands. To ask at once would take a call of the system for each attempt, and tell little.
	unwatched = time.Millisecond
)

// A connection is one of HTTP/1.1, for one request at a time. It belongs to whoever sends
// that.
type connection struct {
	net.Conn

	address   string
	in        *bufio.Reader
	out       *bufio.Writer
	interrupt func()        // ends reading and writing for good
	written   chan struct{} // closed when the request is written, or cannot be; nil if it is not written beside
	failed    error         // why it cannot be
	wrote     int           // bytes of the request
	left      int64         // bytes that the head of the reply may still have
	used      bool          // for a request before
	since     time.Time     // it is idle
}

func newConnection(conn net.Conn, address string) *connection {
	c := &connection{Conn: conn, address: address}
	c.in, c.out = bufio.NewReader(c), bufio.NewWriter(c)
	c.interrupt = func() { _ = conn.SetDeadline(time.Unix(1, 0)) }
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
	c.wrote, c.left, c.written = 0, maxHeaders, nil
	if req.ContentLength > inlineBody {
		c.written = make(chan struct{})
		go func() {
			c.failed = c.write(req)
			close(c.written)
		}()
	} else if err := c.write(req); err != nil {
		return nil, err
	}
	for {
		resp, err := http.ReadResponse(c.in, req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode >= http.StatusOK || switches(resp) {
			c.left = math.MaxInt64
			return resp, nil
		}
	}
}

// switches reports whether a reply is the last one in HTTP/1.1.
func switches(resp *http.Response) bool { return resp.StatusCode == http.StatusSwitchingProtocols }

func (c *connection) write(req *http.Request) error {
	if err := req.Write(c.out); err != nil {
		return err
	}
	return c.out.Flush()
}

// finish waits until the request is written, and reports whether it is.
func (c *connection) finish() bool {
	if c.written == nil {
		return true
	}
	_ = c.SetWriteDeadline(time.Now().Add(writeGrace))
	<-c.written
	return c.failed == nil && c.SetWriteDeadline(time.Time{}) == nil
}

// hangUp closes the connection. Nobody writes the request any more when it returns.
func (c *connection) hangUp() {
	_ = c.Close()
	if c.written != nil {
		<-c.written
	}
}

// silent reports whether the worker has neither closed an idle connection nor sent what
// nobody has asked for.
func (c *connection) silent() bool {
	socket, ok := c.Conn.(syscall.Conn)
	if !ok {
		return true
	}
	silent := false
	raw, err := socket.SyscallConn()
	if err == nil {
		err = raw.Read(func(fd uintptr) bool {
			_, err := syscall.Read(int(fd), make([]byte, 1))
			silent = errors.Is(err, syscall.EAGAIN)
			return true
		})
	}
	return err == nil && silent
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
