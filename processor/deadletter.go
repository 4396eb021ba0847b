package processor

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/seeded"
	"seriatim/resequence"
)

// OnExhausted says what becomes of a record that shall not be attempted again:
// its attempts are used up, or the transform has rejected it.
type OnExhausted uint8

const (
	// Hold has the partition wait at the record until a person decides: see
	// [Pipeline.Decide].
	Hold OnExhausted = iota
	// Stop stops the partition at the record until it is assigned anew.
	Stop
	// DeadLetter emits the record to Options.DeadLetterTopic in place of its
	// outputs; it settles when that is acknowledged. One that the topic does not take
	// is held.
	DeadLetter
	// Drop logs and counts the record and settles it without an output.
	Drop
)

// failures are what a slot remembers of failed attempts.
type failures struct {
	first, last time.Time
	err         error // of the last one
}

// reason is why a record is exhausted, as dead_letters_total tells it.
type reason uint8

const (
	reasonAttempts reason = iota
	reasonReject
	reasonOutput // its topic does not take an output of it
	reasonMaxAge
	reasons
)

func (r reason) String() string { return [reasons]string{"attempts", "reject", "output", "max_age"}[r] }

// exhausted decides about a record that shall not be attempted again.
func (l *loop) exhausted(t *tenure, seq resequence.Seq, why reason, what string) {
	s := t.window.Slot(seq)
	if l.opts.OnExhausted == Stop {
		s.state = backoff
		l.forgive(t, s)
		l.stop(t, seq, "the record at offset "+strconv.FormatInt(s.record.Offset, 10)+" "+what+": "+s.failed.err.Error()+
			": mend the transform or the record, then restart this instance")
		return
	}
	if l.opts.OnExhausted == Hold || l.diverts(s, why) {
		l.hold(t, seq, why, what, l.now, l.opts.OnExhausted != Hold)
		return
	}
	switch o := l.instead(t, seq, why, what); {
	case o != nil && seeded.Bug("dead-letter-not-awaited"):
		l.producer.Produce(o, &o.record, nil)
		l.fillWith(t, seq, nil)
	default:
		l.fillWith(t, seq, o)
	}
}

// fillWith completes a record with outputs that its attempt has not made, or none.
func (l *loop) fillWith(t *tenure, seq resequence.Seq, first *output) {
	n, bytes := int32(0), int64(0)
	for o := first; o != nil; o = o.next {
		n++
		bytes += o.size()
	}
	l.fill(t, seq, first, n, recordSize(t.window.Slot(seq).record), bytes)
}

// instead returns what is emitted in place of the outputs of an exhausted record:
// a dead letter, or nothing.
func (l *loop) instead(t *tenure, seq resequence.Seq, why reason, what string) *output {
	s := t.window.Slot(seq)
	told := []any{
		"topic", t.topic, "partition", t.partition, "offset", s.record.Offset,
		"attempt", s.begun, "reason", what, "err", s.failed.err,
	}
	if l.opts.OnExhausted == Drop {
		t.dropped++
		l.log.Warn("a record is dropped", told...)
		return nil
	}
	t.deadLetters[why]++
	l.log.Warn("a record goes to the dead-letter topic", told...)
	return l.deadLetter(t, seq, why)
}

// remember keeps a failure.
func (s *slot) remember(now time.Time, err error) {
	if s.failed == nil {
		s.failed = &failures{first: now}
	}
	s.failed.last, s.failed.err = now, err
}

// maxMessage bounds the error text in a dead letter.
const maxMessage = 4096

// deadLetter returns the record as an output to the dead-letter topic: untouched, even if a
// person has replaced its value, but for headers that say where it came from and what went wrong. Those of
// KIP-1191 are what other tools read.
func (l *loop) deadLetter(t *tenure, seq resequence.Seq, why reason) *output {
	s := t.window.Slot(seq)
	r := cmp.Or(s.original, s.record)
	message := strings.ToValidUTF8(s.failed.err.Error(), "\uFFFD")
	message = strings.ToValidUTF8(message[:min(len(message), maxMessage)], "")
	o := &output{tenure: t, seq: seq, of: 1, dead: true}
	o.record = kgo.Record{
		Topic: l.opts.DeadLetterTopic, Key: r.Key, Value: r.Value, Timestamp: r.Timestamp, Context: o,
		Headers: r.Headers[:len(r.Headers):len(r.Headers)],
	}
	for _, h := range [][2]string{
		{"__dlq.errors.topic", r.Topic},
		{"__dlq.errors.partition", strconv.Itoa(int(r.Partition))},
		{"__dlq.errors.offset", strconv.FormatInt(r.Offset, 10)},
		{"__dlq.errors.group", l.opts.Source.Group},
		{"__dlq.errors.delivery.count", strconv.Itoa(int(s.begun))},
		{"__dlq.errors.message", message},
		{"seriatim.pipeline", l.opts.Name},
		{"seriatim.error.kind", why.String()},
		{"seriatim.attempts", strconv.Itoa(int(s.begun))},
		{"seriatim.first.failure", s.failed.first.UTC().Format(time.RFC3339Nano)},
		{"seriatim.last.failure", s.failed.last.UTC().Format(time.RFC3339Nano)},
	} {
		o.record.Headers = append(o.record.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
	}
	return o
}
