package processor_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"seriatim/processor"
)

func TestOutputsKeepSourceOrder(t *testing.T) {
	const partitions, records = 4, 3000
	b := newBed(t, partitions, nil)
	for p := range int32(partitions) {
		b.produce("in", p, 0, records)
	}
	r := b.run(b.options(), processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rand.N(2 * time.Millisecond)):
		}
		return passOn(ctx, in, out)
	}))
	b.caughtUp(partitions)
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	for p := range int32(partitions) {
		b.inOrder(p, 0, records)
	}
}
