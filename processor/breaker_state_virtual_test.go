//go:build synctests

package processor_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/internal/journal"
	"seriatim/processor"
)

// tripped is a pipeline with a breaker that ten rejected records open: the first nine are dead letters,
// the tenth is held. It closes with the answers to ten more; last is called within the tenth.
func (b *bed) tripped(last func()) (opts processor.Options, wire *wire, transform processor.Transform) {
	opts, wire = b.mortal("one")
	opts.Workers = 1
	opts.OnExhausted, opts.DeadLetterTopic = processor.DeadLetter, "dead"
	opts.Breaker = processor.Breaker{Ratio: 0.1}
	return opts, wire, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
		switch {
		case in.Offset < 10:
			return &processor.Failure{Kind: processor.Reject, Err: errors.New("no such field")}
		case in.Offset == 19:
			last()
		}
		return passOn(ctx, in, out)
	})
}

// A decision that was the first one is carried out, also if the breaker closes before its owner has
// read it.
func TestDecisionBeforeTheBreakerCloses(t *testing.T) {
	stateful(t, 1, func(b *bed) {
		b.create("dead", 1, nil)
		opts, _, transform := b.tripped(func() {
			b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "state", Err: kerr.NotLeaderForPartition, Count: 10})
			<-time.After(time.Second)
			b.write(&kgo.Record{
				Topic: "state", Partition: journal.Place("in", 0, 3), Key: []byte("group/in/0/9/decision/somebody"),
				Value: journal.Encode(journal.Decision{Decision: "skip", Reason: "a test"}),
			})
		})
		r := b.run(opts, transform)
		b.produce("in", 0, 0, 30)
		b.caughtUp(1)
		if s := b.status(r); s.BreakerOpen || s.Partitions[0].Dropped != 1 || b.end("dead", 0) != 9 {
			b.t.Errorf("open is %v, %d are dropped, and %d dead letters, want 1 and 9", s.BreakerOpen, s.Partitions[0].Dropped, b.end("dead", 0))
		}
		b.stop(r)
		b.nothingKept(1)
	})
}

// What was held because of the breaker is not held again by who gets the partition after a crash, once
// that has closed.
func TestCrashAfterTheBreakerHasClosed(t *testing.T) {
	stateful(t, 1, func(b *bed) {
		b.create("dead", 1, nil)
		opts, wire, transform := b.tripped(func() {})
		opts.Commit.Interval = time.Hour
		one := b.run(opts, transform)
		b.produce("in", 0, 0, 30)
		b.eventually("all is emitted", func() bool { return b.end("out", 0) == 20 })
		wire.cut()
		if s := b.status(one); s.BreakerOpen || b.end("dead", 0) != 10 || b.committed(0) != 0 {
			b.t.Errorf("open is %v with %d dead letters, and %d is committed, want 10 and 0", s.BreakerOpen, b.end("dead", 0), b.committed(0))
		}
		opts, _, transform = b.tripped(func() {})
		opts.Instance = "two"
		two := b.run(opts, transform)
		b.patience = 5 * time.Minute
		b.caughtUp(1)
		b.stop(two)
		b.nothingKept(1)
	})
}

// What waits for a person goes on waiting for one, if it was read from the state topic while the breaker
// is open.
func TestBreakerLeavesOtherHolds(t *testing.T) {
	stateful(t, 1, func(b *bed) {
		b.create("dead", 1, nil)
		b.write(&kgo.Record{
			Topic: "state", Partition: journal.Place("in", 0, 3), Key: []byte("group/in/0/15/attempts/1"),
			Value: journal.Encode(journal.Attempts{Generation: 1, Begun: 1, Failed: 1, Error: "before", Hold: &journal.Hold{Why: "attempts", Reason: "failed once"}}),
		})
		opts, _, transform := b.tripped(func() {})
		r := b.run(opts, transform)
		b.produce("in", 0, 0, 10)
		b.eventually("the breaker is open", func() bool { return b.status(r).BreakerOpen })
		b.produce("in", 0, 10, 30)
		b.eventually("it has closed", func() bool { return !b.status(r).BreakerOpen })
		<-time.After(time.Minute)
		if held := b.status(r).Partitions[0].Held; len(held) != 1 || held[0].Offset != 15 {
			b.t.Errorf("held are %+v, want that at offset 15", held)
		}
		b.decides(r, processor.Decision{Offset: 15, Verdict: processor.SkipIt})
		b.caughtUp(1)
		var want []string
		for i := range 10 {
			want = append(want, fmt.Sprint(i))
		}
		if dead := b.values("dead", 0); !slices.Equal(dead, want) {
			b.t.Errorf("dead letters are %v, want %v", dead, want)
		}
	})
}

// A person closes the breaker, once, though no row of records is answered: what was held goes to the
// topic, and the pipeline goes on, until there are too many dead letters again.
func TestPersonClosesTheBreaker(t *testing.T) {
	for _, state := range []bool{false, true} {
		t.Run(fmt.Sprint("state topic ", state), func(t *testing.T) {
			stateful(t, 1, func(b *bed) {
				b.create("dead", 1, nil)
				opts := b.options()
				if state {
					opts.StateTopic = "state"
				}
				opts.Workers = 1
				opts.OnExhausted, opts.DeadLetterTopic = processor.DeadLetter, "dead"
				opts.Breaker = processor.Breaker{Ratio: 0.1}
				r := b.run(opts, processor.TransformFunc(rejectAll))
				ctx := context.Background()
				b.produce("in", 0, 0, 15)
				b.eventually("the breaker is open", func() bool { return b.status(r).BreakerOpen })
				if err := r.CloseBreaker(ctx, ""); err == nil || !b.status(r).BreakerOpen {
					b.t.Errorf("without a reason: %v, and it is open: %v", err, b.status(r).BreakerOpen)
				}
				if err := r.CloseBreaker(ctx, "a test"); err != nil {
					b.t.Errorf("closing it: %v", err)
				}
				b.patience = 3 * time.Second // no trial comes so early
				b.caughtUp(1)
				if err := r.CloseBreaker(ctx, "a test"); !errors.Is(err, processor.ErrBreakerClosed) {
					b.t.Errorf("closing it again: %v, want ErrBreakerClosed", err)
				}
				b.produce("in", 0, 15, 25)
				b.eventually("the breaker is open again", func() bool { return b.status(r).BreakerOpen })
				if dead := b.values("dead", 0); len(dead) != 19 {
					b.t.Errorf("dead letters are %v, want 19", dead)
				}
				b.stop(r)
				if err := r.CloseBreaker(ctx, "a test"); !errors.Is(err, processor.ErrBreakerClosed) {
					b.t.Errorf("after the end: %v, want ErrBreakerClosed", err)
				}
			})
		})
	}
}
