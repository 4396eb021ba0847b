//go:build synctests

package processor_test

import (
	"context"
	"testing"
	"time"

	"seriatim/processor"
)

// The broker is gone while a transaction is open, and partitions are being handed
// over: neither can end, and nobody waits for that longer than a drain may take.
func TestStopIsBoundedWhileATransactionCannotEnd(t *testing.T) {
	for name, away := range map[string]time.Duration{"at once": 0, "when the drain is over": 30 * time.Second} {
		t.Run(name, func(t *testing.T) {
			virtual(t, 4, func(b *bed) {
				opts := b.options()
				opts.ExactlyOnce = true
				opts.Commit.Transaction = 5 * time.Second
				opts.DrainTimeout = 20 * time.Second
				other := opts
				other.Instance = "two"
				connections := b.cuttable(&opts)
				b.produceToAll(4, 0, 5)
				r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
					if in.Partition > 0 {
						<-ctx.Done()
						return ctx.Err()
					}
					return passOn(ctx, in, out)
				}))
				b.eventually("what does not hang is committed", func() bool { return b.committed(0) == 5 })
				b.run(other, processor.TransformFunc(passOn))
				b.eventually("partitions are handed over", func() bool { return b.status(r).Rebalances == 2 })
				b.produce("in", 0, 5, 6)
				end := b.end("out", 0)
				b.eventually("a transaction is open", func() bool { return b.end("out", 0) > end })
				connections.cut()
				<-time.After(away)
				began := time.Now()
				_ = r.stop() // an error, or nil if the group has taken everything away by then
				if took := time.Since(began); took > opts.DrainTimeout+2*time.Second {
					b.t.Errorf("it took %v to stop, want at most %v and 2s", took, opts.DrainTimeout)
				}
			})
		})
	}
}
