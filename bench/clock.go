package main

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A clock has transforms take their time on the dot. The timers of the runtime wake a process
// that has nothing else to do up to a millisecond late, because it waits in whole ones
// (golang/go#44343), and one that is busy earlier: transforms of 10 ms took 0.52 ms more in the
// pipeline, and 0.35 ms more in a pool, which needs four times the CPU. With a clock, which takes
// some 24 µs of CPU for each, it is 0.11 to 0.17 ms in both.
type clock struct {
	mu      sync.Mutex
	waiting waits
}

// tick is how long the clock sleeps at the most.
const tick = 100 * time.Microsecond

// newClock starts a clock, which runs as long as the process.
func newClock() *clock {
	c := new(clock)
	go c.run()
	return c
}

func (c *clock) run() {
	runtime.LockOSThread()
	for {
		now := time.Now()
		pause := tick
		c.mu.Lock()
		for len(c.waiting) > 0 && !c.waiting[0].until.After(now) {
			close(heap.Pop(&c.waiting).(wait).over)
		}
		if len(c.waiting) > 0 {
			pause = min(tick, c.waiting[0].until.Sub(now))
		}
		c.mu.Unlock()
		sleep := syscall.NsecToTimespec(int64(pause))
		_ = syscall.Nanosleep(&sleep, nil) // by a signal it ends early
	}
}

// sleep waits for d, or until ctx ends, and then returns the cause.
func (c *clock) sleep(ctx context.Context, d time.Duration) error {
	w := wait{until: time.Now().Add(d), over: make(chan struct{})}
	c.mu.Lock()
	heap.Push(&c.waiting, w)
	c.mu.Unlock()
	select {
	case <-w.over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

type wait struct {
	until time.Time
	over  chan struct{}
}

// waits are a heap, the first to end on top.
type waits []wait

func (w waits) Len() int           { return len(w) }
func (w waits) Less(i, j int) bool { return w[i].until.Before(w[j].until) }
func (w waits) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }
func (w *waits) Push(x any)        { *w = append(*w, x.(wait)) }
func (w *waits) Pop() any {
	last := len(*w) - 1
	x := (*w)[last]
	*w = (*w)[:last]
	return x
}

// takes is how long the transform of a record takes: log-normal, and the same for the same place.
func (j job) takes(r *kgo.Record) time.Duration {
	return draw(rand.New(rand.NewPCG(uint64(r.Partition), uint64(r.Offset))), j.Latency, j.Sigma)
}
