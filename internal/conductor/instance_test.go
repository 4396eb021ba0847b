package conductor

import (
	"testing"
	"time"
)

func TestFreezesThatFollowEachOtherAreOne(t *testing.T) {
	var s stillness
	at := func(seconds float64) time.Time {
		return time.Date(2026, 1, 1, 0, 0, 0, int(seconds*1e9), time.UTC)
	}
	for _, test := range []struct{ from, until, want float64 }{
		{10, 18, 8},
		{18.01, 30, 20},
		{32, 50, 40},
		{57, 60, 3}, // it has run for longer than its session
	} {
		got, want := s.add(at(test.from), at(test.until)), time.Duration(test.want*1e9)
		if got != want {
			t.Errorf("with the freeze from %v to %v it has not run for %v, want %v", test.from, test.until, got, want)
		}
	}
}
