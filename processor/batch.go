package processor

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/resequence"
)

// Batch says how records are gathered for a [BatchTransform]: consecutive ones of one
// partition, in one call. Without Records there are no batches.
type Batch struct {
	Records int           // the most in one call, up to MaxBatch
	Wait    time.Duration // how long a record waits for others to come; 0 takes those that are there
	Bytes   int64         // keys, values and headers of a call, unless one record has more; 8 MiB
}

// MaxBatch is the most records of a batch.
const MaxBatch = 10000

// A BatchTransform is a [Transform] that can take several records at once, as
// Options.Batch says: of one partition, in the order of their offsets.
//
// TransformBatch makes one attempt at each of them. What is said of Transform holds: it
// is called from many goroutines at once, also with records of one partition, and
// returns soon after ctx ends. It gives every record its [Item.Answer]. Those that have
// none when it returns share its error, or, if that is nil, are to be tried again: any
// one of them may be the reason. Therefore they go into smaller batches, and none is
// exhausted by a failure that it shared.
type BatchTransform interface {
	Transform
	TransformBatch(ctx context.Context, items []Item) error
}

// An Item is one record of a batch. It belongs to the call and must not be kept; its
// methods are for one goroutine at a time, those of other items of the call included.
type Item struct {
	Input
	Outputs

	answered bool
	err      error
}

// Answer ends the attempt at the record: with a nil error it is complete, with the
// outputs that were added. Any other error fails it, as that of Transform does. The
// first answer counts; Answer reports whether this one was it.
func (i *Item) Answer(err error) bool {
	if i.answered {
		return false
	}
	i.answered, i.err = true, err
	return true
}

// Answered reports whether the record has its answer.
func (i *Item) Answered() bool { return i.answered }

var errUnanswered = errors.New("the call left the record without an answer")

// runBatch runs all attempts of a chunk in one call.
func (c *chunk) runBatch(transform BatchTransform, opts *Options) {
	c.slab.reset(len(c.attempts))
	for i := range c.attempts {
		a := &c.attempts[i]
		c.items = append(c.items, Item{Input: c.input(a, opts), Outputs: Outputs{in: a.record, slab: &c.slab}})
	}
	began := time.Now()
	err := callBatch(c.ctx, transform, c.items)
	c.took = time.Since(began)
	for i := range c.attempts {
		a, item := &c.attempts[i], &c.items[i]
		a.ran = true
		if a.err = item.err; !item.answered {
			a.err, a.shared = err, true
			c.suspects++
		}
		if a.err == nil {
			c.result(a, &item.Outputs, opts)
		}
	}
	clear(c.items)
	c.items = c.items[:0]
}

// callBatch is call for a batch. Its error is for the records without an answer.
func callBatch(ctx context.Context, transform BatchTransform, items []Item) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		} else if err == nil {
			err = errUnanswered
		}
	}()
	return transform.TransformBatch(ctx, items)
}

// A BatchResult is what [CallBatch] returns of one record.
type BatchResult struct {
	Outputs []*kgo.Record
	Err     error
	Shared  bool // the record was left without an answer, and the error is that of the call
}

// CallBatch runs one call with a batch as a pipeline would, for tests of transforms.
func CallBatch(ctx context.Context, transform BatchTransform, ins []Input) []BatchResult {
	items := make([]Item, len(ins))
	for i, in := range ins {
		items[i] = Item{Input: in, Outputs: Outputs{in: in.Record, slab: new(slab)}}
	}
	err := callBatch(ctx, transform, items)
	results := make([]BatchResult, len(ins))
	for i := range items {
		item, r := &items[i], &results[i]
		if r.Err, r.Shared = item.err, !item.answered; r.Shared {
			r.Err = err
		}
		for o := item.head; o != nil && r.Err == nil; o = o.next {
			r.Outputs = append(r.Outputs, &o.record)
		}
	}
	return results
}

// payload is what a record counts against Batch.Bytes.
func payload(r *kgo.Record) int64 { return recordSize(r) - recordOverhead }

// fresh is the oldest record of t that was never dispatched and waits for that, if there is one.
// Control records and those with a history (a stored reply, a trial) go other ways.
func (t *tenure) fresh() resequence.Seq {
	t.next = max(t.next, resequence.Seq(t.tracker.Settled()))
	for s := t.window.Slot(t.next); s != nil && s.state != waiting; s = t.window.Slot(t.next) {
		t.next++
	}
	return t.next
}

// ready reports whether the next batch of t is not to wait for more records: it is
// full, or has waited for long enough, or no others can come before it is done.
func (s *scheduler) ready(t *tenure) bool {
	if len(t.due) > 0 && t.due[0] < t.stopAt {
		return true
	}
	first := t.fresh()
	if first < t.ripe || t.window.Next() >= t.stopAt || t.freshBytes >= s.batch.Bytes ||
		t.window.Next()-first >= resequence.Seq(s.batch.Records) {
		return true
	}
	noRoom := len(t.spill) > 0 || !t.window.Fits(1)
	return noRoom && t.window.Len() == int(t.window.Next()-first)
}

// gather puts the next records of its tenure into c, most of them at the most, and none
// that is older than maxAge.
func (s *scheduler) gather(c *chunk, most int, maxAge time.Duration, nanos int64) {
	t, room := c.tenure, s.batch.Bytes
	add := func(seq resequence.Seq) bool {
		slot := t.window.Slot(seq)
		size := payload(slot.record)
		if slot.company > 0 {
			most = min(most, int(slot.company))
		}
		if len(c.attempts) > 0 && (len(c.attempts) >= most || size > room) {
			return false
		}
		if s.add(c, seq, maxAge, nanos) {
			room -= size
		}
		return true
	}
	if len(t.due) > 0 && t.due[0] < t.stopAt {
		n := 0
		for n < len(t.due) && t.due[n] < t.stopAt && add(t.due[n]) {
			n++
		}
		t.due = t.due[n:]
		return
	}
	for end := min(t.window.Next(), t.stopAt); t.fresh() < end; t.next++ {
		if !add(t.next) {
			return
		}
		t.freshBytes -= payload(t.window.Slot(t.next).record)
	}
}

// ripen sees to it that no record of t waits for a fuller batch for longer than
// Batch.Wait. It is called after anything that has admitted or dispatched fresh records.
func (l *loop) ripen(t *tenure) {
	if l.opts.Batch.Records == 0 || t.ripening || t.phase != open || t.tracker == nil {
		return
	}
	first := t.window.Slot(t.fresh())
	if first == nil || t.fresh() < t.ripe {
		return
	}
	t.ripening = true
	l.at(l.epoch.Add(time.Duration(first.admitted)+l.opts.Batch.Wait), func() {
		t.ripening = false
		if t.phase != open {
			return
		}
		if first := t.window.Slot(t.fresh()); first != nil && l.age(first.admitted) >= l.opts.Batch.Wait {
			t.ripe = t.fresh() + 1
			l.sched.want(t)
		}
		l.ripen(t)
	})
}
