package processor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/journal"
	"seriatim/resequence"
)

// A hold is an exhausted record for which a person has to decide. Its partition goes on
// up to the record and waits there. Without a state topic a hold lives as long as the
// tenure: whoever gets the partition next attempts the record again.
type hold struct {
	since    time.Time
	why      reason
	what     string // in words, after "the record"
	diverted bool   // it is held because the breaker is open
}

// HeldRecord is a record that waits for a decision.
type HeldRecord struct {
	Offset    int64
	Timestamp time.Time
	Key       []byte // must not be changed, as Value
	Value     []byte
	Headers   []kgo.RecordHeader
	Since     time.Time
	Attempts  int
	Note      string // the last one of an attempt
	Reason    string // why it is held
	LastError string
}

// Verdict is what a person decides about a held record.
type Verdict uint8

const (
	// RetryIt attempts the record again, Decision.Attempts times at most.
	RetryIt Verdict = iota
	// SkipIt settles the record without an output.
	SkipIt
	// DeadLetterIt emits the record to Options.DeadLetterTopic.
	DeadLetterIt
	// ReplaceValue attempts the record again with Decision.Value as its value.
	ReplaceValue
	// ReplaceOutput emits Decision.Value as the one output of the record, with the
	// record's key, headers and timestamp.
	ReplaceOutput
	// ReplaceOutputs does the same with each of Decision.Outputs, in their order.
	ReplaceOutputs
)

var verdicts = [...]string{"retry", "skip", "dead_letter", "replace_value", "replace_output", "replace_outputs"}

// String returns the verdict as it is written in logs and requests.
func (v Verdict) String() string { return verdicts[v] }

// ParseVerdict reads what String writes. The error names what is possible.
func ParseVerdict(name string) (Verdict, error) {
	if v := slices.Index(verdicts[:], name); v >= 0 {
		return Verdict(v), nil
	}
	return 0, fmt.Errorf("there is no decision %q; possible are %s", name, strings.Join(verdicts[:], ", "))
}

// A Decision is about one held record.
type Decision struct {
	Topic     string
	Partition int32
	Offset    int64
	Verdict   Verdict
	Attempts  int      // of RetryIt and ReplaceValue; 0 is 1
	Value     []byte   // of ReplaceValue and ReplaceOutput; nil is a null value
	Outputs   [][]byte // of ReplaceOutputs
	Reason    string   // for the log; required
}

// ErrNotHeld is returned for a record that does not wait for a decision here: it was
// decided about, or its partition is with another instance.
var ErrNotHeld = errors.New("the record is not held here")

// Decide takes a decision about a held record. Of several about the same record the
// first one wins; the others get [ErrNotHeld]. With a state topic any instance takes it,
// and the one that has the partition carries it out. It is safe for use by many goroutines.
func (p *Pipeline) Decide(ctx context.Context, d Decision) error {
	l := p.loop.Load()
	if l.stateLog != nil {
		return p.propose(ctx, l, d)
	}
	return l.ask(ctx, func() error { return l.decideHeld(d) }, ErrNotHeld)
}

// ask has the loop do what a person wants. If the loop has ended that is an error.
func (l *loop) ask(ctx context.Context, call func() error, ended error) error {
	answer := make(chan error, 1)
	select {
	case l.calls <- func() { answer <- call() }:
		return <-answer
	case <-l.stopped:
		return ended
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// bar holds a record that is released and would be emitted next, but for a topic that does
// not take what is to be emitted of it.
func (l *loop) bar(t *tenure, seq resequence.Seq, what string, diverted bool) {
	s := t.window.Slot(seq)
	size := recordSize(s.record)
	s.outputs, s.pending = nil, 0
	t.barred = seq
	t.unfinished += size
	if err := t.window.Resize(seq, size); err != nil {
		l.bug(t, err)
	}
	l.budget.account(t)
	if t.memory != nil && !t.memory.fenced {
		l.eraseAll(t, s, journal.KindReply) // else the next owner would use that, and not know of the hold
	}
	l.hold(t, seq, reasonOutput, what, l.now, diverted)
}

// hold keeps an exhausted record until a person decides, or the breaker closes if that has diverted it.
func (l *loop) hold(t *tenure, seq resequence.Seq, why reason, what string, since time.Time, diverted bool) {
	s := t.window.Slot(seq)
	s.state = held
	if t.holds == nil {
		t.holds = make(map[resequence.Seq]*hold)
	}
	t.holds[seq] = &hold{since: since, why: why, what: what, diverted: diverted}
	l.keepHold(t, seq)
	l.log.Error("a record is held until somebody decides about it (seriatim held list); its partition waits for it",
		"topic", t.topic, "partition", t.partition, "offset", s.record.Offset, "reason", what, "err", s.failed.err)
}

// possible reports what is wrong with a decision, whatever it is about.
func (o *Options) possible(d Decision) error {
	switch {
	case d.Reason == "":
		return errors.New("a decision needs a reason")
	case int(d.Verdict) >= len(verdicts):
		return fmt.Errorf("there is no verdict %d", d.Verdict)
	case d.Verdict == ReplaceOutputs && len(d.Outputs) == 0:
		return errors.New("there are no outputs: to settle the record without one, skip it")
	case d.Verdict == DeadLetterIt && o.DeadLetterTopic == "":
		return errors.New("there is no dead_letter.topic")
	}
	return nil
}

func (l *loop) decideHeld(d Decision) error {
	t := l.tenures[partitionKey{d.Topic, d.Partition}]
	if t == nil || t.phase != open {
		return ErrNotHeld
	}
	seq, ok := t.heldAt(d.Offset)
	if !ok {
		return ErrNotHeld
	}
	if err := l.opts.possible(d); err != nil {
		return err
	}
	l.decided(t, seq, d)
	return nil
}

// heldAt returns the held record with that offset.
func (t *tenure) heldAt(offset int64) (resequence.Seq, bool) {
	for seq := range t.holds {
		if s := t.window.Slot(seq); s.state == held && s.record.Offset == offset {
			return seq, true
		}
	}
	return 0, false
}

// decided carries out a possible decision about a held record.
func (l *loop) decided(t *tenure, seq resequence.Seq, d Decision) {
	h := t.holds[seq]
	switch d.Verdict {
	case RetryIt:
		l.attemptHeld(t, seq, d.Attempts)
	case ReplaceValue:
		l.replaceValue(t, seq, d.Value)
		l.attemptHeld(t, seq, d.Attempts)
	case SkipIt:
		t.dropped++
		l.fillHeld(t, seq, nil)
	case DeadLetterIt:
		l.fillHeld(t, seq, l.lastResort(t, seq))
	case ReplaceOutput:
		l.fillHeld(t, seq, l.outputsOf(t, seq, d.Value))
	case ReplaceOutputs:
		l.fillHeld(t, seq, l.outputsOf(t, seq, d.Outputs...))
	}
	l.log.Log(context.Background(), slog.LevelWarn, "somebody decided about a held record", "topic", t.topic, "partition", t.partition,
		"offset", d.Offset, "decision", d.Verdict.String(), "reason", d.Reason, "held", l.now.Sub(h.since).Round(time.Second))
	l.sched.want(t)
}

// replaceValue gives a record another value.
func (l *loop) replaceValue(t *tenure, seq resequence.Seq, value []byte) {
	s := t.window.Slot(seq)
	replaced := *s.record
	replaced.Value = value
	if s.original == nil {
		s.original = s.record
	}
	t.unfinished += recordSize(&replaced) - recordSize(s.record)
	s.record = &replaced
}

// lastResort is the dead letter of a held record.
func (l *loop) lastResort(t *tenure, seq resequence.Seq) *output {
	why := t.holds[seq].why
	t.deadLetters[why]++
	return l.deadLetter(t, seq, why)
}

// attemptHeld allows a held record that many further attempts.
func (l *loop) attemptHeld(t *tenure, seq resequence.Seq, attempts int) {
	s := t.window.Slot(seq)
	s.granted = s.begun + int32(max(1, attempts))
	s.first = l.nanos()
	l.lineUp(t, seq)
}

// fillHeld completes a held record with its outputs, or none.
func (l *loop) fillHeld(t *tenure, seq resequence.Seq, o *output) {
	l.fillWith(t, seq, o)
	l.advance(t)
}

// outputsOf makes outputs of a record that no transform has made.
func (l *loop) outputsOf(t *tenure, seq resequence.Seq, values ...[]byte) *output {
	r := t.window.Slot(seq).record
	var next *output
	for i, value := range slices.Backward(values) {
		o := &output{tenure: t, seq: seq, of: int32(len(values)), next: next}
		o.record = kgo.Record{
			Topic: t.output, Partition: t.partition, Key: r.Key, Value: value, Timestamp: r.Timestamp, Context: o,
			Headers: r.Headers[:len(r.Headers):len(r.Headers)],
		}
		if l.opts.Output.Provenance {
			new(slab).provenance(o, t.provenance, r.Offset, i+1, len(values))
		}
		next = o
	}
	return next
}

// heldRecords are those of t, oldest first.
func (t *tenure) heldRecords() []HeldRecord {
	var list []HeldRecord
	for _, seq := range slices.Sorted(maps.Keys(t.holds)) {
		s, h := t.window.Slot(seq), t.holds[seq]
		if s.state != held {
			continue // it is attempted again
		}
		r := s.record
		list = append(list, HeldRecord{
			Offset: r.Offset, Timestamp: r.Timestamp, Key: r.Key, Value: r.Value, Headers: r.Headers,
			Since: h.since, Attempts: int(s.begun), Note: s.noteText(), Reason: h.what, LastError: s.failed.err.Error(),
		})
	}
	return list
}
