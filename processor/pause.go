package processor

import "github.com/twmb/franz-go/pkg/kgo"

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
