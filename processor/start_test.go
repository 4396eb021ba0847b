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

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// commit sets the group's offset of a partition of "in", as if an earlier run had.
func (b *bed) commit(partition int32, at int64) {
	b.t.Helper()
	var offsets kadm.Offsets
	offsets.AddOffset("in", partition, at, -1)
	if err := kadm.NewClient(b.own).CommitAllOffsets(context.Background(), "group", offsets); err != nil {
		b.t.Fatal(err)
	}
}

// Where a partition starts, and that this position is committed before any record
// of it is done.
func TestStart(t *testing.T) {
	epoch := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // of virtual time
	for _, test := range []struct {
		what   string
		start  processor.Start
		before func(b *bed)
		want   int64
	}{
		{"earliest", processor.Start{}, func(*bed) {}, 0},
		{"earliest, and the log begins later", processor.Start{}, func(b *bed) {
			if err := b.cluster.DeleteRecords("in", 0, 13); err != nil {
				b.t.Fatal(err)
			}
		}, 13},
		{"latest", processor.Start{End: true}, func(*bed) {}, 100},
		{"a time", processor.Start{Time: epoch.Add(30 * time.Minute)}, func(*bed) {}, 50},
		{"a time before all records", processor.Start{Time: epoch.Add(-time.Hour)}, func(*bed) {}, 0},
		{"a time after all records", processor.Start{Time: epoch.Add(24 * time.Hour)}, func(*bed) {}, 100},
		{"a commit counts more", processor.Start{End: true}, func(b *bed) { b.commit(0, 42) }, 42},
		{"a commit of 0 counts more", processor.Start{End: true}, func(b *bed) { b.commit(0, 0) }, 0},
		// The partition is newer than the group: what came before anybody looked
		// must not be skipped.
		{"a commit of another partition", processor.Start{End: true}, func(b *bed) { b.commit(1, 10) }, 0},
	} {
		t.Run(test.what, func(t *testing.T) {
			virtual(t, 2, func(b *bed) {
				commits := b.watchCommits()
				for _, p := range []int32{1, 0} {
					b.produce("in", p, 0, 50)
				}
				<-time.After(time.Hour)
				b.produce("in", 0, 50, 100)
				test.before(b)
				opts := b.options()
				opts.Source.Start = test.start
				open := make(chan struct{})
				r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
					<-open
					return passOn(ctx, in, out)
				}))
				<-time.After(time.Minute)
				if at := b.committed(0); at != test.want {
					b.t.Errorf("the start is committed at %d, want %d", at, test.want)
				}
				if first := of(0, commits.all()); len(first) == 0 || first[0].offsets[0] != test.want {
					b.t.Errorf("the first commits are %v, want at %d", first[:min(1, len(first))], test.want)
				}
				close(open)
				b.produce("in", 0, 100, 110)
				b.caughtUp(2)
				b.stop(r)
				b.inOrder(0, int(test.want), 110)
			})
		})
	}
}

// Where a partition starts cannot be read for a while: it is named, the others
// flow, and it starts where it should when it can.
func TestUnreadableStartHoldsItsPartitionAlone(t *testing.T) {
	for _, test := range []struct {
		what  string
		fault kfake.Fault
	}{
		{"an error of the broker", kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "in", Partitions: []int32{1}, Err: kerr.UnknownServerError, Count: -1}},
		{"a leader that is not there", kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "in", Partitions: []int32{1}, Err: kerr.NotLeaderForPartition, Count: -1}},
	} {
		t.Run(test.what, func(t *testing.T) {
			virtual(t, 2, func(b *bed) {
				commits := b.watchCommits()
				b.produceToAll(2, 0, 100)
				fault := b.cluster.Fault(test.fault)
				r := b.run(b.options(), processor.TransformFunc(passOn))
				b.eventually("the other partition is done", func() bool { return b.committed(0) == 100 })
				<-time.After(2 * time.Minute)
				reason := b.problem(r, "in/1")
				if !strings.Contains(reason, "start offset cannot be read") || !strings.Contains(reason, test.fault.Err.Message) {
					b.t.Errorf("the problem of the partition is %q", reason)
				}
				if s := b.status(r).Partitions[1]; s.NextOffset != -1 || s.CommittedOffset != -1 || s.Emitted != 0 {
					b.t.Errorf("the partition is %+v, want nothing known and nothing done", s)
				}
				if named := of(1, commits.all()); len(named) > 0 {
					b.t.Errorf("its unknown position was committed: %v", named[0])
				}
				fault.Remove()
				began := time.Now()
				b.caughtUp(2)
				// 30 s between two tries, and the client's own repeats of one that is under way.
				if took := time.Since(began); took > 41*time.Second {
					b.t.Errorf("it went on %v after it could", took)
				}
				if s := b.status(r); len(s.Problems) != 0 {
					b.t.Errorf("problems are %v, want none", s.Problems)
				}
				b.stop(r)
				for p := range int32(2) {
					b.inOrder(p, 0, 100)
				}
				commits.holds(b, 2)
			})
		})
	}
}

// hideStart has the brokers not tell where a partition begins or ends.
func (b *bed) hideStart(partition int32) *kfake.FaultHandle {
	return b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "in", Partitions: []int32{partition}, Err: kerr.UnknownServerError, Count: -1})
}

// Where a group begins with a partition cannot be read for a while, in which it commits another one. That does
// not make the first one newer than the group.
func TestStartThatIsReadLater(t *testing.T) {
	virtual(t, 2, func(b *bed) {
		b.produceToAll(2, 0, 100)
		fault := b.hideStart(1)
		opts := b.options()
		opts.Source.Start = processor.Start{End: true}
		r := b.run(opts, processor.TransformFunc(passOn))
		b.eventually("the start of the other partition is committed", func() bool { return b.committed(0) == 100 })
		fault.Remove()
		b.caughtUp(2)
		b.produceToAll(2, 100, 110)
		b.caughtUp(2)
		b.stop(r)
		for p := range int32(2) {
			b.inOrder(p, 100, 110)
		}
	})
}

// Two members begin with a group, and one has committed its partition before the other one knows where its own starts. It
// leaves, and who takes the partition over does not take it for newer than the group.
func TestStartOfWhoIsSlower(t *testing.T) {
	for _, serverSide := range []bool{false, true} {
		t.Run(fmt.Sprintf("server side %t", serverSide), func(t *testing.T) {
			virtual(t, 2, func(b *bed) {
				b.produceToAll(2, 0, 100)
				refused := []*kfake.FaultHandle{b.hideStart(0), b.hideStart(1)}
				opts := b.options()
				opts.Source.Start = processor.Start{End: true}
				opts.Source.ServerSide = serverSide
				members := []*running{b.run(opts, processor.TransformFunc(passOn)), b.run(opts, processor.TransformFunc(passOn))}
				owner := func(p int32) int {
					for i, r := range members {
						if r != nil && slices.ContainsFunc(b.status(r).Partitions, func(s processor.PartitionStatus) bool { return s.Partition == p }) {
							return i
						}
					}
					return -1
				}
				b.eventually("each has a partition", func() bool { return owner(0) >= 0 && owner(1) >= 0 && owner(0) != owner(1) })
				refused[0].Remove()
				b.eventually("the start of one is committed", func() bool { return b.committed(0) == 100 })
				slower := owner(1)
				b.stop(members[slower])
				members[slower] = nil
				b.eventually("it is taken over", func() bool { return owner(1) == 1-slower })
				refused[1].Remove()
				b.caughtUp(2)
				b.produceToAll(2, 100, 110)
				b.caughtUp(2)
				b.stop(members[1-slower])
				for p := range int32(2) {
					b.inOrder(p, 100, 110)
				}
			})
		})
	}
}

// An output is there as soon as its record is, not when some timer says so.
func TestOutputsLeaveAtOnce(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		r := b.run(b.options(), processor.TransformFunc(passOn))
		b.produce("in", 0, 0, 1)
		b.caughtUp(1)
		began := time.Now()
		b.write(&kgo.Record{Topic: "in", Value: []byte("1")}) // lingers 10 ms itself
		b.step = time.Millisecond
		b.eventually("the output is there", func() bool { return b.end("out", 0) == 2 })
		if took := time.Since(began); took > 15*time.Millisecond {
			b.t.Errorf("it took %v", took)
		}
		b.stop(r)
	})
}

// The first outputs are sent as soon as the producer knows their topic, which it is told
// to get to know by being handed them.
func TestFirstOutputsLeaveAtOnce(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		b.produce("in", 0, 0, 10)
		began := time.Now()
		r := b.run(b.options(), processor.TransformFunc(passOn))
		b.step = time.Millisecond
		b.eventually("the outputs are there", func() bool { return b.end("out", 0) == 10 })
		if took := time.Since(began); took > 100*time.Millisecond {
			b.t.Errorf("it took %v", took)
		}
		b.stop(r)
	})
}

// A pipeline whose output topic has fewer partitions than its source refuses to
// start, says what mends it, and has emitted and committed nothing.
func TestTooFewPartitionsAtStart(t *testing.T) {
	for name, exactlyOnce := range map[string]bool{"at least once": false, "exactly once": true} {
		t.Run(name, func(t *testing.T) {
			virtual(t, 3, func(b *bed) {
				b.create("few", 2, nil)
				b.produceToAll(3, 0, 50)
				opts := b.options()
				opts.ExactlyOnce, opts.Output.Topic = exactlyOnce, "few"
				r := b.run(opts, processor.TransformFunc(passOn))
				b.eventually("it ends", func() bool { return b.status(r).State == "stopped" })
				err := r.stop()
				var refused *processor.PartitionsError
				if !errors.As(err, &refused) || refused.Have != 2 || refused.Want != 3 || !strings.Contains(err.Error(), "--alter --topic few --partitions 3") {
					b.t.Fatalf("Run returned %v, want a PartitionsError of 2 and 3 with the command", err)
				}
				for p := range int32(3) {
					if got := b.committed(p); got > 0 {
						b.t.Errorf("partition %d is committed at %d, want nothing", p, got)
					}
				}
				for p := range int32(2) {
					if got := len(b.values("few", p)); got > 0 {
						b.t.Errorf("partition %d has %d outputs, want none", p, got)
					}
				}

				if _, err := kadm.NewClient(b.own).CreatePartitions(context.Background(), 1, "few"); err != nil {
					b.t.Fatal(err)
				}
				b.forget()
				r = b.run(opts, processor.TransformFunc(passOn))
				b.caughtUp(3)
				b.stop(r)
			})
		})
	}
}
