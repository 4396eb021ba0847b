package offsets

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// track tracks n records without gaps or fails the test.
func track(tb testing.TB, t *Tracker, n int) {
	tb.Helper()
	for range n {
		if _, err := t.Track(Offset(t.Position()), 1); err != nil {
			tb.Fatal(err)
		}
	}
}

// cycle moves n records through t, which must be empty, and leaves it empty.
func cycle(tb testing.TB, t *Tracker, n int) {
	tb.Helper()
	track(tb, t, n)
	if err := t.SettleRange(t.Settled(), t.Settled()+uint64(n)); err != nil {
		tb.Fatal(err)
	}
}

func TestFrontierIsOnePastTheSettledPrefix(t *testing.T) {
	type record struct {
		offset Offset
		epoch  int32
	}
	records := []record{{10, 3}, {11, 3}, {15, 4}, {16, -1}}
	tests := map[string]struct {
		settle []uint64
		next   Next
		epoch  int32
		prefix uint64
	}{
		"nothing settled":               {nil, 10, -1, 0},
		"the first":                     {[]uint64{0}, 11, 3, 1},
		"not the first":                 {[]uint64{1, 2, 3}, 10, -1, 0},
		"a gap is not passed early":     {[]uint64{0, 1}, 12, 3, 2},
		"a gap is passed with a record": {[]uint64{0, 1, 2}, 16, 4, 3},
		"reversed":                      {[]uint64{3, 2, 1, 0}, 17, -1, 4},
		"the hole fills":                {[]uint64{0, 2, 1}, 16, 4, 3},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tracker := NewTracker(10)
			for _, r := range records {
				if _, err := tracker.Track(r.offset, r.epoch); err != nil {
					t.Fatal(err)
				}
			}
			for _, seq := range tt.settle {
				if err := tracker.Settle(seq); err != nil {
					t.Fatal(err)
				}
			}
			if next, epoch := tracker.Frontier(); next != tt.next || epoch != tt.epoch {
				t.Errorf("Frontier: got %d, epoch %d, want %d, epoch %d", next, epoch, tt.next, tt.epoch)
			}
			if got := tracker.Settled(); got != tt.prefix {
				t.Errorf("Settled: got %d, want %d", got, tt.prefix)
			}
			if got, want := tracker.Len(), len(records)-int(tt.prefix); got != want {
				t.Errorf("Len: got %d, want %d", got, want)
			}
		})
	}
}

func TestTrackCountsGapsAndRefusesToGoBack(t *testing.T) {
	tests := map[string]struct {
		start  Next
		before []Offset
		offset Offset
		gap    int64
		back   *BackError
	}{
		"first at the start":     {100, nil, 100, 0, nil},
		"first behind a gap":     {100, nil, 107, 7, nil},
		"first before the start": {100, nil, 99, 0, &BackError{99, 100}},
		"dense":                  {0, []Offset{0, 1}, 2, 0, nil},
		"a marker in between":    {0, []Offset{0, 1}, 3, 1, nil},
		"beyond 32 bits":         {0, []Offset{0}, 1 << 40, 1<<40 - 1, nil},
		"the same again":         {0, []Offset{0, 1}, 1, 0, &BackError{1, 2}},
		"far back":               {0, []Offset{0, 900}, 5, 0, &BackError{5, 901}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tracker := NewTracker(tt.start)
			for _, o := range tt.before {
				if _, err := tracker.Track(o, 1); err != nil {
					t.Fatal(err)
				}
			}
			position, held := tracker.Position(), tracker.Len()
			gap, err := tracker.Track(tt.offset, 1)
			var back *BackError
			if gap != tt.gap || errors.As(err, &back) != (tt.back != nil) || back != nil && *back != *tt.back {
				t.Fatalf("Track(%d): got gap %d, error %v, want %d, %v", tt.offset, gap, err, tt.gap, tt.back)
			}
			if tt.back == nil {
				position, held = tt.offset.Next(), held+1
			}
			if tracker.Position() != position || tracker.Len() != held {
				t.Errorf("then: got position %d with %d held, want %d with %d", tracker.Position(), tracker.Len(), position, held)
			}
		})
	}
}

func TestSettleRefusesWhatIsNotOpen(t *testing.T) {
	// Of five records 0 is passed by the frontier, 2 is settled behind 1.
	one := func(seq uint64) func(*Tracker) error {
		return func(t *Tracker) error { return t.Settle(seq) }
	}
	span := func(lo, hi uint64) func(*Tracker) error {
		return func(t *Tracker) error { return t.SettleRange(lo, hi) }
	}
	tests := map[string]struct {
		call   func(*Tracker) error
		want   *SettleError
		prefix uint64 // afterwards
	}{
		"passed":                       {one(0), &SettleError{0, true}, 1},
		"settled behind another":       {one(2), &SettleError{2, true}, 1},
		"not tracked":                  {one(5), &SettleError{5, false}, 1},
		"open":                         {one(1), nil, 3},
		"range that is empty":          {span(9, 9), nil, 1},
		"range turned around":          {span(4, 3), nil, 1},
		"range from the passed":        {span(0, 2), &SettleError{0, true}, 1},
		"range over a settled one":     {span(1, 4), &SettleError{2, true}, 1},
		"range beyond the tracked":     {span(3, 6), &SettleError{5, false}, 1},
		"range far beyond the tracked": {span(1<<60, 1<<61), &SettleError{1 << 60, false}, 1},
		"range that is open":           {span(3, 5), nil, 1},
		"range of one at the prefix":   {span(1, 2), nil, 3},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tracker := NewTracker(0)
			track(t, tracker, 5)
			if err := errors.Join(tracker.Settle(0), tracker.Settle(2)); err != nil {
				t.Fatal(err)
			}
			err := tt.call(tracker)
			var got *SettleError
			if errors.As(err, &got) != (tt.want != nil) || got != nil && *got != *tt.want {
				t.Fatalf("got error %v, want %v", err, tt.want)
			}
			if got := tracker.Settled(); got != tt.prefix {
				t.Errorf("settled prefix: got %d, want %d", got, tt.prefix)
			}
			if tt.want == nil {
				return
			}
			// What failed has changed nothing: 1, 3 and 4 are open.
			if err := errors.Join(tracker.Settle(1), tracker.Settle(3), tracker.Settle(4)); err != nil {
				t.Errorf("after the error: %v", err)
			}
		})
	}
}

func TestPassedRecordsAreRefusedWhenTheirSlotsAreUsedAgain(t *testing.T) {
	tracker := NewTracker(0)
	cycle(t, tracker, minSlots)
	track(t, tracker, minSlots)
	calls := map[string]func() error{
		"Settle":      func() error { return tracker.Settle(3) },
		"SettleRange": func() error { return tracker.SettleRange(3, 5) },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			var got *SettleError
			if err := call(); !errors.As(err, &got) || *got != (SettleError{3, true}) {
				t.Errorf("got error %v, want %v", err, &SettleError{3, true})
			}
		})
	}
	if err := tracker.SettleRange(minSlots, 2*minSlots); err != nil {
		t.Errorf("the records that use the slots now: %v", err)
	}
}

func TestErrorsSayWhatHappened(t *testing.T) {
	tests := []struct {
		err  error
		want string
	}{
		{&BackError{5, 9}, "offsets: record at offset 5 came after the position was 9: the source went back"},
		{&SettleError{7, true}, "offsets: settle seq 7: it is settled already"},
		{&SettleError{7, false}, "offsets: settle seq 7: it is not tracked"},
	}
	for _, tt := range tests {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestRingFollowsWhatIsTracked(t *testing.T) {
	tests := map[string]struct {
		peaks []int
		want  int
	}{
		"small at first":                  {nil, 64},
		"full":                            {[]int{64}, 64},
		"doubles":                         {[]int{65}, 128},
		"not right after the burst":       {[]int{4000}, 4096},
		"not while bursts go on":          {slices.Repeat([]int{4000}, 50), 4096},
		"not after a few small cycles":    {append([]int{4000}, slices.Repeat([]int{1}, 15)...), 4096},
		"not if a quarter is used":        {append([]int{4000}, slices.Repeat([]int{1024}, 50)...), 4096},
		"shrinks after many small cycles": {append([]int{4000}, slices.Repeat([]int{1}, 16)...), 64},
		"then stays at what is used":      {append([]int{4000}, slices.Repeat([]int{300}, 50)...), 512},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tracker := NewTracker(0)
			for _, n := range tt.peaks {
				cycle(t, tracker, n)
			}
			if got := len(tracker.ring); got != tt.want {
				t.Errorf("ring: got %d slots, want %d", got, tt.want)
			}
		})
	}
}

// turn tracks as many records as order has and settles them in that order.
func turn(tb testing.TB, t *Tracker, order []uint64) {
	base := t.Settled()
	for range order {
		if _, err := t.Track(Offset(t.Position())+1, 1); err != nil {
			tb.Fatal(err)
		}
	}
	for _, i := range order {
		if err := t.Settle(base + i); err != nil {
			tb.Fatal(err)
		}
	}
}

// turnInRuns does the same with ranges of n records.
func turnInRuns(tb testing.TB, t *Tracker, slots, n int) {
	base := t.Settled()
	for range slots {
		if _, err := t.Track(Offset(t.Position())+1, 1); err != nil {
			tb.Fatal(err)
		}
	}
	for lo := base; lo < base+uint64(slots); lo += uint64(n) {
		if err := t.SettleRange(lo, lo+uint64(n)); err != nil {
			tb.Fatal(err)
		}
	}
}

func shuffled(n int) []uint64 {
	order := make([]uint64, n)
	for i, j := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
		order[i] = uint64(j)
	}
	return order
}

func TestNothingIsAllocatedAtASteadySize(t *testing.T) {
	for _, slots := range []int{64, 1024, 16384} {
		t.Run(fmt.Sprintf("slots=%d", slots), func(t *testing.T) {
			tracker := NewTracker(0)
			order := shuffled(slots)
			turn(t, tracker, order)
			got := testing.AllocsPerRun(20, func() {
				turn(t, tracker, order)
				turnInRuns(t, tracker, slots, 32)
			})
			if got != 0 {
				t.Errorf("allocations a turn: got %v, want 0", got)
			}
		})
	}
}

// BenchmarkTracker measures track and settle of one record. One op is a whole
// tracker of records.
func BenchmarkTracker(b *testing.B) {
	for _, slots := range []int{1024, 16384} {
		order := shuffled(slots)
		for name, turn := range map[string]func(*Tracker){
			"order=random": func(t *Tracker) { turn(b, t, order) },
			"order=runs":   func(t *Tracker) { turnInRuns(b, t, slots, 32) },
		} {
			b.Run(fmt.Sprintf("slots=%d/%s", slots, name), func(b *testing.B) {
				tracker := NewTracker(0)
				turn(tracker)
				b.ReportAllocs()
				turns := 0
				for b.Loop() {
					turn(tracker)
					turns++
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(turns*slots), "ns/record")
			})
		}
	}
}
