package processor

import (
	"context"
	"slices"
	"sync/atomic"
	"time"
)

// Hedges says when an attempt that runs for long gets a second one beside it, and that
// another one in turn, Retries.Attempts at most. The first answer wins: the others are
// cancelled, and whatever comes of them is dropped. They have the same idempotency key
// and the same number. With After and Quantile zero there are none.
type Hedges struct {
	After    time.Duration // since the dispatch of the attempt
	Quantile float64       // 0 to 1: after this quantile of the last 512 attempts that succeeded, instead of After
	// All hedges every record, not only the one for which its partition waits.
	All bool
	// Budget is the most second attempts, as a share of the first ones; 0.05. One in ten
	// seconds is allowed in any case.
	Budget float64
}

func (h Hedges) on() bool { return h.After > 0 || h.Quantile > 0 }

// A hedger decides when to hedge. It belongs to the loop.
type hedger struct {
	Hedges
	tokens float64   // second attempts that the budget allows now
	filled time.Time // when tokens were last added for the time that passed
	total  uint64
	missed bool // some were not possible when their time came: all tenures are looked at when a worker is free

	took    []time.Duration // the last attempts that succeeded, a ring
	at      int
	learned time.Duration // the quantile of these
}

const (
	// A burst of the budget, so that a worker which hangs with many records does not
	// have them wait for one another.
	hedgeBurst = 10
	// One second attempt is allowed in this time whatever the budget: where little happens
	// it would not grow, and a head that hangs would wait for ever.
	hedgeAlways = 10 * time.Second
	// hedgeSamples are how many attempts the quantile is of, and hedgeLearn how many
	// there must be at least, and come until it is computed again.
	hedgeSamples, hedgeLearn = 512, 64
)

func newHedger(h Hedges, now time.Time) *hedger {
	if !h.on() {
		return nil
	}
	return &hedger{Hedges: h, tokens: 1, filled: now}
}

// after is how long an attempt runs before it is hedged; false if that is not known yet.
func (h *hedger) after() (time.Duration, bool) {
	if h.Quantile == 0 {
		return h.After, true
	}
	return h.learned, h.learned > 0
}

// learn takes the time of an attempt that succeeded.
func (h *hedger) learn(took time.Duration) {
	if h.Quantile == 0 {
		return
	}
	if len(h.took) < hedgeSamples {
		h.took = append(h.took, took)
	} else {
		h.took[h.at%hedgeSamples] = took
	}
	h.at++
	if h.at%hedgeLearn == 0 {
		sorted := slices.Sorted(slices.Values(h.took))
		h.missed = h.missed || h.learned == 0
		h.learned = max(sorted[min(len(sorted)-1, int(h.Quantile*float64(len(sorted))))], time.Millisecond)
	}
}

// dispatched adds what an attempt allows.
func (h *hedger) dispatched() { h.tokens = min(h.tokens+h.Budget, hedgeBurst) }

// spend reports whether there may be another second attempt now, and counts it.
func (h *hedger) spend(now time.Time) bool {
	h.tokens = min(h.tokens+float64(now.Sub(h.filled))/float64(hedgeAlways), hedgeBurst)
	h.filled = now
	if h.tokens < 1 {
		return false
	}
	h.tokens--
	return true
}

// start gives a chunk to a worker. What is one call of the transform can be cancelled alone.
func (l *loop) start(c *chunk) {
	c.ctx, c.notes = c.tenure.ctx, l.notes
	if len(c.attempts) == 1 || l.sched.batch.Records > 0 {
		c.ctx, c.cancel = context.WithCancel(c.tenure.ctx)
	}
	if l.hedger != nil && c.asked == nil {
		c.asked = new(atomic.Value)
	}
	l.chunks <- c
}

// hedge gives attempts of t that have run for long a second one beside them, and sees to
// it that the loop looks again when the next one has.
func (l *loop) hedge(t *tenure) {
	if l.hedger == nil || t.phase == closed || l.outage != nil || l.breaker.paused() {
		return
	}
	after, known := l.hedger.after()
	if !known {
		return
	}
	head, _ := t.head()
	for c := t.runningHead; c != nil; c = c.next {
		if due := c.started.Add(after); l.now.Before(due) {
			l.hedgeAt(t, due)
			return
		}
		switch {
		case c.hedged, c.beaten, len(c.attempts) != 1, !l.hedger.All && c.attempts[0].seq != head,
			c.race != nil && len(c.race.chunks) >= l.opts.Retry.Attempts:
		case l.sched.free == 0:
			l.hedger.missed = true
			return
		case !l.hedger.spend(l.now):
			l.hedgeAt(t, l.now.Add(time.Duration((1-l.hedger.tokens)*float64(hedgeAlways))+time.Millisecond))
			return
		default:
			l.hedger.total++
			l.start(l.sched.second(c, l.now))
		}
	}
}

// hedgeAt has the loop look at t at that time, or earlier.
func (l *loop) hedgeAt(t *tenure, at time.Time) {
	if !t.hedgeAt.IsZero() && !at.Before(t.hedgeAt) {
		return
	}
	t.hedgeAt = at
	l.at(at, func() {
		if t.hedgeAt.Equal(at) {
			t.hedgeAt = time.Time{}
			l.hedge(t)
		}
	})
}

// again has all tenures looked at: the time of an attempt may have come while nothing was hedged.
func (h *hedger) again() {
	if h != nil {
		h.missed = true
	}
}

// hedgeAgain tries what was not possible when its time came.
func (l *loop) hedgeAgain() {
	if h := l.hedger; h != nil && h.missed && l.sched.free > 0 {
		h.missed = false
		for _, t := range l.tenures {
			l.hedge(t)
		}
	}
}

// A race is what runs for one record at the same time: an attempt, its second one, one
// more if that runs for long as well, and so on.
type race struct{ chunks []*chunk }

// second makes another chunk with the record of c, beside it.
func (s *scheduler) second(c *chunk, now time.Time) *chunk {
	a := &c.attempts[0] // its worker writes the rest of it
	told := past{note: c.tenure.window.Slot(a.seq).noteText()}
	if a.past != nil {
		told.last = a.past.last
	}
	other := s.blank()
	other.tenure, other.started = c.tenure, now
	other.attempts = append(other.attempts, attempt{
		seq: a.seq, record: a.record, past: &told, call: a.call, number: a.number,
	})
	if c.race == nil {
		c.race = &race{[]*chunk{c}}
	}
	c.race.chunks = append(c.race.chunks, other)
	c.hedged = true
	other.race, other.asked = c.race, c.asked
	s.launch(other)
	return other
}

// counts reports whether the result of c counts. The first answer of a race wins, and
// the others are cancelled. A failure that asks for another attempt is no answer as long
// as others run: they are that attempt.
func (l *loop) counts(c *chunk) bool {
	t := c.tenure
	if c.beaten {
		t.beaten--
		l.attempts[resultCancelled]++
		return false
	}
	if c.race == nil {
		return true
	}
	c.race.chunks = slices.DeleteFunc(c.race.chunks, func(other *chunk) bool { return other == c })
	a := &c.attempts[0]
	if a.err != nil && failureOf(a.err).Kind != Reject && t.phase != closed && len(c.race.chunks) > 0 {
		t.window.Slot(a.seq).remember(l.now, a.err)
		l.attempts[resultOf(failureOf(a.err).Kind)]++
		return false
	}
	for _, other := range c.race.chunks {
		other.beaten = true
		other.cancel()
		t.beaten++
	}
	c.race.chunks = nil
	return true
}
