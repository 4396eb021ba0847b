//go:build synctests

package processor_test

import (
	"context"
	"testing"
	"time"

	"seriatim/processor"
)

// A revoke waits for what runs, but no longer than the drain timeout and no longer than
// half the rebalance timeout, so that the group does not throw the member out.
func TestRevokeIsAnsweredInTime(t *testing.T) {
	for _, test := range []struct {
		what             string
		drain, rebalance time.Duration
		want             time.Duration
	}{
		{"the drain timeout is the shorter one", 5 * time.Second, time.Minute, 5 * time.Second},
		{"half the rebalance timeout is the shorter one", time.Minute, 40 * time.Second, 20 * time.Second},
	} {
		t.Run(test.what, func(t *testing.T) {
			const partitions = 2
			virtual(t, partitions, func(b *bed) {
				opts := b.options()
				opts.DrainTimeout = test.drain
				opts.Source.RebalanceTimeout = test.rebalance
				first := b.run(opts, processor.TransformFunc(func(ctx context.Context, _ processor.Input, _ *processor.Outputs) error {
					<-ctx.Done() // as long as it may
					return ctx.Err()
				}))
				b.produceToAll(partitions, 0, 1)
				b.eventually("both records are with the first instance", func() bool {
					running := 0
					for _, p := range b.status(first).Partitions {
						if p.Head != nil && p.Head.Running {
							running++
						}
					}
					return running == partitions
				})
				began := time.Now()
				opts.Instance = "two"
				second := b.run(opts, processor.TransformFunc(passOn))
				b.eventually("the second instance has a partition", func() bool { return len(b.status(second).Partitions) == 1 })
				// The first instance hears of the rebalance at its next heartbeat, the second one
				// joins again when the partition is free.
				if took := time.Since(began); took < test.want || took > test.want+6*time.Second {
					b.t.Errorf("the partition moved after %v, want %v and some heartbeats", took, test.want)
				}
				if n := len(b.status(first).Partitions); n != 1 {
					b.t.Errorf("the first instance has %d partitions, want 1: it was not thrown out", n)
				}
				first.cancel()
				second.cancel()
			})
		})
	}
}
