package resequence

import (
	"errors"
	"fmt"

	"seriatim/internal/seeded"
)

// Seq is a position in admission order: dense, from 0.
type Seq uint64

// Limits bound what a [Window] holds: what was admitted and not yet freed.
type Limits struct {
	Records int   // at least 1
	Bytes   int64 // at least 1; one record fits an empty window whatever its size
}

// ErrFull says that a record does not fit the window now. It fits after enough
// slots have been freed.
var ErrFull = errors.New("resequence: window is full")

// State is where a Seq is in its life.
type State uint8

// The states, in the order in which a Seq goes through them.
const (
	Unknown   State = iota // not admitted yet
	Admitted               // not completed yet
	Completed              // not released yet
	Released               // not freed yet
	Freed                  // forgotten
)

// String returns the state as it stands in errors.
func (s State) String() string {
	switch s {
	case Unknown:
		return "not admitted"
	case Admitted:
		return "admitted"
	case Completed:
		return "completed"
	case Released:
		return "released"
	case Freed:
		return "freed"
	default:
		return fmt.Sprintf("State(%d)", uint8(s))
	}
}

// A SlotError says that a slot was in the wrong state for what was asked. The
// window is unchanged.
type SlotError struct {
	Op    string // complete or free
	Seq   Seq
	State State // the state it is in
}

// Error names the operation, the slot and its state.
func (e *SlotError) Error() string {
	return fmt.Sprintf("resequence: %s seq %d: it is %v", e.Op, e.Seq, e.State)
}

const (
	// minSlots is the size of an idle ring.
	minSlots = 64
	// calmRuns is how often in a row the window must have become empty without
	// using a quarter of its ring, before it gives the ring back.
	calmRuns = 16
)

type slot[T any] struct {
	value T
	bytes int64
	done  bool // completed
}

// Window holds the records of one partition from admission until they are freed.
// Make one with [New]. It has one owner: no two methods may run at once.
//
// Pointers that its methods return point into the ring. They are valid until the
// next Admit, which may move the ring, or until their slot is freed.
type Window[T any] struct {
	limits Limits
	ring   []slot[T] // a power of two long; seq lives at seq&(len-1)

	// tail <= head <= next: [tail, head) is released and held, [head, next) not
	// yet released.
	tail, head, next Seq

	bytes   int64
	waiting int // completed in [head, next)
	peak    int // most slots held since the window was last empty
	calm    int // times in a row it became empty with a low peak
}

// New returns an empty window. It panics if a limit is less than 1.
func New[T any](l Limits) *Window[T] {
	if l.Records < 1 || l.Bytes < 1 {
		panic(fmt.Sprintf("resequence: limits must be at least 1: %+v", l))
	}
	return &Window[T]{limits: l, ring: make([]slot[T], minSlots)}
}

// Admit takes a record of the given size (0 or more) into the window and returns
// its Seq and its slot, which is zero. It returns [ErrFull] if the record does
// not fit.
func (w *Window[T]) Admit(bytes int64) (Seq, *T, error) {
	if !w.Fits(bytes) {
		return 0, nil, ErrFull
	}
	if w.Len() == len(w.ring) {
		w.grow()
	}
	seq := w.next
	w.next++
	w.bytes += bytes
	w.peak = max(w.peak, w.Len())
	s := w.at(seq)
	s.bytes = bytes
	return seq, &s.value, nil
}

// Fits tells whether Admit would take a record of the given size.
func (w *Window[T]) Fits(bytes int64) bool {
	held := w.Len()
	// Subtracted, not added: the sum could overflow beside a limit of MaxInt64.
	return held == 0 || seeded.Bug("window-unlimited") || held < w.limits.Records && bytes <= w.limits.Bytes-w.bytes
}

// Slot returns the value of a seq that is held, released or not, else nil.
func (w *Window[T]) Slot(seq Seq) *T {
	if seq < w.tail || seq >= w.next {
		return nil
	}
	return &w.at(seq).value
}

// Complete marks a seq as finished and counts the bytes of its outputs (0 or
// more), which exist already and are never refused. It returns a [*SlotError]
// unless the seq is admitted and neither completed nor released.
func (w *Window[T]) Complete(seq Seq, bytes int64) error {
	if seq < w.head || seq >= w.next {
		return &SlotError{"complete", seq, w.state(seq)}
	}
	s := w.at(seq)
	if s.done {
		return &SlotError{"complete", seq, Completed}
	}
	s.done = true
	s.bytes += bytes
	w.bytes += bytes
	w.waiting++
	return nil
}

// Resize sets the bytes that a released seq counts, with its outputs, once they are
// others. It returns a [*SlotError] unless the seq is released and not freed.
func (w *Window[T]) Resize(seq Seq, bytes int64) error {
	if seq < w.tail || seq >= w.head {
		return &SlotError{"resize", seq, w.state(seq)}
	}
	s := w.at(seq)
	w.bytes += bytes - s.bytes
	s.bytes = bytes
	return nil
}

// Release returns the head if it is completed, each seq once, in order. The slot
// stays held, and counts, until it is freed.
func (w *Window[T]) Release() (Seq, *T, bool) {
	if w.waiting == 0 {
		return 0, nil, false
	}
	s := w.at(w.head)
	if !s.done && !seeded.Bug("release-unfinished") {
		return 0, nil, false
	}
	seq := w.head
	w.head++
	w.waiting--
	return seq, &s.value, true
}

// Free forgets all slots below to and zeroes them, so that what they refer to can
// be collected. Slots freed already are no error. It returns a [*SlotError] if a
// slot below to is not released.
func (w *Window[T]) Free(to Seq) error {
	if to > w.head {
		return &SlotError{"free", w.head, w.state(w.head)}
	}
	if to <= w.tail {
		return nil
	}
	for ; w.tail < to; w.tail++ {
		s := w.at(w.tail)
		w.bytes -= s.bytes
		*s = slot[T]{}
	}
	if w.tail == w.next {
		w.emptied()
	}
	return nil
}

// Head returns the oldest seq that is not released, or false if there is none.
func (w *Window[T]) Head() (Seq, bool) { return w.head, w.head < w.next }

// Len is the number of slots held: admitted and not freed.
func (w *Window[T]) Len() int { return int(w.next - w.tail) }

// Bytes is the size of what is held, inputs and outputs.
func (w *Window[T]) Bytes() int64 { return w.bytes }

// Next is the seq that the next record will get: how many were ever admitted.
func (w *Window[T]) Next() Seq { return w.next }

// Waiting is the number of records that are completed and not released.
func (w *Window[T]) Waiting() int { return w.waiting }

func (w *Window[T]) at(seq Seq) *slot[T] {
	return &w.ring[seq&Seq(len(w.ring)-1)]
}

func (w *Window[T]) state(seq Seq) State {
	switch {
	case seq < w.tail:
		return Freed
	case seq < w.head:
		return Released
	case seq >= w.next:
		return Unknown
	case w.at(seq).done:
		return Completed
	default:
		return Admitted
	}
}

// grow doubles the ring. Each seq moves to its place under the wider mask.
func (w *Window[T]) grow() {
	old := w.ring
	w.ring = make([]slot[T], 2*len(old))
	for seq := w.tail; seq < w.next; seq++ {
		*w.at(seq) = old[seq&Seq(len(old)-1)]
	}
}

// emptied gives a ring back that has been far too large for long enough.
func (w *Window[T]) emptied() {
	if w.peak < len(w.ring)/4 {
		w.calm++
	} else {
		w.calm = 0
	}
	w.peak = 0
	if w.calm >= calmRuns && len(w.ring) > minSlots {
		w.ring = make([]slot[T], minSlots)
		w.calm = 0
	}
}
