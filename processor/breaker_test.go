package processor

import (
	"log/slog"
	"testing"
	"time"
)

// The breaker counts what ended within its time, and needs ten dead letters.
func TestBreakerCounts(t *testing.T) {
	type step struct {
		after      time.Duration
		good, dead int
		tooMany    bool // at the last dead one
	}
	for what, steps := range map[string][]step{
		"few":                  {{0, 0, 9, false}},
		"ten":                  {{0, 0, 10, true}},
		"just as many":         {{0, 190, 10, false}},
		"one more":             {{0, 190, 11, true}},
		"many good ones":       {{0, 10000, 100, false}},
		"the good ones forgot": {{0, 10000, 9, false}, {30 * time.Second, 0, 1, false}, {31 * time.Second, 0, 9, true}},
		"the dead ones forgot": {{0, 0, 9, false}, {61 * time.Second, 0, 9, false}},
		"a long time":          {{0, 0, 9, false}, {24 * time.Hour, 0, 9, false}, {time.Second, 0, 1, true}},
		"a few each minute":    {{0, 0, 5, false}, {time.Minute, 0, 5, false}, {time.Minute, 0, 5, false}},
	} {
		t.Run(what, func(t *testing.T) {
			b := newBreaker(Breaker{Ratio: 0.05, Over: time.Minute})
			now := time.Now()
			for i, s := range steps {
				now = now.Add(s.after)
				for range s.good {
					b.good(now)
				}
				var tooMany bool
				for range s.dead {
					_, _, tooMany = b.dead(now)
				}
				if tooMany != s.tooMany {
					t.Errorf("step %d: too many is %v, want %v", i, tooMany, s.tooMany)
				}
			}
		})
	}
	for ratio, want := range map[float64]int{0.05: 20, 0.5: 10, 0.001: 100} {
		if got := newBreaker(Breaker{Ratio: ratio}).enough(); got != want {
			t.Errorf("with a ratio of %v %d are enough, want %d", ratio, got, want)
		}
	}
}

// Nobody is preempted while the breaker is open: nothing else is dispatched, and a trial that ended so
// would be the last one.
func TestTrialsAreNotPreempted(t *testing.T) {
	for _, open := range []bool{false, true} {
		b := newBench(t, 4, 0)
		l := newLoop(&Options{Logger: slog.New(slog.DiscardHandler), Workers: 4, Commit: Commit{Interval: 1, Records: 1}})
		l.sched, l.breaker = b.sched, newBreaker(Breaker{Ratio: 0.1})
		hangs := b.tenure(10, time.Hour)
		b.dispatch()
		for _, c := range b.busy {
			c.cancel = func() {}
		}
		waits := b.tenure(10, time.Hour)
		l.tenures[partitionKey{"in", 0}], l.tenures[partitionKey{"in", 1}] = hangs, waits
		l.now, l.breaker.open = b.now.Add(time.Minute), open
		l.preempt()
		preempted := 0
		for _, c := range b.busy {
			if c.preempted {
				preempted++
			}
		}
		if want := map[bool]int{false: 2, true: 0}[open]; len(b.busy) != 4 || preempted != want {
			t.Errorf("the breaker is open %v: %d of %d are preempted, want %d of 4", open, preempted, len(b.busy), want)
		}
	}
}
