//go:build synctests

package processor_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// Whatever hangs, Run returns within the drain timeout and two seconds, and says
// that it could not finish.
func TestDrainEndsAtItsDeadline(t *testing.T) {
	const timeout = 5 * time.Second
	silent := func(keys ...kmsg.Key) func(b *bed) {
		return func(b *bed) {
			for _, key := range keys {
				b.cluster.ControlKey(key.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
					b.cluster.KeepControl()
					return nil, nil, true // no answer
				})
			}
		}
	}
	for _, test := range []struct {
		what    string
		hang    bool
		silence func(b *bed)
		want    error
	}{
		{"a transform that ignores its context", true, func(*bed) {}, processor.ErrDrainDeadline},
		{"produce requests", false, silent(kmsg.Produce), processor.ErrDrainDeadline},
		{"commits", false, silent(kmsg.OffsetCommit), processor.ErrDrainDeadline},
		{"leaving the group", false, silent(kmsg.LeaveGroup), nil},
		{"the broker", false, silent(-1), processor.ErrDrainDeadline},
	} {
		t.Run(test.what, func(t *testing.T) {
			virtual(t, 1, func(b *bed) {
				b.produce("in", 0, 0, 10)
				opts := b.options()
				opts.DrainTimeout = timeout
				opts.Commit.Interval = 10 * time.Minute
				reached := make(chan struct{})
				proceed := make(chan struct{})
				r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
					<-time.After(time.Millisecond) // so that no two share a chunk
					if in.Offset == 5 {
						close(reached)
						<-proceed
						if test.hang {
							<-time.After(time.Hour)
						}
					}
					return passOn(ctx, in, out)
				}))
				<-reached
				b.eventually("what comes before it is emitted", func() bool { return b.end("out", 0) == 5 })
				test.silence(b)
				close(proceed)
				began := time.Now()
				if err := r.stop(); !errors.Is(err, test.want) {
					b.t.Errorf("Run returned %v, want %v", err, test.want)
				}
				if took := time.Since(began); took >= timeout+2*time.Second {
					b.t.Errorf("it took %v, want less than %v", took, timeout+2*time.Second)
				}
				<-time.After(2 * time.Hour) // the attempt that hangs returns
			})
		})
	}
}

// Attempts may run until the deadline of the drain; then their context ends.
func TestDrainCancelsAttemptsAtItsDeadline(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		b.produce("in", 0, 0, 1)
		opts := b.options()
		opts.DrainTimeout = 5 * time.Second
		reached, cancelled := make(chan struct{}), make(chan time.Time, 1)
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, _ processor.Input, _ *processor.Outputs) error {
			close(reached)
			<-ctx.Done()
			cancelled <- time.Now()
			return ctx.Err()
		}))
		<-reached
		began := time.Now()
		if err := r.stop(); !errors.Is(err, processor.ErrDrainDeadline) {
			b.t.Errorf("Run returned %v, want ErrDrainDeadline", err)
		}
		if after := (<-cancelled).Sub(began); after < opts.DrainTimeout || after > opts.DrainTimeout+time.Second {
			b.t.Errorf("the attempt was cancelled after %v, want at %v", after, opts.DrainTimeout)
		}
	})
}

// A drain that finishes commits all that was emitted, so that whoever comes next
// repeats nothing.
func TestCleanDrainRepeatsNothing(t *testing.T) {
	const partitions, records = 3, 400
	plans(t, 6, func(t *testing.T, rng *rand.Rand) {
		virtual(t, partitions, func(b *bed) {
			commits := b.watchCommits()
			b.produceToAll(partitions, 0, records)
			opts := b.options()
			opts.Workers = 1 + rng.IntN(100)
			opts.Window.Records = 1 + rng.IntN(100)
			opts.Commit.Interval = time.Hour // so that the drain does it
			transform := jitter(rng.Uint64(), time.Second)
			for range 5 {
				r := b.run(opts, transform)
				<-time.After(upTo(rng, 3*time.Second))
				b.stop(r)
				for p := range int32(partitions) {
					if committed, end := b.committed(p), b.end("out", p); committed != end && (committed != -1 || end != 0) {
						b.t.Errorf("partition %d is committed at %d after %d outputs", p, committed, end)
					}
				}
			}
			opts.Commit.Interval = time.Second
			r := b.run(opts, transform)
			b.caughtUp(partitions)
			b.stop(r)
			for p := range int32(partitions) {
				b.inOrder(p, 0, records)
			}
			commits.holds(b, partitions)
		})
	})
}

// A member that stops while it waits to be let in leaves the group all the same:
// otherwise the others would wait for its session to time out.
func TestLeaveDuringAJoin(t *testing.T) {
	virtual(t, 2, func(b *bed) {
		opts := b.options()
		opts.Source.SessionTimeout = time.Minute
		old := b.run(opts, processor.TransformFunc(passOn))
		b.eventually("a member has both partitions", func() bool { return len(b.status(old).Partitions) == 2 })
		b.cluster.ControlKey(int16(kmsg.Heartbeat), func(kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.DropControl()
			b.cluster.SleepControl(func() { <-time.After(5 * time.Second) })
			return nil, nil, false
		})
		opts.Instance = "two"
		brief := b.run(opts, processor.TransformFunc(passOn))
		b.eventually("another waits for the first to rejoin", func() bool {
			g := b.cluster.GroupInfo("group")
			return len(g.Members) == 2 && g.State == "PreparingRebalance"
		})
		b.stop(brief)
		<-time.After(10 * time.Second)
		if g := b.cluster.GroupInfo("group"); len(g.Members) != 1 || g.State != "Stable" || len(b.status(old).Partitions) != 2 {
			b.t.Errorf("ten seconds later the group is %s with %d members, the first has %d partitions; want Stable, 1, 2",
				g.State, len(g.Members), len(b.status(old).Partitions))
		}
	})
}

// A partition of which all is committed is handed over at once, although transactions of
// the others follow one another without a pause, or the one that is under way cannot end.
func TestRevokeDoesNotWaitForTransactionsOfOthers(t *testing.T) {
	for _, serverSide := range []bool{false, true} {
		for _, silent := range []bool{false, true} {
			t.Run(fmt.Sprintf("serverSide=%t,silent=%t", serverSide, silent), func(t *testing.T) {
				virtual(t, 2, func(b *bed) {
					var mute atomic.Bool
					for _, key := range []kmsg.Key{kmsg.EndTxn, kmsg.InitProducerID} {
						b.cluster.ControlKey(key.Int16(), func(r kmsg.Request) (kmsg.Response, error, bool) {
							b.cluster.KeepControl()
							if mute.Load() {
								return nil, nil, true // no answer
							}
							b.cluster.SleepControl(func() { <-time.After(20 * time.Millisecond) })
							return nil, nil, false
						})
					}
					opts := b.options()
					opts.ExactlyOnce = true
					opts.DrainTimeout = 30 * time.Second
					opts.Source.ServerSide = serverSide
					opts.Source.RebalanceTimeout = 2 * time.Minute
					one := b.run(opts, processor.TransformFunc(passOn))
					records := 0
					produce := func() {
						b.produceToAll(2, records, records+1)
						records++
						<-time.After(5 * time.Millisecond)
					}
					for range 1000 {
						produce()
					}
					if silent {
						b.caughtUp(2)
						mute.Store(true)
						<-time.After(15 * time.Second) // the transaction of a tick has no end
					}
					opts.Instance = "two"
					two := b.run(opts, processor.TransformFunc(passOn))
					began := time.Now()
					for len(b.status(two).Partitions) == 0 && time.Since(began) < time.Minute {
						if silent {
							<-time.After(100 * time.Millisecond)
						} else {
							produce()
						}
					}
					if took := time.Since(began); took > 15*time.Second { // three heartbeats
						b.t.Errorf("it took %v until the other had a partition, want at most 15s", took)
					}
					mute.Store(false)
					b.caughtUp(2)
					b.stop(one)
					b.stop(two)
					for p := range int32(2) {
						b.inOrder(p, 0, records)
					}
				})
			})
		}
	}
}
