//go:build synctests

package processor_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"seriatim/processor"
)

// A person has a record attempted again whose output its topic did not take. The record is released
// since, and holds its partition all the same while its attempt runs: the reason says so.
func TestAttemptAfterAnOutputWasHeldIsNamed(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		largest(b, "out")
		b.produce("in", 0, 0, 10)
		r := b.run(b.options(), processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if in.Attempt > 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return inflate(ctx, in, out)
		}))
		b.holds(r, "offset 5")
		b.decides(r, processor.Decision{Offset: 5, Verdict: processor.RetryIt})
		<-time.After(time.Minute)
		if reason, want := b.problem(r, "in/0"), "the record at offset 5 holds the partition: attempt 2 runs"; !strings.Contains(reason, want) {
			b.t.Errorf("the reason is %q, want %q in it", reason, want)
		}
	})
}
