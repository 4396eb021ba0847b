package demo

import (
	"testing"
	"time"
)

func TestOrder(t *testing.T) {
	tests := map[string]struct {
		came                                  []int64
		sent                                  int64
		outOfOrder, repeated, skipped, coming int
	}{
		"nothing came":                  {nil, 3, 0, 0, 0, 3},
		"nothing was sent":              {nil, 0, 0, 0, 0, 0},
		"in order":                      {[]int64{0, 1, 2, 3}, 4, 0, 0, 0, 0},
		"the last are under way":        {[]int64{0, 1}, 4, 0, 0, 0, 2},
		"two changed places":            {[]int64{0, 2, 1, 3}, 4, 1, 0, 0, 0},
		"the first came last":           {[]int64{1, 2, 3, 0}, 4, 1, 0, 0, 0},
		"backwards":                     {[]int64{3, 2, 1, 0}, 4, 3, 0, 0, 0},
		"one is lost":                   {[]int64{0, 2, 3}, 5, 0, 0, 1, 1},
		"one is late, after a gap":      {[]int64{0, 1, 5, 3}, 6, 1, 0, 2, 0},
		"one came again":                {[]int64{0, 1, 1, 2}, 3, 0, 1, 0, 0},
		"one came again ahead of a gap": {[]int64{0, 2, 2, 1}, 3, 1, 1, 0, 0},
		"what came after the end":       {[]int64{0, 1, 2, 4}, 2, 0, 0, 0, 0},
	}
	for name, test := range tests {
		var o order
		for _, n := range test.came {
			o.see(n)
		}
		skipped, coming := o.missing(test.sent)
		if o.outOfOrder != test.outOfOrder || o.repeated != test.repeated || skipped != test.skipped || coming != test.coming {
			t.Errorf("%s: %d out of order, %d repeated, %d skipped, %d coming; want %d, %d, %d, %d", name,
				o.outOfOrder, o.repeated, skipped, coming, test.outOfOrder, test.repeated, test.skipped, test.coming)
		}
	}
}

func TestSparseOrderAllowsGapsAndSeveralOutputs(t *testing.T) {
	var o sparseOrder
	for _, n := range []int64{3, 3, 7, 8, 8, 20} {
		o.see(n)
	}
	if o.outOfOrder != 0 {
		t.Errorf("%d out of order, want 0", o.outOfOrder)
	}
	if o.see(19); o.outOfOrder != 1 {
		t.Errorf("%d out of order after a step back, want 1", o.outOfOrder)
	}
}

func TestTallyKeepsDestinationsApart(t *testing.T) {
	now := time.Unix(1000, 0)
	tally := newTally(now)
	for _, r := range []struct {
		destination int32
		n           int64
	}{{0, 0}, {1, 0}, {1, 1}, {0, 2}, {1, 2}, {0, 1}} {
		now = now.Add(time.Second)
		tally.numbered(r.destination, r.n, now.Add(-time.Second/2), now)
	}
	if r := tally.report(now); r.outOfOrder != 1 || r.seen != 6 || r.p50 != time.Second/2 {
		t.Errorf("got %+v, want 6 seen, 1 out of order, p50 500ms", r)
	}
	if skipped, coming := tally.missing(map[int32]int64{0: 4, 1: 3, 2: 5}); skipped != 0 || coming != 6 {
		t.Errorf("%d skipped, %d coming; want none, and 6: one of the first, five of a destination that nothing came of", skipped, coming)
	}
}

func TestRatesAreOfTheLastPeriod(t *testing.T) {
	began := time.Unix(1000, 0)
	r := recent{began: began}
	if got := r.rates(began); got.p50 >= 0 || got.p99 >= 0 || got.perSecond != 0 {
		t.Errorf("before anything came: %+v, want negative latencies", got)
	}
	r.add(began.Add(time.Second), time.Hour) // forgotten at the end
	for i := range 100 {
		r.add(began.Add(15*time.Second), time.Duration(i+1)*time.Millisecond)
	}
	got := r.rates(began.Add(20 * time.Second))
	if want := (rates{50 * time.Millisecond, 99 * time.Millisecond, 10}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	// In the first seconds the throughput is that of the time there was.
	r = recent{began: began}
	r.add(began.Add(2*time.Second), time.Second)
	if got := r.rates(began.Add(2 * time.Second)); got.perSecond != 0.5 {
		t.Errorf("after 2 s: %v/s, want 0.5", got.perSecond)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	var h history
	now := time.Unix(1000, 0)
	for i := range int64(5000) {
		h.add(now, i)
		h.add(now, -1) // too soon
		now = now.Add(historyStep)
	}
	if len(h.values) > historySize {
		t.Errorf("%d values, want %d at the most", len(h.values), historySize)
	}
	for i := 1; i < len(h.values); i++ {
		if h.values[i] <= h.values[i-1] {
			t.Fatalf("values %v: do not rise as what was added", h.values)
		}
	}
	if !h.grows() {
		t.Error("it does not grow")
	}
	for range 5000 {
		h.add(now, 7)
		now = now.Add(historyStep)
	}
	if h.grows() {
		t.Error("it grows while it stays the same")
	}
}
