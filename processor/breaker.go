package processor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"time"

	"seriatim/internal/journal"
	"seriatim/resequence"
)

// Breaker says when too many records are dead-lettered. The pipeline pauses then, instead
// of moving its input to the dead-letter topic because a worker is broken: records that
// are exhausted are held, and one record at a time is tried. When as many in a row as
// Ratio expects of good ones are answered, at least 10 and at most 100, those that were
// held are dead-lettered after all and the pipeline goes on. Without Ratio there is none.
type Breaker struct {
	Ratio float64       // 0 to 1: most dead letters, as a share of the records that were completed
	Over  time.Duration // how long a record counts; 1m
}

const (
	// breakerLeast is how many dead letters it takes at the least.
	breakerLeast = 10
	// firstTrial is the wait before the first record is tried, doubled with each that
	// fails up to Breaker.Over.
	firstTrial = 5 * time.Second
	// noTrial is the wait when there was nothing to try.
	noTrial = time.Second
)

// A breaker counts the records that end, in tenths of its time. It belongs to the loop.
type breaker struct {
	Breaker
	tenths [10]struct{ good, dead int }
	at     int       // the tenth that counts now
	until  time.Time // when the next one does

	open   bool
	since  time.Time
	reason string
	wait   time.Duration // before the next trial
	streak int           // trials that were answered, in a row
	trying bool
	tried  *tenure // of the trial that runs
	trial  resequence.Seq
}

func newBreaker(b Breaker) *breaker {
	if b.Ratio == 0 {
		return nil
	}
	return &breaker{Breaker: b}
}

// paused reports whether nothing but trials is dispatched.
func (b *breaker) paused() bool { return b != nil && b.open }

// enough is how many trials in a row must be answered.
func (b *breaker) enough() int { return int(min(max(10, math.Ceil(1/b.Ratio)), 100)) }

// turn forgets the tenths that are over.
func (b *breaker) turn(now time.Time) {
	if now.Before(b.until) {
		return
	}
	step := max(b.Over/time.Duration(len(b.tenths)), 1)
	if now.Sub(b.until) > b.Over {
		b.tenths, b.until = [10]struct{ good, dead int }{}, now
	}
	for !now.Before(b.until) {
		b.at = (b.at + 1) % len(b.tenths)
		b.tenths[b.at] = struct{ good, dead int }{}
		b.until = b.until.Add(step)
	}
}

// good counts a record that was completed.
func (b *breaker) good(now time.Time) {
	if b != nil {
		b.turn(now)
		b.tenths[b.at].good++
	}
}

// dead counts a dead letter. It returns the counts if these are too many.
func (b *breaker) dead(now time.Time) (dead, all int, tooMany bool) {
	b.turn(now)
	b.tenths[b.at].dead++
	for _, tenth := range b.tenths {
		dead += tenth.dead
		all += tenth.good + tenth.dead
	}
	return dead, all, dead >= breakerLeast && float64(dead) > b.Ratio*float64(all)
}

// diverts reports whether a record that is exhausted is held and not dead-lettered. What
// is too old says nothing about the worker.
func (l *loop) diverts(s *slot, why reason) bool {
	b := l.breaker
	if b == nil || why == reasonMaxAge {
		return false
	}
	if !b.open {
		dead, all, tooMany := b.dead(l.now)
		if !tooMany {
			return false
		}
		b.open, b.since, b.wait, b.streak = true, l.now, firstTrial, 0
		b.reason = fmt.Sprintf("%d of %d records within %v are dead letters, more than %.4g %%", dead, all, b.Over, 100*b.Ratio)
		l.log.Error("too many records are exhausted: the pipeline pauses, further ones are held, and one record at a time is tried",
			"reason", b.reason, "err", s.failed.err)
		l.at(l.now.Add(b.wait), func() { l.try(b) })
	}
	return true
}

// try dispatches one record while the breaker is open.
func (l *loop) try(b *breaker) {
	if l.breaker != b || b.trying {
		return
	}
	if l.outage == nil && l.sched.free > 0 {
		if t := l.sched.turn(l.now); t != nil {
			c := l.sched.cutOne(t, l.now, l.nanos())
			l.sched.want(t)
			l.ripen(t)
			if c != nil {
				b.trying, b.tried, b.trial = true, t, c.attempts[0].seq
				l.start(c)
				return
			}
		}
	}
	l.at(l.now.Add(noTrial), func() { l.try(b) })
}

// judged takes the outcome of an attempt, which may be the trial that runs.
func (l *loop) judged(t *tenure, seq resequence.Seq, answered bool) {
	b := l.breaker
	if b == nil || !b.trying || b.tried != t || b.trial != seq {
		return
	}
	b.trying = false
	wait := time.Duration(0)
	if !answered {
		b.streak = 0
		b.wait = min(2*b.wait, max(b.Over, firstTrial))
		wait = b.wait
	} else if b.streak++; b.streak >= b.enough() {
		l.log.Info("records are answered again; the pipeline goes on", "paused", l.now.Sub(b.since).Round(time.Second))
		l.closeBreaker()
		return
	}
	l.at(l.now.Add(wait), func() { l.try(b) })
}

// ErrBreakerClosed is returned where there is nothing to close.
var ErrBreakerClosed = errors.New("the breaker is not open here")

// CloseBreaker has the pipeline go on at once, as if the worker had answered: for a person who knows
// that it is mended, or that the records are bad. What was held because of the breaker is dead-lettered, and
// counting begins anew. The error is [ErrBreakerClosed] if it is not open, also as there is none; each
// instance has its own. The reason, for the log, is required. It is safe for use by many goroutines.
func (p *Pipeline) CloseBreaker(ctx context.Context, reason string) error {
	l := p.loop.Load()
	return l.ask(ctx, func() error {
		switch b := l.breaker; {
		case reason == "":
			return errors.New("closing the breaker needs a reason")
		case !b.paused():
			return ErrBreakerClosed
		default:
			l.log.Warn("somebody has closed the breaker; the pipeline goes on", "reason", reason, "paused", l.now.Sub(b.since).Round(time.Second))
			l.closeBreaker()
			return nil
		}
	}, ErrBreakerClosed)
}

// closeBreaker has what was held because of it dead-lettered, and goes on.
func (l *loop) closeBreaker() {
	l.breaker = newBreaker(l.breaker.Breaker)
	l.hedger.again()
	for _, t := range l.tenures {
		for seq := range t.holds {
			l.divertBack(t, seq)
		}
	}
}

// divertBack has a record dead-lettered that was held because of the breaker. With a state topic that is
// one decision among others: a person may have made an earlier one that has not been read yet.
func (l *loop) divertBack(t *tenure, seq resequence.Seq) {
	s := t.window.Slot(seq)
	if !t.holds[seq].diverted || t.phase != open || s.state != held {
		return
	}
	if t.memory == nil {
		l.fillHeld(t, seq, l.lastResort(t, seq))
		return
	}
	known := t.memory.Records[s.record.Offset]
	if known == nil || !known.Held() || t.memory.fenced {
		return // the hold has not come back yet: see learn
	}
	key := t.key(l, s.record.Offset, journal.KindDecision, rand.Text())
	l.keep(t, "decision", key, journal.Encode(journal.Decision{Decision: DeadLetterIt.String(), Reason: "the breaker has closed"}), nil)
}
