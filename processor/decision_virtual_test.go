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

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

// A hold outlives its owner, and a decision may be made anywhere; the first one wins.
func TestHoldOutlivesItsOwner(t *testing.T) {
	for _, test := range []struct {
		what     string
		decision processor.Decision
		output   string
		attempts string // at the held record, over all lives
	}{
		{"retry", processor.Decision{Verdict: processor.RetryIt, Attempts: 2}, "5", "[1 2 3 4]"},
		{"skip", processor.Decision{Verdict: processor.SkipIt}, "", "[1 2]"},
		{"another value", processor.Decision{Verdict: processor.ReplaceValue, Value: []byte("mended")}, "mended", "[1 2 3]"},
		{"a null value", processor.Decision{Verdict: processor.ReplaceOutput}, "", "[1 2]"},
		{"several outputs", processor.Decision{Verdict: processor.ReplaceOutputs, Outputs: [][]byte{[]byte("first"), nil}}, "first|", "[1 2]"},
	} {
		for _, exactlyOnce := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, exactly once %v", test.what, exactlyOnce), func(t *testing.T) {
				stateful(t, 1, func(b *bed) {
					var attempts []int
					transform := processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
						if in.Offset == 5 {
							attempts = append(attempts, in.Attempt)
							if string(in.Value) == "5" && in.Attempt < 4 {
								return errors.New("down")
							}
						}
						return passOn(ctx, in, out)
					})
					pipeline := func(name string) (*running, *wire) {
						opts, wire := b.mortal(name)
						opts.OnExhausted, opts.Workers, opts.ExactlyOnce = processor.Hold, 1, exactlyOnce
						opts.Retry = processor.Retries{Attempts: 2, Initial: time.Millisecond}
						return b.run(opts, transform), wire
					}
					holds := func(r *running) bool {
						s := b.status(r)
						return len(s.Partitions) == 1 && len(s.Partitions[0].Held) == 1
					}
					b.produce("in", 0, 0, 10)
					one, wire := pipeline("one")
					b.eventually("it is held", func() bool { return holds(one) })
					since := b.status(one).Partitions[0].Held[0].Since
					<-time.After(time.Minute)
					wire.cut()
					two, _ := pipeline("two")
					b.eventually("it is held by the next owner", func() bool { return holds(two) })
					if held := b.status(two).Partitions[0].Held[0]; held.Attempts != 2 || held.LastError != "down" || !held.Since.Equal(since.Truncate(0)) {
						b.t.Errorf("held is %+v, since %v", held, since)
					}
					three, _ := pipeline("three") // has no partition
					b.eventually("both are members", func() bool { return b.status(three).State == "running" })

					d := test.decision
					d.Topic, d.Partition, d.Offset, d.Reason = "in", 0, 5, "a test"
					other := d
					other.Verdict = processor.SkipIt
					wrong := d
					wrong.Offset = 6
					if err := three.Decide(context.Background(), wrong); !errors.Is(err, processor.ErrNotHeld) {
						b.t.Errorf("a decision about a record that is not held: %v", err)
					}
					if err := three.Decide(context.Background(), d); err != nil {
						b.t.Fatal(err)
					}
					for _, r := range []*running{two, three} {
						if err := r.Decide(context.Background(), other); !errors.Is(err, processor.ErrNotHeld) {
							b.t.Errorf("a second decision: %v, want ErrNotHeld", err)
						}
					}
					b.caughtUp(1)
					b.eventually("nothing is known any more", func() bool { return len(b.state(0).Records) == 0 })
					var want []string
					for i := range 10 {
						switch {
						case i != 5:
							want = append(want, fmt.Sprint(i))
						case test.output != "" || test.decision.Verdict == processor.ReplaceOutput:
							want = append(want, strings.Split(test.output, "|")...)
						}
					}
					if got := b.values("out", 0); !slices.Equal(got, want) {
						b.t.Errorf("the output is %v, want %v", got, want)
					}
					if got := fmt.Sprint(attempts); got != test.attempts {
						b.t.Errorf("the attempts are %v, want %v", got, test.attempts)
					}
				})
			})
		}
	}
}

// A decision that is made while nobody has the partition is carried out by who gets it,
// and what it gave the record outlives that one too.
func TestDecisionWhileNobodyOwnsThePartition(t *testing.T) {
	stateful(t, 2, func(b *bed) {
		pipeline := func(name string, transform processor.TransformFunc) (*running, *wire) {
			opts, wire := b.mortal(name)
			opts.OnExhausted = processor.Hold
			opts.Retry = processor.Retries{Attempts: 1, Initial: time.Millisecond}
			opts.Source.SessionTimeout = 30 * time.Second
			return b.run(opts, transform), wire
		}
		refuses := func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if string(in.Value) == "5" {
				return errors.New("down")
			}
			return passOn(ctx, in, out)
		}
		wires := make([]*wire, 2)
		members := make([]*running, 2)
		for i := range members {
			members[i], wires[i] = pipeline(fmt.Sprint("first", i), refuses)
		}
		b.eventually("each has a partition", func() bool {
			return len(b.status(members[0]).Partitions) == 1 && len(b.status(members[1]).Partitions) == 1
		})
		<-time.After(10 * time.Second) // the group has settled
		b.produceToAll(2, 0, 10)
		var owned int32
		b.eventually("one is held in each", func() bool {
			one, two := b.status(members[0]).Partitions, b.status(members[1]).Partitions
			if len(one) != 1 || len(two) != 1 || len(one[0].Held) != 1 || len(two[0].Held) != 1 {
				return false
			}
			owned = one[0].Partition
			return true
		})
		<-time.After(time.Second) // the holds are in the state topic, too
		wires[0].cut()
		err := members[1].Decide(context.Background(), processor.Decision{
			Topic: "in", Partition: owned, Offset: 5, Verdict: processor.ReplaceValue, Value: []byte("mended"), Reason: "a test",
		})
		if err != nil {
			b.t.Fatal(err)
		}
		wires[1].cut()
		// The next one carries it out, and dies of it.
		dies := make(chan string)
		_, wire := pipeline("second", func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if in.Partition == owned && in.Offset == 5 {
				dies <- string(in.Value)
				<-ctx.Done()
				return ctx.Err()
			}
			return refuses(ctx, in, out)
		})
		select {
		case value := <-dies:
			if value != "mended" {
				b.t.Errorf("the attempt has %q", value)
			}
		case <-time.After(5 * time.Minute):
			b.t.Fatal("the decision is not carried out")
		}
		wire.cut()
		third, _ := pipeline("third", func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if string(in.Value) == "mended" {
				return errors.New("down again")
			}
			return refuses(ctx, in, out)
		})
		b.eventually("it is held again", func() bool {
			for _, p := range b.status(third).Partitions {
				if p.Partition == owned && len(p.Held) == 1 && string(p.Held[0].Value) == "mended" && p.Held[0].Attempts == 3 {
					return true
				}
			}
			return false
		})
		for p := range int32(2) {
			err := third.Decide(context.Background(), processor.Decision{Topic: "in", Partition: p, Offset: 5, Verdict: processor.ReplaceValue, Value: []byte("at last"), Reason: "a test"})
			if err != nil {
				b.t.Error(err)
			}
		}
		b.caughtUp(2)
	})
}

// Of many that decide at once, anywhere, one wins.
func TestOneDecisionWins(t *testing.T) {
	stateful(t, 1, func(b *bed) {
		var members []*running
		for i := range 3 {
			opts, _ := b.mortal(fmt.Sprint("i", i))
			opts.OnExhausted = processor.Hold
			opts.Retry = processor.Retries{Attempts: 1}
			members = append(members, b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
				return errors.New("down")
			})))
		}
		b.produce("in", 0, 0, 1)
		b.eventually("it is held, and all are members", func() bool {
			held, running := 0, 0
			for _, m := range members {
				s := b.status(m)
				for _, p := range s.Partitions {
					held += len(p.Held)
				}
				if s.State == "running" {
					running++
				}
			}
			return held == 1 && running == 3
		})
		answers := make(chan error)
		for i := range 9 {
			go func() {
				answers <- members[i%3].Decide(context.Background(), processor.Decision{
					Topic: "in", Verdict: processor.ReplaceOutput, Value: fmt.Append(nil, i), Reason: "a test",
				})
			}()
		}
		won := 0
		for range 9 {
			switch err := <-answers; {
			case err == nil:
				won++
			case !errors.Is(err, processor.ErrNotHeld):
				b.t.Error(err)
			}
		}
		if won != 1 {
			b.t.Errorf("%d decisions have won", won)
		}
		b.caughtUp(1)
		if got := b.values("out", 0); len(got) != 1 {
			b.t.Errorf("the output is %v", got)
		}
	})
}

// A decision whose output no topic takes leaves the record held, and the next one is about that
// hold: it is possible, also after a restart.
func TestDecisionThatNoTopicTakes(t *testing.T) {
	for _, test := range []processor.Decision{
		{Verdict: processor.DeadLetterIt},
		{Verdict: processor.ReplaceOutput, Value: []byte(strings.Repeat("y", 5000))},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, restart %v", test.Verdict, restart), func(t *testing.T) {
				stateful(t, 1, func(b *bed) {
					small := map[string]string{"max.message.bytes": "2000"}
					b.create("dead", 1, small)
					b.create("small", 1, small)
					b.write(&kgo.Record{Topic: "in", Value: []byte(strings.Repeat("x", 5000))})
					opts := b.options()
					opts.StateTopic, opts.Output.Topic, opts.DeadLetterTopic = "state", "small", "dead"
					transform := processor.TransformFunc(func(context.Context, processor.Input, *processor.Outputs) error {
						return &processor.Failure{Kind: processor.Reject, Err: errors.New("no such field")}
					})
					r := b.run(opts, transform)
					b.holds(r, "was rejected")
					b.decides(r, test)
					b.eventually("it is held for another reason", func() bool {
						held := b.status(r).Partitions[0].Held
						return len(held) == 1 && held[0].Reason != "was rejected"
					})
					if restart {
						if err := r.stop(); err != nil {
							b.t.Errorf("Run returned %v, want nil", err)
						}
						r = b.run(opts, transform)
						b.holds(r)
					}
					b.decides(r, processor.Decision{Verdict: processor.SkipIt})
					b.patience = time.Minute
					b.caughtUp(1)
					b.eventually("nothing is known any more", func() bool { return len(b.state(0).Records) == 0 })
				})
			})
		}
	}
}

// A record that is held because it got too old in an outage, in which its attempt had noted something
// and did not count, is attempted when somebody says so.
func TestRetryOfARecordThatHasNotedInAnOutage(t *testing.T) {
	const records = 4
	stateful(t, 1, func(b *bed) {
		b.patience = 10 * time.Minute
		b.produce("in", 0, 0, records)
		mended := time.Now().Add(2 * time.Minute)
		opts := b.options()
		opts.StateTopic, opts.MaxAge = "state", time.Minute
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			in.SetNote("asking the directory")
			<-time.After(10 * time.Millisecond)
			if time.Now().Before(mended) {
				return errWrongDeployment
			}
			return passOn(ctx, in, out)
		}))
		var held []processor.HeldRecord
		b.eventually("some are held", func() bool {
			if s := b.status(r); len(s.Partitions) == 1 {
				held = s.Partitions[0].Held
			}
			return len(held) > 0
		})
		for _, h := range held {
			if h.Attempts != 0 || h.Note == "" {
				b.t.Errorf("held is %+v, want one without an attempt that counts, and with a note", h)
			}
			b.decides(r, processor.Decision{Offset: h.Offset, Verdict: processor.RetryIt})
		}
		b.caughtUp(1)
		b.inOrder(0, 0, records)
	})
}

// The value that a person gave a record stays, also when an attempt at it after a crash is cut
// off by a handover in good order.
func TestReplacedValueOutlivesAnAbandonedAttempt(t *testing.T) {
	stateful(t, 1, func(b *bed) {
		b.produce("in", 0, 0, 2)
		transform := func(head, second bool) processor.TransformFunc {
			return func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
				switch {
				case in.Offset == 0 && head, in.Offset == 1 && second:
					<-ctx.Done()
					return ctx.Err()
				case string(in.Value) == "1":
					return &processor.Failure{Kind: processor.Reject, Err: errors.New("bad")}
				}
				return passOn(ctx, in, out)
			}
		}
		opts, wire := b.mortal("one")
		opts.OnExhausted = processor.Hold
		one := b.run(opts, transform(true, false))
		b.eventually("it is held behind the head", func() bool { s := b.status(one); return len(s.Partitions) == 1 && len(s.Partitions[0].Held) == 1 })
		b.decides(one, processor.Decision{Offset: 1, Verdict: processor.ReplaceValue, Value: []byte("mended")})
		b.eventually("the other value is transformed, and waits for the head", func() bool { return b.status(one).Attempts["ok"] == 1 })
		<-time.After(time.Second)
		wire.cut()

		opts, _ = b.mortal("two")
		opts.OnExhausted = processor.Hold
		two := b.run(opts, transform(true, true))
		b.eventually("both are attempted", func() bool { return b.status(two).WorkersBusy == 2 })
		<-time.After(time.Second)
		if err := two.stop(); !errors.Is(err, processor.ErrDrainDeadline) {
			b.t.Errorf("Run returned %v, want that it could not finish", err)
		}

		opts, _ = b.mortal("three")
		opts.OnExhausted = processor.Hold
		three := b.run(opts, transform(false, false))
		b.caughtUp(1)
		b.stop(three)
		if got := b.values("out", 0); len(got) != 2 || got[1] != "mended" {
			b.t.Errorf("the output is %q, want 0 and mended", got)
		}
	})
}

// That a record is attempted although it is too old is a decision that lasts until it is done, whatever becomes
// of the attempt: it is given up in a drain, or it succeeds and is not committed.
func TestDecisionAboutAnOldRecordOutlivesItsAttempt(t *testing.T) {
	hangs := func(ctx context.Context, _ processor.Input, _ *processor.Outputs) error {
		<-ctx.Done()
		return ctx.Err()
	}
	for name, ends := range map[string]struct {
		attempt processor.TransformFunc
		head    processor.TransformFunc // the one before it
		done    string                  // the attempt, in the counts
	}{
		"given up":  {attempt: hangs, head: passOn},
		"succeeded": {attempt: passOn, head: hangs, done: "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			stateful(t, 1, func(b *bed) {
				records := numbered("in", 0, 0, 2)
				records[1].Timestamp = time.Now().Add(-2 * time.Hour)
				b.write(records...)
				opts, wire := b.mortal("one")
				opts.MaxAge = time.Hour
				one := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
					if in.Offset == 0 {
						return ends.head(ctx, in, out)
					}
					return ends.attempt(ctx, in, out)
				}))
				b.eventually("it is held", func() bool { p := b.status(one).Partitions; return len(p) == 1 && len(p[0].Held) == 1 })
				before := b.status(one)
				b.decides(one, processor.Decision{Offset: 1, Verdict: processor.RetryIt})
				b.eventually("it is attempted", func() bool {
					s := b.status(one)
					return s.Attempts[ends.done] > before.Attempts[ends.done] || ends.done == "" && s.WorkersBusy > before.WorkersBusy
				})
				if ends.done == "" {
					if err := one.stop(); !errors.Is(err, processor.ErrDrainDeadline) {
						b.t.Errorf("Run returned %v, want that it could not finish", err)
					}
				} else {
					<-time.After(time.Second)
					wire.cut()
				}
				opts, _ = b.mortal("two")
				opts.MaxAge = time.Hour
				two := b.run(opts, processor.TransformFunc(passOn))
				b.patience = time.Minute
				b.caughtUp(1)
				b.stop(two)
				b.inOrder(0, 0, 2)
			})
		})
	}
}
