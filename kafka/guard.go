package kafka

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// maxFrame is the longest request that is let through; Kafka's own default is
// the same (socket.request.max.bytes).
const maxFrame = 100 << 20

// headerLen is what the guard looks at: length, key and version of a request.
const headerLen = 4 + 2 + 2

// apiVersions is the request by which a client asks what versions there are. Any
// version of it must be answered, since the client can't know yet.
const apiVersions = 18

// listenGuarded listens like [net.Listen] and checks every request of every
// connection before the embedded broker sees it: the broker allocates whatever
// length a request claims, and a key it doesn't know ends the process. So a
// browser that strays to the port would do.
func listenGuarded(network, address string) (net.Listener, error) {
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	return guardedListener{l}, nil
}

type guardedListener struct{ net.Listener }

func (l guardedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &guardedConn{Conn: conn}, nil
}

// A guardedConn passes on requests whose header it has checked. The first bad
// one makes every Read fail, upon which the broker closes the connection. Only
// one goroutine may read.
type guardedConn struct {
	net.Conn
	header [headerLen]byte
	unread []byte // of the header
	rest   int64  // bytes of the request after the header
	err    error
}

func (c *guardedConn) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	if len(c.unread) == 0 && c.rest == 0 {
		if _, c.err = io.ReadFull(c.Conn, c.header[:]); c.err != nil {
			return 0, c.err
		}
		if c.rest, c.err = checkHeader(c.header); c.err != nil {
			return 0, c.err
		}
		c.unread = c.header[:]
	}
	if len(c.unread) > 0 {
		n := copy(p, c.unread)
		c.unread = c.unread[n:]
		return n, nil
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.rest)])
	c.rest -= int64(n)
	return n, err
}

// checkHeader returns how many bytes of the request follow its header.
func checkHeader(header [headerLen]byte) (rest int64, err error) {
	length := binary.BigEndian.Uint32(header[:])
	key := int16(binary.BigEndian.Uint16(header[4:]))
	version := int16(binary.BigEndian.Uint16(header[6:]))
	// A request has at least a correlation id after its key and version.
	if length < 8 || length > maxFrame {
		return 0, fmt.Errorf("not a Kafka request: %d bytes", length)
	}
	request := kmsg.RequestForKey(key)
	if request == nil {
		return 0, fmt.Errorf("not a Kafka request: key %d", key)
	}
	// Versions that are known but that the broker doesn't speak it refuses itself.
	if version < 0 || (version > request.MaxVersion() && key != apiVersions) {
		return 0, fmt.Errorf("not a Kafka request: version %d of %s", version, kmsg.NameForKey(key))
	}
	return int64(length) - (headerLen - 4), nil
}
