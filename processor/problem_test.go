//go:build synctests

package processor_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// Whatever keeps records waiting is told in words within half a minute, ends by
// itself when it is mended, and loses nothing.
func TestWhatHoldsRecordsUpIsNamed(t *testing.T) {
	fault := func(faults ...kfake.Fault) func(b *bed, c *cutter) func() {
		return func(b *bed, _ *cutter) func() {
			for i := range faults {
				faults[i].Count = -1
			}
			return b.cluster.Fault(faults...).Remove
		}
	}
	must := func(b *bed, err error) {
		b.t.Helper()
		if err != nil {
			b.t.Fatal(err)
		}
	}
	for _, test := range []struct {
		what   string
		output string // "out" if empty
		begin  func(b *bed, c *cutter) (mend func())
		scope  string
		want   []string // in the reason
	}{
		{"no output topic", "none", func(b *bed, _ *cutter) func() {
			return func() { must(b, b.cluster.CreateTopic("none", 2, nil)) }
		}, "output topic none", []string{"does not exist", "kafka-topics.sh", "--create --topic none --partitions 2"}},
		{"no broker", "", func(_ *bed, c *cutter) func() {
			c.cut()
			return c.mend
		}, "cluster", []string{"no broker can be reached", errCut.Error()}},
		{"the group is refused", "", fault(
			kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Err: kerr.GroupAuthorizationFailed},
		), "group group", []string{"GROUP_AUTHORIZATION_FAILED", "grant this user READ and DESCRIBE on the group"}},
		{"commits are refused", "", fault(
			kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.GroupAuthorizationFailed},
		), "test", []string{"commits are refused", "GROUP_AUTHORIZATION_FAILED"}},
		{"fetching is refused", "", fault(
			kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "in", Err: kerr.TopicAuthorizationFailed},
		), "in/1", []string{"fetching fails", "TOPIC_AUTHORIZATION_FAILED", "grant this user READ"}},
		{"a leader does not answer", "", fault(
			kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "in", Partitions: []int32{1}, Err: kerr.KafkaStorageError, When: func(r kmsg.Request) bool {
				list, ok := r.(*kmsg.ListOffsetsRequest)
				return ok && list.Topics[0].Partitions[0].Timestamp == -1 // not where it begins
			}},
		), "in/1", []string{"its leader is not there or does not answer", "KAFKA_STORAGE_ERROR"}},
		{"the input is refused", "", fault(
			kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "in", Err: kerr.TopicAuthorizationFailed},
		), "input topic in", []string{"TOPIC_AUTHORIZATION_FAILED"}},
		{"the output is refused", "", fault(
			kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "out", Err: kerr.TopicAuthorizationFailed},
		), "output topic out", []string{"TOPIC_AUTHORIZATION_FAILED", "WRITE and DESCRIBE on output"}},
	} {
		t.Run(test.what, func(t *testing.T) {
			virtual(t, 2, func(b *bed) {
				b.produceToAll(2, 0, 50)
				opts := b.options()
				if test.output != "" {
					opts.Output.Topic = test.output
				}
				mend := test.begin(b, b.cuttable(&opts))
				r := b.run(opts, processor.TransformFunc(passOn))
				began := time.Now()
				b.eventually("the problem is named", func() bool { return b.problem(r, test.scope) != "" })
				if took := time.Since(began); took > 30*time.Second {
					b.t.Errorf("it took %v to name the problem", took)
				}
				<-time.After(time.Minute)
				reason := b.problem(r, test.scope)
				for _, part := range test.want {
					if !strings.Contains(reason, part) {
						b.t.Errorf("the reason is %q, want %q in it", reason, part)
					}
				}
				mend()
				began = time.Now()
				b.caughtUp(2)
				b.eventually("nothing is wrong any more", func() bool { return len(b.status(r).Problems) == 0 })
				if took := time.Since(began); took > 40*time.Second {
					b.t.Errorf("it took %v to go on after it was mended", took)
				}
				b.stop(r)
				for p := range int32(2) {
					if got := len(b.values(opts.Output.Topic, p)); got != 50 {
						b.t.Errorf("partition %d has %d outputs, want 50", p, got)
					}
				}
			})
		})
	}
}

// Commits, or transactions, are refused, and then the partition goes to another instance. Who has it
// no longer has no problem any more.
func TestProblemsLeaveWithTheirPartition(t *testing.T) {
	for name, test := range map[string]struct {
		exactlyOnce bool
		fault       kfake.Fault
		want        string
	}{
		"commits":      {false, kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.GroupAuthorizationFailed}, "commits are refused"},
		"transactions": {true, kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "out", Err: kerr.TopicAuthorizationFailed}, "transactions are aborted"},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, 1, func(b *bed) {
				test.fault.Count = -1
				b.cluster.Fault(test.fault)
				opts := b.options()
				opts.ExactlyOnce = test.exactlyOnce
				b.produce("in", 0, 0, 10)
				cuttable := opts
				connections := b.cuttable(&cuttable)
				one := b.run(cuttable, processor.TransformFunc(passOn))
				b.eventually("the problem is named", func() bool { return strings.Contains(b.problem(one, "test"), test.want) })
				opts.Instance = "two"
				two := b.run(opts, processor.TransformFunc(passOn))
				connections.cut()
				b.eventually("the other one has the partition", func() bool { return len(b.status(two).Partitions) == 1 })
				connections.mend()
				<-time.After(2 * time.Minute)
				if s := b.status(one); len(s.Partitions) > 0 || len(s.Problems) > 0 {
					b.t.Errorf("the partitions are %v and the problems %v, want none", s.Partitions, s.Problems)
				}
			})
		})
	}
}

// Connections break at any time, for any time; nothing is lost and nothing comes
// in another order.
func TestCutConnectionsKeepOrder(t *testing.T) {
	const partitions = 2
	plans(t, 6, func(t *testing.T, rng *rand.Rand) {
		virtual(t, partitions, func(b *bed) {
			commits := b.watchCommits()
			opts := b.options()
			opts.Source.ServerSide = rng.IntN(2) == 0
			connections := b.cuttable(&opts)
			r := b.run(opts, jitter(rng.Uint64(), 100*time.Millisecond))
			produced := 0
			for range 8 {
				n := rng.IntN(50)
				b.produceToAll(partitions, produced, produced+n)
				produced += n
				<-time.After(upTo(rng, 3*time.Second))
				connections.cut()
				<-time.After(upTo(rng, 10*time.Second))
				connections.mend()
			}
			b.caughtUp(partitions)
			b.stop(r)
			for p := range int32(partitions) {
				b.firstInOrder(p, produced)
			}
			commits.holds(b, partitions)
		})
	})
}

// The numbers of a pipeline that has done its work.
func TestStatusCounts(t *testing.T) {
	virtual(t, 2, func(b *bed) {
		r := b.run(b.options(), processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			if in.Attempt == 1 && in.Offset == 3 {
				panic("once")
			}
			if in.Attempt == 1 && in.Offset == 4 {
				return context.DeadlineExceeded
			}
			return spread(ctx, in, out)
		}))
		if s := b.status(r); s.State != "starting" || s.Pipeline != "test" || s.Group != "group" || s.Workers != 64 || len(s.Partitions) != 0 {
			b.t.Errorf("before the assignment the status is %+v", s)
		}
		b.produceToAll(2, 0, 70)
		b.caughtUp(2)
		<-time.After(5 * time.Second)
		s := b.status(r)
		want := map[string]uint64{"ok": 120, "filter": 20, "retry": 2, "panic": 2, "reject": 0, "deployment": 0, "late": 0}
		for result, n := range want {
			if s.Attempts[result] != n {
				b.t.Errorf("attempts %s are %d, want %d", result, s.Attempts[result], n)
			}
		}
		if s.State != "running" || s.Rebalances != 1 || s.Commits["ok"] < 20 || s.Commits["error"] != 0 || s.WorkersBusy != 0 || s.WindowBytes != 0 {
			b.t.Errorf("the status is %+v", s)
		}
		for i, p := range s.Partitions {
			outputs := b.end("out", int32(i))
			if p.Topic != "in" || p.Partition != int32(i) || p.NextOffset != 70 || p.CommittedOffset != 70 || p.EndOffset != 70 ||
				p.LagRecords != 0 || p.LagTime != 0 || p.CommitAge > 300*time.Millisecond || p.Head != nil ||
				p.Settled != 70 || p.Filtered != 10 || p.Emitted != uint64(outputs) {
				b.t.Errorf("partition %d with %d outputs is %+v", i, outputs, p)
			}
		}
		b.stop(r)
		if s := b.status(r); s.State != "stopped" {
			b.t.Errorf("the state is %s at the end, want stopped", s.State)
		}
	})
}
