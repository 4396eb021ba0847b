//go:build synctests

package processor_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"seriatim/processor"
)

// A record kills the worker; another one then meets nobody at its door. That the
// first is answered (by the end of the connection) convicts nobody.
func TestWhoNeverReachedTheWorkerIsNotToBlame(t *testing.T) {
	virtual(t, 2, func(b *bed) {
		down := time.Now().Add(time.Minute)
		opts := b.options()
		opts.Retry.Attempts = 1000
		b.produce("in", 0, 0, 3)
		b.produce("in", 1, 0, 3)
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			switch {
			case time.Now().After(down):
				return passOn(ctx, in, out)
			case in.Partition == 1:
				return errors.New("the connection broke")
			default:
				return &processor.Failure{Kind: processor.Deployment, Unsent: true, Err: errors.New("out of reach")}
			}
		}))
		b.caughtUp(2)
		for _, p := range b.status(r).Partitions {
			if p.Stopped != "" {
				b.t.Errorf("partition %d is stopped: %s", p.Partition, p.Stopped)
			}
		}
		b.stop(r)
		b.inOrder(0, 0, 3)
	})
}
