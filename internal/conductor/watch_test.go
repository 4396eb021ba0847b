package conductor

import (
	"slices"
	"testing"
	"time"

	"seriatim/internal/history"
)

// TestPauses has one partition wait, which the others do not.
func TestPauses(t *testing.T) {
	start := time.UnixMilli(0)
	var looks []look
	for second := range 20 {
		l := look{in: make([]int64, partitions), stable: make([]int64, partitions)}
		l.At = start.Add(time.Duration(second) * time.Second)
		l.Committed = make([]int64, partitions)
		l.Ends[history.Outputs] = make([]int64, partitions)
		for p := range partitions {
			l.in[p], l.Committed[p] = 100, int64(second)
			l.Ends[history.Outputs][p], l.stable[p] = 50, 50
		}
		looks = append(looks, l)
	}
	if p := standstill(looks); p.length() != 0 {
		t.Errorf("all goes on, but there is %v", p)
	}
	if p := blocked(looks); p.length() != 0 {
		t.Errorf("no reader waits, but there is %v", p)
	}
	for second := 5; second < 12; second++ {
		looks[second].Committed[3] = looks[5].Committed[3]
		looks[second].stable[4] = 10
	}
	if p := standstill(looks); p.partition != 3 || p.length() != 6*time.Second || p.from != start.Add(5*time.Second) {
		t.Errorf("got %v, want partition 3 from 5 to 11 s", p)
	}
	if p := blocked(looks); p.partition != 4 || p.length() != 6*time.Second {
		t.Errorf("got %v of %v, want partition 4 for 6 s", p, p.length())
	}
	busy := slices.Clone(looks)
	for second := range busy { // an output comes, or there is nothing to do
		busy[second].Ends[history.Outputs] = slices.Clone(looks[second].Ends[history.Outputs])
		busy[second].Ends[history.Outputs][3] += int64(second)
	}
	if p := standstill(busy); p.length() != 0 {
		t.Errorf("outputs come, but there is %v", p)
	}
	for second := range looks {
		looks[second].in[3] = looks[second].Committed[3]
	}
	if p := standstill(looks); p.length() != 0 {
		t.Errorf("there is nothing to do, but there is %v", p)
	}
}
