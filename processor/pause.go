package processor

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// pauses collects which partitions shall not be fetched (true) or shall be again
// (false), so that the client is told once for each turn of the loop: each call
// copies its whole map.
type pauses map[partitionKey]bool

func (p pauses) apply(client *kgo.Client) {
	if len(p) == 0 {
		return
	}
	var pause, resume map[string][]int32
	for key, stop := range p {
		into := &resume
		if stop {
			into = &pause
		}
		if *into == nil {
			*into = make(map[string][]int32)
		}
		(*into)[key.topic] = append((*into)[key.topic], key.partition)
	}
	clear(p)
	if pause != nil {
		client.PauseFetchPartitions(pause)
	}
	if resume != nil {
		client.ResumeFetchPartitions(resume)
	}
}

// holdPolls is how long a poll may be put off.
const holdPolls = time.Second

// hungry says whether to poll. It does not while records that were polled wait for
// room and all other partitions have work as well: what the client has fetched
// meanwhile stays with it, where a pause would throw it away, to be fetched again,
// at full speed every other fetch. As soon as a partition has nothing left, or
// after holdPolls, those whose records wait are paused, so that they neither keep
// others waiting nor get more.
func (l *loop) hungry() bool {
	waiting, idle := false, false
	for t := range l.backed {
		waiting = waiting || t.waits()
	}
	if !waiting {
		l.holding = time.Time{}
		return true
	}
	for _, t := range l.tenures {
		idle = idle || t.phase == open && !t.paused && t.window.Len() == 0
	}
	if l.holding.IsZero() {
		l.holding = l.now
	}
	if !idle && l.now.Before(l.holding.Add(holdPolls)) {
		return false
	}
	for t := range l.backed {
		if t.waits() {
			l.pause(t)
		}
	}
	l.holding = time.Time{}
	return true
}

// pause stops fetching t until its window has room again.
func (l *loop) pause(t *tenure) {
	l.backed[t] = struct{}{}
	if !t.paused {
		t.paused = true
		l.pauses[t.partitionKey] = true
	}
}

// resume fetches t again.
func (l *loop) resume(t *tenure) {
	delete(l.backed, t)
	if t.paused {
		l.resumeAnyway(t)
	}
}

// resumeAnyway is resume for a partition that the client may hold paused since an
// earlier tenure.
func (l *loop) resumeAnyway(t *tenure) {
	t.paused = false
	l.pauses[t.partitionKey] = false
}
