//go:build synctests

package processor_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// compacted makes "in" anew as a compacted topic.
func (b *bed) compacted(partitions int32) {
	b.t.Helper()
	compact := "compact"
	if err := b.cluster.DeleteTopic("in"); err != nil {
		b.t.Fatal(err)
	}
	if err := b.cluster.CreateTopic("in", partitions, map[string]string{"cleanup.policy": compact}); err != nil {
		b.t.Fatal(err)
	}
}

// A mixer writes to partition 0 of "in" in ways that leave gaps.
type mixer struct {
	b        *bed
	rng      *rand.Rand
	producer *kgo.Client
	n        int
	aborted  map[string]bool
}

func newMixer(b *bed, rng *rand.Rand) *mixer {
	return &mixer{b: b, rng: rng, producer: b.newClient(kgo.TransactionalID("other"), kgo.RecordPartitioner(kgo.ManualPartitioner())), aborted: make(map[string]bool)}
}

func (m *mixer) records() []*kgo.Record {
	var records []*kgo.Record
	for range 1 + m.rng.IntN(6) {
		key := strconv.Itoa(m.rng.IntN(5)) // of which compaction keeps the last
		records = append(records, &kgo.Record{Topic: "in", Key: []byte(key), Value: []byte(strconv.Itoa(m.n))})
		m.n++
	}
	return records
}

// transaction writes one that is committed or aborted.
func (m *mixer) transaction(how kgo.TransactionEndTry) {
	m.b.t.Helper()
	if err := m.producer.BeginTransaction(); err != nil {
		m.b.t.Fatal(err)
	}
	records := m.records()
	if err := m.producer.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		m.b.t.Fatal(err)
	}
	for _, r := range records {
		m.aborted[string(r.Value)] = how == kgo.TryAbort
	}
	if err := m.producer.EndTransaction(context.Background(), how); err != nil {
		m.b.t.Fatal(err)
	}
}

func (m *mixer) mix() {
	m.b.t.Helper()
	switch m.rng.IntN(4) {
	case 0:
		m.transaction(kgo.TryCommit)
	case 1:
		m.transaction(kgo.TryAbort)
	default:
		m.b.write(m.records()...)
	}
}

// Nobody waits for offsets that no record has: after compaction, aborted
// transactions and markers all that a reader sees is passed on, the end of the log
// is committed and the lag is 0.
func TestGapsAreNotWaitedFor(t *testing.T) {
	plans(t, 10, func(t *testing.T, rng *rand.Rand) {
		virtual(t, 1, func(b *bed) {
			b.compacted(1)
			m := newMixer(b, rng)
			for range 30 {
				m.mix()
			}
			b.cluster.Compact()
			b.write(m.records()...)
			opts := b.options()
			opts.Window.Records = 1 + rng.IntN(20)
			r := b.run(opts, jitter(rng.Uint64(), 50*time.Millisecond))
			for range 30 {
				m.mix()
				<-time.After(upTo(rng, time.Second))
			}
			m.transaction(kgo.TryAbort) // nothing but a marker to end with
			b.caughtUp(1)
			<-time.After(10 * time.Second)
			s := b.status(r).Partitions[0]
			if s.LagRecords != 0 || s.NextOffset != b.end("in", 0) || s.TailWithoutRecords || s.WindowRecords != 0 {
				b.t.Errorf("at the end the partition is %+v, the log ends at %d", s, b.end("in", 0))
			}
			if s.GapOffsets["absent"] == 0 {
				b.t.Error("no gap was counted")
			}
			b.stop(r)
			out := b.values("out", 0)
			last := -1
			for _, v := range out {
				n, err := strconv.Atoi(v)
				if err != nil || n <= last || m.aborted[v] {
					b.t.Errorf("the output has %s after %d, aborted: %v", v, last, m.aborted[v])
				}
				last = n
			}
			for _, v := range b.values("in", 0) { // fewer, if compaction went on meanwhile
				if !slices.Contains(out, v) {
					b.t.Errorf("%s is in the input and not in the output", v)
				}
			}
		})
	})
}

// A transaction that nobody ends holds its readers up, which is said.
func TestOpenTransactionIsNamed(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		producer := b.newClient(kgo.TransactionalID("other"), kgo.TransactionTimeout(15*time.Minute), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err := producer.BeginTransaction(); err != nil {
			b.t.Fatal(err)
		}
		b.produce("in", 0, 0, 5)
		if err := producer.ProduceSync(context.Background(), numbered("in", 0, 5, 7)...).FirstErr(); err != nil {
			b.t.Fatal(err)
		}
		b.produce("in", 0, 7, 10)
		r := b.run(b.options(), processor.TransformFunc(passOn))
		b.eventually("what comes before it is committed", func() bool { return b.committed(0) == 5 })
		<-time.After(time.Minute)
		if reason := b.problem(r, "in/0"); !strings.Contains(reason, "open transaction holds the input at offset 5") {
			b.t.Errorf("the problem of the partition is %q", reason)
		}
		if err := producer.EndTransaction(context.Background(), kgo.TryCommit); err != nil {
			b.t.Fatal(err)
		}
		b.caughtUp(1)
		<-time.After(10 * time.Second)
		if s := b.status(r); len(s.Problems) != 0 || s.Partitions[0].LagRecords != 0 {
			b.t.Errorf("problems are %v, the lag is %d", s.Problems, s.Partitions[0].LagRecords)
		}
		b.inOrder(0, 0, 10)
	})
}

// Compaction can leave offsets at the end of a log that no fetch returns: the lag
// that remains is no stall.
func TestTailWithoutRecordsIsNoStall(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		b.produce("in", 0, 0, 10)
		const end = 14
		b.cluster.ControlKey(int16(kmsg.ListOffsets), func(r kmsg.Request) (kmsg.Response, error, bool) {
			req := r.(*kmsg.ListOffsetsRequest)
			if req.Topics[0].Partitions[0].Timestamp != -1 {
				return nil, nil, false
			}
			b.cluster.KeepControl()
			resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
			for _, t := range req.Topics {
				rt := kmsg.NewListOffsetsResponseTopic()
				rt.Topic = t.Topic
				for _, p := range t.Partitions {
					rp := kmsg.NewListOffsetsResponseTopicPartition()
					rp.Partition, rp.Offset = p.Partition, end
					rt.Partitions = append(rt.Partitions, rp)
				}
				resp.Topics = append(resp.Topics, rt)
			}
			return resp, nil, true
		})
		r := b.run(b.options(), processor.TransformFunc(passOn))
		b.eventually("the tail is seen", func() bool {
			s := b.status(r)
			return len(s.Partitions) == 1 && s.Partitions[0].TailWithoutRecords
		})
		s := b.status(r)
		if p := s.Partitions[0]; p.NextOffset != 10 || p.CommittedOffset != 10 || len(s.Problems) != 0 {
			b.t.Errorf("the partition is %+v, problems are %v", p, s.Problems)
		}
	})
}
