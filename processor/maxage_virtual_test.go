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

// What is too old is not attempted, the first time as well as later: the policy for
// exhausted records decides. Records that are young enough pass.
func TestMaxAge(t *testing.T) {
	const maxAge = time.Hour
	virtual(t, 1, func(b *bed) {
		b.create("dead", 1, nil)
		var attempts attemptLog
		opts := b.options()
		opts.MaxAge, opts.OnExhausted, opts.DeadLetterTopic = maxAge, processor.DeadLetter, "dead"
		opts.Retry = processor.Retries{Attempts: 1 << 20, Initial: time.Second, Max: time.Minute}
		opts.Window.Records = 100
		records := numbered("in", 0, 0, 200)
		began := time.Now()
		for i, r := range records {
			switch {
			case i == 7: // fails until it is too old
				r.Timestamp = began.Add(-maxAge + 10*time.Minute)
			case i%2 == 0:
				r.Timestamp = began.Add(-maxAge - time.Second)
			case i == 9: // a clock that is ahead
				r.Timestamp = began.Add(1000 * time.Hour)
			default:
				r.Timestamp = began.Add(-maxAge + 20*time.Minute)
			}
		}
		b.write(records...)
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			attempts.note(in)
			if in.Offset == 7 {
				return errors.New("not today")
			}
			return passOn(ctx, in, out)
		}))
		b.caughtUp(1)
		var want, wantDead []string
		for i := range records {
			if i%2 == 0 || i == 7 {
				wantDead = append(wantDead, fmt.Sprint(i))
			} else {
				want = append(want, fmt.Sprint(i))
			}
		}
		if got := b.values("out", 0); !slices.Equal(got, want) {
			b.t.Errorf("outputs %v, want %v", got, want)
		}
		dead := b.records("dead", 0)
		if got := b.values("dead", 0); !slices.Equal(got, wantDead) {
			b.t.Errorf("dead letters %v, want %v", got, wantDead)
		}
		never, later := headers(dead[0]), headers(dead[4])
		if never["seriatim.error.kind"] != "max_age" || never["seriatim.attempts"] != "0" || never["__dlq.errors.message"] != "it is 1h0m1s old, and max_age is 1h0m0s" {
			b.t.Errorf("one that was never attempted has the headers %v", never)
		}
		if later["seriatim.error.kind"] != "max_age" || later["seriatim.attempts"] != fmt.Sprint(len(attempts.of(7))) || !strings.Contains(later["__dlq.errors.message"], "not today") {
			b.t.Errorf("one that failed has the headers %v", later)
		}
		if got := b.status(r).Partitions[0].DeadLetters; got["max_age"] != uint64(len(wantDead)) {
			b.t.Errorf("dead letters by reason: %v", got)
		}
		at := attempts.of(7)
		if last := at[len(at)-1].Sub(began); last < 9*time.Minute || last > 10*time.Minute {
			b.t.Errorf("its last attempt was after %v, want nearly 10 minutes", last)
		}
		for i := 0; i < len(records); i += 2 {
			if n := len(attempts.of(int64(i))); n != 0 {
				b.t.Errorf("offset %d is too old and was attempted %d times", i, n)
			}
		}
		b.stop(r)
	})
}

// A person may have a record attempted that is too old.
func TestMaxAgeDoesNotBindAPerson(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		opts := b.options()
		opts.MaxAge = time.Hour
		records := numbered("in", 0, 0, 2)
		records[0].Timestamp = time.Now().Add(-2 * time.Hour)
		b.write(records...)
		r := b.run(opts, processor.TransformFunc(passOn))
		b.eventually("the old one is held", func() bool {
			return strings.Contains(b.problem(r, "in/0"), "offset 0 is too old and is held: it is 2h0m")
		})
		b.decides(r, processor.Decision{Verdict: processor.RetryIt})
		b.caughtUp(1)
		b.inOrder(0, 0, 2)
	})
}
