package resequence

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// model is the window written as simply as possible: every record ever admitted,
// and every answer found by looking through them.
type model struct {
	limits  Limits
	records []modelRecord // by seq
}

type modelRecord struct {
	state State
	bytes int64
}

func (m *model) count(states ...State) (n int, bytes int64) {
	for _, r := range m.records {
		if slices.Contains(states, r.state) {
			n++
			bytes += r.bytes
		}
	}
	return n, bytes
}

// first is the lowest seq in one of the states, or the next one.
func (m *model) first(states ...State) Seq {
	for seq, r := range m.records {
		if slices.Contains(states, r.state) {
			return Seq(seq)
		}
	}
	return Seq(len(m.records))
}

func (m *model) state(seq Seq) State {
	if seq >= Seq(len(m.records)) {
		return Unknown
	}
	return m.records[seq].state
}

func (m *model) fits(size int64) bool {
	n, bytes := m.count(Admitted, Completed, Released)
	return n == 0 || n < m.limits.Records && bytes+size <= m.limits.Bytes
}

func (m *model) complete(seq Seq, bytes int64) *SlotError {
	if s := m.state(seq); s != Admitted {
		return &SlotError{"complete", seq, s}
	}
	m.records[seq].state = Completed
	m.records[seq].bytes += bytes
	return nil
}

func (m *model) release() (Seq, bool) {
	head := m.first(Admitted, Completed)
	if m.state(head) != Completed {
		return 0, false
	}
	m.records[head].state = Released
	return head, true
}

func (m *model) resize(seq Seq, bytes int64) *SlotError {
	if s := m.state(seq); s != Released {
		return &SlotError{"resize", seq, s}
	}
	m.records[seq].bytes = bytes
	return nil
}

func (m *model) free(to Seq) *SlotError {
	for seq := Seq(0); seq < to; seq++ {
		if s := m.state(seq); s != Released && s != Freed {
			return &SlotError{"free", seq, s}
		}
	}
	for seq := range to {
		m.records[seq].state = Freed
	}
	return nil
}

// follower runs a script on a window and on the model and compares them after
// every step.
type follower struct {
	t     *testing.T
	seed  string
	w     *Window[Seq]
	m     *model
	step  int
	about string
	sizes map[int]bool // of the ring, seen
}

func (f *follower) fail(what string, got, want any) {
	f.t.Helper()
	f.t.Fatalf("step %d, %s: %s: got %v, want %v (seed %s)", f.step, f.about, what, got, want, f.seed)
}

func (f *follower) sameError(got error, want *SlotError) {
	f.t.Helper()
	var slot *SlotError
	if errors.As(got, &slot) != (want != nil) || slot != nil && *slot != *want {
		f.fail("error", got, want)
	}
}

func (f *follower) admit(size int64) {
	fits := f.m.fits(size)
	if got := f.w.Fits(size); got != fits {
		f.fail("Fits", got, fits)
	}
	seq, value, err := f.w.Admit(size)
	if !fits {
		if !errors.Is(err, ErrFull) || value != nil {
			f.fail("error", err, ErrFull)
		}
		return
	}
	if want := Seq(len(f.m.records)); err != nil || seq != want {
		f.fail("seq", fmt.Sprint(seq, err), want)
	}
	if *value != 0 {
		f.fail("new slot", *value, 0)
	}
	*value = seq + 1
	f.m.records = append(f.m.records, modelRecord{Admitted, size})
}

func (f *follower) complete(seq Seq, bytes int64) {
	f.sameError(f.w.Complete(seq, bytes), f.m.complete(seq, bytes))
}

func (f *follower) release() bool {
	want, ok := f.m.release()
	seq, value, got := f.w.Release()
	if got != ok || seq != want {
		f.fail("Release", fmt.Sprint(seq, got), fmt.Sprint(want, ok))
	}
	if ok && *value != seq+1 {
		f.fail("released value", *value, seq+1)
	}
	return ok
}

func (f *follower) resize(seq Seq, bytes int64) {
	f.sameError(f.w.Resize(seq, bytes), f.m.resize(seq, bytes))
}

func (f *follower) free(to Seq) {
	f.sameError(f.w.Free(to), f.m.free(to))
	for i, s := range f.w.ring {
		seq := f.w.tail + (Seq(i)-f.w.tail)&Seq(len(f.w.ring)-1)
		if seq >= f.w.next && s != (slot[Seq]{}) {
			f.fail(fmt.Sprintf("unused slot %d", i), s, "zero")
		}
	}
}

func (f *follower) compare() {
	f.t.Helper()
	held, bytes := f.m.count(Admitted, Completed, Released)
	waiting, _ := f.m.count(Completed)
	next := Seq(len(f.m.records))
	head := f.m.first(Admitted, Completed)
	if got := f.w.Len(); got != held {
		f.fail("Len", got, held)
	}
	if got := f.w.Bytes(); got != bytes {
		f.fail("Bytes", got, bytes)
	}
	if got := f.w.Waiting(); got != waiting {
		f.fail("Waiting", got, waiting)
	}
	if got := f.w.Next(); got != next {
		f.fail("Next", got, next)
	}
	if got, ok := f.w.Head(); got != head || ok != (head < next) {
		f.fail("Head", fmt.Sprint(got, ok), fmt.Sprint(head, head < next))
	}
	tail := f.m.first(Admitted, Completed, Released)
	for _, seq := range []Seq{tail - 1, tail, head, (tail + next) / 2, next - 1, next} {
		got := f.w.Slot(seq)
		s := f.m.state(seq)
		switch isHeld := s != Unknown && s != Freed; {
		case (got != nil) != isHeld:
			f.fail(fmt.Sprintf("Slot(%d) is held", seq), got != nil, isHeld)
		case got != nil && *got != seq+1:
			f.fail(fmt.Sprintf("Slot(%d)", seq), *got, seq+1)
		}
	}
	size, most := len(f.w.ring), minSlots
	for most < f.m.limits.Records {
		most *= 2
	}
	if size < minSlots || size > most || size&(size-1) != 0 || size < held {
		f.fail("ring", size, fmt.Sprintf("a power of two from %d to %d, not below %d", minSlots, most, held))
	}
	f.sizes[size] = true
}

// follow runs a script: two bytes of limits, then one byte a step, of which the
// low three bits choose what to do and the others with what.
func follow(t *testing.T, seed string, script []byte) *follower {
	t.Helper()
	limits := Limits{Records: 256, Bytes: 4096}
	if len(script) >= 2 {
		limits = Limits{Records: 1 + 2*int(script[0]), Bytes: 1 + 64*int64(script[1])}
		script = script[2:]
	}
	f := &follower{t: t, seed: seed, w: New[Seq](limits), m: &model{limits: limits}, sizes: map[int]bool{}}
	for i, b := range script {
		op, arg := b&7, int(b>>3)
		f.step, f.about = i, fmt.Sprintf("op %d arg %d", op, arg)
		tail, head, next := f.m.first(Admitted, Completed, Released), f.m.first(Admitted, Completed), Seq(len(f.m.records))
		switch op {
		case 0: // admit one, of any size
			f.admit(int64(arg * arg))
		case 1: // admit many small ones
			for range arg {
				f.admit(int64(arg % 4))
			}
		case 2: // complete one of what is not released
			f.complete(head+(next-head)*Seq(arg)/32, int64(arg))
		case 3: // complete one around the edges, right or wrong
			f.complete(tail+Seq(arg)-2, 1)
		case 4: // complete every other one, from the newest
			for seq := next - 1; seq+1 > head && seq < next; seq -= Seq(1 + arg%3) {
				if f.m.state(seq) == Admitted {
					f.complete(seq, 0)
				}
			}
		case 5: // release some
			for range 1 + arg*arg {
				if !f.release() {
					break
				}
			}
		case 6: // free a part of what is released
			f.free(tail + (head-tail)*Seq(arg+1)/32)
		case 7: // resize one, and free up to somewhere, right or wrong
			f.resize(tail+Seq(arg)-2, int64(arg*arg))
			f.free(tail + Seq(arg) - 2)
		}
		f.compare()
	}
	return f
}

func FuzzWindow(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0x08, 0x08, 0x1b, 0x05, 0xfe})                        // one record at a time
	f.Add([]byte{255, 255, 0xf9, 0xf9, 0xf9, 0x04, 0xfd, 0xfe, 0xf9})        // grow, all through, again
	f.Add([]byte{40, 255, 0x09, 0x1b, 0x1b, 0x05, 0x1f, 0x27, 0x13})         // twice, too early, too late
	f.Add([]byte{200, 2, 0xf8, 0xf8, 0x04, 0xfd, 0xfe, 0xf8, 0x08})          // oversize, byte limit
	f.Add([]byte{60, 255, 0xf9, 0xf9, 0x82, 0x42, 0xc2, 0x02, 0x0d, 0x7e})   // partly released, partly freed
	f.Add(append([]byte{255, 255, 0xf9, 0xf9, 0xf9, 0xf9, 0x04, 0xfd, 0xfe}, // shrink after a burst
		slices.Repeat([]byte{0x09, 0x04, 0x0d, 0xfe}, calmRuns+1)...))
	f.Fuzz(func(t *testing.T, script []byte) {
		// Longer scripts only cost time: the model looks through every record.
		script = script[:min(len(script), 500)]
		follow(t, "none", script)
	})
}

func TestWindowAgreesWithTheModel(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	sizes := map[int]bool{}
	for range 30 {
		script := []byte{byte(random.IntN(256)), byte(random.IntN(256))}
		// Phases in which most steps admit, or most take away, so that the ring
		// grows, wraps and is emptied.
		for len(script) < 400 {
			mostly := [][]byte{{0, 1, 1, 2}, {2, 4, 5, 6}, {2, 3, 5, 7}}[random.IntN(3)]
			for range 1 + random.IntN(30) {
				op := byte(random.IntN(8))
				if random.IntN(4) > 0 {
					op = mostly[random.IntN(len(mostly))]
				}
				script = append(script, op|byte(random.IntN(32))<<3)
			}
		}
		for size := range follow(t, fmt.Sprint(seed), script).sizes {
			sizes[size] = true
		}
	}
	for _, size := range []int{64, 128, 256} {
		if !sizes[size] {
			t.Errorf("ring sizes seen: got %v, want %d among them (seed %d)", sizes, size, seed)
		}
	}
}
