//go:build synctests

package processor_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

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
		b.createTopic("dead", 1)
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
