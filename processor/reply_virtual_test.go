//go:build synctests

package processor_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/journal"
	"seriatim/processor"
)

// callLog counts the calls for each record.
type callLog struct {
	mu    sync.Mutex
	calls map[string]int
}

func (c *callLog) note(in processor.Input) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		c.calls = make(map[string]int)
	}
	c.calls[fmt.Sprintf("%d/%d", in.Partition, in.Offset)]++
}

// of is how often a record was called for.
func (c *callLog) of(partition, offset int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[fmt.Sprintf("%d/%d", partition, offset)]
}

// A finished result that waits behind a slow head is emitted after a crash, or a
// handover, without another call: one output, none, several, with keys and headers.
func TestReplyLog(t *testing.T) {
	const records, large = 100, 77
	for _, exactlyOnce := range []bool{false, true} {
		for _, crash := range []bool{false, true} {
			t.Run(fmt.Sprintf("exactly once %v, crash %v", exactlyOnce, crash), func(t *testing.T) {
				stateful(t, 1, func(b *bed) {
					var calls callLog
					transform := func(stuck bool) processor.TransformFunc {
						return func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
							calls.note(in)
							switch {
							case in.Offset == 10 && stuck:
								<-ctx.Done()
								return ctx.Err()
							case in.Offset == 20: // filtered
							case in.Offset == 30:
								out.Add([]byte("30 a")).Key = []byte{0xff}
								out.Add(nil).Key = nil
							case in.Offset == large:
								out.Add([]byte(strings.Repeat("x", 1<<20)))
							default:
								out.Add(in.Value)
							}
							return nil
						}
					}
					b.create("wide", 1, map[string]string{"max.message.bytes": "4000000"})
					opts, wire := b.mortal("one")
					opts.ExactlyOnce, opts.ReplyLog, opts.Output.Topic = exactlyOnce, true, "wide"
					b.produce("in", 0, 0, records)
					r := b.run(opts, transform(true))
					b.eventually("all others are stored", func() bool { return b.status(r).Replies["stored"] == records-10-1-1 })
					b.eventually("what comes before is committed", func() bool { return b.committed(0) == 10 })
					<-time.After(time.Second)
					if s := b.status(r).Replies; s["skipped"] != 1 || s["reused"] != 0 {
						b.t.Errorf("replies are %v", s)
					}
					if crash {
						wire.cut()
					} else {
						_ = r.stop() // its drain is not over in time
					}
					opts, _ = b.mortal("two")
					opts.ExactlyOnce, opts.ReplyLog, opts.Output.Topic = exactlyOnce, true, "wide"
					r = b.run(opts, transform(false))
					b.caughtUp(1)
					if s := b.status(r); s.Replies["reused"] != records-10-1-1 || s.Attempts["ok"] != 2 {
						b.t.Errorf("replies are %v, attempts %v", s.Replies, s.Attempts)
					}
					for i := range records {
						want := 1
						if i == 10 || i == large {
							want = 2
						}
						if n := calls.of(0, i); n != want {
							b.t.Errorf("record %d was called for %d times, want %d", i, n, want)
						}
					}
					b.stop(r)
					b.nothingKept(1)
					var got, want []string
					for _, r := range b.records("wide", 0) {
						var headers []string
						for _, h := range r.Headers {
							headers = append(headers, h.Key+"="+string(h.Value))
						}
						got = append(got, fmt.Sprintf("%x %d %v %v %v", r.Key, len(r.Value), r.Value == nil, headers, r.Timestamp.UnixMilli() > 0))
					}
					add := func(key string, size int, null bool, header string) {
						want = append(want, fmt.Sprintf("%x %d %v [%s] true", key, size, null, header))
					}
					for i := range records {
						source := fmt.Sprintf("seriatim.source=in/0/%d", i)
						switch i {
						case 20:
						case 30:
							add("\xff", 4, false, source+" seriatim.output=1/2")
							add("", 0, true, source+" seriatim.output=2/2")
						case large:
							add("key", 1<<20, false, source)
						default:
							add("key", len(fmt.Sprint(i)), false, source)
						}
					}
					for i := range max(len(got), len(want)) {
						if i >= len(got) || i >= len(want) || got[i] != want[i] {
							b.t.Fatalf("%d outputs, want %d; at place %d: %v, want %v", len(got), len(want), i, got[min(i, len(got)):min(i+1, len(got))], want[min(i, len(want)):min(i+1, len(want))])
						}
					}
				})
			})
		}
	}
}

// What does not wait for long is not stored.
func TestReplyLogLeavesOrdinaryRecordsAlone(t *testing.T) {
	stateful(t, 1, func(b *bed) {
		opts, _ := b.mortal("one")
		opts.ReplyLog = true
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			<-time.After(time.Duration(in.Offset%7+1) * 10 * time.Millisecond)
			return passOn(ctx, in, out)
		}))
		b.produce("in", 0, 0, 200)
		b.caughtUp(1)
		if s := b.status(r); s.Replies["stored"] > 0 || s.StateWrites["delete"] > 0 {
			b.t.Errorf("replies are %v, writes %v", s.Replies, s.StateWrites)
		}
	})
}

// Whoever joins, leaves, is thrown out or dies while the state topic refuses, delays and
// forgets answers: order, exactly once, holds as without one, and nothing is left.
func TestStateUnderChurn(t *testing.T) {
	plans(t, 12, func(t *testing.T, rng *rand.Rand) {
		partitions := 1 + rng.Int32N(4)
		stateful(t, partitions, func(b *bed) {
			c := newChurn(b, rng, partitions)
			c.exactlyOnce = rng.IntN(2) == 0
			c.state, c.drain = "state", time.Duration(1+rng.IntN(5))*time.Second
			c.transform = jitter(rng.Uint64(), time.Duration(1+rng.IntN(2000))*time.Millisecond)
			for range 15 {
				_ = c.turn(func() { // perhaps it did not leave in time
					if rng.IntN(3) == 0 {
						c.kick()
					} else {
						c.mishapOf("state")
					}
				})
				c.pause(3 * time.Second)
			}
			_ = c.finish() // likewise
			for p := range partitions {
				if c.exactlyOnce {
					b.inOrder(p, 0, c.produced[p])
				} else {
					b.firstInOrder(p, c.produced[p])
				}
			}
		})
	})
}

// A record whose batch is due, behind results that were stored, is attempted, whatever becomes
// of these while it waits for a worker: they settle, it was left out of its turn, and nobody
// thought of it again before the partition had another record.
func TestBatchBehindStoredReplies(t *testing.T) {
	const reused = 9
	stateful(t, 2, func(b *bed) {
		var kept []*kgo.Record
		for i := range reused {
			kept = append(kept, &kgo.Record{
				Topic: "state", Partition: journal.Place("in", 0, 3), Key: fmt.Appendf(nil, "group/in/0/%d/reply/1", i),
				Value: journal.Encode(journal.Reply{Generation: 1, Outputs: []journal.Output{{Key: []byte("key"), Value: strconv.AppendInt(nil, int64(i), 10)}}}),
			})
		}
		b.write(kept...)
		b.produce("in", 0, 0, reused+1)
		b.produce("in", 1, 0, 20)
		opts := b.options()
		opts.ExactlyOnce, opts.Commit.Transaction = true, 3*time.Second
		opts.Workers, opts.StateTopic, opts.ReplyLog = 1, "state", true
		opts.Batch = processor.Batch{Records: 20, Wait: time.Second}
		r := b.run(opts, batchFunc(func(ctx context.Context, items []processor.Item) error {
			if items[0].Partition == 1 { // the only worker is busy until the replies have settled
				<-time.After(20 * time.Second)
			}
			return passAll(ctx, items)
		}))
		b.caughtUp(2)
		if n := b.status(r).Replies["reused"]; n != reused {
			b.t.Errorf("%d replies are used again, want %d", n, reused)
		}
		b.stop(r)
		b.inOrder(0, 0, reused+1)
	})
}

// A record that is held because its topic does not take its output is held after a restart as well,
// with its attempts, though its result was stored before; and what was decided meanwhile is carried out.
func TestHoldOutlivesAStoredReply(t *testing.T) {
	for _, decided := range []bool{false, true} {
		t.Run(fmt.Sprintf("decided meanwhile %v", decided), func(t *testing.T) {
			stateful(t, 1, func(b *bed) {
				b.create("small", 1, map[string]string{"max.message.bytes": "2000"})
				b.produce("in", 0, 0, 3)
				opts := b.options()
				opts.StateTopic, opts.ReplyLog, opts.Output.Topic = "state", true, "small"
				transform := processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
					switch in.Offset {
					case 0:
						<-time.After(5 * time.Second)
					case 1:
						out.Add([]byte(strings.Repeat("x", 5000)))
						return nil
					}
					return passOn(ctx, in, out)
				})
				one := b.run(opts, transform)
				b.holds(one, "its topic does not take")
				since := b.status(one).Partitions[0].Held[0].Since
				if err := one.stop(); err != nil {
					b.t.Errorf("Run returned %v, want nil", err)
				}
				if decided {
					b.write(&kgo.Record{
						Topic: "state", Partition: journal.Place("in", 0, 3), Key: []byte("group/in/0/1/decision/somebody"),
						Value: journal.Encode(journal.Decision{Decision: "skip", Reason: "a test"}),
					})
				}
				two := b.run(opts, transform)
				if !decided {
					b.holds(two, "its topic does not take")
					if h := b.status(two).Partitions[0].Held[0]; h.Attempts != 1 || !h.Since.Equal(since) {
						b.t.Errorf("it is held since %v with %d attempts, want %v and 1", h.Since, h.Attempts, since)
					}
					b.decides(two, processor.Decision{Offset: 1, Verdict: processor.SkipIt})
				}
				b.patience = time.Minute
				b.caughtUp(1)
				if got := b.values("small", 0); len(got) != 2 || got[0] != "0" || got[1] != "2" {
					b.t.Errorf("the output is %v, want 0 and 2", got)
				}
			})
		})
	}
}

// What is known of a record says nothing about another one that has taken its place, after an election
// without the replicas that had it: not its result, and not its hold.
func TestStateOfATruncatedRecord(t *testing.T) {
	stateful(t, 1, func(b *bed) {
		keep := func(offset int, kind journal.Kind, value []byte) *kgo.Record {
			return &kgo.Record{Topic: "state", Partition: journal.Place("in", 0, 3), Key: fmt.Appendf(nil, "group/in/0/%d/%s/1", offset, kind), Value: value}
		}
		was, is := int32(4), int32(0)
		reply := func(epoch *int32) []byte {
			return journal.Encode(journal.Reply{Generation: 1, Epoch: epoch, Outputs: []journal.Output{{Value: []byte("stored")}}})
		}
		b.write(
			keep(0, journal.KindReply, reply(&was)), keep(1, journal.KindReply, reply(&is)), keep(2, journal.KindReply, reply(nil)),
			keep(3, journal.KindAttempts, journal.Encode(journal.Attempts{Generation: 1, Epoch: &was, Begun: 1, Failed: 1, Hold: &journal.Hold{Why: "attempts"}})))
		b.produce("in", 0, 0, 4)
		opts := b.options()
		opts.StateTopic, opts.ReplyLog = "state", true
		b.patience = time.Minute
		b.run(opts, processor.TransformFunc(passOn))
		b.caughtUp(1)
		if got, want := fmt.Sprint(b.values("out", 0)), "[0 stored stored 3]"; got != want {
			b.t.Errorf("the output is %v, want %v", got, want)
		}
		b.eventually("nothing is known any more", func() bool { return len(b.state(0).Records) == 0 })
	})
}
