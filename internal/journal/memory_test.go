package journal

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// A step is a state record in short, and what it does.
type step struct {
	record Record
	want   Effect
}

func attempts(generation int64, begun int32) Record {
	return Record{Key: Key{"p", "in", 0, 5, KindAttempts, Owner(generation)}, Attempts: &Attempts{Generation: generation, Begun: begun}}
}

func hold(generation int64, begun int32) Record {
	r := attempts(generation, begun)
	r.Attempts.Hold = &Hold{}
	return r
}

func younger(r Record) Record {
	r.Attempts.Hold.Since = r.Attempts.Hold.Since.Add(time.Second)
	return r
}

func decision(by, what string) Record {
	return Record{Key: Key{"p", "in", 0, 5, KindDecision, by}, Decision: &Decision{Decision: what}}
}

func open(by string, generation int64) Record {
	return Record{Key: Key{"p", "in", 0, -1, KindOpen, by}, Open: &Open{Generation: generation}}
}

func reply(generation int64, value string) Record {
	return Record{Key: Key{"p", "in", 0, 5, KindReply, Owner(generation)}, Reply: &Reply{Generation: generation, Outputs: []Output{{Value: []byte(value)}}}}
}

func deletes(r Record) Record { return Record{Key: r.Key} }

func TestMemory(t *testing.T) {
	value := attempts(1, 3)
	value.Attempts.Value = "a"
	for _, test := range []struct {
		what  string
		steps []step
		check func(m *Memory, k *Known) bool // k is what is known of offset 5
	}{
		{"attempts grow", []step{{attempts(1, 1), Taken}, {attempts(1, 2), Taken}}, func(_ *Memory, k *Known) bool {
			return k.Attempts.Begun == 2 && len(k.Keys()) == 1
		}},
		{"the next owner goes on", []step{{attempts(1, 3), Taken}, {open("b", 2), Taken}, {attempts(2, 4), Taken}}, func(m *Memory, k *Known) bool {
			return k.Attempts.Begun == 4 && len(k.Keys()) == 2 && m.Next(1) == 3 && m.Next(9) == 9
		}},
		{"an owner that lost the partition comes too late", []step{{attempts(1, 3), Taken}, {attempts(2, 4), Taken}, {attempts(1, 9), Older}, {reply(2, "y"), Taken}, {reply(1, "x"), Older}}, func(_ *Memory, k *Known) bool {
			return k.Attempts.Begun == 4 && string(k.Reply.Outputs[0].Value) == "y" && len(k.Keys()) == 4
		}},
		{"what nobody else has written about counts, however late", []step{{open("a", 1), Taken}, {open("b", 2), Taken}, {attempts(1, 2), Taken}}, func(m *Memory, k *Known) bool {
			return k.Attempts.Begun == 2 && m.Next(0) == 3
		}},
		{"what it wrote is deleted, and nothing else", []step{{attempts(1, 3), Taken}, {attempts(2, 4), Taken}, {deletes(attempts(1, 0)), Taken}}, func(_ *Memory, k *Known) bool {
			return k.Attempts.Begun == 4 && len(k.Keys()) == 1
		}},
		{"a tenure ends in good order", []step{{open("a", 1), Taken}, {deletes(open("a", 1)), Taken}, {attempts(1, 1), Taken}}, func(m *Memory, _ *Known) bool {
			return len(m.Open) == 0 && m.Generation == 1
		}},
		{"only its own marker", []step{{open("a", 1), Taken}, {open("b", 2), Taken}, {deletes(open("a", 1)), Taken}, {attempts(2, 1), Taken}}, func(m *Memory, _ *Known) bool {
			return len(m.Open) == 1 && m.Open["b"] == 2
		}},
		{"the first decision wins", []step{{hold(1, 5), Taken}, {decision("a", "skip"), Won}, {decision("b", "retry"), Beaten}}, func(_ *Memory, k *Known) bool {
			return k.Decision.Decision == "skip" && k.By == "a" && !k.Held()
		}},
		{"a decision before the hold is none", []step{{attempts(1, 5), Taken}, {decision("a", "skip"), Beaten}, {hold(1, 5), Taken}}, func(_ *Memory, k *Known) bool {
			return k.Held()
		}},
		{"a decision about nothing is none", []step{{decision("a", "skip"), Beaten}}, func(_ *Memory, k *Known) bool { return k.Attempts == nil }},
		{"attempts after a decision carry it out", []step{{hold(1, 5), Taken}, {decision("a", "retry"), Won}, {attempts(1, 6), Taken}, {decision("b", "skip"), Beaten}}, func(_ *Memory, k *Known) bool {
			return k.Decision == nil && !k.Held()
		}},
		{"another hold wants another decision", []step{{hold(1, 5), Taken}, {decision("a", "retry"), Won}, {hold(1, 6), Taken}, {decision("b", "skip"), Won}}, func(_ *Memory, k *Known) bool {
			return k.Decision.Decision == "skip"
		}},
		{"a younger hold wants another decision", []step{{hold(1, 5), Taken}, {decision("a", "dead_letter"), Won}, {younger(hold(1, 5)), Taken}, {decision("b", "skip"), Won}}, func(_ *Memory, k *Known) bool {
			return k.Decision.Decision == "skip"
		}},
		{"the same hold keeps its decision", []step{{hold(1, 5), Taken}, {decision("a", "skip"), Won}, {hold(2, 5), Taken}}, func(_ *Memory, k *Known) bool {
			return k.Decision.Decision == "skip"
		}},
		{"a value that was replaced is found after the hold is compacted away", []step{{decision("a", "replace_value"), Beaten}, {value, Taken}}, func(_ *Memory, k *Known) bool {
			return k.Replaced().Decision == "replace_value"
		}},
		{"a reply", []step{{reply(1, "x"), Taken}, {attempts(1, 1), Taken}}, func(_ *Memory, k *Known) bool {
			return string(k.Reply.Outputs[0].Value) == "x" && len(k.Keys()) == 2
		}},
		{"a deleted reply", []step{{reply(1, "x"), Taken}, {attempts(1, 1), Taken}, {deletes(reply(1, "")), Taken}}, func(_ *Memory, k *Known) bool {
			return k.Reply == nil
		}},
		{"everything is deleted", []step{{reply(1, "x"), Taken}, {hold(1, 1), Taken}, {decision("a", "skip"), Won}, {deletes(reply(1, "")), Taken}, {deletes(attempts(1, 0)), Taken}, {deletes(decision("a", "")), Taken}, {deletes(decision("z", "")), Taken}}, func(m *Memory, k *Known) bool {
			return k == nil && len(m.Records) == 0
		}},
	} {
		m := NewMemory()
		for i, s := range test.steps {
			if got := m.Apply(&s.record); got != s.want {
				t.Errorf("%s: step %d has effect %d, want %d", test.what, i, got, s.want)
			}
		}
		if k := m.Records[5]; !test.check(m, k) {
			t.Errorf("%s: %+v, %+v", test.what, m, k)
		}
	}
}

// Compaction keeps the last record of each key, at its place. Who reads after that must
// come to the same as who has read everything.
func TestCompactionChangesNothing(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, seed))
	for range 2000 {
		var log []Record
		generation, begun := int64(1), int32(0)
		held := false
		m := NewMemory()
		add := func(r Record) {
			log = append(log, r)
			m.Apply(&r)
		}
		for range 1 + rng.IntN(12) {
			switch rng.IntN(6) {
			case 0:
				generation++
				add(open(strings.Repeat("x", int(generation)), generation))
			case 1:
				begun++
				held = false
				add(attempts(generation, begun))
			case 2:
				begun++
				held = true
				add(hold(generation, begun))
			case 3:
				if held { // the owner writes nothing about a hold but what comes of its decision
					add(decision(Owner(rng.Int64N(4)+100), "skip"))
				}
			case 4:
				add(reply(generation, "x"))
			case 5:
				if generation > 1 { // too late
					add(attempts(generation-1, 99))
				}
			}
		}
		last := make(map[Key]int)
		for i, r := range log {
			last[r.Key] = i
		}
		compacted := NewMemory()
		for i, r := range log {
			if last[r.Key] == i {
				compacted.Apply(&r)
			}
		}
		a, b := m.Records[5], compacted.Records[5]
		if (a == nil) != (b == nil) || m.Generation != compacted.Generation {
			t.Fatalf("seed %d: %+v became %+v of %+v", seed, m, compacted, log)
		}
		if a == nil {
			continue
		}
		if (a.Attempts == nil) != (b.Attempts == nil) || a.Attempts != nil && (a.Attempts.Begun != b.Attempts.Begun || a.Held() != b.Held()) || len(a.keys) != len(b.keys) || (a.Reply == nil) != (b.Reply == nil) {
			t.Fatalf("seed %d: %+v became %+v of %+v", seed, a, b, log)
		}
	}
}
