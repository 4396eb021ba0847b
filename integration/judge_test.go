package integration

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// TestJudge holds the judge itself: it must find each kind of wrong.
func TestJudge(t *testing.T) {
	const from = "t/0"
	in := make([]sighting, 6)
	for i := range in {
		// A gap in offsets and in sequence numbers, as aborted transactions leave it.
		in[i] = sighting{offset: int64(10 * i), seq: 3 * i, from: from, key: "k"}
	}
	out := func(positions ...int) []sighting {
		var list []sighting
		for i, pos := range positions {
			list = append(list, sighting{offset: int64(i), seq: 3 * pos, from: from, key: "k", source: fmt.Sprintf("%s/%d", from, 10*pos)})
		}
		return list
	}
	foreign := out(0, 1, 2, 3, 4, 5)
	foreign[2].from = "t/1"
	wrongSource := out(0, 1, 2, 3, 4, 5)
	wrongSource[3].source = "t/0/31"
	wrongKey := out(0, 1, 2, 3, 4, 5)
	wrongKey[3].key = ""
	tests := map[string]struct {
		out  []sighting
		want verdict // without its words
		says string
	}{
		"as it should be":          {out: out(0, 1, 2, 3, 4, 5)},
		"a step back":              {out: out(0, 1, 2, 1, 2, 3, 4, 5), want: verdict{repeats: 2, longest: 2}},
		"two steps back":           {out: out(0, 1, 2, 0, 1, 0, 1, 2, 3, 4, 5), want: verdict{repeats: 5, longest: 3}},
		"a repeat at the end":      {out: out(0, 1, 2, 3, 4, 5, 5), want: verdict{repeats: 1, longest: 1}},
		"a jump among repeats":     {out: out(0, 1, 2, 0, 2, 3, 4, 5), want: verdict{repeats: 2, longest: 3, jumps: 1}},
		"two have changed places":  {out: out(0, 2, 1, 3, 4, 5), want: verdict{faults: 1, jumps: 1}, says: "record 2 comes before 1"},
		"one lost in the middle":   {out: out(0, 1, 3, 4, 5), want: verdict{faults: 2, lost: 1}, says: "record 3 comes before 2"},
		"one lost at the end":      {out: out(0, 1, 2, 3, 4), want: verdict{faults: 1, lost: 1}, says: "record 5 of 6, at input offset 50, is lost"},
		"nothing at all":           {want: verdict{faults: 6, lost: 6}, says: "is lost"},
		"from another partition":   {out: foreign, want: verdict{faults: 3, lost: 1}, says: "t/1/6 was not in the input"},
		"a header with the wrong":  {out: wrongSource, want: verdict{faults: 1}, says: `says "t/0/31", want "t/0/30"`},
		"a key that was not asked": {out: wrongKey, want: verdict{faults: 1}, says: `the key is "", want "k"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := judge([][]sighting{in}, [][]sighting{test.out})
			if !strings.Contains(got.String(), test.says) {
				t.Errorf("got %v, want %q", got, test.says)
			}
			test.want.records, got.first = len(in), nil
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
	if v := judge([][]sighting{in}, [][]sighting{out(0, 1, 2, 3, 4, 5), in[:1]}); v.faults != 1 {
		t.Errorf("records in a partition without source: %v", v)
	}
}
