package processor_test

import (
	"context"
	"errors"
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
