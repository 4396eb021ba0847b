package offsets

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// trackerModel is the tracker written as simply as possible: every record ever
// tracked, and every answer found by looking through them.
type trackerModel struct {
	start   Next
	records []modelRecord // by seq
}

type modelRecord struct {
	offset  Offset
	epoch   int32
	settled bool
}

func (m *trackerModel) position() Next {
	if len(m.records) == 0 {
		return m.start
	}
	return Next(m.records[len(m.records)-1].offset + 1)
}

func (m *trackerModel) prefix() uint64 {
	for seq, r := range m.records {
		if !r.settled {
			return uint64(seq)
		}
	}
	return uint64(len(m.records))
}

func (m *trackerModel) frontier() (Next, int32) {
	n := m.prefix()
	if n == 0 {
		return m.start, -1
	}
	last := m.records[n-1]
	return Next(last.offset + 1), last.epoch
}

// settle settles all of [lo, hi), or none.
func (m *trackerModel) settle(lo, hi uint64) *SettleError {
	for seq := lo; seq < hi; seq++ {
		if seq >= uint64(len(m.records)) || m.records[seq].settled {
			return &SettleError{seq, seq < uint64(len(m.records))}
		}
	}
	for seq := lo; seq < hi; seq++ {
		m.records[seq].settled = true
	}
	return nil
}

// followTracker runs a script on a tracker and on the model and compares them
// after every step. Of each byte the low three bits choose what to do and the
// others with what. It returns the sizes of the ring that it has seen.
func followTracker(t *testing.T, seed string, script []byte) map[int]bool {
	t.Helper()
	start := Next(0)
	if len(script) > 0 {
		start = Next(script[0]) * 1000
		script = script[1:]
	}
	tracker, m, sizes := NewTracker(start), &trackerModel{start: start}, map[int]bool{}
	var step, op, arg int
	same := func(what string, got, want any) {
		t.Helper()
		if got != want {
			t.Fatalf("step %d, op %d arg %d: %s: got %v, want %v (seed %s)", step, op, arg, what, got, want, seed)
		}
	}
	sameError := func(got error, want *SettleError) {
		t.Helper()
		var settle *SettleError
		if errors.As(got, &settle) != (want != nil) || settle != nil && *settle != *want {
			same("error", got, want)
		}
	}
	track := func(o Offset, epoch int32) {
		t.Helper()
		gap, err := tracker.Track(o, epoch)
		position := m.position()
		if Next(o) < position {
			var back *BackError
			same("Track went back", errors.As(err, &back) && *back == BackError{o, position}, true)
			return
		}
		same("Track", err, nil)
		same("gap", gap, int64(o)-int64(position))
		m.records = append(m.records, modelRecord{o, epoch, false})
	}

	for i, b := range script {
		step, op, arg = i, int(b&7), int(b>>3)
		prefix, next := m.prefix(), uint64(len(m.records))
		somewhere := prefix + (next-prefix)*uint64(arg)/32
		switch op {
		case 0: // a gap
			track(Offset(m.position())+Offset(arg), int32(arg))
		case 1: // many in a row
			for range arg {
				track(Offset(m.position()), int32(i))
			}
		case 2: // back, or a bit ahead
			track(Offset(m.position())+Offset(arg)-25, -1)
		case 3: // settle one of the open ones, or one settled already
			sameError(tracker.Settle(somewhere), m.settle(somewhere, somewhere+1))
		case 4: // settle one around the edges, right or wrong
			seq := prefix + uint64(arg) - min(2, prefix)
			if arg > 15 {
				seq = next + uint64(arg) - min(20, next)
			}
			sameError(tracker.Settle(seq), m.settle(seq, seq+1))
		case 5: // settle a run from the oldest
			sameError(tracker.SettleRange(prefix, somewhere), m.settle(prefix, somewhere))
		case 6: // settle a run of those in the middle, right or wrong
			lo := somewhere
			if arg%8 == 7 {
				lo = prefix - min(prefix, uint64(arg))
			}
			hi := lo + uint64(arg)
			sameError(tracker.SettleRange(lo, hi), m.settle(lo, hi))
		case 7: // settle all that is open, in runs
			for seq := prefix; seq < next; seq++ {
				if m.records[seq].settled {
					continue
				}
				hi := seq + 1
				for hi < next && !m.records[hi].settled && hi-seq < uint64(1+arg*8) {
					hi++
				}
				sameError(tracker.SettleRange(seq, hi), m.settle(seq, hi))
			}
		}

		frontier, epoch := tracker.Frontier()
		wantFrontier, wantEpoch := m.frontier()
		same("Frontier", frontier, wantFrontier)
		same("leader epoch", epoch, wantEpoch)
		same("Settled", tracker.Settled(), m.prefix())
		same("Len", tracker.Len(), len(m.records)-int(m.prefix()))
		same("Position", tracker.Position(), m.position())
		size := len(tracker.ring)
		if size < minSlots || size&(size-1) != 0 || size < tracker.Len() {
			same("ring", size, "a power of two that holds all")
		}
		sizes[size] = true
	}
	return sizes
}

func FuzzTracker(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{7, 0x00, 0x04, 0x14, 0x28, 0x14})                   // one by one with gaps
	f.Add([]byte{0, 0xf9, 0xf9, 0xf9, 0x83, 0xff, 0xf9, 0x07})       // grow, a hole, all
	f.Add([]byte{1, 0x51, 0x02, 0xca, 0xfa, 0x14, 0x14, 0x0c, 0xfc}) // back, twice, not tracked
	f.Add([]byte{2, 0xf9, 0x86, 0x86, 0x85, 0xf6, 0x1d})             // runs that meet settled records
	f.Add(append([]byte{0, 0xf9, 0xf9, 0xf9, 0xf9, 0xf9, 0xff},      // shrink after a burst
		slices.Repeat([]byte{0x09, 0x07}, calmRuns+1)...))
	f.Fuzz(func(t *testing.T, script []byte) {
		// Longer scripts only cost time: the model looks through every record.
		script = script[:min(len(script), 500)]
		followTracker(t, "none", script)
	})
}

func TestTrackerAgreesWithTheModel(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	sizes := map[int]bool{}
	for range 50 {
		script := []byte{byte(random.IntN(256))}
		// Phases in which most steps track, or most settle, so that the ring
		// grows, wraps and is emptied.
		for len(script) < 400 {
			mostly := [][]byte{{0, 1, 1, 3}, {3, 4, 5, 6}, {1, 7}}[random.IntN(3)]
			for range 1 + random.IntN(30) {
				op := byte(random.IntN(7))
				if random.IntN(4) > 0 {
					op = mostly[random.IntN(len(mostly))]
				}
				script = append(script, op|byte(random.IntN(32))<<3)
			}
		}
		for size := range followTracker(t, fmt.Sprint(seed), script) {
			sizes[size] = true
		}
	}
	for _, size := range []int{64, 128, 256} {
		if !sizes[size] {
			t.Errorf("ring sizes seen: got %v, want %d among them (seed %d)", sizes, size, seed)
		}
	}
}

// policyModel is the policy as its rules read: a list of all that happened, in
// milliseconds, searched through for every answer.
type policyModel struct {
	interval, records int
	events            []policyEvent
}

type policyEvent struct {
	what string // assigned, settled, begin, done
	at   int
	n    int
}

func (m *policyModel) due(now int) bool {
	inFlight, assigned, settled, began, first := false, false, 0, -1, -1
	for _, e := range m.events {
		switch e.what {
		case "assigned":
			assigned = true
			if first < 0 {
				first = e.at
			}
		case "settled":
			settled += e.n
		case "begin":
			inFlight, assigned, settled, began = true, false, 0, e.at
		case "done":
			inFlight = false
		}
	}
	if inFlight || first < 0 {
		return false
	}
	if assigned {
		return true
	}
	for tick := first + m.interval; tick <= now; tick += m.interval {
		if tick > began {
			return true
		}
	}
	return settled >= m.records && (began < 0 || now >= began+1000)
}

// followPolicy runs a script on a policy and on the model and compares them after
// every step. Of each byte the low three bits choose what to do and the others
// with what. It returns how many commits were due.
func followPolicy(t *testing.T, seed string, script []byte) (due int) {
	t.Helper()
	m := &policyModel{interval: 700, records: 10}
	if len(script) >= 2 {
		m = &policyModel{interval: 1 + 20*int(script[0]), records: 1 + int(script[1])}
		script = script[2:]
	}
	p := NewPolicy(time.Duration(m.interval)*time.Millisecond, m.records)
	now, inFlight := 0, false
	happened := func(what string, n int) { m.events = append(m.events, policyEvent{what, now, n}) }
	begin := func() {
		p.Begin(at(now))
		happened("begin", 0)
		inFlight = true
	}
	for step, b := range script {
		op, arg := int(b&7), int(b>>3)
		switch op {
		case 0, 1: // time passes, a little or a lot
			now += arg * (1 + 50*op)
		case 2: // until the deadline
			if deadline := p.Deadline(at(now)); !deadline.IsZero() {
				now = ms(deadline)
			}
		case 3:
			p.Settled(arg)
			happened("settled", arg)
		case 4:
			if arg%4 == 0 {
				p.Assigned(at(now))
				happened("assigned", 0)
			}
		case 5, 6: // commit if due; sometimes unasked
			if !inFlight && (p.Due(at(now)) || arg == 0) {
				begin()
			}
		case 7:
			if inFlight {
				p.Done(at(now))
				happened("done", 0)
				inFlight = false
			}
		}

		got, want := p.Due(at(now)), m.due(now)
		if got != want {
			t.Fatalf("step %d, op %d arg %d: Due(%d ms): got %v, want %v (seed %s)\n%v", step, op, arg, now, got, want, seed, m)
		}
		if got {
			due++
		}
		// Dueness only ever comes with time, so the deadline is right if the
		// model is due then and was not a millisecond before.
		deadline := ms(p.Deadline(at(now)))
		switch {
		case deadline == -1:
			if later := now + 1_000_000; m.due(later) {
				t.Fatalf("step %d, op %d arg %d: Deadline(%d ms): got none, but due at %d ms (seed %s)\n%v", step, op, arg, now, later, seed, m)
			}
		case deadline < now || !m.due(deadline) || deadline > now && m.due(deadline-1):
			t.Fatalf("step %d, op %d arg %d: Deadline(%d ms): got %d ms, want the first time at which one is due (seed %s)\n%v",
				step, op, arg, now, deadline, seed, m)
		}
	}
	return due
}

func FuzzPolicy(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{10, 10, 0x04, 0x0d, 0x50, 0x07, 0x02, 0x0d, 0x07, 0x02, 0x0d})        // tick after tick
	f.Add([]byte{5, 10, 0x04, 0x0d, 0xf9, 0xf9, 0x07, 0x0d, 0x07, 0x02})               // ticks while in flight
	f.Add([]byte{255, 10, 0x04, 0x0d, 0x07, 0xfb, 0x02, 0x0d, 0x07, 0xfb, 0x50, 0x02}) // count, gap
	f.Add([]byte{255, 10, 0x04, 0x0d, 0x04, 0x10, 0x07, 0x0d, 0x07})                   // assigned while in flight
	f.Add([]byte{1, 1, 0x05, 0xf8, 0x07, 0x04, 0x05, 0xfb, 0x07, 0xf9})                // unasked
	f.Fuzz(func(t *testing.T, script []byte) {
		// Longer scripts only cost time: the model looks through every event.
		script = script[:min(len(script), 300)]
		followPolicy(t, "none", script)
	})
}

func TestPolicyAgreesWithTheModel(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	due := 0
	for range 300 {
		script := make([]byte, 200)
		for i := range script {
			script[i] = byte(random.IntN(256))
		}
		due += followPolicy(t, fmt.Sprint(seed), script)
	}
	if due < 1000 {
		t.Errorf("steps at which a commit was due: got %d, want at least 1000 (seed %d)", due, seed)
	}
}
