//go:build synctests

package processor_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// A pollGate holds the first poll that returns a record from an offset on:
// the client has handed the record out, the pipeline does not have it yet.
type pollGate struct {
	from    int64
	entered chan struct{}
	open    chan struct{}
	used    bool
}

func newPollGate(from int64) *pollGate {
	return &pollGate{from: from, entered: make(chan struct{}), open: make(chan struct{})}
}

// OnFetchRecordUnbuffered is called by the client for each record, in the
// goroutine that polls.
func (g *pollGate) OnFetchRecordUnbuffered(r *kgo.Record, polled bool) {
	if g.used || !polled || r.Offset < g.from {
		return
	}
	g.used = true
	close(g.entered)
	<-g.open
}

// gate is a transform that passes records on after a millisecond, so that none
// shares a chunk with another; the one at offset waits until open is closed or
// its attempt is over.
func gate(offset int64, open <-chan struct{}) processor.Transform {
	return processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
		<-time.After(time.Millisecond)
		if in.Offset == offset {
			select {
			case <-open:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return passOn(ctx, in, out)
	})
}

// Records 120-199 are polled; before the pipeline has them, the partition goes
// and comes back at 50. If the new tenure took them, 50-119 would be lost.
func TestPolledRecordsNeverReachALaterTenure(t *testing.T) {
	for _, test := range []struct {
		how        string
		serverSide bool
		partitions int32
		away       func(b *bed, opts processor.Options)
	}{
		{"revoked", false, 2, comesAndGoes},
		{"revoked", true, 2, comesAndGoes},
		{"lost", false, 1, thrownOut},
		{"lost", true, 1, thrownOut},
	} {
		t.Run(fmt.Sprintf("%s,serverSide=%v", test.how, test.serverSide), func(t *testing.T) {
			virtual(t, test.partitions, func(b *bed) {
				polled := newPollGate(120)
				opts := b.options()
				opts.Client = append(opts.Client[:len(opts.Client):len(opts.Client)], kgo.WithHooks(polled))
				opts.Source.ServerSide = test.serverSide
				opts.Source.RebalanceTimeout = 10 * time.Minute
				opts.DrainTimeout = time.Second
				open := make(chan struct{})
				r := b.run(opts, gate(50, open))
				b.produceToAll(test.partitions, 0, 120)
				for p := range test.partitions {
					b.eventually("the outputs before the stuck record are committed", func() bool { return b.committed(p) == 50 })
				}
				b.produceToAll(test.partitions, 120, 200)
				<-polled.entered

				opts.Client = b.client
				test.away(b, opts)
				close(open)
				close(polled.open)
				b.caughtUp(test.partitions)
				b.stop(r)
				for p := range test.partitions {
					b.inOrder(p, 0, 200)
				}
			})
		})
	}
}

// A lossGate holds the client once where it has told that the partitions are lost, and not yet
// stopped fetching them.
type lossGate struct {
	told, open chan struct{}
	used       bool
}

// OnGroupManageError is called by the client between the two.
func (g *lossGate) OnGroupManageError(error) {
	if !g.used {
		g.used = true
		close(g.told)
		<-g.open
	}
}

// Records 120-199 are polled after the pipeline has forgotten the partition, and reach it when the
// partition is back at 50: 50-119 would be lost.
func TestPolledBehindALossNeverReachesALaterTenure(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		polled, loss := newPollGate(120), &lossGate{told: make(chan struct{}), open: make(chan struct{})}
		opts := b.options()
		opts.Client = append(opts.Client[:len(opts.Client):len(opts.Client)], kgo.WithHooks(polled, loss))
		opts.Source.RebalanceTimeout = 10 * time.Minute
		opts.DrainTimeout = time.Second
		open := make(chan struct{})
		r := b.run(opts, gate(50, open))
		b.produce("in", 0, 0, 120)
		b.eventually("the outputs before the stuck record are committed", func() bool { return b.committed(0) == 50 })

		fault := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Err: kerr.UnknownMemberID})
		<-loss.told
		fault.Remove()
		b.produce("in", 0, 120, 200)
		<-polled.entered
		close(loss.open)
		<-time.After(time.Minute) // it joins again, and is placed if nothing keeps it
		close(polled.open)
		close(open)
		b.caughtUp(1)
		b.stop(r)
		b.inOrder(0, 0, 200)
	})
}

// comesAndGoes has another member take partitions for a minute, in which it gets
// nothing done.
func comesAndGoes(b *bed, opts processor.Options) {
	other := opts
	other.Instance = "two"
	r := b.run(other, processor.TransformFunc(func(ctx context.Context, _ processor.Input, _ *processor.Outputs) error {
		<-ctx.Done()
		return ctx.Err()
	}))
	<-time.After(time.Minute)
	_ = r.stop() // whether it had to abandon records depends on whether it got any
	<-time.After(time.Minute)
}

// thrownOut has the group forget the member, which joins anew.
func thrownOut(b *bed, _ processor.Options) {
	fault := b.cluster.Fault(
		kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Err: kerr.UnknownMemberID},
		kfake.Fault{Keys: []kmsg.Key{kmsg.ConsumerGroupHeartbeat}, Err: kerr.UnknownMemberID})
	<-time.After(time.Minute)
	fault.Remove()
	if fault.Hits() == 0 {
		b.t.Error("no heartbeat was refused")
	}
}
