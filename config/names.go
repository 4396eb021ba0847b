package config

import (
	"encoding/binary"
	"errors"
	"regexp"
	"regexp/syntax"
	"slices"
)

// nameChars are the characters of topic names, those first that an example had
// better be made of. Assertions such as \b tell the two groups apart.
var nameChars = [...]string{
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_",
	".-",
}

const maxName = 249 // characters of a topic name

// maxSteps bounds how many instructions a search looks at: some 100 ms.
const maxSteps = 1_000_000

var errTooComplex = errors.New("is too complicated to be compared with other topic names; make it simpler")

// A nameSet is a set of topic names: a list, or those that a regular expression
// matches.
type nameSet struct {
	names []string // sorted
	expr  *regexp.Regexp
	prog  *syntax.Prog // of expr
}

// exactly returns the set of these names.
func exactly(names []string) *nameSet { return &nameSet{names: slices.Sorted(slices.Values(names))} }

// matching returns the set of the names that expr, which is valid, matches.
func matching(expr string) *nameSet {
	parsed, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		panic(err.Error())
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		panic(err.Error())
	}
	return &nameSet{expr: regexp.MustCompile(expr), prog: prog}
}

func (s *nameSet) has(name string) bool {
	if s.expr != nil {
		return s.expr.MatchString(name)
	}
	_, found := slices.BinarySearch(s.names, name)
	return found
}

// common returns a topic name that is in all of the sets, or "" if there is none.
func common(sets ...*nameSet) (string, error) {
	for _, list := range sets {
		if list.expr != nil {
			continue
		}
		for _, name := range list.names {
			if !slices.ContainsFunc(sets, func(s *nameSet) bool { return !s.has(name) }) {
				return name, nil
			}
		}
		return "", nil
	}
	progs := make([]*syntax.Prog, len(sets))
	for i, s := range sets {
		progs[i] = s.prog
	}
	return shortest(progs)
}

// shortest returns such a name, of which no other is shorter: it tries all
// characters at once, in all expressions side by side.
func shortest(sets []*syntax.Prog) (string, error) {
	start := search{states: make([]states, len(sets))}
	for i, s := range sets {
		start.states[i] = states{uint32(s.Start)}
	}
	seen, steps := map[string]bool{}, 0
	for queue := []search{start}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at.name != "" && at.accepted(sets) {
			return at.name, nil
		}
		if len(at.name) == maxName {
			continue
		}
		for _, chars := range nameChars {
			closed := at.closed(sets, rune(chars[0]))
			for _, states := range closed {
				steps += len(states) * len(chars)
			}
			if steps > maxSteps {
				return "", errTooComplex
			}
			for _, c := range chars {
				next := at.step(sets, closed, c)
				if slices.ContainsFunc(next.states, func(s states) bool { return len(s) == 0 }) {
					continue
				}
				if key := next.key(); !seen[key] {
					seen[key] = true
					queue = append(queue, next)
				}
			}
		}
	}
	return "", nil
}

// A search stands behind the characters of name, in some states of each set.
type search struct {
	name   string
	states []states
}

// states are instructions of a program, sorted, that may come next.
type states []uint32

func (s search) last() rune {
	if s.name == "" {
		return -1
	}
	return rune(s.name[len(s.name)-1])
}

// closed returns, for each set, the matches and character instructions that may
// come next if the next character is c, or of the same group; -1 is the end.
func (s search) closed(sets []*syntax.Prog, c rune) []states {
	context := syntax.EmptyOpContext(s.last(), c)
	closed := make([]states, len(sets))
	for i, set := range sets {
		closed[i] = s.states[i].closure(set, context)
	}
	return closed
}

// step returns the search behind one more character.
func (s search) step(sets []*syntax.Prog, closed []states, c rune) search {
	next := search{s.name + string(c), make([]states, len(sets))}
	for i, set := range sets {
		for _, pc := range closed[i] {
			if inst := &set.Inst[pc]; inst.Op != syntax.InstMatch && inst.MatchRune(c) {
				next.states[i] = append(next.states[i], inst.Out)
			}
		}
		slices.Sort(next.states[i])
		next.states[i] = slices.Compact(next.states[i])
	}
	return next
}

// accepted reports whether the name is in all sets.
func (s search) accepted(sets []*syntax.Prog) bool {
	for i, closed := range s.closed(sets, -1) {
		if !slices.ContainsFunc(closed, func(pc uint32) bool { return sets[i].Inst[pc].Op == syntax.InstMatch }) {
			return false
		}
	}
	return true
}

// closure returns the matches and character instructions that s leads to where
// the assertions in context hold.
func (s states) closure(set *syntax.Prog, context syntax.EmptyOp) states {
	var found states
	visited := map[uint32]bool{}
	todo := slices.Clone(s)
	for len(todo) > 0 {
		pc := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if visited[pc] {
			continue
		}
		visited[pc] = true
		switch inst := &set.Inst[pc]; inst.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			todo = append(todo, inst.Out, inst.Arg)
		case syntax.InstCapture, syntax.InstNop:
			todo = append(todo, inst.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(inst.Arg)&^context == 0 {
				todo = append(todo, inst.Out)
			}
		case syntax.InstFail:
		default:
			found = append(found, pc)
		}
	}
	return found
}

// key is the same for searches that go on in the same way.
func (s search) key() string {
	var b []byte
	if syntax.IsWordChar(s.last()) {
		b = append(b, 'w')
	}
	for _, states := range s.states {
		b = append(b, ';')
		for _, pc := range states {
			b = binary.BigEndian.AppendUint32(b, pc)
		}
	}
	return string(b)
}
