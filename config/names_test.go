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
		var sets []*nameSet
		var exprs []*regexp.Regexp
		for range 1 + rng.IntN(3) {
			expr := wholeOpen + randomExpr(rng, 3) + wholeClose
			sets, exprs = append(sets, matching(expr)), append(exprs, regexp.MustCompile(expr))
		}
		belongs := func(name string) bool {
			return !slices.ContainsFunc(exprs, func(expr *regexp.Regexp) bool { return !expr.MatchString(name) })
		}
		want := ""
		if i := slices.IndexFunc(names, belongs); i >= 0 {
			want = names[i]
		}
		got, err := common(sets...)
		switch {
		case err != nil:
			t.Fatalf("seed %d: in %v: %v", seed, exprs, err)
		case got != "" && !belongs(got):
			t.Fatalf("seed %d: in %v: got %q, which does not belong", seed, exprs, got)
		case want != "" && (got == "" || len(got) > len(want)):
			t.Fatalf("seed %d: in %v: got %q, want %q or one as long", seed, exprs, got, want)
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
		sets []*nameSet
		want string
	}{
		"one":                     {[]*nameSet{set("b+")}, "b"},
		"the empty name is none":  {[]*nameSet{set("(ab)?")}, "ab"},
		"two":                     {[]*nameSet{set("a.*"), set(".*b.")}, "aba"},
		"apart":                   {[]*nameSet{set("a.*"), set("b.*")}, ""},
		"a list":                  {[]*nameSet{exactly([]string{"x.y", "b"}), set("x.+")}, "x.y"},
		"lists":                   {[]*nameSet{exactly([]string{"c", "a", "b"}), exactly([]string{"d", "b"}), set(".")}, "b"},
		"lists apart":             {[]*nameSet{exactly([]string{"a"}), exactly([]string{"b"})}, ""},
		"a dot in a name":         {[]*nameSet{exactly([]string{"x.y"}), set("xzy")}, ""},
		"no name has a slash":     {[]*nameSet{set("a/b")}, ""},
		"the longest name":        {[]*nameSet{set("a{249}")}, long},
		"longer than any name":    {[]*nameSet{set("a{250}")}, ""},
		"letters before the rest": {[]*nameSet{set(".")}, "a"},
	}
	for name, test := range tests {
		got, err := common(test.sets...)
		if got != test.want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, test.want)
		}
	}
}

// TestCommonGivesUp: what would take too long is refused, not waited for.
func TestCommonGivesUp(t *testing.T) {
	_, err := common(matching(`^.*a.{240}$`))
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
