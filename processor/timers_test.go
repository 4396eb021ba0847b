package processor

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestTimersFireInOrder(t *testing.T) {
	var h timers
	if !h.nextTimer().IsZero() {
		t.Errorf("without timers the next is at %v, want the zero time", h.nextTimer())
	}
	start := time.Unix(0, 0)
	var fired []int
	for _, i := range rand.Perm(100) {
		h.at(start.Add(time.Duration(i)*time.Second), func() { fired = append(fired, i) })
	}
	if h.nextTimer() != start {
		t.Errorf("the next is at %v, want %v", h.nextTimer(), start)
	}
	h.fireTimers(start.Add(-1))
	if len(fired) != 0 {
		t.Errorf("%d fired too early", len(fired))
	}
	h.fireTimers(start.Add(49 * time.Second))
	if len(fired) != 50 || h.nextTimer() != start.Add(50*time.Second) {
		t.Errorf("%d fired, the next is at %v; want 50 and the 51st", len(fired), h.nextTimer())
	}
	// One that fires may set another, which is due as well.
	h.at(start, func() { h.at(start, func() { fired = append(fired, -1) }) })
	h.fireTimers(start.Add(49 * time.Second))
	if fired[len(fired)-1] != -1 {
		t.Error("a timer that was set for the past by another did not fire")
	}
	h.fireTimers(start.Add(time.Hour))
	if len(fired) != 101 || len(h) != 0 {
		t.Errorf("%d fired and %d are left, want 101 and none", len(fired), len(h))
	}
	if fired = slices.DeleteFunc(fired, func(i int) bool { return i < 0 }); !slices.IsSorted(fired) {
		t.Errorf("they fired in the order %v", fired)
	}
}

func TestBackoffIsFullJitter(t *testing.T) {
	r := Retries{Initial: 100 * time.Millisecond, Max: 5 * time.Second}
	for failed := 1; failed < 70; failed++ {
		ceiling := r.Max
		if failed < 7 {
			ceiling = min(r.Max, r.Initial<<(failed-1))
		}
		least, most := time.Hour, time.Duration(0)
		for range 1000 {
			d := r.backoff(failed, 0, rand.Float64())
			least, most = min(least, d), max(most, d)
		}
		if most > ceiling || most < ceiling*9/10 || least > ceiling/10 || least < 0 {
			t.Errorf("after %d failures the wait is between %v and %v, want it anywhere up to %v", failed, least, most, ceiling)
		}
	}
	for _, test := range []struct{ asked, least, most time.Duration }{
		{time.Second, time.Second, time.Second}, // more than the ceiling of the first
		{time.Hour, r.Max, r.Max},
		{-time.Second, 0, r.Initial},
	} {
		if d := r.backoff(1, test.asked, rand.Float64()); d < test.least || d > test.most {
			t.Errorf("asked for %v the wait is %v, want between %v and %v", test.asked, d, test.least, test.most)
		}
	}
}

// A loss is over only when the commit in flight is.
func TestLossWaitsForTheCommitInFlight(t *testing.T) {
	opts, err := validOptions().withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	l := newLoop(&opts)
	cancelled := false
	l.commits.inFlight = func() { cancelled = true }
	done := make(chan bool, 1)
	l.lose(nil, done)
	l.proceedDrains()
	if !cancelled || len(done) != 0 {
		t.Errorf("cancelled: %v, over: %v; want it cancelled and not over", cancelled, len(done) == 1)
	}
	l.committed(nil, nil, nil)
	l.proceedDrains()
	if len(done) != 1 {
		t.Error("the loss is not over although the commit is")
	}
}
