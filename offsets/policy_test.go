package offsets

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// at is the time so many milliseconds into a test.
func at(ms int) time.Time { return epoch.Add(time.Duration(ms) * time.Millisecond) }

// ms is the inverse of at; -1 for the zero time.
func ms(t time.Time) int {
	if t.IsZero() {
		return -1
	}
	return int(t.Sub(epoch) / time.Millisecond)
}

// commits runs a policy to the end of a test as a committer would: it sleeps
// until the deadline or the next event and commits whenever one is due, each
// commit taking as long as latency says. It returns when commits began.
func commits(p *Policy, until, latency int, events map[int]func()) []int {
	var begun []int
	done := -1
	for now := 0; now <= until; now++ {
		if done == now {
			p.Done(at(now))
		}
		if event := events[now]; event != nil {
			event()
		}
		if p.Due(at(now)) {
			p.Begin(at(now))
			begun = append(begun, now)
			done = now + max(1, latency)
		}
	}
	return begun
}

func TestWhenCommitsBegin(t *testing.T) {
	type event struct {
		at       int // ms
		assigned bool
		settled  int
	}
	// All with an interval of 5 s, 100 records, from 0 to 21 s.
	tests := map[string]struct {
		latency int // of each commit, ms
		events  []event
		want    []int
	}{
		"nothing before a position is known":       {10, nil, nil},
		"at once, then every interval":             {10, []event{{at: 200, assigned: true}}, []int{200, 5200, 10200, 15200, 20200}},
		"another assignment keeps the cadence":     {10, []event{{at: 200, assigned: true}, {at: 3000, assigned: true}}, []int{200, 3000, 5200, 10200, 15200, 20200}},
		"assigned during a commit: right after":    {500, []event{{at: 0, assigned: true}, {at: 100, assigned: true}}, []int{0, 500, 5000, 10000, 15000, 20000}},
		"latency does not move the cadence":        {4000, []event{{at: 0, assigned: true}}, []int{0, 5000, 10000, 15000, 20000}},
		"a tick in a commit is one commit after":   {7000, []event{{at: 0, assigned: true}}, []int{0, 7000, 14000, 21000}},
		"many ticks in a commit are one":           {17000, []event{{at: 0, assigned: true}}, []int{0, 17000}},
		"enough records: between ticks":            {10, []event{{at: 0, assigned: true}, {at: 2000, settled: 99}, {at: 2500, settled: 1}}, []int{0, 2500, 5000, 10000, 15000, 20000}},
		"too few records: at the tick":             {10, []event{{at: 0, assigned: true}, {at: 2000, settled: 99}}, []int{0, 5000, 10000, 15000, 20000}},
		"records count from the last commit":       {10, []event{{at: 0, assigned: true}, {at: 4000, settled: 99}, {at: 6000, settled: 99}}, []int{0, 5000, 10000, 15000, 20000}},
		"enough records: at most once a second":    {10, []event{{at: 0, assigned: true}, {at: 10, settled: 500}, {at: 1100, settled: 500}}, []int{0, 1000, 2000, 5000, 10000, 15000, 20000}},
		"the gap does not hold up a tick":          {10, []event{{at: 0, assigned: true}, {at: 4800, settled: 500}}, []int{0, 4800, 5000, 10000, 15000, 20000}},
		"the gap counts from the tick":             {10, []event{{at: 0, assigned: true}, {at: 5100, settled: 500}}, []int{0, 5000, 6000, 10000, 15000, 20000}},
		"the gap does not hold up an assignment":   {10, []event{{at: 0, assigned: true}, {at: 30, assigned: true}}, []int{0, 30, 5000, 10000, 15000, 20000}},
		"records settled during a commit count on": {2000, []event{{at: 0, assigned: true}, {at: 500, settled: 100}}, []int{0, 2000, 5000, 10000, 15000, 20000}},
		"records before any position wait for it":  {10, []event{{at: 0, settled: 500}, {at: 3000, assigned: true}}, []int{3000, 8000, 13000, 18000}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := NewPolicy(5*time.Second, 100)
			events := map[int]func(){}
			for _, e := range tt.events {
				events[e.at] = func() {
					p.Settled(e.settled)
					if e.assigned {
						p.Assigned(at(e.at))
					}
				}
			}
			if got := commits(p, 21000, tt.latency, events); fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("commits began at: got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestDeadlineIsWhenACommitFallsDue(t *testing.T) {
	tests := map[string]struct {
		prepare func(*Policy)
		want    int // asked at 2000 ms; -1 is never by itself
	}{
		"nothing assigned":     {func(*Policy) {}, -1},
		"assigned":             {func(p *Policy) { p.Assigned(at(500)) }, 2000},
		"in flight":            {func(p *Policy) { p.Assigned(at(500)); p.Begin(at(600)) }, -1},
		"waits for the tick":   {func(p *Policy) { p.Assigned(at(500)); p.Begin(at(600)); p.Done(at(700)) }, 5500},
		"waits for the gap":    {func(p *Policy) { p.Assigned(at(500)); p.Begin(at(1600)); p.Done(at(1700)); p.Settled(100) }, 2600},
		"the gap is over":      {func(p *Policy) { p.Assigned(at(500)); p.Begin(at(600)); p.Done(at(700)); p.Settled(100) }, 2000},
		"a tick was missed":    {func(p *Policy) { p.Assigned(at(-9000)); p.Begin(at(-8000)); p.Done(at(1900)) }, 2000},
		"a tick is due now":    {func(p *Policy) { p.Assigned(at(-3000)); p.Begin(at(-2999)); p.Done(at(-2998)) }, 2000},
		"unasked commit ended": {func(p *Policy) { p.Begin(at(0)); p.Done(at(1)) }, -1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := NewPolicy(5*time.Second, 100)
			tt.prepare(p)
			now := at(2000)
			if got := ms(p.Deadline(now)); got != tt.want {
				t.Errorf("Deadline: got %d ms, want %d ms", got, tt.want)
			}
			if got, want := p.Due(now), tt.want == 2000; got != want {
				t.Errorf("Due: got %v, want %v", got, want)
			}
		})
	}
}

func TestNewPolicyRefusesWhatNeverEnds(t *testing.T) {
	for _, tt := range []struct {
		interval time.Duration
		records  int
	}{{0, 1}, {-time.Second, 1}, {time.Second, 0}} {
		t.Run(fmt.Sprint(tt), func(t *testing.T) {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, "positive") {
					t.Errorf("panic: got %v, want one that says positive", got)
				}
			}()
			NewPolicy(tt.interval, tt.records)
		})
	}
}
