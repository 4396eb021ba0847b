package processor

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"seriatim/resequence"
)

// A model says what a budget should, by adding everything up each time.
type budgetModel struct {
	limit   int64
	tenures []*tenure
	growth  func() float64
}

func (m *budgetModel) held(t *tenure) int64 {
	return t.window.Bytes() + t.spillBytes + int64(m.growth()*float64(t.unfinished))
}

func (m *budgetModel) guarantee() int64 { return m.limit / 2 / int64(max(1, len(m.tenures))) }

func (m *budgetModel) sums() (used, overdrawn int64) {
	for _, t := range m.tenures {
		used += m.held(t)
		overdrawn += max(0, m.held(t)-m.guarantee())
	}
	return used, overdrawn
}

func (m *budgetModel) allows(t *tenure, size int64, stuck bool) bool {
	size += int64(m.growth() * float64(size))
	window := m.held(t) - t.spillBytes
	if window == 0 || window+size <= m.guarantee() {
		return true
	}
	overdrawn := max(0, m.held(t)+size-m.guarantee())
	for _, other := range m.tenures {
		if other != t {
			overdrawn += max(0, m.held(other)-m.guarantee())
		}
	}
	return !stuck && overdrawn <= m.limit/2
}

// Scripts of admissions, completions, releases, spills and assignments: the sums
// that the budget keeps are those of the model, and it allows what the model does.
func TestBudgetIsTheSumOfItsTenures(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		if fault := budgetScript(rng); fault != "" {
			t.Fatalf("seed %d: %s", seed, fault)
		}
	}
}

func budgetScript(rng *rand.Rand) (fault string) {
	b := &budget{limit: 1 + rng.Int64N(10000)}
	m := &budgetModel{limit: b.limit, growth: func() float64 { return b.growth }}
	assigned := make(map[partitionKey]*tenure)
	opts := &Options{Window: Window{Records: 1 << 20, Bytes: 1 << 40}}
	sizes := make(map[*tenure][]int64) // of what is admitted
	completed := make(map[*tenure]resequence.Seq)
	for step := range 100 {
		if len(m.tenures) == 0 || rng.IntN(20) == 0 {
			if len(m.tenures) > 0 && rng.IntN(2) == 0 {
				gone := rng.IntN(len(m.tenures))
				delete(assigned, m.tenures[gone].partitionKey)
				m.tenures = append(m.tenures[:gone:gone], m.tenures[gone+1:]...)
			} else {
				t := newTenure(partitionKey{"in", int32(step)}, opts, new(counters), time.Time{})
				assigned[t.partitionKey] = t
				m.tenures = append(m.tenures, t)
			}
			b.assign(assigned)
			continue
		}
		t := m.tenures[rng.IntN(len(m.tenures))]
		switch size := 1 + rng.Int64N(1000); rng.IntN(4) {
		case 0, 1: // a record comes
			stuck := rng.IntN(4) == 0
			age := time.Duration(0)
			if stuck {
				age = stuckHead + 1
			}
			got, want := b.allows(t, size, age), m.allows(t, size, stuck)
			if got != want {
				return fmt.Sprintf("step %d: allows %d more for a tenure of %d: %v, want %v", step, size, m.held(t), got, want)
			}
			if got {
				_, _, _ = t.window.Admit(size)
				t.unfinished += size
				sizes[t] = append(sizes[t], size)
			} else {
				t.spillBytes += size
			}
		case 2: // its oldest unfinished record is done
			if seq := completed[t]; seq < t.window.Next() {
				_ = t.window.Complete(seq, size)
				t.unfinished -= sizes[t][seq]
				before := b.growth
				b.learn(sizes[t][seq], size)
				completed[t]++
				if before != b.growth { // others follow when they change
					b.assign(assigned)
				}
			}
		case 3: // what is done is settled
			for {
				if _, _, ok := t.window.Release(); !ok {
					break
				}
			}
			_ = t.window.Free(completed[t])
			t.spillBytes = 0
		}
		b.account(t)
		if used, overdrawn := m.sums(); b.used != used || b.overdrawn != overdrawn {
			return fmt.Sprintf("step %d: used %d, overdrawn %d, want %d and %d", step, b.used, b.overdrawn, used, overdrawn)
		}
	}
	return ""
}

// Whatever others hold, each partition may have one record, and its guarantee.
func TestBudgetGuaranteesEachPartitionItsPart(t *testing.T) {
	b := &budget{limit: 1000}
	opts := &Options{Window: Window{Records: 1 << 20, Bytes: 1 << 40}}
	greedy := newTenure(partitionKey{"in", 0}, opts, new(counters), time.Time{})
	modest := newTenure(partitionKey{"in", 1}, opts, new(counters), time.Time{})
	b.assign(map[partitionKey]*tenure{greedy.partitionKey: greedy, modest.partitionKey: modest})
	admit := func(t *tenure, size int64, headAge time.Duration) bool {
		ok := b.allows(t, size, headAge)
		if ok {
			_, _, _ = t.window.Admit(size)
			t.unfinished += size
			b.account(t)
		}
		return ok
	}
	for admit(greedy, 50, 0) {
	}
	if held := greedy.window.Bytes(); held != 750 {
		t.Errorf("one of two partitions can hold %d of 1000 bytes, want its 250 and the shared 500", held)
	}
	for admit(modest, 50, 0) {
	}
	if held := modest.window.Bytes(); held != 250 {
		t.Errorf("the other can then hold %d bytes, want its 250", held)
	}

	stuck := newTenure(partitionKey{"in", 2}, opts, new(counters), time.Time{})
	b.assign(map[partitionKey]*tenure{stuck.partitionKey: stuck})
	for admit(stuck, 50, stuckHead+1) {
	}
	if held := stuck.window.Bytes(); held != 500 {
		t.Errorf("a partition whose head is stuck can hold %d bytes, want its 500", held)
	}
	if large := newTenure(partitionKey{"in", 3}, opts, new(counters), time.Time{}); !b.allows(large, 5000, 0) {
		t.Error("an empty partition may not have one record that is larger than everything")
	}
}
