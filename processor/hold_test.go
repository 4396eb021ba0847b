//go:build synctests

package processor_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"seriatim/processor"
)

// An exhausted record holds its partition until a person decides; others go on. Of
// several decisions the first one wins, and the next record follows in order.
func TestHold(t *testing.T) {
	const poison = "10"
	refused := errors.New("the bank does not know this account")
	for _, test := range []struct {
		what     string
		decision processor.Decision
		mended   bool // the transform works by then
		output   string
		dropped  uint64
		dead     int
		attempts string // numbers of the attempts at the record
	}{
		{"retry once the worker is mended", processor.Decision{Verdict: processor.RetryIt}, true, poison, 0, 0, "[1 2 3]"},
		{"skip", processor.Decision{Verdict: processor.SkipIt}, false, "", 1, 0, "[1 2]"},
		{"dead letter", processor.Decision{Verdict: processor.DeadLetterIt}, false, "", 0, 1, "[1 2]"},
		{"another value", processor.Decision{Verdict: processor.ReplaceValue, Value: []byte("mended")}, false, "mended", 0, 0, "[1 2 3]"},
		{"an output", processor.Decision{Verdict: processor.ReplaceOutput, Value: []byte("by hand")}, false, "by hand", 0, 0, "[1 2]"},
		{
			"several outputs",
			processor.Decision{Verdict: processor.ReplaceOutputs, Outputs: [][]byte{[]byte("first"), nil, []byte("last")}},
			false, "first||last", 0, 0, "[1 2]",
		},
	} {
		for _, exactlyOnce := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, exactly once %v", test.what, exactlyOnce), func(t *testing.T) {
				virtual(t, 2, func(b *bed) {
					b.create("dead", 1, nil)
					var attempts []int
					mended := false
					opts := b.options()
					opts.ExactlyOnce = exactlyOnce
					opts.OnExhausted, opts.DeadLetterTopic = processor.Hold, "dead"
					opts.Retry = processor.Retries{Attempts: 2, Initial: time.Millisecond}
					opts.Workers = 1 // so that the transform needs no lock
					r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
						if in.Partition == 0 && in.Offset == 10 {
							attempts = append(attempts, in.Attempt)
							if string(in.Value) == poison && !mended {
								return refused
							}
						}
						return passOn(ctx, in, out)
					}))
					b.produceToAll(2, 0, 20)
					b.eventually("the other partition is done", func() bool { return b.committed(1) == 20 })
					<-time.After(time.Minute)
					if at := b.committed(0); at != 10 {
						b.t.Errorf("the partition is committed at %d, want 10: it is held there", at)
					}
					reason := b.problem(r, "in/0")
					if !strings.Contains(reason, "offset 10") || !strings.Contains(reason, refused.Error()) || !strings.Contains(reason, "seriatim held") {
						b.t.Errorf("the reason is %q", reason)
					}
					held := b.status(r).Partitions[0].Held
					if len(held) != 1 || held[0].Offset != 10 || string(held[0].Value) != poison || held[0].Attempts != 2 || held[0].LastError != refused.Error() {
						b.t.Fatalf("held are %+v", held)
					}

					mended = test.mended
					d := test.decision
					d.Topic, d.Partition, d.Offset = "in", 0, 10
					if err := r.Decide(context.Background(), d); err == nil {
						b.t.Error("a decision without a reason was taken")
					}
					d.Reason = "a test"
					if err := r.Decide(context.Background(), d); err != nil {
						b.t.Fatal(err)
					}
					b.caughtUp(2)
					if err := r.Decide(context.Background(), d); !errors.Is(err, processor.ErrNotHeld) {
						b.t.Errorf("a second decision: %v, want ErrNotHeld", err)
					}
					s := b.status(r)
					if len(s.Problems) > 0 || len(s.Partitions[0].Held) > 0 || s.Partitions[0].Dropped != test.dropped {
						b.t.Errorf("after the decision there are %v, held are %v, dropped are %d", s.Problems, s.Partitions[0].Held, s.Partitions[0].Dropped)
					}
					b.stop(r)
					var want []string
					for i := range 20 {
						switch {
						case i != 10:
							want = append(want, fmt.Sprint(i))
						case test.output != "":
							want = append(want, strings.Split(test.output, "|")...)
						}
					}
					if got := b.values("out", 0); !slices.Equal(got, want) {
						b.t.Errorf("the output is %v, want %v", got, want)
					}
					if got := fmt.Sprint(attempts); got != test.attempts {
						b.t.Errorf("the attempts at the record are %v, want %v", got, test.attempts)
					}
					dead := b.values("dead", 0)
					if len(dead) != test.dead || test.dead > 0 && dead[0] != poison {
						b.t.Errorf("dead letters are %q, want %d", dead, test.dead)
					}
				})
			})
		}
	}
}

// Records behind a held one go on and may be held as well; each is decided about by
// itself, in any order, and what was granted is used up before it is held again.
func TestSeveralAreHeld(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		var seen []string
		opts := b.options()
		opts.OnExhausted = processor.Hold
		opts.Retry = processor.Retries{Attempts: 2, Initial: time.Millisecond}
		opts.Workers = 1
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if in.Offset%10 == 5 {
				seen = append(seen, fmt.Sprintf("%d.%d", in.Offset, in.Attempt))
				return &processor.Failure{Kind: processor.Reject, Err: errors.New("never")}
			}
			return passOn(ctx, in, out)
		}))
		b.produce("in", 0, 0, 30)
		count := func(n int) {
			b.eventually(fmt.Sprint(n, " are held"), func() bool { return len(b.status(r).Partitions) == 1 && len(b.status(r).Partitions[0].Held) == n })
		}
		count(3)
		decide := func(offset int64, v processor.Verdict) {
			if err := r.Decide(context.Background(), processor.Decision{Topic: "in", Offset: offset, Verdict: v, Attempts: 3, Reason: "a test"}); err != nil {
				b.t.Errorf("decision about %d: %v", offset, err)
			}
		}
		decide(15, processor.SkipIt)
		count(2)
		b.eventually("the first one holds the frontier", func() bool { return b.committed(0) == 5 })
		<-time.After(time.Minute)
		if at := b.committed(0); at != 5 {
			b.t.Errorf("committed at %d, want 5: the first is held", at)
		}
		decide(25, processor.RetryIt) // is rejected again
		count(2)
		decide(25, processor.SkipIt)
		decide(5, processor.SkipIt)
		if err := r.Decide(context.Background(), processor.Decision{Topic: "in", Offset: 5, Verdict: processor.DeadLetterIt, Reason: "a test"}); !errors.Is(err, processor.ErrNotHeld) {
			b.t.Errorf("got %v, want ErrNotHeld", err)
		}
		b.caughtUp(1)
		b.stop(r)
		if want := []string{"5.1", "15.1", "25.1", "25.2"}; !slices.Equal(seen, want) {
			b.t.Errorf("the attempts are %v, want %v", seen, want)
		}
	})
}

// A drain does not wait for a person, and whoever gets the partition next attempts the
// record again.
func TestHeldRecordIsAttemptedAgainElsewhere(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		opts := b.options()
		opts.OnExhausted = processor.Hold
		opts.Retry = processor.Retries{Attempts: 1}
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if in.Offset == 5 {
				return errors.New("down")
			}
			return passOn(ctx, in, out)
		}))
		b.produce("in", 0, 0, 10)
		b.eventually("one is held", func() bool { return len(b.status(r).Partitions) == 1 && len(b.status(r).Partitions[0].Held) == 1 })
		began := time.Now()
		b.stop(r)
		if took := time.Since(began); took > time.Second {
			b.t.Errorf("the drain took %v", took)
		}
		b.run(opts, processor.TransformFunc(passOn))
		b.caughtUp(1)
		b.inOrder(0, 0, 10)
	})
}

// A person grants so many attempts, and no more: also where the record had some left when it was held.
func TestRetryGrantsWhatItSays(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		var attempts []int
		opts := b.options()
		opts.Retry = processor.Retries{Attempts: 5, Initial: time.Millisecond}
		r := b.run(opts, processor.TransformFunc(func(_ context.Context, in processor.Input, _ *processor.Outputs) error {
			attempts = append(attempts, in.Attempt)
			if in.Attempt == 1 {
				return &processor.Failure{Kind: processor.Reject, Err: errors.New("no such field")}
			}
			return errors.New("down")
		}))
		b.produce("in", 0, 0, 1)
		b.holds(r, "was rejected")
		b.decides(r, processor.Decision{Verdict: processor.RetryIt})
		b.holds(r, "failed 2 times")
		b.decides(r, processor.Decision{Verdict: processor.RetryIt, Attempts: 2})
		b.holds(r, "failed 4 times")
		if want := []int{1, 2, 3, 4}; !slices.Equal(attempts, want) {
			b.t.Errorf("the attempts are %v, want %v", attempts, want)
		}
	})
}
