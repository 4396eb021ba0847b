//go:build synctests

package processor_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// outputsOf is how many outputs spread makes of the record at offset: every
// seventh has none, others up to three.
func outputsOf(offset int64) int {
	if offset%7 == 0 {
		return 0
	}
	return 1 + int(offset%3)
}

// spread makes outputs with the values "offset.1", "offset.2" ...
func spread(_ context.Context, in processor.Input, out *processor.Outputs) error {
	for i := range outputsOf(in.Offset) {
		out.Add(fmt.Appendf(nil, "%d.%d", in.Offset, i+1))
	}
	return nil
}

// spreadInOrder fails the test unless the partition of "out" has what spread makes
// of the records at 0..to-1, each once, in order, and unless each commit came when
// all outputs of the records before it were there.
func (b *bed) spreadInOrder(partition int32, to int, commits *commitLog) {
	b.t.Helper()
	var want []string
	ends := []int64{0} // of the output after each record
	for offset := range int64(to) {
		for i := range outputsOf(offset) {
			want = append(want, fmt.Sprintf("%d.%d", offset, i+1))
		}
		ends = append(ends, int64(len(want)))
	}
	got := b.values("out", partition)
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			b.t.Errorf("partition %d has %d outputs, want %d; from number %d on %v, want %v", partition, len(got), len(want), i, got[i:min(i+5, len(got))], want[i:min(i+5, len(want))])
			break
		}
	}
	for _, s := range commits.all() {
		if at, ok := s.offsets[partition]; ok && s.outEnds[partition] < ends[at] {
			b.t.Errorf("%v: partition %d was committed at %d with %d outputs, want at least %d", s.at, partition, at, s.outEnds[partition], ends[at])
		}
	}
}

// Whatever the broker answers to produce requests for a while, nothing is lost,
// repeated or overtaken, and no commit passes an output that is not there.
func TestRefusedOutputsKeepOrder(t *testing.T) {
	produce := []kmsg.Key{kmsg.Produce}
	passing := func(err *kerr.Error) func(b *bed, n int) (end func()) {
		return func(b *bed, n int) func() {
			return b.cluster.Fault(kfake.Fault{Keys: produce, Topic: "out", Err: err, Count: n}).Remove
		}
	}
	lasting := func(err *kerr.Error, partitions ...int32) func(b *bed, n int) (end func()) {
		return func(b *bed, _ int) func() {
			return b.cluster.Fault(kfake.Fault{Keys: produce, Topic: "out", Partitions: partitions, Err: err, Count: -1}).Remove
		}
	}
	for _, test := range []struct {
		what  string
		begin func(b *bed, n int) (end func())
	}{
		{"not allowed", lasting(kerr.TopicAuthorizationFailed)},
		{"not allowed for a moment", passing(kerr.TopicAuthorizationFailed)},
		{"one partition not allowed", lasting(kerr.TopicAuthorizationFailed, 1)},
		{"unknown error", passing(kerr.UnknownServerError)},
		{"unknown error for long", lasting(kerr.UnknownServerError)},
		{"not enough replicas", passing(kerr.NotEnoughReplicas)},
		{"not enough replicas for long", lasting(kerr.NotEnoughReplicas)},
		{"not enough replicas after it was appended", passing(kerr.NotEnoughReplicasAfterAppend)},
		{"timed out after it was appended", passing(kerr.RequestTimedOut)},
		{"another leader", passing(kerr.NotLeaderForPartition)},
		{"unknown topic", passing(kerr.UnknownTopicOrPartition)},
		{"disk trouble", passing(kerr.KafkaStorageError)},
		{"out of sequence", passing(kerr.OutOfOrderSequenceNumber)},
		{"cut connections", func(b *bed, n int) func() {
			out := b.cluster.TopicInfo("out").TopicID
			for range n {
				b.cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
					if r.(*kmsg.ProduceRequest).Topics[0].TopicID != out {
						return nil, nil, false
					}
					return nil, errors.New("cut"), true
				})
			}
			return func() {}
		}},
	} {
		t.Run(test.what, func(t *testing.T) {
			plans(t, 3, func(t *testing.T, rng *rand.Rand) {
				const partitions = 2
				virtual(t, partitions, func(b *bed) {
					commits := b.watchCommits()
					opts := b.options()
					opts.Window.Records = 16 + rng.IntN(200)
					r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
						<-time.After(time.Duration(in.Offset%5) * time.Millisecond)
						return spread(ctx, in, out)
					}))
					produced := 0
					for range 6 {
						end := func() {}
						if rng.IntN(3) > 0 {
							end = test.begin(b, 1+rng.IntN(4))
						}
						n := 1 + rng.IntN(80)
						b.produceToAll(partitions, produced, produced+n)
						produced += n
						<-time.After(upTo(rng, 10*time.Second))
						end()
					}
					b.caughtUp(partitions)
					b.stop(r)
					for p := range int32(partitions) {
						b.spreadInOrder(p, produced, commits)
					}
				})
			})
		})
	}
}

// A partition whose outputs are refused says why; others go on, and it goes on by
// itself when the reason is gone.
func TestRefusedOutputsHoldTheirPartitionAlone(t *testing.T) {
	virtual(t, 2, func(b *bed) {
		commits := b.watchCommits()
		r := b.run(b.options(), processor.TransformFunc(spread))
		b.produceToAll(2, 0, 20)
		b.caughtUp(2)
		refusal := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "out", Partitions: []int32{0}, Err: kerr.TopicAuthorizationFailed, Count: -1})
		b.produce("in", 0, 20, 50)
		b.produce("in", 1, 20, 50)
		b.eventually("the other partition goes on", func() bool { return b.committed(1) == 50 })
		<-time.After(time.Minute)
		if at := b.committed(0); at > 22 { // 21 has no output
			b.t.Errorf("the refused partition is committed at %d", at)
		}
		if reason := b.problem(r, "in/0"); !strings.Contains(reason, "TOPIC_AUTHORIZATION_FAILED") || !strings.Contains(reason, "grant this user") {
			b.t.Errorf("the problem of the partition is %q", reason)
		}
		if reason := b.problem(r, "in/1"); reason != "" {
			b.t.Errorf("the other partition has the problem %q", reason)
		}
		refusal.Remove()
		began := time.Now()
		b.caughtUp(2)
		if took := time.Since(began); took > 11*time.Second {
			b.t.Errorf("it took %v to emit again what is no longer refused", took)
		}
		if s := b.status(r); len(s.Problems) != 0 {
			b.t.Errorf("problems are %v, want none", s.Problems)
		}
		b.stop(r)
		for p := range int32(2) {
			b.spreadInOrder(p, 50, commits)
		}
	})
}

// Of several outputs of one record only those that were refused are emitted again,
// and the record is committed after the last of them.
func TestPartlyRefusedRecord(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		commits := b.watchCommits()
		var first kmsg.Request // each output is a request of its own
		refusal := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "out", Err: kerr.TopicAuthorizationFailed, Count: -1, When: func(r kmsg.Request) bool {
			if first == nil {
				first = r
			}
			return r != first
		}})
		large := make([]byte, 900<<10)
		r := b.run(b.options(), processor.TransformFunc(func(_ context.Context, in processor.Input, out *processor.Outputs) error {
			for i := range 3 {
				out.Add(append(fmt.Appendf(nil, "%d.%d ", in.Offset, i+1), large...))
			}
			return nil
		}))
		b.produce("in", 0, 0, 2)
		b.eventually("a record is partly acknowledged", func() bool { return b.end("out", 0) == 1 && b.problem(r, "in/0") != "" })
		<-time.After(time.Minute)
		if at := b.committed(0); at != 0 {
			b.t.Errorf("partition is committed at %d, want 0", at)
		}
		refusal.Remove()
		b.caughtUp(1)
		b.stop(r)
		var got []string
		for _, v := range b.values("out", 0) {
			got = append(got, strings.Fields(v)[0])
		}
		if want := []string{"0.1", "0.2", "0.3", "1.1", "1.2", "1.3"}; !slices.Equal(got, want) {
			b.t.Errorf("the output is %v, want %v", got, want)
		}
		for _, s := range commits.all() {
			if s.offsets[0]*3 > s.outEnds[0] {
				b.t.Errorf("committed at %d with %d outputs", s.offsets[0], s.outEnds[0])
			}
		}
	})
}
