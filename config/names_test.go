package config

import (
	"errors"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestCommonAgainstTrial compares with trying every short name over a few
// characters.
func TestCommonAgainstTrial(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	const letters, longest = "ab.", 4
	var names []string
	for first := 0; len(names) == 0 || len(names[len(names)-1]) < longest; {
		if len(names) == 0 {
			names = strings.Split(letters, "")
			continue
		}
		last := len(names)
		for _, name := range names[first:last] {
			for _, c := range letters {
				names = append(names, name+string(c))
			}
		}
		first = last
	}

	found := 0
	for range 3000 {
		var in, out []*nameSet
		var inExpr, outExpr []*regexp.Regexp
		for range 1 + rng.IntN(2) {
			expr := wholeOpen + randomExpr(rng, 3) + wholeClose
			in, inExpr = append(in, matching(expr)), append(inExpr, regexp.MustCompile(expr))
		}
		for range rng.IntN(2) {
			expr := wholeOpen + randomExpr(rng, 3) + wholeClose
			out, outExpr = append(out, matching(expr), nil), append(outExpr, regexp.MustCompile(expr))
		}
		belongs := func(name string) bool {
			matches := func(expr *regexp.Regexp) bool { return expr.MatchString(name) }
			return !slices.ContainsFunc(inExpr, func(expr *regexp.Regexp) bool { return !matches(expr) }) && !slices.ContainsFunc(outExpr, matches)
		}
		want := ""
		if i := slices.IndexFunc(names, belongs); i >= 0 {
			want = names[i]
		}
		got, err := common(in, out)
		switch {
		case err != nil:
			t.Fatalf("seed %d: in %v, not in %v: %v", seed, inExpr, outExpr, err)
		case got != "" && !belongs(got):
			t.Fatalf("seed %d: in %v, not in %v: got %q, which does not belong", seed, inExpr, outExpr, got)
		case want != "" && (got == "" || len(got) > len(want)):
			t.Fatalf("seed %d: in %v, not in %v: got %q, want %q or one as long", seed, inExpr, outExpr, got, want)
		}
		if got != "" {
			found++
		}
	}
	if found < 300 || found > 2900 {
		t.Errorf("seed %d: a name was found in %d of 3000 trials: they try too little", seed, found)
	}
}

func randomExpr(rng *rand.Rand, depth int) string {
	atoms := []string{"a", "b", `\.`, ".", "[ab]", "[^a]", "", "^", "$", `\b`, `\B`, "(?i)A", `\w`, "x", `\d`}
	if depth == 0 {
		return atoms[rng.IntN(len(atoms))]
	}
	sub := func() string { return randomExpr(rng, depth-1) }
	switch rng.IntN(6) {
	case 0:
		return "(" + sub() + "|" + sub() + ")"
	case 1:
		return "(" + sub() + ")" + []string{"*", "+", "?", "{2}", "{1,3}", "*?"}[rng.IntN(6)]
	case 2:
		return "(?:" + sub() + ")"
	default:
		return sub() + sub()
	}
}

func TestCommon(t *testing.T) {
	set := func(expr string) *nameSet { return matching(wholeOpen + expr + wholeClose) }
	long := strings.Repeat("a", maxName)
	tests := map[string]struct {
		in, out []*nameSet
		want    string
	}{
		"one":                     {[]*nameSet{set("b+")}, nil, "b"},
		"the empty name is none":  {[]*nameSet{set("(ab)?")}, nil, "ab"},
		"two":                     {[]*nameSet{set("a.*"), set(".*b.")}, nil, "aba"},
		"apart":                   {[]*nameSet{set("a.*"), set("b.*")}, nil, ""},
		"all of it is left out":   {[]*nameSet{set("a|b")}, []*nameSet{set(".")}, ""},
		"names":                   {[]*nameSet{exactly([]string{"x.y", "b"}), set("x.+")}, nil, "x.y"},
		"lists":                   {[]*nameSet{exactly([]string{"c", "a", "b"}), exactly([]string{"d", "b"}), set(".")}, nil, "b"},
		"lists apart":             {[]*nameSet{exactly([]string{"a"}), exactly([]string{"b"})}, nil, ""},
		"a list left out":         {[]*nameSet{exactly([]string{"a", "b"})}, []*nameSet{set("a"), nil}, "b"},
		"a list but for some":     {[]*nameSet{exactly([]string{"a", "b"}), set(".")}, []*nameSet{set("a"), set("b")}, ""},
		"a dot in a name":         {[]*nameSet{exactly([]string{"x.y"}), set("xzy")}, nil, ""},
		"no name has a slash":     {[]*nameSet{set("a/b")}, nil, ""},
		"the longest name":        {[]*nameSet{set("a{249}")}, nil, long},
		"longer than any name":    {[]*nameSet{set("a{250}")}, nil, ""},
		"letters before the rest": {[]*nameSet{set(".")}, nil, "a"},
	}
	for name, test := range tests {
		got, err := common(test.in, test.out)
		if got != test.want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, test.want)
		}
	}
}

// TestCommonGivesUp: what would take too long is refused, not waited for.
func TestCommonGivesUp(t *testing.T) {
	_, err := common([]*nameSet{matching(`^.*a.{240}$`)}, nil)
	if !errors.Is(err, errTooComplex) {
		t.Errorf("got %v, want %v", err, errTooComplex)
	}
}

func BenchmarkCheckTopics(b *testing.B) {
	content := "pipelines:\n"
	for i := range 100 {
		name := string(rune('a'+i/10)) + string(rune('a'+i%10))
		content += "  - {name: " + name + ", input: {topics_regex: 'in\\." + name + "\\.(.+)', start: earliest}, transform: {pass: {}}, output: {topic: 'out.{1}." + name + "'}}\n"
	}
	for b.Loop() {
		l := newLoader(world)
		l.files = []string{"f"}
		l.document(place{file: "f"}, []byte(content))
		if _, err := l.finish(); err != nil {
			b.Fatal(err)
		}
	}
}
