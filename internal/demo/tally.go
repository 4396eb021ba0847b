package demo

import (
	"sync"
	"time"
)

// A tally is what the reader saw come out of one side. It is safe for concurrent
// use.
type tally struct {
	mu     sync.Mutex
	recent recent
	dense  map[int32]*order        // by destination
	sparse map[string]*sparseOrder // by source partition and output partition
	seen   int
}

// report is a tally at one moment.
type report struct {
	rates
	seen, outOfOrder, repeated int
}

func newTally(now time.Time) *tally {
	return &tally{recent: recent{began: now}, dense: make(map[int32]*order), sparse: make(map[string]*sparseOrder)}
}

// numbered takes the record with a destination's number n.
func (t *tally) numbered(destination int32, n int64, arrived, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.came(arrived, now)
	o := t.dense[destination]
	if o == nil {
		o = new(order)
		t.dense[destination] = o
	}
	o.see(n)
}

// sourced takes an output of the record at an offset of the stream's source.
func (t *tally) sourced(stream string, offset int64, arrived, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.came(arrived, now)
	o := t.sparse[stream]
	if o == nil {
		o = new(sparseOrder)
		t.sparse[stream] = o
	}
	o.see(offset)
}

// unsourced takes an output that does not tell where it comes from.
func (t *tally) unsourced(arrived, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.came(arrived, now)
}

func (t *tally) came(arrived, now time.Time) {
	t.seen++
	t.recent.add(now, now.Sub(arrived))
}

func (t *tally) report(now time.Time) report {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := report{rates: t.recent.rates(now), seen: t.seen}
	for _, o := range t.dense {
		r.outOfOrder += o.outOfOrder
		r.repeated += o.repeated
	}
	for _, o := range t.sparse {
		r.outOfOrder += o.outOfOrder
	}
	return r
}

// missing counts the records that were sent, by destination, and not seen, as
// order.missing does.
func (t *tally) missing(sent map[int32]int64) (skipped, coming int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for destination, n := range sent {
		o := t.dense[destination]
		if o == nil {
			o = new(order)
		}
		s, c := o.missing(n)
		skipped += s
		coming += c
	}
	return skipped, coming
}
