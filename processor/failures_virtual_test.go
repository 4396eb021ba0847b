//go:build synctests

package processor_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"seriatim/processor"
)

// Members come and go while records fail in every way there is: for a while, for good,
// with outputs that are too large, or all of them because the worker is broken, so that
// the breaker opens. A person decides about what is held. Each record ends as an output,
// a dead letter, or skipped by that person; outputs keep their order and none comes twice.
func TestFailuresUnderChurn(t *testing.T) {
	plans(t, 12, func(t *testing.T, rng *rand.Rand) {
		partitions := 1 + rng.Int32N(4)
		virtual(t, partitions, func(b *bed) {
			b.create("dead", 1, nil)
			largest(b, "out")
			c := newChurn(b, rng, partitions)
			c.exactlyOnce = rng.IntN(2) == 0
			c.failures = func(opts *processor.Options) {
				opts.Retry = processor.Retries{Attempts: 1 + c.rng.IntN(4), Initial: time.Millisecond, Max: time.Second, Budget: []float64{0.001, 0.2}[c.rng.IntN(2)]}
				opts.DeadLetterTopic = "dead"
				if opts.OnExhausted = processor.Hold; c.rng.IntN(2) == 0 {
					opts.OnExhausted = processor.DeadLetter
					opts.Breaker = processor.Breaker{Ratio: 0.2, Over: 10 * time.Second}
				}
			}
			broken := time.Now().Add(upTo(rng, time.Minute))
			c.transform = flawed(rng.Uint64(), broken, broken.Add(upTo(rng, 30*time.Second)))
			skipped := make(map[string]bool)
			for range 15 {
				if err := c.turn(func() {}); err != nil {
					b.t.Errorf("a member that left returned %v, want nil", err)
				}
				c.decide(skipped)
				c.pause(5 * time.Second)
			}
			if len(c.members) == 0 {
				c.join()
			}
			b.eventually("the group has committed all of the input", func() bool {
				c.decide(skipped)
				for p := range partitions {
					if b.committed(p) != b.end("in", p) {
						return false
					}
				}
				return true
			})
			for _, m := range c.members {
				if err := m.stop(); err != nil {
					b.t.Errorf("a member returned %v, want nil", err)
				}
			}
			dead := make(map[string]bool)
			for _, r := range b.records("dead", 0) {
				key := headers(r)["__dlq.errors.partition"] + "/" + string(r.Value)
				if dead[key] {
					b.t.Errorf("%s is a dead letter twice", key)
				}
				dead[key] = true
			}
			for p := range partitions {
				last := -1
				out := make(map[string]bool)
				for _, v := range b.values("out", p) {
					n, err := strconv.Atoi(v)
					if err != nil || n <= last {
						b.t.Fatalf("partition %d has %s behind %d", p, v, last)
					}
					last = n
					out[fmt.Sprintf("%d/%s", p, v)] = true
				}
				for i := range c.produced[p] {
					key := fmt.Sprintf("%d/%d", p, i)
					if !out[key] && !dead[key] && !skipped[key] {
						b.t.Errorf("%s is lost", key)
					}
					if out[key] && dead[key] && !skipped[key] {
						b.t.Errorf("%s is an output and a dead letter", key)
					}
				}
			}
		})
	})
}

// flawed passes records on, but for those that fail at first, are rejected, or get an
// output that is too large; between two times it rejects all.
func flawed(seed uint64, from, to time.Time) processor.Transform {
	return processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
		rng := rand.New(rand.NewPCG(seed, uint64(in.Partition)<<32|uint64(in.Offset)))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(upTo(rng, 100*time.Millisecond)):
		}
		kind := rng.IntN(40)
		switch now := time.Now(); {
		case now.After(from) && now.Before(to), kind == 0:
			return &processor.Failure{Kind: processor.Reject, Err: errors.New("never")}
		case kind == 1:
			out.Add(large())
			return nil
		case kind < 6 && in.Attempt <= kind-1:
			in.SetNote("once more")
			return errors.New("not yet")
		}
		return passOn(ctx, in, out)
	})
}

// decide takes a decision about every record that is held. Those that were skipped are
// noted, and those that a rebalance may have taken the decision from.
func (c *churn) decide(skipped map[string]bool) {
	for _, m := range c.members {
		for _, p := range c.b.status(m).Partitions {
			for _, h := range p.Held {
				d := processor.Decision{Topic: "in", Partition: p.Partition, Offset: h.Offset, Value: h.Value, Reason: "a test"}
				d.Verdict = []processor.Verdict{processor.SkipIt, processor.DeadLetterIt, processor.ReplaceOutput, processor.RetryIt}[c.rng.IntN(4)]
				switch err := m.Decide(context.Background(), d); {
				case errors.Is(err, processor.ErrNotHeld):
				case err != nil:
					c.b.t.Errorf("%v: %v", d.Verdict, err)
				case d.Verdict == processor.SkipIt:
					skipped[fmt.Sprintf("%d/%s", p.Partition, h.Value)] = true
				}
			}
		}
	}
}
