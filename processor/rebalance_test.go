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

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// A churn is a random plan of members that come and go while records arrive.
type churn struct {
	rng        *rand.Rand
	b          *bed
	commits    *commitLog
	partitions int32
	serverSide bool
	transform  processor.Transform

	exactlyOnce bool
	drain       time.Duration
	rebalance   time.Duration // 0: the default
	hedge       processor.Hedges
	batch       processor.Batch
	state       string // topic; empty: none
	failures    func(*processor.Options)

	members  []*running
	joined   int
	produced []int // by partition
}

func newChurn(b *bed, rng *rand.Rand, partitions int32) *churn {
	return &churn{
		rng: rng, b: b, commits: b.watchCommits(), partitions: partitions, drain: 10 * time.Second,
		serverSide: rng.IntN(2) == 0, produced: make([]int, partitions),
	}
}

func (c *churn) join() {
	opts := c.b.options()
	opts.Instance = fmt.Sprintf("i%d", c.joined)
	opts.Source.ServerSide = c.serverSide
	opts.Source.RebalanceTimeout = c.rebalance
	opts.Workers = 1 + c.rng.IntN(32)
	opts.Window.Records = 1 + c.rng.IntN(64)
	opts.DrainTimeout = c.drain
	opts.ExactlyOnce = c.exactlyOnce
	opts.Hedge, opts.Batch = c.hedge, c.batch
	opts.StateTopic, opts.ReplyLog = c.state, c.state != ""
	if c.failures != nil {
		c.failures(&opts)
	}
	c.joined++
	c.members = append(c.members, c.b.run(opts, c.transform))
}

// leave stops a random member and returns what Run returned.
func (c *churn) leave() error {
	i := c.rng.IntN(len(c.members))
	m := c.members[i]
	c.members = append(c.members[:i], c.members[i+1:]...)
	return m.stop()
}

// kick makes one member believe that the group has thrown it out.
func (c *churn) kick() {
	c.b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Err: kerr.UnknownMemberID},
		kfake.Fault{Keys: []kmsg.Key{kmsg.ConsumerGroupHeartbeat}, Err: kerr.UnknownMemberID, TopLevel: true})
}

func (c *churn) produce() {
	for p := range c.partitions {
		n := c.rng.IntN(30)
		c.b.produce("in", p, c.produced[p], c.produced[p]+n)
		c.produced[p] += n
	}
}

// turn has a member join or leave, or a mishap happen, while records arrive. It returns
// what Run of a member that left returned.
func (c *churn) turn(mishap func()) (left error) {
	switch {
	case len(c.members) == 0 || len(c.members) < 3 && c.rng.IntN(2) == 0:
		c.join()
	case c.rng.IntN(3) == 0:
		left = c.leave()
	default:
		mishap()
	}
	c.produce()
	return left
}

func (c *churn) pause(most time.Duration) { <-time.After(upTo(c.rng, most)) }

// finish waits until all that was produced is committed, stops everybody and looks
// at what was committed when.
func (c *churn) finish() error {
	if len(c.members) == 0 {
		c.join()
	}
	c.b.caughtUp(c.partitions)
	var errs []error
	for _, m := range c.members {
		errs = append(errs, m.stop())
	}
	if !c.exactlyOnce { // transactions also have markers in the output
		c.commits.holds(c.b, c.partitions)
	}
	return errors.Join(errs...)
}

// jitter passes records on after a random time; a few fail first.
func jitter(seed uint64, most time.Duration) processor.Transform {
	return processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
		rng := rand.New(rand.NewPCG(seed, uint64(in.Partition)<<32|uint64(in.Offset)))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(upTo(rng, most)):
		}
		if rng.IntN(20) == 0 && in.Attempt == 1 {
			return errors.New("a failure that passes")
		}
		return passOn(ctx, in, out)
	})
}

// Members that leave in good order neither lose, repeat nor re-order anything.
func TestDrainedRebalancesKeepOrderAndRepeatNothing(t *testing.T) {
	plans(t, 12, func(t *testing.T, rng *rand.Rand) {
		partitions := 1 + rng.Int32N(6)
		virtual(t, partitions, func(b *bed) {
			c := newChurn(b, rng, partitions)
			c.transform = jitter(rng.Uint64(), 100*time.Millisecond)
			for range 12 {
				if err := c.turn(func() {}); err != nil {
					b.t.Errorf("a member that left returned %v, want nil", err)
				}
				c.pause(5 * time.Second)
			}
			if err := c.finish(); err != nil {
				b.t.Errorf("members returned %v, want nil", err)
			}
			for p := range partitions {
				b.inOrder(p, 0, c.produced[p])
			}
		})
	})
}

// Members that are thrown out of the group, or whose transforms take longer than
// they have for a drain, may repeat but neither lose nor skip anything.
func TestAbandonedRebalancesLoseNothing(t *testing.T) {
	plans(t, 12, func(t *testing.T, rng *rand.Rand) {
		partitions := 1 + rng.Int32N(4)
		virtual(t, partitions, func(b *bed) {
			c := newChurn(b, rng, partitions)
			c.drain = time.Second
			c.transform = jitter(rng.Uint64(), 3*time.Second)
			c.disturb(2)
		})
	})
}

// disturb has members come, go and, one time in so many, be thrown out, while records
// arrive; what is abandoned may be repeated, nothing lost or skipped.
func (c *churn) disturb(kicks int) {
	c.b.t.Helper()
	for range 12 {
		err := c.turn(func() {
			if c.rng.IntN(kicks) == 0 {
				c.kick()
			}
		})
		if err != nil && !errors.Is(err, processor.ErrDrainDeadline) {
			c.b.t.Errorf("a member that left returned %v", err)
		}
		c.pause(5 * time.Second)
	}
	if err := c.finish(); err != nil {
		c.b.t.Errorf("members returned %v, want nil", err)
	}
	for p := range c.partitions {
		c.b.firstInOrder(p, c.produced[p])
	}
}

// firstInOrder fails the test unless the first appearances of the values in the
// partition of "out" are 0..to-1 in order: the stream may step back, never
// skip ahead.
func (b *bed) firstInOrder(partition int32, to int) {
	b.t.Helper()
	next := 0
	for i, v := range b.values("out", partition) {
		n, err := strconv.Atoi(v)
		switch {
		case err != nil || n > next:
			b.t.Fatalf("partition %d has %s at place %d, want at most %d", partition, v, i, next)
		case n == next:
			next++
		}
	}
	if next != to {
		b.t.Errorf("partition %d has the values up to %d, want up to %d", partition, next, to)
	}
}

// upTo is a random duration below most.
func upTo(rng *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(most)))
}
