//go:build synctests

package processor_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"seriatim/processor"
)

// A record that kills Seriatim is found, over as many lives as it takes, and those
// that are in flight beside it, each time, are not blamed.
func TestRecordThatKillsSeriatim(t *testing.T) {
	const partitions, records, poison, limit = 2, 40, 20, 3
	for _, exactlyOnce := range []bool{false, true} {
		t.Run(fmt.Sprint("exactly once ", exactlyOnce), func(t *testing.T) {
			stateful(t, partitions, func(b *bed) {
				b.create("dead", 1, nil)
				b.produceToAll(partitions, 0, records)
				var numbers []int
				lives := 0
				for killed := true; killed; lives++ {
					if lives > 2*limit {
						b.t.Fatalf("it has killed %d times, with attempts %v", lives, numbers)
					}
					opts, wire := b.mortal(fmt.Sprint("life", lives))
					opts.ExactlyOnce = exactlyOnce
					opts.Workers = 8
					opts.Retry = processor.Retries{Attempts: limit}
					opts.OnExhausted, opts.DeadLetterTopic = processor.DeadLetter, "dead"
					dies := make(chan int, 1)
					b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
						if in.Partition == 0 && in.Offset == poison {
							dies <- in.Attempt
							<-ctx.Done()
							return ctx.Err()
						}
						// Slower than the poison, so that some are in flight at each crash.
						<-time.After(50 * time.Millisecond)
						return passOn(ctx, in, out)
					}))
					done := make(chan struct{})
					go func() {
						defer close(done)
						for b.committed(0) != records || b.committed(1) != records {
							select {
							case <-time.After(b.step):
							case n := <-dies:
								wire.cut()
								numbers = append(numbers, n)
								return
							}
						}
						killed = false
					}()
					<-done
				}
				if want := []int{1, 1, 2, 3}; !slices.Equal(numbers, want) {
					b.t.Errorf("the attempts at the record that kills are %v, want %v", numbers, want)
				}
				if dead := b.values("dead", 0); !slices.Equal(dead, []string{fmt.Sprint(poison)}) {
					b.t.Errorf("dead letters are %v, want %d alone", dead, poison)
				}
				for _, r := range b.records("dead", 0) {
					for _, h := range r.Headers {
						if h.Key == "__dlq.errors.message" && !strings.Contains(string(h.Value), "cut off") {
							b.t.Errorf("the dead letter says %q", h.Value)
						}
					}
				}
			})
		})
	}
}

// A record that fails while the one that kills runs, and is then in flight when it kills, in
// every life, is not blamed for the end of any.
func TestWhoFailsBesideTheOneThatKillsIsNotBlamed(t *testing.T) {
	const limit, innocent = 4, 5
	stateful(t, 2, func(b *bed) {
		b.create("dead", 1, nil)
		b.produceToAll(2, 0, 10)
		var poisoned []int
		for lives := 0; b.committed(0) != 10 || b.committed(1) != 10; lives++ {
			if lives > 3*limit {
				b.t.Fatalf("it has killed %d times, with attempts %v", lives, poisoned)
			}
			opts, wire := b.mortal(fmt.Sprint("life", lives))
			opts.Retry = processor.Retries{Attempts: limit, Initial: time.Millisecond}
			opts.OnExhausted, opts.DeadLetterTopic = processor.DeadLetter, "dead"
			dies := make(chan int, 1)
			var poison, failed atomic.Bool
			b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
				switch {
				case in.Partition == 0 && in.Offset == innocent:
					poison.Store(true)
					<-time.After(300 * time.Millisecond)
					dies <- in.Attempt
					<-ctx.Done()
					return ctx.Err()
				case in.Partition == 1 && in.Offset == innocent:
					<-time.After(100 * time.Millisecond)
					if poison.Load() {
						if !failed.Swap(true) {
							return errors.New("its process was killed")
						}
						<-ctx.Done()
						return ctx.Err()
					}
				}
				return passOn(ctx, in, out)
			}))
			b.eventually("it has killed, or all is done", func() bool {
				select {
				case n := <-dies:
					wire.cut()
					poisoned = append(poisoned, n)
					return true
				default:
					return b.committed(0) == 10 && b.committed(1) == 10
				}
			})
		}
		if dead := b.values("dead", 0); !slices.Equal(dead, []string{fmt.Sprint(innocent)}) || b.records("dead", 0)[0].Headers[1].Value[0] != '0' {
			b.t.Errorf("dead letters are %v, want one of partition 0; the attempts were %v", dead, poisoned)
		}
		b.firstInOrder(1, 10)
	})
}

// Attempts go on where they were, with their error, after a restart in good order and
// after a crash.
func TestAttemptsGoOnAfterARestart(t *testing.T) {
	for _, crash := range []bool{false, true} {
		t.Run(fmt.Sprint("crash ", crash), func(t *testing.T) {
			stateful(t, 1, func(b *bed) {
				b.produce("in", 0, 0, 10)
				var seen []string
				var mu sync.Mutex
				transform := processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
					if in.Offset != 5 {
						return passOn(ctx, in, out)
					}
					mu.Lock()
					defer mu.Unlock()
					seen = append(seen, fmt.Sprintf("%d after %v", in.Attempt, in.Last))
					if in.Attempt < 4 {
						return fmt.Errorf("failure %d", in.Attempt)
					}
					return passOn(ctx, in, out)
				})
				attempts := func() int {
					mu.Lock()
					defer mu.Unlock()
					return len(seen)
				}
				opts, wire := b.mortal("one")
				opts.Retry = processor.Retries{Initial: time.Hour, Max: time.Hour, Attempts: 5}
				r := b.run(opts, transform)
				b.step = time.Second
				b.eventually("there were two attempts", func() bool { return attempts() == 2 })
				<-time.After(time.Second)
				if crash {
					wire.cut()
				} else {
					b.stop(r)
				}
				opts, _ = b.mortal("two")
				opts.Retry = processor.Retries{Initial: time.Millisecond, Attempts: 5}
				b.run(opts, transform)
				b.caughtUp(1)
				want := []string{"1 after <nil>", "2 after failure 1", "3 after failure 2", "4 after failure 3"}
				if crash { // of the second one only the beginning is known
					want[2] = "3 after failure 1"
				}
				mu.Lock()
				defer mu.Unlock()
				if !slices.Equal(seen, want) {
					b.t.Errorf("the attempts are %q, want %q", seen, want)
				}
			})
		})
	}
}

// Attempts that are given up because a partition goes to another instance say nothing
// about the record, and do not count.
func TestAbandonedAttemptsDoNotCount(t *testing.T) {
	stateful(t, 1, func(b *bed) {
		b.produce("in", 0, 0, 1)
		for life := range 5 {
			opts, _ := b.mortal(fmt.Sprint("life", life))
			opts.Retry = processor.Retries{Attempts: 3, Initial: time.Millisecond}
			began := make(chan int, 10)
			r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
				began <- in.Attempt
				if in.Attempt == 1 {
					return errors.New("once")
				}
				<-ctx.Done()
				return ctx.Err()
			}))
			for n := range began {
				if n == 2 {
					break
				}
			}
			if err := r.stop(); !errors.Is(err, processor.ErrDrainDeadline) {
				b.t.Errorf("Run returned %v, want %v", err, processor.ErrDrainDeadline)
			}
		}
		if k := b.state(0).Records[0]; k == nil || k.Attempts.Begun != 1 || k.Attempts.Error != "once" {
			b.t.Errorf("what is known is %+v, want one attempt", k)
		}
		opts, _ := b.mortal("last")
		b.run(opts, processor.TransformFunc(passOn))
		b.caughtUp(1)
	})
}

// A note reaches the next attempt, also over the end of the process that was noting.
func TestNoteOutlivesACrash(t *testing.T) {
	stateful(t, 1, func(b *bed) {
		b.produce("in", 0, 0, 1)
		opts, wire := b.mortal("one")
		noted := make(chan struct{})
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			in.SetNote("salary service called")
			close(noted)
			<-ctx.Done()
			return ctx.Err()
		}))
		<-noted
		b.eventually("the note is written", func() bool { return b.state(0).Records[0] != nil })
		if s := b.status(r); s.StateWrites["note"] != 1 {
			b.t.Errorf("writes are %v", s.StateWrites)
		}
		wire.cut()
		opts, _ = b.mortal("two")
		var got string
		b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			got = fmt.Sprint(in.Attempt, " with ", in.Note)
			return passOn(ctx, in, out)
		}))
		b.caughtUp(1)
		if want := "2 with salary service called"; got != want {
			b.t.Errorf("the next attempt is %s, want %s", got, want)
		}
	})
}

// A record that stopped its partition is tried anew after a restart, with all its attempts.
func TestStopForgetsAttempts(t *testing.T) {
	stateful(t, 1, func(b *bed) {
		b.produce("in", 0, 0, 1)
		for life := range 2 {
			opts, _ := b.mortal(fmt.Sprint("life", life))
			opts.OnExhausted = processor.Stop
			opts.Retry = processor.Retries{Attempts: 3, Initial: time.Millisecond}
			r := b.run(opts, processor.TransformFunc(func(context.Context, processor.Input, *processor.Outputs) error { return errors.New("down") }))
			b.eventually("it has stopped", func() bool { return strings.Contains(b.problem(r, "in/0"), "failed 3 times: down") })
			if n := b.status(r).Attempts["retry"]; n != 3 {
				b.t.Errorf("life %d has %d attempts, want 3", life, n)
			}
			b.stop(r)
		}
		b.nothingKept(1)
	})
}

// Failures that a record shared with a whole batch exhaust it no more in the next tenure than in
// the one that has seen them, whatever their number.
func TestSharedFailuresDoNotExhaustAfterAHandover(t *testing.T) {
	const records = 50
	stateful(t, 1, func(b *bed) {
		b.create("dead", 1, nil)
		b.produce("in", 0, 0, records)
		opts := b.options()
		opts.StateTopic = "state"
		opts.Batch = processor.Batch{Records: records, Wait: time.Second}
		opts.Retry = processor.Retries{Attempts: 1, Max: time.Hour}
		opts.OnExhausted, opts.DeadLetterTopic = processor.DeadLetter, "dead"
		r := b.run(opts, batchFunc(func(context.Context, []processor.Item) error {
			return &processor.Failure{After: time.Hour, Err: errors.New("503 for all")}
		}))
		b.eventually("all have failed", func() bool { return b.status(r).Attempts["retry"] == records })
		if err := r.stop(); err != nil {
			b.t.Errorf("Run returned %v, want nil", err)
		}
		b.run(opts, batchFunc(passAll))
		b.caughtUp(1)
		if dead := b.values("dead", 0); len(dead) > 0 {
			b.t.Errorf("%d records are dead letters: %v", len(dead), dead)
		}
		b.inOrder(0, 0, records)
		b.eventually("nothing is known any more", func() bool { return len(b.state(0).Records) == 0 })
	})
}

// An attempt that met an outage does not count, in no life: a process that is killed several times
// while the worker is out of reach exhausts no record.
func TestKilledInAnOutage(t *testing.T) {
	const records = 5
	for _, attempts := range []int{1, 3} {
		t.Run(fmt.Sprint("attempts ", attempts), func(t *testing.T) {
			stateful(t, 1, func(b *bed) {
				b.create("dead", 1, nil)
				b.produce("in", 0, 0, records)
				life := func(n int, transform processor.TransformFunc) (*running, *wire) {
					opts, wire := b.mortal(fmt.Sprint("life", n))
					opts.Retry.Attempts = attempts
					opts.OnExhausted, opts.DeadLetterTopic = processor.DeadLetter, "dead"
					return b.run(opts, transform), wire
				}
				for n := range 3 + 2*attempts {
					r, wire := life(n, func(context.Context, processor.Input, *processor.Outputs) error {
						return &processor.Failure{Kind: processor.Deployment, Unsent: true, Err: errors.New("out of reach")}
					})
					b.eventually("it probes", func() bool { return b.status(r).Attempts["deployment"] > 10 || b.end("dead", 0) > 0 })
					wire.cut()
				}
				life(99, passOn)
				b.caughtUp(1)
				if dead := b.values("dead", 0); len(dead) > 0 {
					b.t.Errorf("dead letters are %v", dead)
				}
				b.inOrder(0, 0, records)
			})
		})
	}
}

// A record that was rejected because it alone met an outage has survived that attempt: a crash in the
// next one is the first that it may be blamed for, and so is not enough.
func TestWhoWasRejectedInAnOutageIsNotBlamedForIt(t *testing.T) {
	stateful(t, 1, func(b *bed) {
		b.produce("in", 0, 0, 1)
		opts, wire := b.mortal("one")
		opts.Retry.Attempts = 2
		dies := make(chan struct{})
		one := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			switch {
			case in.Offset > 0:
				return passOn(ctx, in, out)
			case in.Attempt == 1:
				return errWrongDeployment
			}
			close(dies)
			<-ctx.Done()
			return ctx.Err()
		}))
		b.eventually("the outage is told", func() bool { return b.status(one).Attempts["deployment"] > 0 })
		b.produce("in", 0, 1, 5) // for probes to compare it with
		b.holds(one, "alone gets this answer")
		b.decides(one, processor.Decision{Verdict: processor.RetryIt})
		<-dies
		wire.cut()
		opts, _ = b.mortal("two")
		opts.Retry.Attempts = 2
		two := b.run(opts, processor.TransformFunc(passOn))
		b.eventually("it is done, or held", func() bool {
			s := b.status(two)
			for _, p := range s.Partitions {
				for _, h := range p.Held {
					b.t.Fatalf("it is held again: %s, though one attempt alone was cut off", h.Reason)
				}
			}
			return b.committed(0) == 5
		})
	})
}
