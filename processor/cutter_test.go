package processor_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

// A cutter dials connections that can be cut all at once.
type cutter struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	isCut bool
}

// cuttable has the clients of a pipeline connect in a way that can be cut.
func (b *bed) cuttable(opts *processor.Options) *cutter {
	c := &cutter{dial: b.dial, conns: make(map[net.Conn]struct{})}
	opts.Client = append(slices.Clone(opts.Client), kgo.Dialer(c.connect))
	return c
}

var errCut = errors.New("the test has cut the connection")

func (c *cutter) connect(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := c.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isCut {
		_ = conn.Close()
		return nil, &net.OpError{Op: "dial", Net: network, Err: errCut} // as TCP's are, which the client waits after
	}
	c.conns[conn] = struct{}{}
	return conn, nil
}

// cut ends all connections and refuses new ones until mend.
func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isCut = true
	for conn := range c.conns {
		_ = conn.Close()
	}
	clear(c.conns)
}

// mend lets connections be made again.
func (c *cutter) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isCut = false
}
