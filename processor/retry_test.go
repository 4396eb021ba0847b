package processor_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"seriatim/processor"
)

// Each record is attempted again itself, although the memory of its first
// attempt is in use for another record by then.
func TestFailedRecordsAreAttemptedAgain(t *testing.T) {
	const records = 300
	b := newBed(t, 1, nil)
	b.produce("in", 0, 0, records)
	opts := b.options()
	opts.Retry.Initial = 20 * time.Millisecond
	r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
		if in.Offset%3 != 0 && in.Attempt == 1 {
			return errors.New("a failure that passes")
		}
		return passOn(ctx, in, out)
	}))
	b.caughtUp(1)
	b.stop(r)
	b.inOrder(0, 0, records)
}

// Each attempt is given the error of the one before at its own record, counted or
// not; the first is given none.
func TestAttemptsKnowTheErrorBefore(t *testing.T) {
	const records = 50
	b := newBed(t, 1, nil)
	b.produce("in", 0, 0, records)
	opts := b.options()
	opts.Retry.Initial, opts.Retry.Max = time.Millisecond, time.Millisecond
	var mu sync.Mutex
	last := make(map[int64]error)
	down := true
	r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
		mu.Lock()
		defer mu.Unlock()
		if in.Last != last[in.Offset] { //nolint:errorlint // the very same
			t.Errorf("offset %d, attempt %d: got error %v of the attempt before, want %v", in.Offset, in.Attempt, in.Last, last[in.Offset])
		}
		err := &processor.Failure{Kind: processor.Retry, Err: fmt.Errorf("attempt %d at offset %d", in.Attempt, in.Offset)}
		switch {
		case in.Offset == 0 && down:
			err.Kind, down = processor.Deployment, false
		case in.Attempt > 2:
			return passOn(ctx, in, out)
		}
		last[in.Offset] = err
		return err
	}))
	b.caughtUp(1)
	b.stop(r)
	if len(last) != records {
		t.Errorf("%d records failed, want all %d", len(last), records)
	}
}

// All records fail; the first needs longest to use its attempts up. The partition
// ends up stopped at the first, not at whichever was exhausted first.
func TestThePartitionStopsAtItsOldestExhaustedRecord(t *testing.T) {
	b := newBed(t, 1, nil)
	opts := b.options()
	opts.OnExhausted = processor.Stop
	opts.Retry = processor.Retries{Attempts: 3, Initial: time.Millisecond, Max: 20 * time.Millisecond}
	b.produce("in", 0, 0, 20)
	r := b.run(opts, processor.TransformFunc(func(_ context.Context, in processor.Input, out *processor.Outputs) error {
		if in.Offset < 5 {
			return passOn(context.Background(), in, out)
		}
		return errors.New("always")
	}))
	b.eventually("stopped at offset 5", func() bool {
		p := b.status(r).Partitions
		return len(p) == 1 && strings.Contains(p[0].Stopped, "offset 5 ") && p[0].NextOffset == 5
	})
	b.inOrder(0, 0, 5)
}
