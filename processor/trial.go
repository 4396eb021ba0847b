package processor

import (
	"slices"

	"seriatim/resequence"
)

// A trial is a line of records that were, or may have been, in flight when a process
// ended. One of them may have killed it. Each of their attempts is counted first, and no
// more than most of them are attempted at a time.
//
// Counting alone would blame the innocent: whatever is in flight beside the record that
// kills has its attempts counted too, at each crash. So those of which two attempts have
// been cut off, or one and whose next attempt is their last, are attempted one at a time in the
// whole pipeline, while the others on trial wait. The process then dies of one of them alone.
// A record of which a single attempt was cut off is not exhausted by it: it may have one more
// than it is allowed.
type trial struct {
	most             int
	waiting, running []candidate
}

// A candidate is a record on trial.
type candidate struct {
	tenure *tenure
	seq    resequence.Seq
	kept   *kept
	ended  int32 // attempts, when its trial began
}

// suspect reports whether the next attempt at a record must be alone: see trial.
func (l *loop) suspect(s *slot) bool {
	return s.kept.cut >= 2 || s.kept.cut == 1 && s.begun+1 >= l.allowed(s)
}

// tryWithCare puts a record that was just admitted in the line where it belongs.
func (l *loop) tryWithCare(t *tenure, seq resequence.Seq) {
	s := t.window.Slot(seq)
	s.state = backoff
	k := t.keep(s)
	if l.suspect(s) {
		l.lineUp(t, seq)
		return
	}
	t.memory.care.waiting = append(t.memory.care.waiting, candidate{t, seq, k, s.ended()})
	l.careful[t] = struct{}{}
}

// proceedTrials lines up the next ones: first those that must be alone, when nobody else on
// trial runs.
func (l *loop) proceedTrials() {
	l.suspects.prune()
	busy := false
	for t := range l.careful {
		care := &t.memory.care
		care.prune()
		busy = busy || len(care.running) > 0
		if len(care.running)+len(care.waiting) == 0 {
			delete(l.careful, t)
		}
	}
	switch {
	case len(l.suspects.running)+len(l.suspects.waiting) == 0:
		for t := range l.careful {
			t.memory.care.proceed(l)
		}
	case !busy:
		l.suspects.proceed(l)
	}
}

// prune forgets what is over.
func (x *trial) prune() {
	if len(x.running) > 0 {
		x.running = slices.DeleteFunc(x.running, candidate.over)
	}
	for len(x.waiting) > 0 && x.waiting[0].over() {
		x.waiting = x.waiting[1:]
	}
}

func (x *trial) proceed(l *loop) {
	for len(x.running) < x.most && len(x.waiting) > 0 {
		c := x.waiting[0]
		x.waiting = x.waiting[1:]
		if !c.over() {
			x.running = append(x.running, c)
			l.count(c.tenure, c.seq)
		}
	}
	if len(x.waiting) == 0 {
		x.waiting = nil
	}
}

// over reports whether an attempt at the record has ended, or there will be none.
func (c candidate) over() bool {
	t := c.tenure
	if t.phase != open || c.seq >= t.stopAt {
		return true
	}
	s := t.window.Slot(c.seq)
	return s == nil || s.kept != c.kept || s.ended() > c.ended || s.state == complete || s.state == held || s.state == settled
}
