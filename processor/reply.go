package processor

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/journal"
	"seriatim/internal/seeded"
	"seriatim/resequence"
)

// A replyLog stores results in the state topic that wait behind the head of their partition,
// so that whoever gets the partition after a crash, or a rebalance, emits them without
// another call. The head is not stored, and neither is what waits only for a moment: between
// parallel attempts most records do.
type replyLog struct {
	armed bool // a timer is set

	stored, skipped, reused uint64
}

const (
	// replyAfter is how long a result has waited when it is stored.
	replyAfter = 100 * time.Millisecond
	// mostReply bounds a stored result.
	mostReply = 1 << 20
)

// storeLater has the result of a record stored if it waits for long.
func (l *loop) storeLater(t *tenure, seq resequence.Seq) {
	if !l.opts.ReplyLog || seq == t.released() {
		return
	}
	t.memory.finished = append(t.memory.finished, seq)
	if !l.replies.armed {
		l.replies.armed = true
		l.at(l.now.Add(replyAfter), l.store)
	}
}

// store stores what has waited for long enough.
func (l *loop) store() {
	l.replies.armed = false
	for _, t := range l.tenures {
		l.storeOf(t, replyAfter)
		if len(t.memory.finished) > 0 && !l.replies.armed {
			l.replies.armed = true
			l.at(l.now.Add(replyAfter/2), l.store)
		}
	}
}

// storeOf stores what of t has waited for that long.
func (l *loop) storeOf(t *tenure, least time.Duration) {
	m := t.memory
	n := 0
	for ; n < len(m.finished); n++ {
		seq := m.finished[n]
		s := t.window.Slot(seq)
		if seq < t.released() || s == nil || s.state != complete {
			continue
		}
		if l.age(s.finished) < least {
			break
		}
		l.storeReply(t, s)
	}
	if m.finished = m.finished[n:]; len(m.finished) == 0 {
		m.finished = nil
	}
}

func (l *loop) storeReply(t *tenure, s *slot) {
	size := int64(0)
	for o := s.outputs; o != nil; o = o.next {
		size += recordSize(&o.record)
	}
	limit := min(int64(l.stateLog.sink.maxBytes), mostReply)
	if t.memory.fenced || size > limit || l.stateLog.crowded() {
		l.replies.skipped++
		return
	}
	reply := journal.Reply{Generation: t.memory.generation, TopicID: t.idText(), Epoch: &s.record.LeaderEpoch, Outputs: make([]journal.Output, 0, s.pending)}
	for o := s.outputs; o != nil; o = o.next {
		out := journal.Output{Key: o.record.Key, Value: o.record.Value, Timestamp: o.record.Timestamp.UnixMilli()}
		for _, h := range o.record.Headers {
			out.Headers = append(out.Headers, journal.Header{Name: []byte(h.Key), Value: h.Value})
		}
		reply.Outputs = append(reply.Outputs, out)
	}
	value := journal.Encode(reply)
	if int64(len(value))+recordOverhead > limit {
		l.replies.skipped++
		return
	}
	l.replies.stored++
	l.write("reply", t.ownKey(l, s.record.Offset, journal.KindReply), value, nil)
}

// boundReplies keeps no more of the results that were read, and whose records are still to come, than
// Window.Bytes: an instance may get the partitions of many others, which held that much each.
func (l *loop) boundReplies(t *tenure, r *journal.Record) {
	l.budget.account(t)
	if k := t.memory.Records[r.Offset]; k != nil && k.Reply != nil && l.budget.replies > l.budget.limit {
		t.memory.TakeReply(k)
		l.replies.skipped++
		l.budget.account(t)
	}
}

// reuse completes a record with a result that was stored.
func (l *loop) reuse(t *tenure, seq resequence.Seq, reply *journal.Reply) {
	var first, last *output
	for i := range reply.Outputs {
		r := &reply.Outputs[i]
		o := &output{tenure: t, seq: seq, of: int32(len(reply.Outputs))}
		o.record = kgo.Record{Topic: t.output, Partition: t.partition, Key: r.Key, Value: r.Value, Timestamp: time.UnixMilli(r.Timestamp), Context: o}
		for _, h := range r.Headers {
			o.record.Headers = append(o.record.Headers, kgo.RecordHeader{Key: string(h.Name), Value: h.Value})
		}
		if first == nil {
			first = o
		} else {
			last.next = o
		}
		last = o
	}
	if first == nil {
		t.filtered++
	}
	l.replies.reused++
	if seeded.Bug("stored-reply-filters") {
		first = nil
	}
	l.fillWith(t, seq, first)
}
