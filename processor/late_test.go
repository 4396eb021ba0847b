//go:build synctests

package processor_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"seriatim/processor"
)

// stubborn is a transform whose first attempt at offset 0 of each partition
// ignores its context and comes back after an hour.
func stubborn(partitions int32) processor.Transform {
	first := make([]atomic.Bool, partitions)
	return processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
		if in.Offset == 0 && first[in.Partition].CompareAndSwap(false, true) {
			<-time.After(time.Hour)
		} else {
			<-time.After(time.Millisecond)
		}
		return passOn(ctx, in, out)
	})
}

// A result that comes after its tenure has ended is counted and dropped, and the
// worker that brought it is free.
func TestLateResultAfterLoss(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		commits := b.watchCommits()
		b.produce("in", 0, 0, 10)
		opts := b.options()
		opts.Workers = 1
		b.unhurried(&opts)
		r := b.run(opts, stubborn(1))
		b.eventually("the only worker is busy", func() bool { return b.status(r).WorkersBusy == 1 })
		thrownOut(b, opts)
		if s := b.status(r); s.WorkersBusy != 1 || len(s.Partitions) != 1 {
			b.t.Fatalf("after the loss %d workers are busy with %d partitions assigned, want 1 and 1", s.WorkersBusy, len(s.Partitions))
		}
		b.caughtUp(1)
		if s := b.status(r); s.Attempts["late"] != 1 || s.WorkersBusy != 0 || s.Attempts["ok"] != 10 {
			b.t.Errorf("attempts are %v with %d workers busy, want 10 ok and 1 late, none busy", s.Attempts, s.WorkersBusy)
		}
		b.stop(r)
		b.inOrder(0, 0, 10)
		commits.holds(b, 1)
	})
}

// The same after a revoke that had to abandon the record: the next member does it
// again, and nothing of the late result is emitted or committed.
func TestLateResultAfterRevoke(t *testing.T) {
	virtual(t, 2, func(b *bed) {
		commits := b.watchCommits()
		b.produceToAll(2, 0, 10)
		opts := b.options()
		opts.Workers = 4
		b.unhurried(&opts)
		opts.DrainTimeout = 5 * time.Second
		transform := stubborn(2)
		old := b.run(opts, transform)
		b.eventually("one record of each partition hangs and the others are done", func() bool {
			s := b.status(old)
			return s.WorkersBusy == 2 && s.Attempts["ok"] == 18
		})

		opts.Instance = "two"
		heir := b.run(opts, transform)
		b.eventually("the other member has done one of the partitions", func() bool {
			s := b.status(heir)
			return len(s.Partitions) == 1 && s.Partitions[0].CommittedOffset == 10
		})
		if busy := b.status(old).WorkersBusy; busy != 2 {
			b.t.Errorf("%d workers of the old owner are busy, want 2", busy)
		}
		b.caughtUp(2)
		<-time.After(time.Minute)
		if s := b.status(old); s.Attempts["late"] != 1 || s.Attempts["ok"] != 19 || s.WorkersBusy != 0 {
			b.t.Errorf("attempts of the old owner are %v with %d workers busy, want 19 ok and 1 late, none busy", s.Attempts, s.WorkersBusy)
		}
		for _, r := range []*running{old, heir} {
			b.stop(r)
		}
		for p := range int32(2) {
			b.inOrder(p, 0, 10)
		}
		commits.holds(b, 2)
	})
}
