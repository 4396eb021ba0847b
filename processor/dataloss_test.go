package processor_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// inBothModes runs a test at least once and exactly once.
func inBothModes(t *testing.T, test func(t *testing.T, exactlyOnce bool)) {
	t.Helper()
	t.Run("at least once", func(t *testing.T) { t.Parallel(); test(t, false) })
	t.Run("exactly once", func(t *testing.T) { t.Parallel(); test(t, true) })
}

var policies = map[string]processor.OnDataLoss{
	"stop": processor.LossStop, "earliest": processor.LossEarliest, "latest": processor.LossLatest,
}

// setCommitted gives the group an offset of in/0.
func (b *bed) setCommitted(at int64, epoch int32) {
	b.t.Helper()
	o := make(kadm.Offsets)
	o.Add(kadm.Offset{Topic: "in", At: at, LeaderEpoch: epoch})
	if err := kadm.NewClient(b.own).CommitAllOffsets(context.Background(), "group", o); err != nil {
		b.t.Fatal(err)
	}
}

// first returns the state of in/0.
func (b *bed) first(r *running) processor.PartitionStatus {
	b.t.Helper()
	for _, p := range b.status(r).Partitions {
		if p.Topic == "in" && p.Partition == 0 {
			return p
		}
	}
	return processor.PartitionStatus{}
}

// stops waits until in/0 is stopped with these words, which are
// told as a problem too.
func (b *bed) stops(r *running, words ...string) {
	b.t.Helper()
	b.eventually("in/0 is stopped", func() bool { return b.first(r).Stopped != "" })
	reason := b.first(r).Stopped
	for _, word := range words {
		if !strings.Contains(reason, word) {
			b.t.Errorf("in/0 is stopped with %q, want %q in it", reason, word)
		}
	}
	for _, p := range b.status(r).Problems {
		if p.Scope == "in/0" && strings.Contains(p.Reason, reason) {
			return
		}
	}
	b.t.Errorf("no problem tells %q", reason)
}

// ticks waits for some acknowledged commits or transactions more.
func (b *bed) ticks(r *running) {
	b.t.Helper()
	before := b.status(r).Commits["ok"]
	b.eventually("more commits", func() bool { return b.status(r).Commits["ok"] >= before+3 })
}

// gaps fails the test unless these offsets without a record are counted.
func (b *bed) gaps(r *running, want map[string]uint64) {
	b.t.Helper()
	got := b.first(r).GapOffsets
	maps.DeleteFunc(got, func(_ string, n uint64) bool { return n == 0 })
	if !maps.Equal(got, want) {
		b.t.Errorf("offsets without a record in in/0: %v, want %v", got, want)
	}
}

func (b *bed) deleteRecords(below int64) {
	b.t.Helper()
	if err := b.cluster.DeleteRecords("in", 0, below); err != nil {
		b.t.Fatal(err)
	}
}

// outputsAre fails the test unless partition 0 of "out" has the numbers of these
// ranges, from and to in turn.
func (b *bed) outputsAre(bounds ...int) {
	b.t.Helper()
	var want []string
	for i := 0; i < len(bounds); i += 2 {
		for n := bounds[i]; n < bounds[i+1]; n++ {
			want = append(want, strconv.Itoa(n))
		}
	}
	if got := b.values("out", 0); fmt.Sprint(got) != fmt.Sprint(want) {
		b.t.Errorf("outputs %v,\nwant %v", got, want)
	}
}

// The group has committed 20, the log begins at 60 by now.
func TestCommittedOffsetIsDeleted(t *testing.T) {
	inBothModes(t, func(t *testing.T, exactlyOnce bool) {
		for name, policy := range policies {
			test := map[string]struct {
				first int // record that is read
				gaps  uint64
			}{"stop": {-1, 40}, "earliest": {60, 40}, "latest": {100, 80}}[name]
			t.Run(name, func(t *testing.T) {
				b := newBed(t, 2, nil)
				opts := b.options()
				opts.ExactlyOnce, opts.Source.OnDataLoss = exactlyOnce, policy
				b.produceToAll(2, 0, 100)
				b.setCommitted(20, 0)
				b.deleteRecords(60)
				id := b.cluster.TopicInfo("in").TopicID
				r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
					if in.TopicID != id { // it is in the idempotency key
						t.Errorf("in/%d offset %d has the topic id %x, want %x", in.Partition, in.Offset, in.TopicID, id)
					}
					return passOn(ctx, in, out)
				}))
				b.eventually("the other partition goes on", func() bool { return b.committed(1) == 100 })
				if policy == processor.LossStop {
					b.stops(r, "offsets 20 to 59 (40 records at most) are gone", "on_data_loss",
						"kafka-consumer-groups.sh", "--group group", "--topic in:0", "--to-offset 60")
				} else {
					b.eventually("it is committed beyond the loss", func() bool { return b.committed(0) == 100 })
					b.produce("in", 0, 100, 110)
					b.caughtUp(1)
				}
				b.ticks(r)
				b.gaps(r, map[string]uint64{"lost": test.gaps})
				b.stop(r)
				if policy == processor.LossStop {
					b.outputsAre()
					if at := b.committed(0); at != 20 {
						t.Errorf("committed %d, want 20 as before", at)
					}
				} else {
					b.outputsAre(test.first, 110)
				}
			})
		}
	})
}

// Somebody has set the group's offset to 700; the log ends at 100.
func TestCommittedOffsetBeyondTheEnd(t *testing.T) {
	inBothModes(t, func(t *testing.T, exactlyOnce bool) {
		for name, policy := range policies {
			t.Run(name, func(t *testing.T) {
				b := newBed(t, 1, nil)
				opts := b.options()
				opts.ExactlyOnce, opts.Source.OnDataLoss = exactlyOnce, policy
				b.produce("in", 0, 0, 100)
				b.setCommitted(700, -1)
				r := b.run(opts, processor.TransformFunc(passOn))
				if policy == processor.LossStop {
					b.stops(r, "the log ends at offset 100", "offsets 100 to 699 (600 records at most) are gone", "--to-offset 100")
				} else {
					b.eventually("the group goes back to the end", func() bool { return b.committed(0) == 100 })
					b.produce("in", 0, 100, 110)
					b.caughtUp(1)
				}
				b.ticks(r)
				b.gaps(r, map[string]uint64{"beyond_end": 600})
				b.stop(r)
				if policy == processor.LossStop {
					b.outputsAre()
					if at := b.committed(0); at != 700 {
						t.Errorf("committed %d, want 700 as before", at)
					}
				} else {
					b.outputsAre(map[string]int{"earliest": 0, "latest": 100}[name], 110)
				}
			})
		}
	})
}

// Each tenure that begins meets the loss again, maybe a larger one: an offset is
// counted once.
func TestALossIsCountedOnce(t *testing.T) {
	b := newBed(t, 1, nil)
	b.produce("in", 0, 0, 100)
	b.setCommitted(20, 0)
	b.deleteRecords(60)
	r := b.run(b.options(), processor.TransformFunc(passOn))
	for _, begin := range []int64{60, 80, 80} {
		b.stops(r, fmt.Sprintf("offsets 20 to %d (%d records at most) are gone", begin-1, begin-20))
		b.gaps(r, map[string]uint64{"lost": uint64(begin - 20)})
		b.deleteRecords(80)
		before := b.status(r).Rebalances
		b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Err: kerr.UnknownMemberID})
		b.eventually("the partition was lost and assigned again", func() bool { return b.status(r).Rebalances >= before+2 })
	}
}

// A fetch is refused though the offset is in the log when that is looked up: it
// has grown meanwhile, over what was lost.
func TestLossThatCannotBeMeasured(t *testing.T) {
	b := newBed(t, 1, nil)
	r := b.run(b.options(), processor.TransformFunc(passOn))
	b.produce("in", 0, 0, 100)
	b.caughtUp(1)
	b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "in", Err: kerr.OffsetOutOfRange})
	b.stops(r, "the log ended before offset 100", "cannot be told", "--to-offset 100")
	b.gaps(r, map[string]uint64{})
}

// What the log has cannot be asked for a while.
func TestLossIsLookedUpUntilItIsKnown(t *testing.T) {
	b := newBed(t, 1, nil)
	opts := b.options()
	opts.Source.OnDataLoss = processor.LossEarliest
	b.produce("in", 0, 0, 100)
	b.setCommitted(20, 0)
	b.deleteRecords(60)
	refused := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "in", Err: kerr.TopicAuthorizationFailed, Count: -1})
	r := b.run(opts, processor.TransformFunc(passOn))
	b.eventually("the reason is told", func() bool {
		return slices.ContainsFunc(b.status(r).Problems, func(p processor.Problem) bool {
			return p.Scope == "in/0" && strings.Contains(p.Reason, "what it has cannot be read") && strings.Contains(p.Reason, "grant this user")
		})
	})
	refused.Remove()
	b.caughtUp(1)
	b.outputsAre(60, 100)
	b.eventually("nothing is wrong any more", func() bool { return len(b.status(r).Problems) == 0 })
}

// truncate is truncateAt for 50.
func (b *bed) truncate() { b.t.Helper(); b.truncateAt(50) }

// truncateAt has the broker say, from now on, that the log of in/0 was cut there under
// an unclean leader. Of other partitions it says nothing.
func (b *bed) truncateAt(end int64) {
	b.t.Helper()
	b.cluster.ControlKey(int16(kmsg.OffsetForLeaderEpoch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		resp := r.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
		for _, topic := range r.(*kmsg.OffsetForLeaderEpochRequest).Topics {
			rt := kmsg.NewOffsetForLeaderEpochResponseTopic()
			rt.Topic = topic.Topic
			slices.SortFunc(topic.Partitions, func(a, b kmsg.OffsetForLeaderEpochRequestTopicPartition) int {
				return int(b.Partition - a.Partition)
			})
			for _, p := range topic.Partitions {
				rp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
				rp.Partition, rp.LeaderEpoch, rp.EndOffset = p.Partition, p.LeaderEpoch, end
				if p.Partition != 0 {
					rp.ErrorCode = kerr.TopicAuthorizationFailed.Code
				}
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	for p := range b.cluster.PartitionInfos("in") {
		if err := b.cluster.MoveTopicPartition("in", int32(p), 0); err != nil {
			b.t.Fatal(err)
		}
	}
}

// The log of a partition is cut at 50 when 100 records were read. One record
// hangs; those before it are committed.
func TestTruncation(t *testing.T) {
	tests := []struct {
		policy  processor.OnDataLoss
		hangs   int64
		outputs []int
	}{
		{processor.LossStop, 60, []int{0, 110}},
		{processor.LossLatest, 60, []int{0, 110}},
		{processor.LossEarliest, 60, []int{0, 60, 50, 110}}, // 50 to 59 are other records than before
		{processor.LossEarliest, 40, []int{0, 110}},
	}
	inBothModes(t, func(t *testing.T, exactlyOnce bool) {
		for _, test := range tests {
			t.Run(fmt.Sprintf("policy %d, %d hangs", test.policy, test.hangs), func(t *testing.T) {
				b := newBed(t, 1, nil)
				opts := b.options()
				opts.ExactlyOnce, opts.Source.OnDataLoss = exactlyOnce, test.policy
				open := make(chan struct{})
				var met atomic.Int32
				b.produce("in", 0, 0, 100)
				r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
					if in.Offset == test.hangs && met.Add(1) == 1 {
						<-open // whatever becomes of the tenure
					}
					return passOn(ctx, in, out)
				}))
				b.eventually("one record holds the partition", func() bool {
					return b.committed(0) == test.hangs && b.status(r).Attempts["ok"] == 99
				})
				b.truncate()
				switch test.policy {
				case processor.LossStop:
					b.stops(r, "the log was truncated", "offsets 50 to 99 (50 records at most) are gone", "--to-offset 50")
					b.ticks(r)
					if at := b.committed(0); at != test.hangs {
						t.Errorf("committed %d, want %d", at, test.hangs)
					}
				case processor.LossEarliest:
					b.caughtUp(1) // without the record that hangs
				default:
					b.eventually("the loss is counted", func() bool { return b.first(r).GapOffsets["truncated"] > 0 })
				}
				close(open)
				b.eventually("all that was admitted is committed", func() bool { return b.committed(0) == 100 })
				b.gaps(r, map[string]uint64{"truncated": 50})
				if test.policy == processor.LossStop { // a person decides that the rest is as it was
					b.stop(r)
					b.setCommitted(100, -1)
					r = b.run(opts, processor.TransformFunc(passOn))
				}
				b.produce("in", 0, 100, 110)
				b.caughtUp(1)
				b.stop(r)
				b.outputsAre(test.outputs...)
			})
		}
	})
}

// The offset that a truncation takes the group back to is committed at once.
func TestTruncationTakesTheCommitBack(t *testing.T) {
	inBothModes(t, func(t *testing.T, exactlyOnce bool) {
		b := newBed(t, 1, nil)
		opts := b.options()
		opts.ExactlyOnce, opts.Source.OnDataLoss = exactlyOnce, processor.LossEarliest
		opts.DrainTimeout = 100 * time.Millisecond
		var again atomic.Bool
		b.produce("in", 0, 0, 100)
		r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if again.Load() {
				<-ctx.Done()
				return ctx.Err()
			}
			return passOn(ctx, in, out)
		}))
		b.caughtUp(1)
		again.Store(true)
		b.truncate()
		b.eventually("the group is back at 50", func() bool { return b.committed(0) == 50 })
		b.ticks(r)
		if at := b.committed(0); at != 50 {
			t.Errorf("committed %d, want 50", at)
		}
	})
}
