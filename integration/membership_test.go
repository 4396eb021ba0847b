package integration

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// A joinGate is how a member reaches the brokers. It holds back what joins the group
// while it is shut.
type joinGate struct {
	shut atomic.Bool
	held chan struct{} // has room for one: something is held back
	open chan struct{} // closed when what is held back may go
}

func (g *joinGate) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &gated{conn, g}, nil
}

type gated struct {
	net.Conn
	gate *joinGate
}

// Write writes a request, which the client does in one piece: its size, the key, the rest.
func (c *gated) Write(request []byte) (int, error) {
	joins := len(request) > 6 && binary.BigEndian.Uint16(request[4:]) == uint16(kmsg.JoinGroup)
	if joins && c.gate.shut.CompareAndSwap(true, false) {
		c.gate.held <- struct{}{}
		<-c.gate.open
	}
	return c.Conn.Write(request)
}

// TestMemberThatJoinsTooLate has the group go on without a member whose join is under way
// for longer than the rebalance timeout. What it still has of its partitions is not
// committed when it is a member again.
func TestMemberThatJoinsTooLate(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"dynamic", "static"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			const partitions = 2
			in := newInput(t, partitions)
			out := newTopic(t, ".out", partitions)
			l := in.start(t, 400)
			gate := &joinGate{held: make(chan struct{}, 1), open: make(chan struct{})}
			member := func(instance string, client ...kgo.Opt) *processor.Pipeline {
				pipeline, err := processor.New(processor.Options{
					Name:     unique(t, ""),
					Instance: instance,
					Client:   append(client, kgo.SeedBrokers(bed.cluster.Brokers()...)),
					Logger:   slog.New(slog.NewTextHandler(t.Output(), nil)).With("instance", instance),
					Source: processor.Source{
						Topics: []string{in.topic}, Group: in.topic, Static: kind == "static",
						SessionTimeout: 30 * time.Second, RebalanceTimeout: 3 * time.Second,
					},
					Output:       processor.Output{Topic: out, Provenance: true},
					Window:       processor.Window{Records: 64},
					DrainTimeout: time.Second,
					ExactlyOnce:  true,
				}, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
					select {
					case <-ctx.Done():
						return ctx.Err()
					case <-time.After(50 * time.Millisecond):
						out.Add(in.Value)
						return nil
					}
				}))
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(context.Background())
				ended := make(chan error, 1)
				go func() { ended <- pipeline.Run(ctx) }()
				t.Cleanup(func() {
					cancel()
					if err := <-ended; err != nil {
						t.Errorf("%s: %v", instance, err)
					}
				})
				return pipeline
			}
			has := func(p *processor.Pipeline, n int) {
				t.Helper()
				await(t, patience, fmt.Sprintf("a member to emit of %d partitions", n), func() (bool, string) {
					s, err := p.Status(t.Context())
					if err != nil {
						return false, err.Error()
					}
					emitted := 0
					for _, p := range s.Partitions {
						if p.Emitted > 0 {
							emitted++
						}
					}
					return len(s.Partitions) == n && emitted == n, fmt.Sprintf("%d partitions, %d of them emitted", len(s.Partitions), emitted)
				})
			}
			first := member("one", kgo.Dialer(gate.dial))
			has(first, partitions)
			gate.shut.Store(true)
			second := member("two")
			<-gate.held
			if kind == "dynamic" {
				has(second, partitions)
			} else {
				has(second, 1) // the group keeps the other one for the static member
			}
			close(gate.open)
			has(first, 1)
			has(second, 1)
			l.end()
			awaitCaughtUp(t, patience, in.topic, in.topic)
			source := read(t, in.topic, kgo.ReadCommitted())
			if v := judge(source, read(t, out, kgo.ReadCommitted())); v.faults > 0 || v.repeats > 0 {
				t.Errorf("%v; want no faults, and no repeats", v)
			}
		})
	}
}
