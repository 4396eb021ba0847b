//go:build synctests

package processor_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"seriatim/processor"
)

// attemptLog is when each record was attempted.
type attemptLog struct {
	mu sync.Mutex
	at map[int64][]time.Time
}

func (l *attemptLog) note(in processor.Input) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at == nil {
		l.at = make(map[int64][]time.Time)
	}
	l.at[in.Offset] = append(l.at[in.Offset], time.Now())
}

func (l *attemptLog) of(offset int64) []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at[offset][:len(l.at[offset]):len(l.at[offset])]
}

// One worker serves a hundred records that each fail three times and wait up to
// ten seconds for the next attempt: they all wait at once.
func TestWaitingForARetryHoldsNoWorker(t *testing.T) {
	const records, failures = 100, 3
	virtual(t, 1, func(b *bed) {
		opts := b.options()
		opts.Workers = 1
		opts.Retry = processor.Retries{Attempts: failures + 1, Initial: 10 * time.Second, Max: 10 * time.Second}
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			<-time.After(time.Millisecond)
			if in.Attempt <= failures {
				return errors.New("a failure that passes")
			}
			return passOn(ctx, in, out)
		}))
		began := time.Now()
		b.produce("in", 0, 0, records)
		b.caughtUp(1)
		if took, most := time.Since(began), failures*10*time.Second+2*time.Second; took > most {
			b.t.Errorf("it took %v, want at most %v", took, most)
		}
		if s := b.status(r); s.Attempts["retry"] != records*failures || s.Attempts["ok"] != records {
			b.t.Errorf("attempts are %v", s.Attempts)
		}
		b.stop(r)
		b.inOrder(0, 0, records)
	})
}

// A worker says how long to wait; that is honoured up to Retry.Max.
func TestRetryAfterIsHonouredUpToMax(t *testing.T) {
	const most = 10 * time.Second
	virtual(t, 1, func(b *bed) {
		var attempts attemptLog
		opts := b.options()
		opts.Retry = processor.Retries{Initial: time.Millisecond, Max: most}
		asked := []time.Duration{3 * time.Second, time.Hour}
		b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			attempts.note(in)
			if in.Attempt == 1 {
				return &processor.Failure{After: asked[in.Offset], Err: errors.New("busy")}
			}
			return passOn(ctx, in, out)
		}))
		b.produce("in", 0, 0, len(asked))
		b.caughtUp(1)
		for offset, want := range asked {
			at := attempts.of(int64(offset))
			if len(at) != 2 {
				b.t.Fatalf("offset %d had %d attempts, want 2", offset, len(at))
			}
			if waited := at[1].Sub(at[0]); waited < min(want, most) || waited > min(want, most)+50*time.Millisecond {
				b.t.Errorf("asked for %v, the next attempt came after %v", want, waited)
			}
		}
	})
}

// What exhausts a record stops its partition at it, with the reason; others go on.
func TestExhaustedRecordStopsItsPartition(t *testing.T) {
	for _, test := range []struct {
		what     string
		retry    processor.Retries
		err      func() error
		attempts int // 0: as many as time allows
		reason   string
	}{
		{"attempts", processor.Retries{Attempts: 3}, func() error { return errors.New("no luck") }, 3, "failed 3 times: no luck"},
		{"time", processor.Retries{Attempts: 1000, MaxElapsed: 30 * time.Second}, func() error { return errors.New("no luck") }, 0, "failed for "},
		{"rejected", processor.Retries{}, func() error { return &processor.Failure{Kind: processor.Reject, Err: errors.New("not JSON")} }, 1, "was rejected: not JSON"},
		{"panics", processor.Retries{Attempts: 2}, func() error { panic("index out of range") }, 2, "failed 2 times: the transform panicked: index out of range"},
	} {
		t.Run(test.what, func(t *testing.T) {
			virtual(t, 2, func(b *bed) {
				var attempts attemptLog
				opts := b.options()
				opts.Retry, opts.OnExhausted = test.retry, processor.Stop
				b.produceToAll(2, 0, 50)
				r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
					if in.Partition == 0 && in.Offset == 20 {
						attempts.note(in)
						return test.err()
					}
					return passOn(ctx, in, out)
				}))
				b.eventually("the partition is stopped", func() bool {
					s := b.status(r)
					return len(s.Partitions) == 2 && s.Partitions[0].Stopped != ""
				})
				b.eventually("the other is done", func() bool { return b.committed(1) == 50 })
				<-time.After(time.Minute)
				s := b.status(r).Partitions[0]
				if !strings.Contains(s.Stopped, "offset 20 "+test.reason) || !strings.Contains(b.problem(r, "in/0"), test.reason) {
					b.t.Errorf("it is stopped because %q, its problem is %q; want the offset and %q", s.Stopped, b.problem(r, "in/0"), test.reason)
				}
				at := attempts.of(20)
				if test.attempts > 0 && len(at) != test.attempts {
					b.t.Errorf("it was attempted %d times, want %d", len(at), test.attempts)
				}
				if tried := at[len(at)-1].Sub(at[0]); test.attempts == 0 && (tried < 20*time.Second || tried > 41*time.Second) {
					b.t.Errorf("it was attempted for %v, want half a minute and at most one back-off more", tried)
				}
				if b.committed(0) != 20 || b.end("out", 0) != 20 {
					b.t.Errorf("committed is %d with %d outputs, want 20 and 20", b.committed(0), b.end("out", 0))
				}
				b.stop(r)
			})
		})
	}
}

// A stopped partition is tried again by whoever gets it next.
func TestStoppedPartitionIsTriedAgainWhenAssignedAnew(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		opts := b.options()
		var attempts attemptLog
		opts.Retry, opts.OnExhausted = processor.Retries{Attempts: 2}, processor.Stop
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if in.Offset == 20 {
				attempts.note(in)
				if len(attempts.of(20)) <= 2 {
					return errors.New("no luck")
				}
			}
			return passOn(ctx, in, out)
		}))
		b.produce("in", 0, 0, 50)
		b.eventually("the partition is stopped", func() bool { s := b.status(r); return len(s.Partitions) == 1 && s.Partitions[0].Stopped != "" })
		b.eventually("what comes before it is committed", func() bool { return b.committed(0) == 20 })
		thrownOut(b, opts)
		b.caughtUp(1)
		if s := b.status(r); s.Partitions[0].Stopped != "" || len(s.Problems) != 0 {
			b.t.Errorf("stopped is %q, problems are %v", s.Partitions[0].Stopped, s.Problems)
		}
		b.stop(r)
		b.inOrder(0, 0, 50)
	})
}

// The recipe of docs/failures.md, to the millisecond: 2 s for each attempt, then a wait of up
// to 1, 2, 4, 8 s by chance, and after five a person.
func TestRecipeKeepsItsTimes(t *testing.T) {
	const records, takes = 20, 2 * time.Second
	virtual(t, 1, func(b *bed) {
		var attempts attemptLog
		opts := b.options()
		opts.Retry = processor.Retries{Attempts: 5, Initial: time.Second, Max: 8 * time.Second}
		r := b.run(opts, processor.TransformFunc(func(_ context.Context, in processor.Input, _ *processor.Outputs) error {
			attempts.note(in)
			<-time.After(takes)
			return errors.New("no complete reply within 2s")
		}))
		b.produce("in", 0, 0, records)
		b.eventually("all are held", func() bool { p := b.status(r).Partitions; return len(p) == 1 && len(p[0].Held) == records })
		for offset := range int64(records) {
			at := attempts.of(offset)
			if len(at) != 5 {
				b.t.Fatalf("offset %d had %d attempts, want 5", offset, len(at))
			}
			for n := 1; n < 5; n++ {
				wait, most := at[n].Sub(at[n-1])-takes, time.Second<<(n-1)
				if wait < 0 || wait > most+time.Millisecond {
					b.t.Errorf("attempt %d at offset %d began %v after the end of the one before, want up to %v", n+1, offset, wait, most)
				}
			}
		}
	})
}
