package processor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/seeded"
	"seriatim/resequence"
)

// emit hands the outputs of released records to the producer, in order, and
// settles records that have none. All outputs of a turn of the loop are handed over
// before any of them is sent.
func (l *loop) emit(t *tenure) {
	if t.refused != nil || t.phase == closed || t.sink == nil || l.txn != nil && t.gone() {
		return
	}
	promise := l.acks.promise // bound once: each time is an allocation
	end := t.emittable()
	from := t.emitNext // the records of [from, t.emitNext) have no outputs and are to be settled
	for ; t.emitNext < end && t.phase != closed; t.emitNext++ {
		s := t.window.Slot(t.emitNext)
		if s.state == settled { // before the producer refused an earlier one
			l.settleRun(t, from, t.emitNext)
			from = t.emitNext + 1
			continue
		}
		if !l.acceptable(t, s, t.emitNext) {
			break
		}
		if s.pending == 0 {
			s.state = settled
			continue
		}
		l.settleRun(t, from, t.emitNext)
		from = t.emitNext + 1
		if l.txn != nil && !l.join(t) {
			return
		}
		if !l.direct(t, s) {
			return // until the answers have come
		}
		for o := s.outputs; o != nil; o = o.next {
			if o.acked {
				continue
			}
			if o.lane != nil {
				o.lane.take(o)
			}
			if !o.emitted {
				o.emitted = true
				t.emitted++
			}
			l.handedOver = true
			t.inFlight++
			if seeded.Bug("settled-before-ack") {
				l.acks.promise(&o.record, nil)
				promise = nil
			}
			l.producer.Produce(context.Background(), &o.record, promise)
		}
	}
	l.settleRun(t, from, t.emitNext)
}

// direct finds where the outputs of a record go, and reports whether they may go there
// now: all or none, because the next call begins with the first one again.
func (l *loop) direct(t *tenure, s *slot) bool {
	for o := s.outputs; o != nil; o = o.next {
		if o.acked {
			continue
		}
		sink := t.sinkOf(o)
		o.record.Partition = sink.partitionOf(o, l.opts.Output.ByKey)
		if l.txn == nil {
			o.lane = sink.lanes[o.record.Partition]
			if !o.lane.open() {
				return false
			}
		}
	}
	return true
}

// sinkOf is the topic that an output goes to; nil until it has been seen.
func (t *tenure) sinkOf(o *output) *sink {
	if o.dead {
		return t.deadSink
	}
	return t.sink
}

// partitionOf is where an output goes: to the partition of its source, or by its
// key to where Java clients would send it.
func (s *sink) partitionOf(o *output, byKey bool) int32 {
	switch source := o.tenure.partition; {
	case !byKey && !o.dead:
		return source
	case o.dead || o.record.Key == nil:
		return source % int32(s.partitions)
	default:
		return int32(byHash.Partition(&o.record, s.partitions))
	}
}

// byHash has no state as far as records with a key go.
var byHash = kgo.StickyKeyPartitioner(nil).ForTopic("")

func (l *loop) settleRun(t *tenure, lo, hi resequence.Seq) {
	if lo < hi && t.phase != closed && !seeded.Bug("filtered-never-settles") {
		l.settle(t, lo, hi)
	}
}

// send has the producer send what was handed over in this turn of the loop. It
// would not wait, but sending begins with the first output it gets, and the rest
// would follow in another batch.
func (l *loop) send() {
	if l.handedOver {
		l.handedOver = false
		_ = l.producer.Flush(over) // sends and, as its context has ended, waits for nothing
	}
}

// over is a context that has ended.
var over = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// linger is how long the producer would wait by itself for more outputs: longer than
// most turns of the loop, which end the waiting. It alone sends the first outputs to a
// topic that the producer had to get to know, and so has not sent when it was told.
const linger = 5 * time.Millisecond

// acks carries the producer's answers to the loop. Answers of consecutive records
// are one entry, so that at full speed the loop handles runs.
type acks struct {
	wake    chan struct{} // has room for one
	refused atomic.Bool   // an output, since the transaction was opened

	mu      sync.Mutex
	entries []ack
	waiting int       // in Done
	more    sync.Cond // told of each answer while somebody waits
}

func newAcks() *acks {
	a := &acks{wake: make(chan struct{}, 1)}
	a.more.L = &a.mu
	return a
}

// An ack is the answer for the only outputs of the records [lo, hi), or for one
// of several outputs of the record lo.
type ack struct {
	tenure *tenure
	lo, hi resequence.Seq
	single bool    // each record has one output
	failed *output // nil: acknowledged
	err    error
}

// promise is called by the producer for each output, by one goroutine at a time.
func (a *acks) promise(r *kgo.Record, err error) {
	o := r.Context.(*output)
	o.acked = err == nil
	if err != nil {
		a.refused.Store(true)
	}
	a.mu.Lock()
	if o.lane != nil {
		o.lane.answer(err)
		if a.waiting > 0 {
			a.more.Broadcast()
		}
	}
	wake := len(a.entries) == 0
	if n := len(a.entries); n > 0 && err == nil && o.of == 1 && a.entries[n-1].extends(o) {
		a.entries[n-1].hi++
	} else {
		e := ack{tenure: o.tenure, lo: o.seq, hi: o.seq + 1, single: o.of == 1, err: err}
		if err != nil {
			e.failed = o
		}
		a.entries = append(a.entries, e)
	}
	a.mu.Unlock()
	if wake {
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}
}

// extends reports whether o is the next after a run of acknowledged records.
func (a *ack) extends(o *output) bool {
	return a.single && a.err == nil && a.tenure == o.tenure && a.hi == o.seq
}

// take returns what has come and lends spare for what comes next.
func (a *acks) take(spare []ack) []ack {
	a.mu.Lock()
	defer a.mu.Unlock()
	entries := a.entries
	a.entries = spare
	return entries
}

// answer settles the records whose outputs the producer has answered.
func (l *loop) answer() {
	entries := l.acks.take(l.spareAcks[:0])
	refused := false
	for i := range entries {
		e := &entries[i]
		t := e.tenure
		if t.phase == closed {
			continue
		}
		t.inFlight -= int(e.hi - e.lo)
		if e.err != nil {
			refused = true
			l.refuse(t, e.failed, e.err)
		} else {
			l.acknowledged(t, e.lo, e.hi)
		}
		if (i+1 == len(entries) || entries[i+1].tenure != t) && t.refused != nil && t.inFlight == 0 && l.txn == nil {
			l.emitAgain(t)
		}
	}
	if refused {
		l.emitAll() // others may have waited for a lane to open
	}
	clear(entries)
	l.spareAcks = entries
}

// acknowledged settles those of [lo, hi) that have no output left to wait for.
func (l *loop) acknowledged(t *tenure, lo, hi resequence.Seq) {
	for seq := lo; seq < hi; seq++ {
		s := t.window.Slot(seq)
		if s.pending--; s.pending > 0 && !seeded.Bug("first-ack-settles") { // of several outputs: lo is the only record
			return
		}
		if l.txn == nil { // else the transaction's commit settles it
			s.state = settled
		}
	}
	if t.refused == nil {
		t.refusals = 0
	}
	if l.txn == nil {
		l.settle(t, lo, hi)
	}
}

// refuse notes that the producer gave an output up.
func (l *loop) refuse(t *tenure, o *output, err error) {
	if errors.Is(err, kgo.ErrClientClosed) {
		return // the pipeline ends
	}
	if errors.Is(err, errOvertaking) && t.refused != nil {
		return
	}
	if t.refused == nil {
		t.refusedSince = l.now
		t.refusals++
		level := slog.LevelWarn
		if t.refusals > 1 {
			level = slog.LevelDebug // the status tells that it goes on
		}
		l.log.Log(context.Background(), level, "an output was refused; it is emitted again", "topic", t.topic, "partition", t.partition,
			"offset", t.window.Slot(o.seq).record.Offset, "output", o.record.Topic, "err", err)
	}
	t.refused, t.refusedBy = err, o.record.Topic
	if l.txn != nil {
		l.txn.refused = err
	}
	if errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.InvalidRecord) {
		// One record has its whole batch refused. If it is this one, it is found when
		// it is emitted again, and the topic's limits are known as they are now.
		l.hurry()
		if t.refusals > maxRefusals || l.txn != nil && l.txn.aborts > maxRefusals {
			l.unacceptable(t, o, err)
		}
	}
}

// maxRefusals is how many times in a row a topic may refuse outputs for what they
// are before the partition stops.
const maxRefusals = 3

// acceptable reports whether the topics take every output of a record that comes
// next. If one cannot be taken ever, the record is exhausted: it may get other
// outputs, or none.
func (l *loop) acceptable(t *tenure, s *slot, seq resequence.Seq) bool {
	for o := s.outputs; o != nil; o = o.next {
		sink := t.sinkOf(o)
		if sink == nil {
			return false // told by the watcher
		}
		err := sink.refuses(&o.record)
		switch {
		case o.acked || err == nil:
		case l.opts.OnExhausted == Stop:
			l.unacceptable(t, o, err)
			return false
		case o.dead:
			s.remember(l.now, fmt.Errorf("%s does not take it: %w", o.record.Topic, err))
			l.bar(t, seq, "has nowhere to go", false)
			return false
		default:
			s.remember(l.now, fmt.Errorf("%s does not take its output: %w", o.record.Topic, err))
			if l.opts.OnExhausted == Hold || l.diverts(s, reasonOutput) {
				l.bar(t, seq, "has an output that its topic does not take", l.opts.OnExhausted != Hold)
				return false
			}
			s.outputs, s.pending = l.instead(t, seq, reasonOutput, "has an output that its topic does not take"), 0
			if s.outputs != nil {
				s.pending = 1
			}
			return l.acceptable(t, s, seq)
		}
	}
	return true
}

// refuses says why the topic can never take a record; nil if it can.
func (s *sink) refuses(r *kgo.Record) error {
	if size := batchSize(r); size > s.maxBytes {
		return fmt.Errorf("it has %d bytes, the topic's max.message.bytes is %d: raise that or mend the transform", size, s.maxBytes)
	}
	if s.compacted && r.Key == nil {
		return errors.New("it has no key, which a compacted topic needs: mend the transform, or the topic's cleanup.policy")
	}
	return nil
}

// batchSize is the most bytes that a batch with the record alone takes: 61 for the
// batch, and the longest forms of the numbers in a record.
func batchSize(r *kgo.Record) int {
	n := 61 + 32 + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += 10 + len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return n
}

// unacceptable stops the partition before an output that would be refused for good.
func (l *loop) unacceptable(t *tenure, o *output, err error) {
	l.stop(t, o.seq, fmt.Sprintf("%s does not take an output of the record at offset %d: %v; then restart this instance",
		o.record.Topic, t.window.Slot(o.seq).record.Offset, err))
}

// firstReemit and lastReemit bound the wait before refused outputs are emitted
// again: what refuses them is the deployment (a missing permission, a missing
// topic), which a person has to mend.
const (
	firstReemit = 100 * time.Millisecond
	lastReemit  = 10 * time.Second
)

// emitAgain emits again what the producer refused, once all that was in flight is
// answered.
func (l *loop) emitAgain(t *tenure) {
	wait := min(firstReemit<<min(t.refusals-1, 10), lastReemit)
	l.at(l.now.Add(wait), func() {
		if t.phase == closed || t.refused == nil || t.inFlight > 0 {
			return
		}
		t.refused = nil
		t.emitNext = resequence.Seq(t.tracker.Settled())
		l.emit(t)
	})
}
