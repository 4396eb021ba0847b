package resequence

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func roomy() Limits { return Limits{Records: 1 << 14, Bytes: math.MaxInt64} }

// admit admits n records of one byte each or fails the test.
func admit[T any](t testing.TB, w *Window[T], n int) {
	t.Helper()
	for range n {
		if _, _, err := w.Admit(1); err != nil {
			t.Fatalf("Admit(1) with %d held: %v", w.Len(), err)
		}
	}
}

// complete completes the given seqs or fails the test.
func complete[T any](t testing.TB, w *Window[T], seqs ...Seq) {
	t.Helper()
	for _, seq := range seqs {
		if err := w.Complete(seq, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// release releases all that can be and returns it.
func release[T any](w *Window[T]) []Seq {
	var got []Seq
	for {
		seq, _, ok := w.Release()
		if !ok {
			return got
		}
		got = append(got, seq)
	}
}

// cycle moves n records through w, which must be empty, and leaves it empty.
func cycle[T any](t testing.TB, w *Window[T], n int) {
	t.Helper()
	admit(t, w, n)
	for seq := w.Next() - Seq(n); seq < w.Next(); seq++ {
		complete(t, w, seq)
	}
	release(w)
	if err := w.Free(w.Next()); err != nil {
		t.Fatal(err)
	}
}

func TestReleaseFollowsAdmissionOrder(t *testing.T) {
	tests := map[string]struct {
		complete []Seq   // of 4 admitted
		released [][]Seq // after each completion
	}{
		"in order":         {[]Seq{0, 1, 2, 3}, [][]Seq{{0}, {1}, {2}, {3}}},
		"reversed":         {[]Seq{3, 2, 1, 0}, [][]Seq{nil, nil, nil, {0, 1, 2, 3}}},
		"head in between":  {[]Seq{2, 0, 3, 1}, [][]Seq{nil, {0}, nil, {1, 2, 3}}},
		"head never ready": {[]Seq{1, 2, 3}, [][]Seq{nil, nil, nil}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := New[int](roomy())
			admit(t, w, 4)
			for i, seq := range tt.complete {
				complete(t, w, seq)
				if got := release(w); !slices.Equal(got, tt.released[i]) {
					t.Errorf("released after completing %v: got %v, want %v", tt.complete[:i+1], got, tt.released[i])
				}
			}
		})
	}
}

func TestReleasedSlotsKeepTheirValueUntilFreed(t *testing.T) {
	w := New[string](roomy())
	_, value, _ := w.Admit(1)
	*value = "result"
	complete(t, w, 0)
	release(w)
	if got := w.Slot(0); got == nil || *got != "result" {
		t.Fatalf("Slot(0) after release: got %v, want result", got)
	}
	if w.Len() != 1 || w.Bytes() != 1 {
		t.Errorf("after release: got %d records, %d bytes, want 1, 1", w.Len(), w.Bytes())
	}
	if err := w.Free(1); err != nil {
		t.Fatal(err)
	}
	if got := w.Slot(0); got != nil {
		t.Errorf("Slot(0) after free: got %q, want nil", *got)
	}
	if w.Len() != 0 || w.Bytes() != 0 {
		t.Errorf("after free: got %d records, %d bytes, want 0, 0", w.Len(), w.Bytes())
	}
}

func TestFreeZeroesItsSlots(t *testing.T) {
	w := New[*int](roomy())
	for range 10 {
		_, value, _ := w.Admit(1)
		*value = new(int)
	}
	complete(t, w, 0, 1, 2, 3)
	release(w)
	if err := w.Free(3); err != nil {
		t.Fatal(err)
	}
	for i, s := range w.ring {
		if held := i >= 3 && i < 10; (s.value != nil) != held {
			t.Errorf("slot %d: holds a pointer: got %v, want %v", i, s.value != nil, held)
		}
	}
}

func TestLimitsRefuseRecords(t *testing.T) {
	tests := map[string]struct {
		limits  Limits
		held    []int64 // sizes admitted before
		outputs int64   // bytes added by completing the first
		size    int64
		fits    bool
	}{
		"empty window":                 {Limits{2, 100}, nil, 0, 100, true},
		"one oversize record":          {Limits{2, 100}, nil, 0, 101, true},
		"up to the byte limit":         {Limits{3, 100}, []int64{40}, 0, 60, true},
		"beyond the byte limit":        {Limits{3, 100}, []int64{40}, 0, 61, false},
		"up to the record limit":       {Limits{3, 100}, []int64{1, 1}, 0, 1, true},
		"beyond the record limit":      {Limits{3, 100}, []int64{1, 1, 1}, 0, 1, false},
		"behind an oversize record":    {Limits{3, 100}, []int64{500}, 0, 0, false},
		"outputs count":                {Limits{3, 100}, []int64{40}, 50, 11, false},
		"outputs may exceed the limit": {Limits{3, 100}, []int64{40}, 5000, 1, false},
		"no overflow at the greatest limit": {
			Limits{3, math.MaxInt64}, []int64{math.MaxInt64 - 1}, 0, math.MaxInt64, false,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := New[int](tt.limits)
			for _, size := range tt.held {
				if _, _, err := w.Admit(size); err != nil {
					t.Fatal(err)
				}
			}
			if tt.outputs > 0 {
				if err := w.Complete(0, tt.outputs); err != nil {
					t.Fatal(err)
				}
			}
			if got := w.Fits(tt.size); got != tt.fits {
				t.Errorf("Fits(%d): got %v, want %v", tt.size, got, tt.fits)
			}
			_, value, err := w.Admit(tt.size)
			if (err == nil) != tt.fits || (value != nil) != tt.fits || err != nil && !errors.Is(err, ErrFull) {
				t.Errorf("Admit(%d): got %v, %v, want it to fit: %v", tt.size, value, err, tt.fits)
			}
		})
	}
}

func TestWrongStateIsNamed(t *testing.T) {
	// Of five records 0 is freed, 1 released, 2 admitted, 3 completed, 4 admitted.
	tests := map[string]struct {
		call func(*Window[int]) error
		want *SlotError
	}{
		"complete freed":     {func(w *Window[int]) error { return w.Complete(0, 7) }, &SlotError{"complete", 0, Freed}},
		"complete released":  {func(w *Window[int]) error { return w.Complete(1, 7) }, &SlotError{"complete", 1, Released}},
		"complete admitted":  {func(w *Window[int]) error { return w.Complete(2, 0) }, nil},
		"complete completed": {func(w *Window[int]) error { return w.Complete(3, 7) }, &SlotError{"complete", 3, Completed}},
		"complete unknown":   {func(w *Window[int]) error { return w.Complete(5, 7) }, &SlotError{"complete", 5, Unknown}},
		"free freed":         {func(w *Window[int]) error { return w.Free(1) }, nil},
		"free released":      {func(w *Window[int]) error { return w.Free(2) }, nil},
		"free admitted":      {func(w *Window[int]) error { return w.Free(3) }, &SlotError{"free", 2, Admitted}},
		"free unknown":       {func(w *Window[int]) error { return w.Free(9) }, &SlotError{"free", 2, Admitted}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := New[int](roomy())
			admit(t, w, 5)
			complete(t, w, 0, 1, 3)
			release(w)
			if err := w.Free(1); err != nil {
				t.Fatal(err)
			}
			before := w.Bytes()
			err := tt.call(w)
			var got *SlotError
			if errors.As(err, &got) != (tt.want != nil) || got != nil && *got != *tt.want {
				t.Fatalf("got error %v, want %v", err, tt.want)
			}
			if got != nil && w.Bytes() != before {
				t.Errorf("bytes after an error: got %d, want %d", w.Bytes(), before)
			}
		})
	}
}

func TestFreeOfAnEmptyWindowNamesTheUnknown(t *testing.T) {
	w := New[int](roomy())
	err := w.Free(1)
	if want := "resequence: free seq 0: it is not admitted"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestStatesHaveNames(t *testing.T) {
	for s, want := range map[State]string{
		Unknown: "not admitted", Admitted: "admitted", Completed: "completed", Released: "released", Freed: "freed", 9: "State(9)",
	} {
		if got := s.String(); got != want {
			t.Errorf("State %d: got %q, want %q", uint8(s), got, want)
		}
	}
}

func TestNewRefusesLimitsBelowOne(t *testing.T) {
	for _, l := range []Limits{{0, 1}, {1, 0}, {-1, 1}} {
		t.Run(fmt.Sprint(l), func(t *testing.T) {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, "at least 1") {
					t.Errorf("panic: got %v, want one that says at least 1", got)
				}
			}()
			New[int](l)
		})
	}
}

func TestRingGrowsByDoublingAndKeepsItsRecords(t *testing.T) {
	w := New[Seq](Limits{Records: 1000, Bytes: math.MaxInt64})
	cycle(t, w, 50) // so that the ring is not aligned when it grows
	for n := 1; n <= 1000; n++ {
		seq, value, err := w.Admit(1)
		if err != nil {
			t.Fatal(err)
		}
		*value = seq
		want := 64
		for want < n {
			want *= 2
		}
		if len(w.ring) != want {
			t.Fatalf("ring with %d held: got %d slots, want %d", n, len(w.ring), want)
		}
	}
	for seq := Seq(50); seq < w.Next(); seq++ {
		if got := w.Slot(seq); got == nil || *got != seq {
			t.Fatalf("Slot(%d): got %v, want its seq", seq, got)
		}
	}
}

func TestRingShrinksWhenItHasLongBeenTooLarge(t *testing.T) {
	tests := map[string]struct {
		peaks []int // of the cycles after one of 4000
		want  int
	}{
		"not right after the burst":       {nil, 4096},
		"not while bursts go on":          {slices.Repeat([]int{4000}, 50), 4096},
		"not after a few small cycles":    {slices.Repeat([]int{1}, 15), 4096},
		"not if a quarter is used":        {slices.Repeat([]int{1024}, 50), 4096},
		"not if a burst comes in between": {slices.Repeat([]int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2000}, 4), 4096},
		"after many small cycles":         {slices.Repeat([]int{1}, 16), 64},
		"then stays at what is used":      {slices.Repeat([]int{300}, 50), 512},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := New[int](roomy())
			cycle(t, w, 4000)
			for _, n := range tt.peaks {
				cycle(t, w, n)
			}
			if got := len(w.ring); got != tt.want {
				t.Errorf("ring: got %d slots, want %d", got, tt.want)
			}
		})
	}
}

func TestFreeingNothingIsNoSmallCycle(t *testing.T) {
	w := New[int](roomy())
	cycle(t, w, 4000)
	for range 2 * calmRuns {
		if err := w.Free(w.Next()); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := len(w.ring), 4096; got != want {
		t.Errorf("ring: got %d slots, want %d", got, want)
	}
}

// value has about the size of what an engine keeps in a slot, pointers among it.
type value [4]*int

// turn moves one window full of records through w, completing them in the given
// order.
func turn(tb testing.TB, w *Window[value], order []Seq) {
	base := w.Next()
	for range order {
		if _, _, err := w.Admit(100); err != nil {
			tb.Fatal(err)
		}
	}
	for _, i := range order {
		if err := w.Complete(base+i, 100); err != nil {
			tb.Fatal(err)
		}
		n := Seq(0)
		for {
			seq, _, ok := w.Release()
			if !ok {
				break
			}
			n = seq + 1
		}
		if n > 0 {
			if err := w.Free(n); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

func shuffled(n int) []Seq {
	order := make([]Seq, n)
	for i, j := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
		order[i] = Seq(j)
	}
	return order
}

func TestNothingIsAllocatedAtASteadySize(t *testing.T) {
	for _, slots := range []int{64, 1024, 16384} {
		t.Run(fmt.Sprintf("slots=%d", slots), func(t *testing.T) {
			w := New[value](Limits{Records: slots, Bytes: math.MaxInt64})
			order := shuffled(slots)
			turn(t, w, order)
			if got := testing.AllocsPerRun(20, func() { turn(t, w, order) }); got != 0 {
				t.Errorf("allocations a turn: got %v, want 0", got)
			}
		})
	}
}

// BenchmarkWindow measures admit, complete, release and free of one record when
// records complete in random order. One op is a whole window of records.
func BenchmarkWindow(b *testing.B) {
	for _, slots := range []int{1024, 16384} {
		b.Run(fmt.Sprintf("slots=%d", slots), func(b *testing.B) {
			w := New[value](Limits{Records: slots, Bytes: math.MaxInt64})
			order := shuffled(slots)
			turn(b, w, order)
			b.ReportAllocs()
			turns := 0
			for b.Loop() {
				turn(b, w, order)
				turns++
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(turns*slots), "ns/record")
		})
	}
}
