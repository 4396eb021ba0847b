package processor

import (
	"slices"
	"time"

	"seriatim/internal/seeded"
	"seriatim/resequence"
)

// An allowance bounds the retries of a pipeline, so that workers that fail under their
// load do not get several times as much. Each first attempt allows a share of a retry,
// and retriesAlways a second are allowed in any case. A retry that is answered gives
// back what it took: so only those that fail again are used up, and what has waited goes
// out ever faster once the workers are well.
//
// Where records are attempted in batches a retry is a batch of them.
//
// Retries beyond it wait, those of each partition in their order, partitions in turn.
// Their attempts do not count differently.
type allowance struct {
	share  float64
	size   float64   // records of a retry: 1, or those of a batch
	tokens float64   // records
	filled time.Time // when tokens were last added for the time that passed
	ring   []*tenure // with retries that wait
	armed  bool      // a timer is set
}

const (
	retriesAlways = 10  // retries a second
	retryBurst    = 100 // most retries that are saved up
)

func newAllowance(opts *Options, now time.Time) allowance {
	size := float64(max(1, opts.Batch.Records))
	return allowance{share: opts.Retry.Budget, size: size, tokens: retryBurst * size, filled: now}
}

func (a *allowance) add(tokens float64) { a.tokens = min(a.tokens+tokens, retryBurst*a.size) }

// spend reports whether another record may be attempted again now, and counts it.
func (a *allowance) spend(now time.Time) bool {
	a.add(now.Sub(a.filled).Seconds() * retriesAlways * a.size)
	a.filled = now
	if a.tokens < 1 {
		return false
	}
	a.tokens--
	return true
}

// retry puts a record whose back-off is over in line for an attempt, as far as the
// allowance goes.
func (l *loop) retry(t *tenure, seq resequence.Seq) {
	if len(t.delayed) == 0 {
		l.retries.ring = append(l.retries.ring, t)
	}
	at, _ := slices.BinarySearch(t.delayed, seq)
	t.delayed = slices.Insert(t.delayed, at, seq)
	l.allowRetries()
}

// allowRetries lets go of retries that wait, as far as the allowance goes.
func (l *loop) allowRetries() {
	a := &l.retries
	for len(a.ring) > 0 {
		t := a.ring[0]
		if t.phase != open {
			a.ring, t.delayed = a.ring[1:], nil
			continue
		}
		if !a.spend(l.now) {
			if seeded.Bug("retry-budget-drops") {
				a.ring, t.delayed = nil, nil
			}
			if !a.armed {
				a.armed = true
				wait := time.Duration((1-a.tokens)/(retriesAlways*a.size)*float64(time.Second)) + time.Millisecond
				l.at(l.now.Add(wait), func() {
					a.armed = false
					l.allowRetries()
				})
			}
			return
		}
		seq := t.delayed[0]
		t.delayed = t.delayed[1:]
		if a.ring = a.ring[1:]; len(t.delayed) > 0 {
			a.ring = append(a.ring, t)
		}
		l.lineUp(t, seq)
	}
}

// answeredRetry gives back what a retry took that was answered.
func (l *loop) answeredRetry(number int32) {
	if number > 1 {
		l.retries.add(1)
		l.allowRetries()
	}
}

// retriesWaiting counts the records that wait for the allowance.
func (l *loop) retriesWaiting() (n int) {
	for _, t := range l.tenures {
		n += len(t.delayed)
	}
	return n
}
