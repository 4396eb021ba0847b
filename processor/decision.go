package processor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/journal"
	"seriatim/resequence"
)

// With a state topic, holds and decisions are records of it, and their order there says
// which decision wins: the first one after a hold. Everybody who reads them comes to the
// same, so that a decision may be made anywhere, and be carried out by whoever has the
// partition then.

// keepHold writes a hold, unless it is one that was read.
func (l *loop) keepHold(t *tenure, seq resequence.Seq) {
	s, h := t.window.Slot(seq), t.holds[seq]
	k := t.keep(s)
	if k == nil || t.memory.fenced {
		return
	}
	if known := t.memory.Records[s.record.Offset]; known != nil && known.Attempts != nil && known.Attempts.Hold != nil && known.Attempts.Hold.Since.Equal(h.since) {
		return
	}
	a := l.attemptsOf(t, s, s.begun, s.begun)
	a.Hold = &journal.Hold{Since: h.since, Why: h.why.String(), Reason: journal.Text(h.what)}
	k.written = max(k.written, s.begun)
	l.keep(t, "hold", t.ownKey(l, s.record.Offset, journal.KindAttempts), journal.Encode(a), nil)
}

// carryOut does what was decided about a record that t holds.
func (l *loop) carryOut(t *tenure, offset int64) {
	known := t.memory.Records[offset]
	seq, ok := t.heldAt(offset)
	if !ok || t.phase != open || known == nil || known.Decision == nil {
		return // the record comes later, with its decision: see recall
	}
	d := Decision{
		Topic: t.topic, Partition: t.partition, Offset: offset,
		Attempts: known.Decision.Attempts, Value: known.Decision.Value, Outputs: known.Decision.Outputs, Reason: known.Decision.Reason,
	}
	var err error
	if d.Verdict, err = ParseVerdict(known.Decision.Decision); err == nil {
		err = l.opts.possible(d)
	}
	if err != nil { // another instance, with other settings, has taken it
		l.log.Error("a decision about a held record cannot be carried out; the record is still held", "topic", t.topic,
			"partition", t.partition, "offset", offset, "err", err)
		l.erase(t.key(l, offset, journal.KindDecision, known.By))
		return
	}
	if d.Verdict == ReplaceValue {
		t.window.Slot(seq).kept.value = known.By
	}
	l.decided(t, seq, d)
}

// reasonOf reads what String of a reason has written.
func reasonOf(text string) reason {
	for r := range reasons {
		if r.String() == text {
			return r
		}
	}
	return reasonAttempts
}

// errNoState is told for decisions before the state topic has been seen.
var errNoState = errors.New("the state topic has not been seen yet: look at /readyz?verbose")

// propose writes a decision to the state topic and reads there what becomes of it.
func (p *Pipeline) propose(ctx context.Context, l *loop, d Decision) error {
	if err := p.opts.possible(d); err != nil {
		return err
	}
	key := journal.Key{Group: p.opts.Source.Group, Topic: d.Topic, Partition: d.Partition, Offset: d.Offset, Kind: journal.KindDecision, By: rand.Text()}
	value := journal.Encode(journal.Decision{Decision: d.Verdict.String(), Attempts: d.Attempts, Value: d.Value, Outputs: d.Outputs, Reason: journal.Text(d.Reason)})
	if key.Offset < 0 || len(value) > journal.MaxBytes-1024 {
		return fmt.Errorf("the decision cannot be written to %s: it has %d bytes", p.opts.StateTopic, len(value))
	}
	var at int32
	answer := make(chan error, 1)
	ask := func() {
		t := l.tenures[partitionKey{d.Topic, d.Partition}]
		_, known := l.topicIDs[d.Topic]
		switch {
		case l.stateLog.sink == nil:
			answer <- errNoState
			return
		case !known:
			answer <- ErrNotHeld
			return
		case t != nil && t.phase == open && t.remembers():
			// It may be known to be held, and not be read yet.
			known := t.memory.Records[d.Offset]
			if _, held := t.heldAt(d.Offset); !held && (known == nil || !known.Held()) {
				answer <- ErrNotHeld
				return
			}
		}
		at = journal.Place(d.Topic, d.Partition, l.stateLog.sink.partitions)
		l.write("decision", key, value, func(err error) { answer <- err })
	}
	select {
	case l.calls <- ask:
	case <-l.stopped:
		return ErrNotHeld
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-answer:
		if err != nil {
			return err
		}
	case <-l.stopped:
		return ErrNotHeld
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return p.outcome(ctx, key, at)
}

// outcome reads in a partition of the state topic what has become of a decision there.
func (p *Pipeline) outcome(ctx context.Context, key journal.Key, at int32) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	memory := journal.NewMemory()
	effect, found := journal.Beaten, false
	var failure error
	readState(ctx, &p.opts, map[int32]kgo.Offset{at: kgo.NewOffset().AtStart()}, func(reads []read) bool {
		for i := range reads {
			r := &reads[i].record
			if reads[i].err != nil || r.Topic != key.Topic || r.Partition != key.Partition {
				continue
			}
			e := memory.Apply(r)
			if r.Key == key {
				effect, found = e, true
				return false
			}
		}
		return true
	}, func(err error) { failure = err })
	switch {
	case !found:
		return errors.Join(context.Cause(ctx), failure)
	case effect != journal.Won:
		return ErrNotHeld
	default:
		return nil
	}
}
