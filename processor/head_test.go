//go:build synctests

package processor_test

import (
	"runtime"
	"strings"
	"testing"
	"time"
)

// heap is what the process holds after a collection.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what pools hold goes with the second one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// One record hangs for an hour at full input. Every tick commits the same offset,
// without metadata: that tells a lag monitor a blocked head from a dead process.
// What the process holds does not grow.
func TestStuckHeadIsCommittedOnEveryTick(t *testing.T) {
	for _, test := range []struct {
		what   string
		offset int64
	}{
		{"the first record of a new group", 0},
		{"a later record", 7},
	} {
		t.Run(test.what, func(t *testing.T) {
			virtual(t, 1, func(b *bed) {
				commits := b.watchCommits()
				opts := b.options()
				b.unhurried(&opts)
				opts.Commit.Interval = 0 // the default, 5 s
				opts.Window.Records = 100
				open := make(chan struct{})
				r := b.run(opts, gate(test.offset, open))
				b.produce("in", 0, 0, 500)
				<-time.After(20 * time.Minute)
				if s := b.status(r).Partitions[0]; s.WindowRecords != 100 || !s.Paused {
					b.t.Errorf("the window has %d records, paused %v; want 100, true", s.WindowRecords, s.Paused)
				}
				if reason := b.problem(r, "in/0"); !strings.Contains(reason, "attempt 1 runs") {
					b.t.Errorf("the problem of the partition is %q", reason)
				}
				before, goroutines, held := len(commits.all()), runtime.NumGoroutine(), heap()

				<-time.After(time.Hour)
				during := commits.all()[before:]
				if len(during) != 720 {
					b.t.Errorf("%d commits in an hour of 5 s ticks, want 720", len(during))
				}
				for _, s := range during {
					if s.offsets[0] != test.offset || s.metadata != "" {
						b.t.Fatalf("%v: committed at %d with metadata %q, want %d and none", s.at, s.offsets[0], s.metadata, test.offset)
					}
				}
				if first := commits.all()[0]; first.offsets[0] != 0 || first.at.Second() > 1 {
					b.t.Errorf("the first commit is at %d, %v; want the start, right after the assignment", first.offsets[0], first.at)
				}
				if n := runtime.NumGoroutine(); n > goroutines+5 {
					b.t.Errorf("goroutines grew from %d to %d", goroutines, n)
				}
				// The log of commits above and the clients' buffers take up to 5 MB, in ten
				// hours no more than twice that.
				if now := heap(); now > held+10<<20 {
					b.t.Errorf("the heap grew from %d to %d bytes", held, now)
				}
				if s := b.status(r).Partitions[0]; s.Head == nil || s.Head.Offset != test.offset || s.Head.Age < time.Hour || s.Head.Behind != 99 {
					b.t.Errorf("the head is %+v", s.Head)
				}
				close(open)
				b.caughtUp(1)
				b.stop(r)
				b.inOrder(0, 0, 500)
			})
		})
	}
}
