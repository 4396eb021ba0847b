package offsets

import (
	"fmt"
	"time"

	"seriatim/internal/seeded"
)

// minGap is the least time from the start of one commit to the start of the next
// that the count triggers.
const minGap = time.Second

// Policy decides when to commit. Make one with [NewPolicy]. It has one owner: no
// two methods may run at once. It has no clock: every method that needs the time
// is given it, never less than before.
//
// A commit is due
//   - at once when a position became known ([Policy.Assigned]), so that a record
//     stuck from the start is seen as stuck;
//   - on every tick, moved or not: that lets a lag monitor tell a blocked head
//     from a dead process. The first Assigned starts the ticks. They keep their
//     cadence however long a commit takes;
//   - when enough records have been settled since the last commit began, but not
//     within a second of that.
//
// While a commit is in flight none is due. What falls due meanwhile, be it many
// ticks, is one commit right after it. The policy does not know whether a commit
// succeeded: after one that did not, the next tick comes all the same.
type Policy struct {
	interval time.Duration
	records  int

	tick     time.Time // the next one; zero before the first Assigned
	assigned bool      // since the last commit began
	settled  int       // since the last commit began
	begun    time.Time // when the last commit began; zero before the first
	inFlight bool
}

// NewPolicy returns a policy that ticks every interval and commits earlier when
// the given number of records has been settled. It panics if one of them is not
// positive.
func NewPolicy(interval time.Duration, records int) *Policy {
	if interval <= 0 || records <= 0 {
		panic(fmt.Sprintf("offsets: policy needs a positive interval and count: %v, %d", interval, records))
	}
	return &Policy{interval: interval, records: records}
}

// Assigned says that the position of a partition became known.
func (p *Policy) Assigned(now time.Time) {
	p.assigned = !seeded.Bug("first-commit-missing")
	if p.tick.IsZero() {
		p.tick = now.Add(p.interval)
	}
}

// Settled says that the settled prefixes grew by n records, 0 or more.
func (p *Policy) Settled(n int) { p.settled += n }

// Due tells whether to commit now.
func (p *Policy) Due(now time.Time) bool {
	deadline := p.Deadline(now)
	return !deadline.IsZero() && !deadline.After(now)
}

// Deadline is when Due turns true if nothing else happens: now if it is true
// already, the zero time if only a call can make it true (a commit is in flight,
// or no partition was ever assigned). Any other call may bring it forward.
func (p *Policy) Deadline(now time.Time) time.Time {
	if p.inFlight || p.tick.IsZero() {
		return time.Time{}
	}
	if p.assigned {
		return now
	}
	deadline := p.tick
	if p.settled >= p.records {
		if early := p.begun.Add(minGap); early.Before(deadline) {
			deadline = early
		}
	}
	if deadline.Before(now) {
		return now
	}
	return deadline
}

// Begin says that a commit of every position was sent, due or not (revoke and
// shutdown do not ask). Ticks up to now are done with.
func (p *Policy) Begin(now time.Time) {
	p.inFlight = true
	p.assigned = false
	p.settled = 0
	p.begun = now
	if !p.tick.IsZero() && !p.tick.After(now) {
		missed := now.Sub(p.tick) / p.interval
		p.tick = p.tick.Add((missed + 1) * p.interval)
	}
}

// Done says that the commit in flight has ended, well or not.
func (p *Policy) Done(time.Time) { p.inFlight = false }
