package processor

import (
	"errors"
	"fmt"
	"time"

	"seriatim/internal/seeded"
	"seriatim/resequence"
)

// result is how an attempt ended, as attempts_total tells it.
type result uint8

const (
	resultOK result = iota
	resultFilter
	resultRetry
	resultReject
	resultDeployment
	resultPanic
	resultLate      // of a tenure that was closed meanwhile: dropped
	resultCancelled // another attempt at the record was answered first, or others wanted its worker: dropped
	results
)

func (r result) String() string {
	return [results]string{"ok", "filter", "retry", "reject", "deployment", "panic", "late", "cancelled"}[r]
}

// backoff is a random time up to Initial, doubled with each attempt that has
// failed, never more than Max ("full jitter": workers that come back are not met
// by everybody at once), and never less than what the worker asked for, as far as
// Max allows. draw is the random number, from 0 to 1.
func (r Retries) backoff(failed int, asked time.Duration, draw float64) time.Duration {
	ceiling := r.Max
	if shift := failed - 1; shift < 32 {
		if d := r.Initial << shift; d > 0 && d < r.Max {
			ceiling = d
		}
	}
	return max(time.Duration(draw*float64(ceiling)), min(asked, r.Max))
}

// failed decides what becomes of a record whose attempt has failed. Waiting for
// the next attempt holds no worker.
//
// A failure that several records share may be the fault of one of them. They are tried
// again in batches of a tenth of their number, until the one is alone: no record is
// exhausted by a failure that it shared.
func (l *loop) failed(t *tenure, c *chunk, a *attempt, draw float64) {
	f := failureOf(a.err)
	seq := a.seq // a belongs to a chunk that is used again
	defer l.judged(t, seq, false)
	s := t.window.Slot(seq)
	s.remember(l.now, a.err)
	alone := !a.shared || c.suspects == 1
	if !alone && !f.Unsent {
		s.company = uint16(max(1, c.suspects/10))
	}
	var p *PanicError
	switch {
	case errors.As(a.err, &p):
		l.attempts[resultPanic]++
		if p != l.panicked { // of a whole batch once
			l.panicked = p
			l.log.Warn("the transform panicked", "topic", t.topic, "partition", t.partition,
				"offset", s.record.Offset, "attempt", s.begun, "err", a.err, "stack", string(p.Stack))
		}
	default:
		l.attempts[resultOf(f.Kind)]++
	}
	if f.Kind == Deployment {
		if !seeded.Bug("outage-uses-attempts-up") {
			s.begun-- // it says nothing about the record
		}
		t.again(seq)
		l.uncount(t, s)
		l.misdeployed(t, seq, f)
		return
	}
	l.vindicated(t, seq)
	elapsed := l.age(s.first)
	usedUp := s.begun >= l.allowed(s)
	tooLong := l.opts.Retry.MaxElapsed > 0 && elapsed >= l.opts.Retry.MaxElapsed
	switch {
	case !alone && f.Kind == Reject:
		l.lineUp(t, seq)
	case f.Kind == Reject:
		l.answeredRetry(a.number)
		l.exhausted(t, seq, reasonReject, "was rejected")
	case alone && usedUp:
		l.exhausted(t, seq, reasonAttempts, fmt.Sprintf("failed %d times", s.begun))
	case alone && tooLong:
		l.exhausted(t, seq, reasonAttempts, fmt.Sprintf("failed for %v", elapsed.Round(time.Millisecond)))
	default:
		s.state = backoff
		wait := l.opts.Retry.backoff(int(s.begun), f.After, draw)
		l.log.Debug("an attempt failed", "topic", t.topic, "partition", t.partition,
			"offset", s.record.Offset, "attempt", s.begun, "wait", wait, "err", a.err)
		l.at(l.now.Add(wait), func() {
			if seeded.Bug("retry-of-another-record") {
				seq = a.seq
			}
			if t.phase == open {
				l.retry(t, seq)
			}
		})
	}
}

// allowed is how many attempts a record may have: what a person has granted, if one did.
func (l *loop) allowed(s *slot) int32 {
	if s.granted > 0 {
		return s.granted
	}
	return int32(l.opts.Retry.Attempts)
}

func resultOf(k Kind) result {
	switch k {
	case Reject:
		return resultReject
	case Deployment:
		return resultDeployment
	default:
		return resultRetry
	}
}

// An outage is the time in which the worker's deployment is wrong: nothing is
// dispatched but one probe at a time. Probes alternate between the record that
// met the outage first and some other record, to find out whether it is the
// deployment or that record.
type outage struct {
	tenure *tenure // of the suspect
	seq    resequence.Seq
	reason string
	since  time.Time
	wait   time.Duration // before the next probe

	probed    *tenure // of the probe that runs
	probe     resequence.Seq
	probing   bool
	other     bool // the next probe is another record
	exonerate bool // another record was answered since the suspect was last probed
}

const (
	firstProbe = time.Second
	lastProbe  = 5 * time.Second
)

// misdeployed notes that an attempt said the deployment is wrong.
func (l *loop) misdeployed(t *tenure, seq resequence.Seq, f Failure) {
	o := l.outage
	if o == nil {
		o = &outage{tenure: t, seq: seq, since: l.now, wait: firstProbe}
		l.outage = o
		l.log.Error("the worker's deployment is wrong, not the record: nothing is dispatched until a probe is answered otherwise",
			"topic", t.topic, "partition", t.partition, "err", f.Err)
		l.at(l.now.Add(o.wait), func() { l.sendProbe(o) })
	}
	o.reason = f.Err.Error()
	if !o.probing || o.probed != t || o.probe != seq {
		return
	}
	o.probing = false
	o.exonerate = o.exonerate && !f.Unsent
	if t == o.tenure && seq == o.seq && o.exonerate {
		// Another record was answered, this one still is not: it is the record.
		l.endOutage()
		t.window.Slot(seq).begun++
		t.forget(seq)
		l.exhausted(t, seq, reasonReject, "alone gets this answer")
		return
	}
	o.wait = min(2*o.wait, lastProbe)
	l.at(l.now.Add(o.wait), func() { l.sendProbe(o) })
}

// vindicated notes that an attempt was answered in any other way.
func (l *loop) vindicated(t *tenure, seq resequence.Seq) {
	o := l.outage
	if o == nil || !o.probing || o.probed != t || o.probe != seq {
		return
	}
	o.probing = false
	if t == o.tenure && seq == o.seq {
		l.endOutage()
		return
	}
	o.exonerate, o.other = true, false
	l.at(l.now, func() { l.sendProbe(o) })
}

// lostProbe notes that a tenure was closed while an attempt of it ran.
func (l *loop) lostProbe(t *tenure, seq resequence.Seq) {
	if o := l.outage; o != nil && o.probing && o.probed == t && o.probe == seq {
		o.probing = false
		l.at(l.now, func() { l.sendProbe(o) })
	}
}

func (l *loop) endOutage() {
	l.log.Info("the worker's deployment answers again", "after", l.now.Sub(l.outage.since))
	l.outage = nil
	l.hedger.again()
}

// sendProbe dispatches one record while everything else waits.
func (l *loop) sendProbe(o *outage) {
	if l.outage != o || o.probing {
		return
	}
	if o.tenure.phase != open || o.seq >= o.tenure.stopAt {
		l.endOutage() // the suspect has gone: whoever fails next is the new one
		return
	}
	var c *chunk
	if o.other {
		for _, t := range l.tenures {
			if t != o.tenure && t.wants() && l.sched.free > 0 {
				c = l.sched.cutOne(t, l.now, l.nanos())
				break
			}
		}
	}
	if o.other && c == nil && l.sched.free > 0 && o.tenure.forget(o.seq) {
		// Out of its line it must not be found among the fresh ones: see fresh.
		o.tenure.window.Slot(o.seq).state = backoff
		if o.tenure.wants() { // no other partition has a record; the next of this one tells as much
			c = l.sched.cutOne(o.tenure, l.now, l.nanos())
		}
		o.tenure.again(o.seq)
	}
	if c == nil && l.sched.free > 0 && o.tenure.forget(o.seq) {
		o.tenure.due = append([]resequence.Seq{o.seq}, o.tenure.due...)
		c = l.sched.cutOne(o.tenure, l.now, l.nanos())
	}
	o.other = !o.other
	if c == nil { // everything is busy: try again
		l.at(l.now.Add(o.wait), func() { l.sendProbe(o) })
		return
	}
	o.probing, o.probed, o.probe = true, c.tenure, c.attempts[0].seq
	l.start(c)
	l.ripen(c.tenure)
}

// forget takes a record out of the line for another attempt.
func (t *tenure) forget(seq resequence.Seq) bool {
	for i, s := range t.due {
		if s == seq {
			t.due = append(t.due[:i], t.due[i+1:]...)
			return true
		}
	}
	return false
}
