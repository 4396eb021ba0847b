package offsets

import (
	"fmt"

	"seriatim/internal/seeded"
)

// Offset is the offset of a record that was read.
type Offset int64

// Next is the offset from which to go on reading: what Kafka stores as the
// committed offset. It is a type of its own so that nobody forgets, or repeats,
// the step from one to the other.
type Next int64

// Next returns where to go on reading after the record at o.
func (o Offset) Next() Next { return Next(o) + 1 }

// A BackError says that a record came whose offset lies before the position.
type BackError struct {
	Offset   Offset
	Position Next
}

// Error names the offset and the position.
func (e *BackError) Error() string {
	return fmt.Sprintf("offsets: record at offset %d came after the position was %d: the source went back", e.Offset, e.Position)
}

// A SettleError says that a record cannot be settled: it is settled already, or
// was never tracked.
type SettleError struct {
	Seq     uint64
	Settled bool
}

// Error names the record and what is wrong.
func (e *SettleError) Error() string {
	if e.Settled {
		return fmt.Sprintf("offsets: settle seq %d: it is settled already", e.Seq)
	}
	return fmt.Sprintf("offsets: settle seq %d: it is not tracked", e.Seq)
}

const (
	// minSlots is the size of an idle ring.
	minSlots = 64
	// calmRuns is how often in a row the tracker must have become empty without
	// using a quarter of its ring, before it gives the ring back.
	calmRuns = 16
)

type slot struct {
	offset  Offset
	epoch   int32
	settled bool
}

// Tracker computes the frontier of one partition. Make one with [NewTracker]. It
// has one owner: no two methods may run at once.
type Tracker struct {
	ring []slot // a power of two long; seq lives at seq&(len-1)

	settled uint64 // everything below is settled
	next    uint64 // seq of the next record

	frontier Next
	epoch    int32
	position Next

	peak int // most slots used since the tracker was last empty
	calm int // times in a row it became empty with a low peak
}

// NewTracker returns a tracker of a partition that is read from start.
func NewTracker(start Next) *Tracker {
	return &Tracker{ring: make([]slot, minSlots), frontier: start, epoch: -1, position: start}
}

// Track adds the next record; the i-th call gives it seq i, from 0. gap is the
// number of offsets before it that no record had, counted from the record
// tracked last or from the start. It returns a [*BackError] if o lies before the
// position. epoch is the leader epoch of the record, -1 if it has none.
func (t *Tracker) Track(o Offset, epoch int32) (gap int64, err error) {
	gap = int64(o) - int64(t.position)
	if gap < 0 {
		return 0, &BackError{o, t.position}
	}
	if t.Len() == len(t.ring) {
		t.grow()
	}
	*t.at(t.next) = slot{offset: o, epoch: epoch}
	t.next++
	t.position = o.Next()
	t.peak = max(t.peak, t.Len())
	return gap, nil
}

// Settle marks one record as settled. It returns a [*SettleError] if the record
// is not tracked or settled already.
func (t *Tracker) Settle(seq uint64) error {
	if seq < t.settled || seq >= t.next {
		return &SettleError{seq, seq < t.settled}
	}
	s := t.at(seq)
	if s.settled {
		return &SettleError{seq, true}
	}
	s.settled = true
	if seq == t.settled {
		t.advance()
	}
	return nil
}

// SettleRange marks the records from lo up to but not including hi as settled:
// all of them, or none with a [*SettleError] that names the first one that cannot
// be. An empty range does nothing.
func (t *Tracker) SettleRange(lo, hi uint64) error {
	if lo >= hi {
		return nil
	}
	if lo < t.settled {
		return &SettleError{lo, true}
	}
	for seq := lo; seq < hi; seq++ {
		if seq >= t.next {
			return &SettleError{seq, false}
		}
		if t.at(seq).settled {
			return &SettleError{seq, true}
		}
	}
	for seq := lo; seq < hi; seq++ {
		t.at(seq).settled = true
	}
	if lo == t.settled {
		t.advance()
	} else if seeded.Bug("commit-highest") {
		t.frontier = t.at(hi - 1).offset.Next()
	}
	return nil
}

// Frontier returns one past the longest settled prefix and the leader epoch of
// the record before it: the only position that may be committed. Before the
// first record is settled it is the start, and the epoch is -1.
func (t *Tracker) Frontier() (Next, int32) { return t.frontier, t.epoch }

// Settled is the seq of the oldest record that is not settled: the length of the
// settled prefix.
func (t *Tracker) Settled() uint64 { return t.settled }

// Len is the number of records tracked beyond the settled prefix, themselves
// settled or not.
func (t *Tracker) Len() int { return int(t.next - t.settled) }

// Position is where reading goes on: one past the newest tracked record, or the
// start.
func (t *Tracker) Position() Next { return t.position }

func (t *Tracker) at(seq uint64) *slot {
	return &t.ring[seq&uint64(len(t.ring)-1)]
}

// advance moves the frontier over the settled prefix. It is called when the
// oldest record has just been settled.
func (t *Tracker) advance() {
	var last *slot
	for t.settled < t.next {
		s := t.at(t.settled)
		if !s.settled {
			break
		}
		last = s
		t.settled++
	}
	t.frontier, t.epoch = last.offset.Next(), last.epoch
	if seeded.Bug("frontier-off-by-one") {
		t.frontier++
	}
	if t.settled == t.next {
		t.emptied()
	}
}

// grow doubles the ring. Each seq moves to its place under the wider mask.
func (t *Tracker) grow() {
	old := t.ring
	t.ring = make([]slot, 2*len(old))
	for seq := t.settled; seq < t.next; seq++ {
		*t.at(seq) = old[seq&uint64(len(old)-1)]
	}
}

// emptied gives a ring back that has been far too large for long enough.
func (t *Tracker) emptied() {
	if t.peak < len(t.ring)/4 {
		t.calm++
	} else {
		t.calm = 0
	}
	t.peak = 0
	if t.calm >= calmRuns && len(t.ring) > minSlots {
		t.ring = make([]slot, minSlots)
		t.calm = 0
	}
}
