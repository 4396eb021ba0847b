//go:build synctests

package processor_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"seriatim/processor"
)

// A worker that begins to reject everything pauses the pipeline after a few dead letters:
// what is exhausted from then on is held. When it is mended the pipeline finds out by
// itself, and everything leaves in its turn.
func TestBreaker(t *testing.T) {
	for _, exactlyOnce := range []bool{false, true} {
		t.Run(fmt.Sprintf("exactly once %v", exactlyOnce), func(t *testing.T) {
			const each, good, workers = 2000, 500, 16
			virtual(t, 2, func(b *bed) {
				b.create("dead", 1, nil)
				var broken atomic.Bool
				var calls atomic.Int64
				opts := b.options()
				opts.ExactlyOnce, opts.Workers = exactlyOnce, workers
				opts.OnExhausted, opts.DeadLetterTopic = processor.DeadLetter, "dead"
				opts.Breaker = processor.Breaker{Ratio: 0.05, Over: 10 * time.Minute}
				b.unhurried(&opts)
				r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
					<-time.After(10 * time.Millisecond)
					if broken.Load() {
						calls.Add(1)
						return &processor.Failure{Kind: processor.Reject, Err: errors.New("no such field")}
					}
					return passOn(ctx, in, out)
				}))
				b.produceToAll(2, 0, good)
				b.caughtUp(2)
				broken.Store(true)
				b.produceToAll(2, good, each)
				b.eventually("the breaker is open", func() bool { return b.status(r).BreakerOpen })
				<-time.After(time.Hour)
				reason := b.problem(r, "dead_letter")
				if !strings.Contains(reason, "too many records are exhausted") || !strings.Contains(reason, "seriatim held") {
					b.t.Errorf("the reason is %q", reason)
				}
				dead := b.end("dead", 0)
				counted := b.status(r).Partitions[0].DeadLetters["reject"] + b.status(r).Partitions[1].DeadLetters["reject"]
				if want := uint64(2 * good / 19); counted != want || uint64(dead) > want {
					b.t.Errorf("there are %d dead letters, of which %d are in the topic, want %d", counted, dead, want)
				}
				// All that ran, and one each ten minutes in the end.
				if n := uint64(calls.Load()); n > counted+workers+15 || n < counted+8 {
					b.t.Errorf("%d attempts, of which %d are dead letters", n, counted)
				}
				broken.Store(false)
				began := time.Now()
				b.caughtUp(2)
				if took := time.Since(began); took > 12*time.Minute {
					b.t.Errorf("it went on after %v", took)
				}
				if s := b.status(r); s.BreakerOpen || len(s.Problems) > 0 || len(s.Partitions[0].Held) > 0 {
					b.t.Errorf("in the end: %v, open is %v", s.Problems, s.BreakerOpen)
				}
				b.stop(r)
				lost := make(map[string]bool)
				for _, d := range b.records("dead", 0) {
					lost[headers(d)["__dlq.errors.partition"]+"/"+string(d.Value)] = true
				}
				if n := len(lost); int64(n) != calls.Load() {
					b.t.Errorf("%d dead letters of %d records that were rejected", n, calls.Load())
				}
				for p := range int32(2) {
					var want []string
					for i := range each {
						if v := strconv.Itoa(i); !lost[fmt.Sprintf("%d/%s", p, v)] {
							want = append(want, v)
						}
					}
					if got := b.values("out", p); !slices.Equal(got, want) {
						b.t.Errorf("partition %d has %d outputs, want %d", p, len(got), len(want))
					}
				}
			})
		})
	}
}

// With a third of the records bad no row of good ones is long enough: it stays open. With
// fewer bad ones than the ratio it never opens.
func TestBreakerGoesByTheRatio(t *testing.T) {
	for every, open := range map[int]bool{3: true, 33: false} {
		t.Run(fmt.Sprint("one of ", every), func(t *testing.T) {
			virtual(t, 1, func(b *bed) {
				b.create("dead", 1, nil)
				opts := b.options()
				opts.OnExhausted, opts.DeadLetterTopic = processor.DeadLetter, "dead"
				opts.Breaker = processor.Breaker{Ratio: 0.05}
				b.unhurried(&opts)
				r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
					if (in.Offset+1)%int64(every) == 0 {
						return &processor.Failure{Kind: processor.Reject, Err: errors.New("never")}
					}
					return passOn(ctx, in, out)
				}))
				b.produce("in", 0, 0, 1000)
				if !open {
					b.caughtUp(1)
					if dead := b.end("dead", 0); dead != 1000/33 {
						b.t.Errorf("%d dead letters, want %d", dead, 1000/33)
					}
					return
				}
				b.eventually("the breaker is open", func() bool { return b.status(r).BreakerOpen })
				<-time.After(3 * time.Hour)
				if s := b.status(r); !s.BreakerOpen || b.end("dead", 0) > 20 {
					b.t.Errorf("open is %v, with %d dead letters", s.BreakerOpen, b.end("dead", 0))
				}
				held := b.status(r).Partitions[0].Held
				b.decides(r, processor.Decision{Offset: held[0].Offset, Verdict: processor.SkipIt})
				b.eventually("a person decided about one", func() bool { return b.committed(0) > held[0].Offset })
			})
		})
	}
}

// What is too old does not count: it says nothing about the worker.
func TestBreakerDoesNotCountAge(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		b.create("dead", 1, nil)
		opts := b.options()
		opts.OnExhausted, opts.DeadLetterTopic, opts.MaxAge = processor.DeadLetter, "dead", time.Hour
		opts.Breaker = processor.Breaker{Ratio: 0.05}
		b.produce("in", 0, 0, 100)
		<-time.After(2 * time.Hour)
		b.run(opts, processor.TransformFunc(passOn))
		b.caughtUp(1)
		if dead := b.end("dead", 0); dead != 100 {
			b.t.Errorf("%d dead letters, want 100", dead)
		}
	})
}

// A dead letter has the record as it was read, also where a person has replaced its value and that is
// exhausted in turn: rejected, or with an output that its topic does not take.
func TestDeadLetterHasTheOriginalValue(t *testing.T) {
	const dead = 12
	for name, mended := range map[string]processor.TransformFunc{
		"rejected": rejectAll,
		"too large": func(_ context.Context, _ processor.Input, out *processor.Outputs) error {
			out.Add(large())
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, 1, func(b *bed) {
				largest(b, "out")
				b.create("dead", 1, nil)
				b.produce("in", 0, 0, dead)
				opts := b.options()
				opts.OnExhausted, opts.DeadLetterTopic = processor.DeadLetter, "dead"
				opts.Breaker, opts.Workers = processor.Breaker{Ratio: 0.1, Over: time.Minute}, 1
				r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
					if string(in.Value) == "mended" {
						return mended(ctx, in, out)
					}
					return rejectAll(ctx, in, out)
				}))
				b.holds(r)
				b.decides(r, processor.Decision{Offset: b.status(r).Partitions[0].Held[0].Offset, Verdict: processor.ReplaceValue, Value: []byte("mended")})
				if err := r.CloseBreaker(context.Background(), "a test"); err != nil {
					b.t.Error(err)
				}
				b.caughtUp(1)
				got := b.values("dead", 0)
				if len(got) != dead {
					b.t.Errorf("there are %d dead letters, want %d", len(got), dead)
				}
				for i, v := range got {
					if v != strconv.Itoa(i) {
						b.t.Errorf("dead letter %d has the value %q, want that of the record", i, v)
					}
				}
			})
		})
	}
}

func rejectAll(context.Context, processor.Input, *processor.Outputs) error {
	return &processor.Failure{Kind: processor.Reject, Err: errors.New("bad")}
}
