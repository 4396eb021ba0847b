package processor_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// large is more than a topic takes that was given to largest. It does not
// compress.
func large() []byte {
	b := make([]byte, 4000)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// inflate makes two outputs of the values 5 and 7, the second one large.
func inflate(_ context.Context, in processor.Input, out *processor.Outputs) error {
	out.Add(in.Value)
	if v := string(in.Value); v == "5" || v == "7" {
		out.Add(large())
	}
	return nil
}

// largest gives topics a max.message.bytes of 3000.
func largest(b *bed, topics ...string) {
	b.t.Helper()
	for _, topic := range topics {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		res := kmsg.NewIncrementalAlterConfigsRequestResource()
		res.ResourceType, res.ResourceName = kmsg.ConfigResourceTypeTopic, topic
		config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		config.Name, config.Value = "max.message.bytes", kmsg.StringPtr("3000")
		res.Configs = append(res.Configs, config)
		req.Resources = append(req.Resources, res)
		resp, err := req.RequestWith(context.Background(), b.own)
		if err == nil {
			err = kerr.ErrorForCode(resp.Resources[0].ErrorCode)
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

// A record with an output that its topic does not take is exhausted: none of its
// outputs is emitted, and what is emitted instead comes in its turn.
func TestOutputThatItsTopicDoesNotTake(t *testing.T) {
	inBothModes(t, func(t *testing.T, exactlyOnce bool) {
		for name, policy := range map[string]processor.OnExhausted{
			"dead letter": processor.DeadLetter, "drop": processor.Drop, "stop": processor.Stop,
		} {
			t.Run(name, func(t *testing.T) {
				b := newBed(t, 1, nil, kfake.SeedTopics(1, "dead"))
				largest(b, "out")
				opts := b.options()
				opts.ExactlyOnce, opts.OnExhausted = exactlyOnce, policy
				if policy == processor.DeadLetter {
					opts.DeadLetterTopic = "dead"
				}
				b.produce("in", 0, 0, 10)
				r := b.run(opts, processor.TransformFunc(inflate))
				if policy == processor.Stop {
					b.stops(r, "offset 5", "out does not take an output", "max.message.bytes is 3000")
					b.eventually("what is before it is committed", func() bool { return b.committed(0) == 5 })
				} else {
					b.caughtUp(1)
				}
				p := b.first(r)
				b.stop(r)
				want := "0 1 2 3 4"
				if policy != processor.Stop {
					want += " 6 8 9"
				}
				if got := strings.Join(b.values("out", 0), " "); got != want {
					t.Errorf("outputs %s, want %s", got, want)
				}
				dead := b.records("dead", 0)
				switch policy {
				case processor.Drop:
					if p.Dropped != 2 {
						t.Errorf("%d are dropped, want 2", p.Dropped)
					}
				case processor.DeadLetter:
					if p.DeadLetters["output"] != 2 || len(dead) != 2 || string(dead[0].Value) != "5" || string(dead[1].Value) != "7" {
						t.Fatalf("dead letters %v of %v, want 5 and 7", p.DeadLetters, dead)
					}
					h := headers(dead[0])
					if h["seriatim.error.kind"] != "output" || h["__dlq.errors.offset"] != "5" || !strings.Contains(h["__dlq.errors.message"], "max.message.bytes is 3000") {
						t.Errorf("the dead letter has the headers %v", h)
					}
				}
			})
		}
	})
}

// holds waits until the only partition holds one record, for these reasons.
func (b *bed) holds(r *running, reasons ...string) {
	b.t.Helper()
	b.eventually("a record is held", func() bool { p := b.status(r).Partitions; return len(p) == 1 && len(p[0].Held) == 1 })
	for _, want := range reasons {
		if got := b.problem(r, "in/0"); !strings.Contains(got, want) {
			b.t.Errorf("the reason is %q, without %q", got, want)
		}
	}
}

// decides about the record of "in/0" at an offset.
func (b *bed) decides(r *running, d processor.Decision) {
	b.t.Helper()
	d.Topic, d.Reason = "in", "a test"
	if err := r.Decide(context.Background(), d); err != nil {
		b.t.Errorf("%v about offset %d: %v", d.Verdict, d.Offset, err)
	}
}

// A record with an output that its topic does not take is held, although it is
// transformed: every decision about it is possible, and others go in their turn.
func TestOutputThatIsHeld(t *testing.T) {
	inBothModes(t, func(t *testing.T, exactlyOnce bool) {
		for name, test := range map[string]struct {
			decision   processor.Decision
			out, dead  string
			held, ends bool // it is held again; nobody decides
		}{
			"skip":           {decision: processor.Decision{Verdict: processor.SkipIt}, out: "0 1 2 3 4 6 8 9"},
			"dead letter":    {decision: processor.Decision{Verdict: processor.DeadLetterIt}, out: "0 1 2 3 4 6 8 9", dead: "5 7"},
			"an output":      {decision: processor.Decision{Verdict: processor.ReplaceOutput, Value: []byte("x")}, out: "0 1 2 3 4 x 6 x 8 9"},
			"another value":  {decision: processor.Decision{Verdict: processor.ReplaceValue, Value: []byte("y")}, out: "0 1 2 3 4 y 6 y 8 9"},
			"retry":          {decision: processor.Decision{Verdict: processor.RetryIt}, held: true},
			"a large output": {decision: processor.Decision{Verdict: processor.ReplaceOutput, Value: large()}, held: true},
			"a drain":        {ends: true},
		} {
			t.Run(name, func(t *testing.T) {
				b := newBed(t, 1, nil, kfake.SeedTopics(1, "dead"))
				largest(b, "out")
				opts := b.options()
				opts.ExactlyOnce, opts.DeadLetterTopic = exactlyOnce, "dead"
				b.produce("in", 0, 0, 10)
				r := b.run(opts, processor.TransformFunc(inflate))
				for _, offset := range []int64{5, 7} {
					b.holds(r, fmt.Sprint("offset ", offset), "out does not take its output", "max.message.bytes is 3000")
					b.eventually("what is before it is committed", func() bool { return b.committed(0) == offset })
					if test.ends {
						break
					}
					test.decision.Offset = offset
					b.decides(r, test.decision)
					if test.held {
						b.holds(r, fmt.Sprint("offset ", offset))
						b.decides(r, processor.Decision{Offset: offset, Verdict: processor.SkipIt})
					}
				}
				if !test.ends {
					b.caughtUp(1)
					b.eventually("no byte is in use", func() bool { return b.status(r).WindowBytes == 0 })
				}
				began := time.Now()
				b.stop(r)
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("the drain took %v", took)
				}
				switch {
				case test.held:
					test.out = "0 1 2 3 4 6 8 9"
				case test.ends:
					test.out = "0 1 2 3 4"
				}
				if got := strings.Join(b.values("out", 0), " "); got != test.out {
					t.Errorf("outputs %s, want %s", got, test.out)
				}
				if got := strings.Join(b.values("dead", 0), " "); got != test.dead {
					t.Errorf("dead letters %s, want %s", got, test.dead)
				}
			})
		}
	})
}

// A dead letter that is too large has nowhere to go, and is held.
func TestDeadLetterThatItsTopicDoesNotTake(t *testing.T) {
	inBothModes(t, func(t *testing.T, exactlyOnce bool) {
		b := newBed(t, 1, nil, kfake.SeedTopics(1, "dead"))
		largest(b, "out", "dead")
		opts := b.options()
		opts.ExactlyOnce, opts.OnExhausted, opts.DeadLetterTopic = exactlyOnce, processor.DeadLetter, "dead"
		records := numbered("in", 0, 0, 3)
		records[1].Value = large()
		b.write(records...)
		r := b.run(opts, processor.TransformFunc(passOn))
		b.holds(r, "offset 1", "dead does not take it", "max.message.bytes is 3000")
		b.eventually("what is before it is committed", func() bool { return b.committed(0) == 1 })
		b.decides(r, processor.Decision{Offset: 1, Verdict: processor.DeadLetterIt})
		b.holds(r, "offset 1", "dead does not take it")
		b.decides(r, processor.Decision{Offset: 1, Verdict: processor.ReplaceOutput, Value: []byte("1")})
		b.caughtUp(1)
		b.stop(r)
		b.outputsAre(0, 3)
	})
}

// The limit is lowered while the pipeline runs. Then the broker refuses a whole
// batch for one record: only that one is exhausted.
func TestBatchRefusedForOneRecord(t *testing.T) {
	inBothModes(t, func(t *testing.T, exactlyOnce bool) {
		b := newBed(t, 1, nil, kfake.SeedTopics(1, "dead"))
		opts := b.options()
		opts.ExactlyOnce, opts.OnExhausted, opts.DeadLetterTopic = exactlyOnce, processor.DeadLetter, "dead"
		b.produce("in", 0, 0, 1)
		r := b.run(opts, processor.TransformFunc(func(_ context.Context, in processor.Input, out *processor.Outputs) error {
			value := in.Value
			if v := string(value); v == "5" || v == "7" {
				value = large()
			}
			out.Add(value)
			return nil
		}))
		b.caughtUp(1)
		largest(b, "out")
		b.produce("in", 0, 1, 10)
		b.caughtUp(1)
		b.stop(r)
		if got, want := strings.Join(b.values("out", 0), " "), "0 1 2 3 4 6 8 9"; got != want {
			t.Errorf("outputs %s, want %s", got, want)
		}
		if got := strings.Join(b.values("dead", 0), " "); got != "5 7" {
			t.Errorf("dead letters %s, want 5 7", got)
		}
	})
}

// A broker that refuses records for what they are, though nothing is wrong with
// any of them as far as we can see, stops the partition in the end.
func TestRecordsRefusedWithoutAReason(t *testing.T) {
	inBothModes(t, func(t *testing.T, exactlyOnce bool) {
		for _, times := range []int{2, -1} {
			t.Run(strconv.Itoa(times), func(t *testing.T) {
				b := newBed(t, 1, nil)
				opts := b.options()
				opts.ExactlyOnce = exactlyOnce
				b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "out", Err: kerr.InvalidRecord, Count: times})
				b.produce("in", 0, 0, 10)
				began := time.Now()
				r := b.run(opts, processor.TransformFunc(passOn))
				if times < 0 {
					b.stops(r, "offset 0", "INVALID_RECORD")
					if took := time.Since(began); took > 30*time.Second {
						t.Errorf("stopped after %v", took)
					}
					return
				}
				b.caughtUp(1)
				b.stop(r)
				b.outputsAre(0, 10)
			})
		}
	})
}
