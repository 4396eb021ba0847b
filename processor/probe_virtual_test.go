//go:build synctests

package processor_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/internal/journal"
	"seriatim/processor"
)

var errWrongDeployment = &processor.Failure{Kind: processor.Deployment, Err: errors.New("404")}

// A probe takes the oldest of the records that have waited for a fuller batch: those behind it are
// dispatched after their wait all the same, though nothing else happens in their partition.
func TestProbeOfABatchThatHasWaited(t *testing.T) {
	virtual(t, 2, func(b *bed) {
		b.patience = time.Minute
		opts := b.options()
		opts.Batch = processor.Batch{Records: 100, Wait: 3 * time.Second}
		var answered, refused atomic.Bool
		b.run(opts, batchFunc(func(ctx context.Context, items []processor.Item) error {
			if items[0].Partition == 0 && !answered.Load() {
				refused.Store(true)
				return errWrongDeployment
			}
			answered.Store(true)
			return passAll(ctx, items)
		}))
		b.produce("in", 0, 0, 1)
		<-time.After(time.Second) // so that the wait of the others ends in the outage
		b.produce("in", 1, 0, 5)
		b.caughtUp(2)
		if !refused.Load() {
			b.t.Error("there was no outage")
		}
		b.inOrder(1, 0, 5)
	})
}

// Likewise the trials of an open breaker, which would never have enough answers to close it.
func TestTrialsOfABatchThatHasWaited(t *testing.T) {
	const poison, good = 12, 30
	virtual(t, 2, func(b *bed) {
		b.patience = 10 * time.Minute
		b.create("dead", 1, nil)
		opts := b.options()
		opts.Batch = processor.Batch{Records: 100, Wait: time.Second}
		opts.OnExhausted, opts.DeadLetterTopic = processor.DeadLetter, "dead"
		opts.Breaker = processor.Breaker{Ratio: 0.1}
		r := b.run(opts, batchFunc(func(ctx context.Context, items []processor.Item) error {
			if items[0].Partition == 1 {
				return passAll(ctx, items)
			}
			for i := range items {
				items[i].Answer(&processor.Failure{Kind: processor.Reject, Err: errors.New("no such field")})
			}
			return nil
		}))
		b.produce("in", 0, 0, poison)
		b.eventually("the breaker is open", func() bool { return b.status(r).BreakerOpen })
		b.produce("in", 1, 0, good)
		b.caughtUp(2)
		b.inOrder(1, 0, good)
		if dead := b.end("dead", 0); dead != poison {
			b.t.Errorf("%d dead letters, want %d", dead, poison)
		}
	})
}

// The record that met an outage first is not taken for the other one that it is compared with:
// one that was on trial may be older than whatever was never dispatched.
func TestSuspectOfAnOutageOnTrial(t *testing.T) {
	stateful(t, 2, func(b *bed) {
		// The process that had partition 0 before has ended in the midst of it.
		b.write(&kgo.Record{
			Topic: "state", Partition: journal.Place("in", 0, 3), Key: []byte("group/in/0/-/open/before"),
			Value: journal.Encode(journal.Open{Generation: 1, Instance: "before"}),
		})
		opts := b.options()
		opts.Workers, opts.StateTopic = 1, "state"
		var busy atomic.Bool
		var calls atomic.Int32
		r := b.run(opts, processor.TransformFunc(func(_ context.Context, in processor.Input, _ *processor.Outputs) error {
			switch {
			case in.Partition == 1: // the only worker is busy until partition 0 has records on trial
				busy.Store(true)
				<-time.After(10 * time.Second)
			case in.Offset == 0 && calls.Add(1) <= 2:
				return errWrongDeployment
			}
			return nil
		}))
		b.produce("in", 1, 0, 1)
		b.eventually("the worker is busy", busy.Load)
		b.produce("in", 0, 0, 3)
		b.caughtUp(2)
		if s := b.status(r); s.Attempts["deployment"] != 2 || s.Attempts["filter"] != 4 {
			b.t.Errorf("attempts are %v, want 2 that met an outage, and 4 that were answered", s.Attempts)
		}
		if err := r.stop(); err != nil {
			b.t.Errorf("Run returned %v, want nil", err)
		}
	})
}

// A partition stops behind the record that met an outage first, which is still the one to probe: all
// others wait until that is answered otherwise.
func TestSuspectOfAnOutageBeforeAStop(t *testing.T) {
	virtual(t, 2, func(b *bed) {
		r := b.run(b.options(), processor.TransformFunc(func(context.Context, processor.Input, *processor.Outputs) error {
			return errWrongDeployment
		}))
		b.produce("in", 0, 0, 20)
		b.eventually("there is an outage", func() bool { return b.problem(r, "transform") != "" })
		b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "in", Partitions: []int32{0}, Err: kerr.OffsetOutOfRange})
		b.stops(r, "cannot be told")
		b.produce("in", 1, 0, 100)
		before := b.status(r).Attempts["deployment"]
		<-time.After(time.Minute)
		if n := b.status(r).Attempts["deployment"] - before; n < 10 || n > 30 {
			b.t.Errorf("%d attempts within a minute of an outage, want a probe each 5 s", n)
		}
	})
}

// A head whose call hangs is hedged though its time comes in an outage, in which nothing is: after
// that, if nothing else happens in its partition.
func TestHedgeAfterAnOutage(t *testing.T) {
	virtual(t, 2, func(b *bed) {
		b.patience = time.Minute
		opts := b.options()
		opts.Hedge.After = 2 * time.Second
		var called, refused atomic.Bool
		mended := time.Now().Add(10 * time.Second)
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			switch {
			case in.Partition == 0 && !called.Swap(true):
				<-ctx.Done()
				return ctx.Err()
			case in.Partition == 1 && time.Now().Before(mended):
				refused.Store(true)
				return errWrongDeployment
			}
			return passOn(ctx, in, out)
		}))
		b.produce("in", 0, 0, 1)
		b.eventually("the call hangs", called.Load)
		b.produce("in", 1, 0, 1)
		b.caughtUp(2)
		if s := b.status(r); s.Hedges != 1 || !refused.Load() {
			b.t.Errorf("%d hedges, want 1; there was an outage: %v", s.Hedges, refused.Load())
		}
	})
}

// With a quantile it is hedged as soon as other partitions have shown how long calls take.
func TestHedgeOnceTheQuantileIsKnown(t *testing.T) {
	virtual(t, 2, func(b *bed) {
		b.patience = time.Minute
		opts := b.options()
		opts.Hedge.Quantile, opts.Workers = 0.99, 300
		var called atomic.Bool
		b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if in.Partition == 0 && !called.Swap(true) {
				<-ctx.Done()
				return ctx.Err()
			}
			<-time.After(10 * time.Millisecond)
			return passOn(ctx, in, out)
		}))
		b.produce("in", 0, 0, 1)
		b.eventually("the call hangs", called.Load)
		b.produce("in", 1, 0, 200)
		b.caughtUp(2)
	})
}
