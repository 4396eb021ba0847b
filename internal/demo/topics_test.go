package demo

import (
	"regexp"
	"slices"
	"testing"
)

func TestTopicsAreMadeUpForExpressions(t *testing.T) {
	tests := map[string]struct {
		expr, output string
		input, want  string // empty: an error
	}{
		"a group":              {`^(?:in\.(.+))$`, "out.{1}", "in.demo", "out.demo"},
		"whole name":           {`^(?:[a-z]+\.in)$`, "{topic}.out", "a.in", "a.in.out"},
		"choices":              {`^(?:(orders|bills)-v[0-9]{2})$`, "{1}", "orders-v00", "orders"},
		"negated class":        {`^(?:[^a-z]x?)$`, "out", "0", "out"},
		"anything":             {`^(?:.*)$`, "out", "demo", "out"},
		"nothing but a slash":  {`^(?:a/b)$`, "out", "", ""},
		"input and output one": {`^(?:.*)$`, "demo", "", ""},
	}
	for name, test := range tests {
		in, out, err := topicsOf(OwnPipeline{Name: "orders", Regex: regexp.MustCompile(test.expr), Output: test.output})
		if test.input == "" {
			if err == nil {
				t.Errorf("%s: got %q and %q, want an error", name, in, out)
			}
			continue
		}
		if err != nil || !slices.Equal(in, []string{test.input}) || !slices.Equal(out, []string{test.want}) {
			t.Errorf("%s: got %q to %q (%v), want %s to %s", name, in, out, err, test.input, test.want)
		}
	}
}

func TestOwnPlan(t *testing.T) {
	var o own
	o.tallies = make(map[string]*tally)
	err := o.plan([]OwnPipeline{
		{Name: "first", Topics: []string{"a", "b"}, Output: "{topic}.mid", Provenance: true},
		{Name: "second", Topics: []string{"a.mid"}, Output: "out", Provenance: true},
		{Name: "third", Topics: []string{"a"}, Output: "out", Provenance: true},
		{Name: "fourth", Topics: []string{"a"}, Output: "other"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", "b"}; !slices.Equal(o.fed, want) {
		t.Errorf("feeds %q, want %q: what a pipeline writes is not fed", o.fed, want)
	}
	if len(o.topics) != 6 {
		t.Errorf("creates %v, want a, b, a.mid, b.mid, out, other", o.topics)
	}
	var told []bool
	for _, p := range o.pipelines {
		told = append(told, p.told)
	}
	if want := []bool{true, false, false, false}; !slices.Equal(told, want) {
		t.Errorf("order is told by %v, want %v: two share a topic, one has no provenance", told, want)
	}
}
