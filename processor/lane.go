package processor

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"seriatim/internal/seeded"
)

// A lane is an output partition. It sees to it that no output overtakes another one
// that the producer has refused.
//
// When the producer gives an output up, it gives up all that it holds of that
// partition, but it takes what it is handed next, and the loop hears of the refusal
// a little later:
//
//	broker   refuses output 7, which was sent with 5 and 6
//	client   gives up 5-7 and also 8 and 9, which wait; puts their promises in a queue
//	loop     hands over 10
//	client   calls the promises: the loop learns that 5-9 have to be emitted again
//	client   sends 10
//
// Therefore an output is the context of its own record. Before the producer sends the
// first batch of a partition of which nothing else is in flight, it asks whether the
// context of that batch's first record is done: here 10. By then the promises of all
// before it are in the queue, so that Done can wait for them, and it says yes after a
// refusal. Of later batches the producer does not ask: they share the fate of those
// before them, as the broker takes the sequence numbers of a producer only without gaps.
//
// Promises of what is refused before it is in a batch come the same way. In a
// transaction there are no lanes: one that lost an output is aborted, with what overtook it.
type lane struct {
	acks    *acks
	handed  uint64      // outputs given to the producer; the loop's
	refused atomic.Bool // since it was opened

	answered uint64 // of those handed over; guarded by acks.mu
}

// errOvertaking is why an output is given up that would overtake a refused one.
// It is a cancellation to the producer.
var errOvertaking = overtaking{errors.New("an output before it was refused")}

type overtaking struct{ error }

func (overtaking) Is(target error) bool { return target == context.Canceled }

// take puts an output in the lane, last.
func (l *lane) take(o *output) {
	o.lane, o.place = l, l.handed
	l.handed++
}

// open reports whether outputs may be handed over. After a refusal they may once all
// that was handed over is answered and the loop has heard the answers: tenures which
// share the lane must have learnt first what they have to emit again.
func (l *lane) open() bool {
	if !l.refused.Load() {
		return true
	}
	l.acks.mu.Lock()
	defer l.acks.mu.Unlock()
	if l.answered < l.handed || len(l.acks.entries) > 0 {
		return false
	}
	l.refused.Store(false)
	return true
}

// answer notes the promise of one output. Its caller holds acks.mu.
func (l *lane) answer(err error) {
	l.answered++
	if err != nil {
		l.refused.Store(true)
	}
}

// Done is closed if the output would overtake a refused one. It waits for the answers of
// those before it, and must be called only when none of them is in flight.
func (o *output) Done() <-chan struct{} {
	l := o.lane
	if l == nil || seeded.Bug("refusal-overtaken") {
		return nil
	}
	if !l.refused.Load() {
		l.acks.mu.Lock()
		for l.answered < o.place && !l.refused.Load() {
			l.acks.waiting++
			l.acks.more.Wait()
			l.acks.waiting--
		}
		l.acks.mu.Unlock()
	}
	if l.refused.Load() {
		return closedChannel
	}
	return nil
}

// Err says why Done is closed.
func (o *output) Err() error {
	if o.lane != nil && o.lane.refused.Load() {
		return errOvertaking
	}
	return nil
}

// Deadline says that there is none.
func (*output) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value returns nil.
func (*output) Value(any) any { return nil }

var closedChannel = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()
