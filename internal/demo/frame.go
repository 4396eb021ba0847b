package demo

import (
	"fmt"
	"time"
)

// A frame is all that is shown at one moment.
type frame struct {
	title  string
	clock  string
	sides  []side
	charts []chart
	heads  []head
	notes  []string // what a person should know: problems, warnings
	footer []string // what this is, and where to look in
}

// A side is one way of processing.
type side struct {
	name    string
	good    bool  // shown in a good colour
	waiting int64 // records that came and did not come out yet; negative is unknown
	rates
	outOfOrder int // negative is unknown
}

// A chart is a number over time.
type chart struct {
	name   string
	good   bool
	values []int64 // oldest first, at equal distances
}

// A head is the oldest record of a partition that did not come out yet.
type head struct {
	name    string // of the partition
	idle    bool   // there is none, and the rest is zero
	offset  int64
	age     time.Duration
	attempt int
	doing   string
	behind  int // finished records that wait for it
	stopped bool
}

// seconds writes a duration for people, with two digits or a little more; less
// than nothing is not known.
func seconds(d time.Duration) string {
	switch {
	case d < 0:
		return "-"
	case d < 100*time.Millisecond:
		return millis(d)
	case d < 9950*time.Millisecond:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	default:
		return d.Round(time.Second).String()
	}
}

// number writes what may be unknown.
func number(n int64) string {
	if n < 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func millis(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

func perSecond(x float64) string { return fmt.Sprintf("%.1f/s", x) }

// A history keeps a number over time in bounded space: when it is full, every two
// neighbours become one.
type history struct {
	every  time.Duration
	next   time.Time
	values []int64
}

const (
	historyStep = 500 * time.Millisecond
	historySize = 256
)

// add takes the value of now, if it is time for one.
func (h *history) add(now time.Time, v int64) {
	if h.every == 0 {
		h.every = historyStep
	}
	if now.Before(h.next) {
		return
	}
	h.next = now.Add(h.every)
	if len(h.values) == historySize {
		for i := range historySize / 2 {
			h.values[i] = max(h.values[2*i], h.values[2*i+1])
		}
		h.values = h.values[:historySize/2]
		h.every *= 2
	}
	h.values = append(h.values, v)
}

// grows reports whether the number is larger at the end than in the middle.
func (h *history) grows() bool {
	n := len(h.values)
	return n > 2 && h.values[n-1] > h.values[n/2]
}
