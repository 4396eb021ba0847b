//go:build synctests

package processor_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"seriatim/processor"
)

// While every attempt fails, retries are bounded: they do not multiply what the workers
// get, and none of them is lost. When the workers are well again, what has waited goes
// out faster and faster.
func TestRetryBudget(t *testing.T) {
	const window, records, outage = 1000, 5000, 5 * time.Minute
	virtual(t, 1, func(b *bed) {
		var calls atomic.Int64
		var mended atomic.Bool
		opts := b.options()
		opts.Window.Records = window
		opts.Retry = processor.Retries{Attempts: 1 << 20, Initial: time.Millisecond, Max: time.Second}
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			calls.Add(1)
			<-time.After(10 * time.Millisecond)
			if !mended.Load() {
				return errors.New("overloaded")
			}
			return passOn(ctx, in, out)
		}))
		b.produce("in", 0, 0, records)
		<-time.After(outage)
		// Each of the window once, a fifth of that, what is saved up, ten a second.
		if n, most := calls.Load(), int64(window+window/5+100+10*outage.Seconds()); n < most*8/10 || n > most {
			b.t.Errorf("%d calls in %v, want not much less than %d and no more", n, outage, most)
		}
		if s := b.status(r); s.RetriesWaiting < window*9/10 {
			b.t.Errorf("%d retries wait, want nearly %d", s.RetriesWaiting, window)
		}
		if reason := b.problem(r, "in/0"); !strings.Contains(reason, "retry.budget") || !strings.Contains(reason, "overloaded") {
			b.t.Errorf("the reason is %q", reason)
		}
		mended.Store(true)
		began := time.Now()
		b.caughtUp(1)
		if took := time.Since(began); took > time.Minute {
			b.t.Errorf("what had waited took %v", took)
		}
		if s := b.status(r); s.RetriesWaiting != 0 {
			b.t.Errorf("%d retries wait in the end", s.RetriesWaiting)
		}
		b.stop(r)
		b.inOrder(0, 0, records)
	})
}

// Partitions take turns with what retries the budget allows: one with many that fail does
// not keep the retry of another waiting.
func TestRetryBudgetIsShared(t *testing.T) {
	virtual(t, 2, func(b *bed) {
		var attempts attemptLog
		opts := b.options()
		opts.Retry = processor.Retries{Attempts: 1 << 20, Initial: time.Millisecond, Max: 10 * time.Millisecond}
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if in.Partition == 0 {
				return errors.New("always")
			}
			attempts.note(in)
			if in.Attempt <= 5 {
				return errors.New("a failure that passes")
			}
			return passOn(ctx, in, out)
		}))
		b.produce("in", 0, 0, 1000)
		b.eventually("the budget is used up", func() bool { return b.status(r).RetriesWaiting > 900 })
		b.produce("in", 1, 0, 1)
		b.eventually("the other partition is done", func() bool { return b.committed(1) == 1 })
		at := attempts.of(0)
		if took, most := at[len(at)-1].Sub(at[0]), 2*time.Second; took > most {
			b.t.Errorf("five retries took %v, want %v at most: each second one of ten a second", took, most)
		}
	})
}
