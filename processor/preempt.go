package processor

import (
	"time"

	"seriatim/internal/seeded"
)

// Where all transforms of a partition hang while the others have nothing to do, it has
// every worker by the time the others have. The loop then cancels the youngest of its
// attempts, as many as the others want of their share, and gives them back to the line:
// they do not count, and as long as the partition hangs it gets no more than its share.
// Each record is asked for that once, so that slow transforms come to their end.

// preemptAfter is how often the loop looks for that while workers are missed.
const preemptAfter = 100 * time.Millisecond

// preemptLater has the loop look soon.
func (l *loop) preemptLater() {
	if !l.preempting && len(l.sched.ring) > l.sched.ringAt {
		l.preempting = true
		l.at(l.now.Add(preemptAfter), l.preempt)
	}
}

// preempt takes workers from partitions that hang for those that have less than their
// share.
func (l *loop) preempt() {
	l.preempting = false
	if l.sched.free > 0 || l.sched.perPartition > 0 || l.outage != nil || l.breaker.paused() || seeded.Bug("hanging-partition-keeps-workers") {
		return
	}
	share, missing := l.sched.share(), 0
	for _, t := range l.sched.ring[l.sched.ringAt:] {
		if t.wants() && t.running < share {
			missing += share - t.running
		}
	}
	for _, t := range l.tenures {
		if l.sched.allows(t, l.now) {
			continue // has no more than its share, or does not hang
		}
		excess := t.running - t.beaten - share
		for c := t.runningTail; c != nil && excess > 0 && missing > 0; c = c.prev {
			if c.beaten {
				continue
			}
			excess--
			switch {
			case c.preempted:
				missing-- // its worker is on its way
			case c.cancel != nil && c.race == nil && !t.window.Slot(c.attempts[0].seq).preempted:
				missing--
				c.preempted = true
				for i := range c.attempts {
					t.window.Slot(c.attempts[i].seq).preempted = true
				}
				c.cancel()
			}
		}
	}
	l.preemptLater()
}
