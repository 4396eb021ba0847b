package processor

import (
	"slices"
	"time"

	"seriatim/internal/seeded"
)

// A drain ends tenures in good order: what runs may finish, what is released is
// emitted and acknowledged, the frontier is committed. At the deadline the rest is
// forgotten.
type drain struct {
	tenures   []*tenure
	deadline  time.Time
	committed bool        // the last commit was sent, or nothing was to commit
	done      chan<- bool // told once whether all of it was finished in time
	clean     bool
	retryAt   time.Time // when a refused last commit is sent again
}

// commitGrace is how long after the deadline of a drain its last commit may take.
const commitGrace = time.Second

// commitRetry is how long a drain waits before it repeats a refused last commit.
const commitRetry = 100 * time.Millisecond

// drain begins to end the tenures. It tells done when they are closed.
func (l *loop) drain(tenures []*tenure, deadline time.Time, done chan<- bool) {
	for _, t := range tenures {
		switch {
		case t.phase == open && t.gone():
			l.close(t) // it may not commit
		case t.phase == open:
			t.phase = draining
			t.dropSpill()
			l.budget.account(t)
			l.sched.want(t)
		}
	}
	if seeded.Bug("revoke-answered-early") {
		done <- true
		done = make(chan bool, 1)
	}
	l.drains = append(l.drains, &drain{tenures: tenures, deadline: deadline, done: done, clean: true})
	l.at(deadline, func() {})
	l.at(deadline.Add(commitGrace), func() {})
}

// proceedDrains takes each drain as far as it can go now.
func (l *loop) proceedDrains() {
	kept := l.drains[:0]
	for _, d := range l.drains {
		if !l.proceed(d) {
			kept = append(kept, d)
		}
	}
	clear(l.drains[len(kept):])
	l.drains = kept
}

func (l *loop) proceed(d *drain) (ended bool) {
	late := !l.now.Before(d.deadline) && !seeded.Bug("drain-without-deadline")
	if !d.committed {
		for _, t := range d.tenures {
			if t.phase == draining && !t.quiet() {
				if !late {
					return false
				}
				if d.clean {
					d.clean = false
					l.log.Warn("the drain deadline passed; what is unfinished is done again by whoever gets the partition",
						"topic", t.topic, "partition", t.partition, "running", t.running, "unacknowledged", t.inFlight)
				}
			}
		}
	}
	// A transaction with their outputs, which ends by itself; only a broker
	// that does not answer is not waited for.
	if l.txn.touches(d.tenures) && l.now.Before(d.deadline.Add(commitGrace)) {
		return false
	}
	// A commit in flight is waited for in any case: the client reads member id and
	// generation when it builds the request, so one that was computed before the
	// partitions went could otherwise go out under the next generation.
	if l.commits.inFlight != nil && !seeded.Bug("commit-not-awaited") {
		if !l.now.Before(d.deadline.Add(commitGrace)) {
			l.commits.inFlight()
		}
		return false
	}
	if !d.committed && l.txn.running() {
		if slices.ContainsFunc(d.tenures, l.uncommitted) && l.now.Before(d.deadline.Add(commitGrace)) {
			return false // its end commits them
		}
		// Nothing is left to commit: where others emit all the time, one transaction
		// follows the other. Or it does not end, because the broker does not answer.
		d.committed = true
	}
	if !d.committed {
		d.committed = true
		for _, t := range d.tenures {
			if t.phase == draining && l.uncommitted(t) && l.commit(d.deadline.Add(commitGrace)) {
				return false
			}
		}
	}
	for _, t := range d.tenures {
		if t.phase == draining && l.uncommitted(t) {
			if !late {
				if !d.retryAt.After(l.now) {
					d.retryAt = l.now.Add(commitRetry)
					l.at(d.retryAt, func() { d.committed = false })
				}
				return false
			}
			d.clean = false
		}
	}
	for _, t := range d.tenures {
		if t.phase == draining {
			l.leave(t)
		}
		l.close(t)
	}
	d.done <- d.clean
	return true
}

// uncommitted reports whether the frontier is beyond what was committed.
func (l *loop) uncommitted(t *tenure) bool {
	if !l.committable(t) {
		return false
	}
	next, _ := t.tracker.Frontier()
	return !t.hasCommitted || t.committed != next
}

// close forgets a tenure. Whatever comes of it later, results, acknowledgements,
// commits, is dropped, because it still points to this tenure and not to the next
// one of the same partition.
func (l *loop) close(t *tenure) {
	if t.phase == closed {
		return
	}
	t.phase = closed
	if !seeded.Bug("attempts-not-cancelled") {
		t.cancel()
	}
	t.dropSpill()
	delete(l.backed, t)
	if l.tenures[t.partitionKey] == t {
		delete(l.tenures, t.partitionKey)
	}
	l.sched.want(t)
	l.budget.assign(l.tenures)
}

// lose forgets tenures at once and tells done when no commit is in flight.
func (l *loop) lose(tenures []*tenure, done chan<- bool) {
	for _, t := range tenures {
		l.close(t)
	}
	if l.commits.inFlight != nil {
		l.commits.inFlight()
	}
	l.drains = append(l.drains, &drain{tenures: tenures, deadline: l.now, committed: true, done: done})
}
