package processor

import (
	"math"
	"math/rand/v2"
	"time"

	"seriatim/internal/seeded"
	"seriatim/resequence"
)

// dispatch gives chunks to free workers.
func (l *loop) dispatch() {
	if l.outage != nil || l.breaker.paused() {
		return // probes and trials only
	}
	l.hedgeAgain()
	for l.sched.free > 0 {
		t := l.sched.turn(l.now)
		if t == nil {
			return
		}
		c := l.sched.cut(t, l.now, l.nanos())
		l.expire(t)
		if c != nil {
			l.start(c)
			if c.attempts[0].number == 1 {
				l.retries.add(l.retries.share * float64(len(c.attempts)))
			}
			switch {
			case l.opts.Batch.Records > 0: // answered all at once
			case len(c.attempts) > 1:
				l.harvestLater()
			case l.hedger != nil:
				l.hedger.dispatched()
				l.hedge(t)
			}
		}
		l.sched.want(t)
		l.ripen(t)
	}
	l.preemptLater()
}

// finish takes back what a worker has done.
func (l *loop) finish(c *chunk) {
	l.sched.done(c)
	if c.cancel != nil {
		c.cancel()
	}
	if l.counts(c) {
		l.takeAttempts(c, len(c.attempts))
		l.observe(c)
	} else {
		l.sched.want(c.tenure)
	}
	l.sched.recycle(c)
}

// takeAttempts takes the results of a chunk's attempts up to n.
func (l *loop) takeAttempts(c *chunk, n int) {
	l.takeNotes()
	t := c.tenure
	if now := l.tenures[t.partitionKey]; seeded.Bug("late-result-accepted") && now != nil {
		t = now
	}
	draw := rand.Float64() // one for a batch, so that what fails together is tried again together
	for ; c.taken < n; c.taken++ {
		a := &c.attempts[c.taken]
		switch {
		case t.phase == closed:
			l.attempts[resultLate]++
			l.lostProbe(t, a.seq)
			l.judged(t, a.seq, false)
		case !a.ran:
			t.window.Slot(a.seq).begun--
			t.again(a.seq)
		case a.err != nil && c.preempted:
			l.attempts[resultCancelled]++
			t.window.Slot(a.seq).begun--
			t.again(a.seq)
		case a.err != nil:
			if l.opts.Batch.Records == 0 {
				draw = rand.Float64()
			}
			l.failed(t, c, a, draw)
		default:
			l.complete(t, a)
		}
	}
	if t.phase != closed {
		l.advance(t)
	}
	l.sched.want(t)
}

// harvestAfter is how long the finished attempts of a chunk wait for the rest of
// it.
const harvestAfter = 100 * time.Millisecond

// harvest takes what is finished of chunks whose worker is held up by one record:
// those before it shall not wait for it.
func (l *loop) harvest() {
	l.harvesting = false
	for _, t := range l.tenures {
		for c := t.runningHead; c != nil; c = c.next {
			if len(c.attempts) > 1 {
				l.harvestLater()
				if l.now.Sub(c.started) >= harvestAfter {
					l.takeAttempts(c, int(c.finished.Load()))
				}
			}
		}
	}
}

func (l *loop) harvestLater() {
	if !l.harvesting {
		l.harvesting = true
		l.at(l.now.Add(harvestAfter), l.harvest)
	}
}

// complete fills the slot of a record with its result. Most have nothing of what is asked for
// here, and shall not pay for the calls.
func (l *loop) complete(t *tenure, a *attempt) {
	if a.n == 0 {
		t.filtered++
		l.attempts[resultFilter]++
	} else {
		l.attempts[resultOK]++
	}
	l.answeredRetry(a.number)
	l.breaker.good(l.now)
	if t.memory != nil {
		l.succeeded(t, t.window.Slot(a.seq))
	}
	l.fill(t, a.seq, a.outputs, a.n, a.size, a.bytes)
	if t.memory != nil {
		l.storeLater(t, a.seq)
	}
	if l.outage != nil {
		l.vindicated(t, a.seq)
	}
	if l.breaker != nil {
		l.judged(t, a.seq, true)
	}
}

// fill completes the record of a slot, of that size, with its n outputs of so many bytes.
func (l *loop) fill(t *tenure, seq resequence.Seq, outputs *output, n int32, size, bytes int64) {
	s := t.window.Slot(seq)
	t.unfinished -= size
	l.budget.learn(size, bytes)
	s.outputs, s.pending = outputs, n
	s.state, s.finished, s.failed = complete, l.nanos(), nil
	delete(t.holds, seq)
	var err error
	if seq == t.barred {
		t.barred = math.MaxUint64
		err = t.window.Resize(seq, size+bytes)
	} else {
		err = t.window.Complete(seq, bytes)
	}
	if err != nil {
		l.bug(t, err)
	}
}

// advance releases the finished prefix of t and emits it, after records were admitted or completed, so that
// what t holds is counted anew.
func (l *loop) advance(t *tenure) {
	l.budget.account(t)
	first := true
	for {
		_, s, ok := t.window.Release()
		if !ok {
			break
		}
		if first && s.state == complete {
			first = false
			if hook := l.opts.Hooks.ResequenceWait; hook != nil {
				hook(l.age(s.finished))
			}
		}
	}
	l.emit(t)
	l.hedge(t) // its head may be another one now
}

// settle records that everything in [lo, hi) has its outcome, and frees what is
// no longer needed.
func (l *loop) settle(t *tenure, lo, hi resequence.Seq) {
	if err := t.tracker.SettleRange(uint64(lo), uint64(hi)); err != nil {
		l.bug(t, err)
		return
	}
	if err := t.window.Free(resequence.Seq(t.tracker.Settled())); err != nil {
		l.bug(t, err)
		return
	}
	l.budget.account(t)
	t.settled += uint64(hi - lo)
	l.commits.policy.Settled(int(hi - lo))
}

// observe tells the hooks how long the attempts of a chunk took.
func (l *loop) observe(c *chunk) {
	hook := l.opts.Hooks.TransformDuration
	if hook == nil && l.hedger == nil {
		return
	}
	n := l.sched.calls(c)
	outcome := "ok"
	if err := c.attempts[n-1].err; err != nil {
		outcome = failureOf(err).Kind.String()
	} else if l.hedger != nil {
		l.hedger.learn(c.took / time.Duration(n))
	}
	if hook != nil {
		hook(outcome, c.took/time.Duration(n))
	}
}
