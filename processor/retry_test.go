package processor_test

import (
	"context"
	"errors"
	"strings"
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
	if err := r.stop(); err != nil {
		t.Errorf("Run returned %v, want nil", err)
	}
	b.inOrder(0, 0, records)
}

// All records fail; the first needs longest to use its attempts up. The partition
// ends up stopped at the first, not at whichever was exhausted first.
func TestThePartitionStopsAtItsOldestExhaustedRecord(t *testing.T) {
	b := newBed(t, 1, nil)
	opts := b.options()
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
