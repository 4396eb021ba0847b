//go:build !race

package explore

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"

	"seriatim/offsets"
)

var faults = flag.Int("faults", 1, "how many faults happen at most: crashes, lost sessions, revokes")

// tenures are the states that a tenure can be in. Each was made with a window and a
// tracker, and so was each step out of it.
type tenures struct {
	mistake mistake
	states  []tenureState // 0 is none
	known   map[string]uint16
}

type tenureState struct {
	part     uint8
	from     offsets.Next
	history  []op
	edges    []edge
	expanded bool

	frontier, position uint8
	quiet              bool
}

// An edge is a step of a tenure to another of its states.
type edge struct {
	op  op
	to  uint16
	err error
}

func newTenures(m mistake) *tenures {
	return &tenures{mistake: m, states: make([]tenureState, 1), known: make(map[string]uint16)}
}

func (ts *tenures) begin(p uint8, from offsets.Next) uint16 {
	return ts.id(p, from, nil, newTenure(&sources[p], from, ts.mistake))
}

func (ts *tenures) id(p uint8, from offsets.Next, history []op, t *tenure) uint16 {
	print := t.fingerprint()
	if id, ok := ts.known[print]; ok {
		return id
	}
	id := uint16(len(ts.states))
	ts.known[print] = id
	frontier, _ := t.tracker.Frontier()
	ts.states = append(ts.states, tenureState{
		part: p, from: from, history: history,
		frontier: uint8(frontier), position: uint8(t.tracker.Position()), quiet: t.quiet(),
	})
	return id
}

// edges returns the steps out of a state, each made once.
func (ts *tenures) edges(id uint16) []edge {
	if s := ts.states[id]; !s.expanded {
		var edges []edge
		for _, o := range ts.again(s).ops() {
			t := ts.again(s)
			e := edge{op: o, err: t.step(o)}
			if e.err == nil {
				history := append(s.history[:len(s.history):len(s.history)], o)
				e.to = ts.id(s.part, s.from, history, t)
			}
			edges = append(edges, e)
		}
		ts.states[id].edges, ts.states[id].expanded = edges, true
	}
	return ts.states[id].edges
}

// again makes a tenure in that state.
func (ts *tenures) again(s tenureState) *tenure {
	t := newTenure(&sources[s.part], s.from, ts.mistake)
	for _, o := range s.history {
		if err := t.step(o); err != nil {
			panic(err) // it was none the first time
		}
	}
	return t
}

// An exploration is every world that was found, by the fewest steps that lead there.
type exploration struct {
	rules  *rules
	worlds []found
	ids    map[world]int32
	steps  int // looked at
	ends   int // worlds in which all is done
}

type found struct {
	world world
	from  int32 // the world before it
}

// explore visits all worlds, nearest first. The error is the first broken rule,
// with the way there.
func explore(m mistake, faults int) (*exploration, error) {
	e := &exploration{rules: &rules{mistake: m, faults: uint8(faults), tenures: newTenures(m)}, ids: make(map[world]int32)}
	e.add(e.rules.begin(), 0)
	for at := int32(0); int(at) < len(e.worlds); at++ {
		var broken error
		goesOn := e.rules.steps(e.worlds[at].world, func(s step, w world, err error) {
			e.steps++
			if err != nil && broken == nil {
				broken = e.story(at, &s, err)
			}
			e.add(w, at)
		})
		if !goesOn {
			e.ends++
			if err := e.worlds[at].world.finished(); err != nil && broken == nil {
				broken = e.story(at, nil, err)
			}
		}
		if broken != nil {
			return e, broken
		}
	}
	return e, nil
}

// add notes a world that is new.
func (e *exploration) add(w world, from int32) {
	w, _ = w.canonical()
	if _, ok := e.ids[w]; !ok {
		e.ids[w] = int32(len(e.worlds))
		e.worlds = append(e.worlds, found{w, from})
	}
}

// story tells the steps that lead to a world, and the one that broke a rule.
func (e *exploration) story(at int32, last *step, err error) error {
	way := []world{e.worlds[at].world}
	for ; at > 0; at = e.worlds[at].from {
		way = append(way, e.worlds[e.worlds[at].from].world)
	}
	slices.Reverse(way)
	var text strings.Builder
	swap := uint8(0)
	tell := func(s step) {
		s.instance ^= swap
		fmt.Fprintf(&text, "\n\t%v", s)
	}
	for i, w := range way[1:] {
		told := false
		e.rules.steps(way[i], func(s step, next world, _ error) {
			if c, mirrored := next.canonical(); c == w && !told {
				told = true
				tell(s)
				if mirrored {
					swap ^= 1
				}
			}
		})
	}
	if last != nil {
		tell(*last)
	}
	return fmt.Errorf("%w, after %d steps:%s", err, strings.Count(text.String(), "\n"), &text)
}

// Whatever happens in whatever order: no commit passes a record without outcome or
// moves back, first appearances are in order, nothing is repeated without a reason,
// and in the end all is there and committed.
func TestEveryOrderOfEvents(t *testing.T) {
	e, err := explore(none, *faults)
	t.Logf("%d worlds, %d steps between them, %d ends; %d states of a tenure", len(e.worlds), e.steps, e.ends, len(e.rules.tenures.states)-1)
	if err != nil {
		t.Fatal(err)
	}
	if len(e.worlds) < 1_000_000 && *faults > 0 {
		t.Error("so few worlds show nothing")
	}
}

// Each mistake breaks the rule that it should.
func TestMistakesAreFound(t *testing.T) {
	for m, rule := range map[mistake]string{
		settledBeforeAck:     "P2",
		filteredNeverSettles: "P8",
		commitPolled:         "P2",
		noLastCommit:         "P3",
		noDrain:              "P3",
		noFencing:            "P4",
		pollNotFlushed:       "P2",
		startBehind:          "P2",
	} {
		_, err := explore(m, 1)
		t.Logf("%s: %v", m, err)
		if err == nil || !strings.HasPrefix(err.Error(), rule) {
			t.Errorf("%s: %v; want a story that breaks %s", m, err, rule)
		}
	}
}
