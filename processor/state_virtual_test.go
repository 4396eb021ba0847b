//go:build synctests

package processor_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/internal/journal"
	"seriatim/processor"
)

var compact = map[string]string{"cleanup.policy": "compact"}

// stateful has a topic "state", and pipelines that use it.
func stateful(t *testing.T, partitions int32, test func(b *bed)) {
	t.Helper()
	virtual(t, partitions, func(b *bed) {
		b.create("state", 3, compact)
		test(b)
	})
}

func (b *bed) create(topic string, partitions int32, settings map[string]string) {
	b.t.Helper()
	if err := b.cluster.CreateTopic(topic, partitions, settings); err != nil {
		b.t.Fatal(err)
	}
}

// A wire is the network of one pipeline. Once it is cut the pipeline is, for everybody
// else, as dead as a killed one.
type wire struct {
	mu    sync.Mutex
	dead  bool
	conns []net.Conn
	dial  func(ctx context.Context, network, addr string) (net.Conn, error)
}

func (w *wire) dialer(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	conn, err := w.dial(ctx, network, addr)
	if err == nil {
		w.conns = append(w.conns, conn)
	}
	return conn, err
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = true
	for _, conn := range w.conns {
		conn.Close()
	}
}

// mortal are options of a pipeline that can be killed.
func (b *bed) mortal(name string) (processor.Options, *wire) {
	w := &wire{dial: b.dial}
	opts := b.options()
	opts.Instance, opts.StateTopic = name, "state"
	opts.DrainTimeout = time.Second
	opts.Client = append(slices.Clone(opts.Client), kgo.Dialer(w.dialer))
	return opts, w
}

// state reads what all state records come to, of "in".
func (b *bed) state(partition int32) *journal.Memory {
	b.t.Helper()
	m := journal.NewMemory()
	for _, r := range b.records("state", journal.Place("in", partition, 3)) {
		record, ours, err := journal.Decode("group", r.Key, r.Value)
		if err == nil && ours && record.Partition == partition {
			m.Apply(&record)
		}
	}
	return m
}

// nothingKept waits until nothing is left in the state topic.
func (b *bed) nothingKept(partitions int32) {
	b.t.Helper()
	for p := range partitions {
		b.eventually("nothing is left in the state topic", func() bool {
			m := b.state(p)
			return len(m.Records) == 0 && len(m.Open) == 0
		})
	}
}

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

// Nothing is written about a record that succeeds at the first attempt, and what was
// written about others is deleted when they are done.
func TestStateOfWhatIsDoneIsDeleted(t *testing.T) {
	for _, exactlyOnce := range []bool{false, true} {
		t.Run(fmt.Sprint("exactly once ", exactlyOnce), func(t *testing.T) {
			stateful(t, 2, func(b *bed) {
				opts, _ := b.mortal("one")
				opts.ExactlyOnce = exactlyOnce
				r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
					if in.Partition == 1 && in.Offset%10 == 0 && in.Attempt < 3 {
						return errors.New("not yet")
					}
					return passOn(ctx, in, out)
				}))
				b.produce("in", 0, 0, 1000)
				b.eventually("the first partition is done", func() bool { return b.committed(0) == 1000 })
				if s := b.status(r); s.StateWrites["open"] != 2 || s.StateWrites["attempts"] != 0 || s.StateWrites["delete"] != 0 {
					b.t.Errorf("without a failure there are these writes: %v", s.StateWrites)
				}
				b.produce("in", 1, 0, 100)
				b.caughtUp(2)
				b.eventually("what is known is deleted", func() bool { return len(b.state(1).Records) == 0 })
				if s := b.status(r); s.StateWrites["attempts"] != 20 || s.StateWrites["delete"] != 10 {
					b.t.Errorf("with 10 records that failed twice there are these writes: %v", s.StateWrites)
				}
				if err := r.stop(); err != nil {
					b.t.Errorf("Run returned %v, want nil", err)
				}
				b.nothingKept(2)
				b.inOrder(0, 0, 1000)
				b.inOrder(1, 0, 100)
			})
		})
	}
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
				} else if err := r.stop(); err != nil {
					b.t.Errorf("Run returned %v, want nil", err)
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
			if err := r.stop(); err != nil {
				b.t.Errorf("Run returned %v, want nil", err)
			}
		}
		b.nothingKept(1)
	})
}

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

// What is not ours, torn, too large or too late is ignored, counted and deleted where it
// is ours to delete.
func TestStateThatCannotBeRead(t *testing.T) {
	stateful(t, 1, func(b *bed) {
		at := journal.Place("in", 0, 3)
		put := func(key, value string) {
			b.write(&kgo.Record{Topic: "state", Partition: at, Key: []byte(key), Value: []byte(value)})
		}
		put("customer-17", "hello")
		put("group/in/0/3/attempts/9", `{"v":1,"state":{"generation":9,"beg`)
		put("group/in/0/3/reply/9", strings.Repeat(" ", 600_000))
		put("group/in/0/3/attempts/10", string(journal.Encode(journal.Attempts{Generation: 10, Begun: 2, Failed: 2, Error: "before"})))
		put("group/in/0/3/attempts/8", string(journal.Encode(journal.Attempts{Generation: 8, Begun: 4, Failed: 4})))
		put("another/in/0/3/attempts/8", "of another group")
		b.produce("in", 0, 0, 10)
		var numbers []int
		opts, _ := b.mortal("one")
		opts.Workers = 1
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if in.Offset == 3 {
				numbers = append(numbers, in.Attempt)
			}
			return passOn(ctx, in, out)
		}))
		b.caughtUp(1)
		// Somebody who has lost the partition does not know it yet.
		put("group/in/0/20/attempts/10", string(journal.Encode(journal.Attempts{Generation: 10, Begun: 5, Failed: 5})))
		put("group/in/0/-/open/zombie", string(journal.Encode(journal.Open{Generation: 10})))
		b.eventually("it is counted", func() bool { return b.status(r).StateIgnored["older"] == 1 })
		if s := b.status(r); s.StateIgnored["foreign"] != 1 || s.StateIgnored["torn"] != 2 || len(s.Problems) != 0 {
			b.t.Errorf("ignored are %v, problems %v", s.StateIgnored, s.Problems)
		}
		if !slices.Equal(numbers, []int{3}) {
			b.t.Errorf("the attempts are %v, want 3 alone", numbers)
		}
		b.eventually("what came too late is deleted", func() bool { m := b.state(0); return len(m.Records) == 0 && len(m.Open) == 1 })
		if err := r.stop(); err != nil {
			b.t.Errorf("Run returned %v, want nil", err)
		}
		b.nothingKept(1)
		b.inOrder(0, 0, 10)
	})
}

// Nothing is dispatched before the state topic is there, compacted, and read; the reason
// has the command that mends it.
func TestStateTopicThatIsMissing(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		b.produce("in", 0, 0, 10)
		opts, _ := b.mortal("one")
		r := b.run(opts, processor.TransformFunc(passOn))
		b.eventually("the problem is told", func() bool {
			reason := b.problem(r, "state topic state")
			return strings.Contains(reason, "kafka-topics.sh") && strings.Contains(reason, "--create --topic state --partitions N --config cleanup.policy=compact")
		})
		<-time.After(time.Minute)
		if s := b.status(r); s.Attempts["ok"] != 0 || b.committed(0) != 0 || !strings.Contains(b.problem(r, "in/0"), "has not been read") {
			b.t.Errorf("attempts are %v, committed is %d, problems %v", s.Attempts, b.committed(0), s.Problems)
		}
		b.create("state", 3, nil)
		b.eventually("the problem is told", func() bool {
			reason := b.problem(r, "state topic state")
			return strings.Contains(reason, "is not compacted") && strings.Contains(reason, "--add-config cleanup.policy=compact")
		})
		if err := r.stop(); err != nil {
			b.t.Errorf("Run returned %v, want nil", err)
		}
	})
	stateful(t, 1, func(b *bed) {
		b.produce("in", 0, 0, 10)
		opts, _ := b.mortal("one")
		r := b.run(opts, processor.TransformFunc(passOn))
		b.caughtUp(1)
		if s := b.status(r); len(s.Problems) > 0 {
			b.t.Errorf("problems are %v", s.Problems)
		}
	})
}

// A count that cannot be written holds back the attempt, and nothing else; it is told,
// and goes on when it can.
func TestRefusedCounts(t *testing.T) {
	stateful(t, 1, func(b *bed) {
		b.produce("in", 0, 0, 10)
		var mu sync.Mutex
		var late time.Time
		opts, _ := b.mortal("one")
		opts.Retry = processor.Retries{Initial: time.Millisecond}
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if in.Offset == 5 {
				mu.Lock()
				defer mu.Unlock()
				late = time.Now()
				if in.Attempt == 1 {
					b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "state", Err: kerr.TopicAuthorizationFailed, Count: 30})
					return errors.New("once")
				}
			}
			return passOn(ctx, in, out)
		}))
		b.eventually("the problem is told", func() bool { return strings.Contains(b.problem(r, "state topic state"), "READ, WRITE and DESCRIBE") })
		first := time.Now()
		b.eventually("those before it are done", func() bool { return b.committed(0) == 5 })
		b.caughtUp(1)
		mu.Lock()
		defer mu.Unlock()
		if waited := late.Sub(first); waited < 20*time.Second {
			b.t.Errorf("the second attempt came after %v, before its count could be written", waited)
		}
		b.eventually("the problem is over", func() bool { return len(b.status(r).Problems) == 0 })
	})
}
