package offsets_test

import (
	"fmt"
	"time"

	"seriatim/offsets"
)

func ExampleTracker() {
	t := offsets.NewTracker(100)
	for _, offset := range []offsets.Offset{100, 101, 105} { // 102 to 104 were compacted away
		gap, err := t.Track(offset, 1)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("read", offset, "behind a gap of", gap)
	}
	for _, seq := range []uint64{1, 0, 2} {
		if err := t.Settle(seq); err != nil {
			fmt.Println(err)
		}
		frontier, _ := t.Frontier()
		fmt.Println("settled seq", seq, "may commit", frontier)
	}
	// Output:
	// read 100 behind a gap of 0
	// read 101 behind a gap of 0
	// read 105 behind a gap of 3
	// settled seq 1 may commit 100
	// settled seq 0 may commit 102
	// settled seq 2 may commit 106
}

func ExamplePolicy() {
	start := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	p := offsets.NewPolicy(5*time.Second, 10000)
	p.Assigned(start)

	now := start
	for range 4 {
		now = p.Deadline(now) // a timer in real life
		p.Begin(now)
		fmt.Println("commit at", now.Format(time.TimeOnly))
		now = now.Add(7 * time.Second) // a slow broker: ticks fall into the commit
		p.Done(now)
	}
	// Output:
	// commit at 12:00:00
	// commit at 12:00:07
	// commit at 12:00:14
	// commit at 12:00:21
}
