package processor

import (
	"container/heap"
	"time"
)

// timers are what the loop does later: retries, probes, deadlines. Only slow
// paths use them.
type timers []timer

type timer struct {
	at time.Time
	do func()
}

// at has do called by the loop once that time has come.
func (h *timers) at(at time.Time, do func()) { heap.Push(h, timer{at, do}) }

// nextTimer is when the next timer fires; zero if there is none.
func (h timers) nextTimer() time.Time {
	if len(h) == 0 {
		return time.Time{}
	}
	return h[0].at
}

// fireTimers calls what is due.
func (h *timers) fireTimers(now time.Time) {
	for len(*h) > 0 && !(*h)[0].at.After(now) {
		heap.Pop(h).(timer).do()
	}
}

// Len, Less, Swap, Push and Pop are for container/heap.
func (h timers) Len() int           { return len(h) }
func (h timers) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timers) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *timers) Push(t any)        { *h = append(*h, t.(timer)) }
func (h *timers) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = timer{}
	*h = old[:len(old)-1]
	return t
}
