package processor

import (
	"time"

	"seriatim/internal/seeded"
	"seriatim/resequence"
)

// A scheduler decides which partition's records go to the next free worker. It
// is a ring of the tenures that have something to dispatch: each turn goes to the
// next of them, so that none waits for another's backlog, and whatever nobody
// else wants goes to those that do.
type scheduler struct {
	workers      int
	perPartition int // 0: adaptive
	batch        Batch
	maxAge       time.Duration

	free    int       // workers without a chunk
	ring    []*tenure // with something to dispatch, in turn
	ringAt  int       // index of the next turn; the ring is compacted lazily
	wanting int       // tenures that dispatch or would like to

	// mean is the moving average of the time that a transform takes for one
	// record, or batch, in nanoseconds. It starts above chunkTime, so that nothing is put in
	// chunks before the first transforms have shown to be cheap: a start with
	// chunks of 64 ran 64 slow records in a row.
	mean float64

	spare   []*chunk
	expired []resequence.Seq // records of the chunk that was cut last which are too old for an attempt
}

func newScheduler(workers, perPartition int, maxAge time.Duration) *scheduler {
	return &scheduler{workers: workers, perPartition: perPartition, maxAge: maxAge, free: workers, mean: float64(2 * chunkTime)}
}

// want puts t in the ring if it has something to dispatch.
func (s *scheduler) want(t *tenure) {
	wants := s.wants(t)
	if wants && !t.queued {
		t.queued = true
		s.ring = append(s.ring, t)
	}
	if wanting := wants || t.running > 0; wanting != t.wanting {
		t.wanting = wanting
		if wanting {
			s.wanting++
		} else {
			s.wanting--
		}
	}
}

// wants reports whether t has something to dispatch now.
func (s *scheduler) wants(t *tenure) bool {
	return t.wants() && (s.batch.Records == 0 || s.ready(t))
}

// turn takes the next tenure off the ring that may have a worker; nil if none.
// Who has less than a fair share of the workers comes first: with equal turns alone
// those whose transforms take long would in time hold every worker.
func (s *scheduler) turn(now time.Time) *tenure {
	if t := s.next(func(t *tenure) bool {
		return (t.running < s.share() || seeded.Bug("slow-partition-starves")) && s.allows(t, now)
	}); t != nil {
		return t
	}
	return s.next(func(t *tenure) bool { return s.allows(t, now) })
}

// next takes the next tenure off the ring that wants a worker and may have it.
func (s *scheduler) next(may func(*tenure) bool) *tenure {
	for range len(s.ring) - s.ringAt {
		t := s.ring[s.ringAt]
		s.ring[s.ringAt] = nil
		s.ringAt++
		if s.ringAt == len(s.ring) {
			s.ring, s.ringAt = s.ring[:0], 0
		} else if s.ringAt > 64 && s.ringAt*2 > len(s.ring) {
			s.ring, s.ringAt = append(s.ring[:0], s.ring[s.ringAt:]...), 0
		}
		t.queued = false
		if !s.wants(t) {
			s.want(t) // it is not counted any more
			continue
		}
		if may(t) {
			return t
		}
		t.queued = true // its turn comes again
		s.ring = append(s.ring, t)
	}
	return nil
}

// share is how many workers each tenure has if they are shared fairly.
func (s *scheduler) share() int { return max(1, s.workers/max(1, s.wanting)) }

// allows says whether t may have one more worker. Without a fixed limit it may
// have as many as the others leave, unless its oldest attempt has run far longer
// than attempts usually do: then its transforms hang, and each worker beyond its
// share would be lost to others that come later.
func (s *scheduler) allows(t *tenure, now time.Time) bool {
	if s.perPartition > 0 {
		return t.running < s.perPartition
	}
	if t.running < s.share() || s.wanting <= 1 {
		return true
	}
	usual := time.Duration(8*s.mean) + 100*time.Millisecond
	return now.Sub(t.runningHead.started) <= usual
}

// chunkSize is how many records a worker gets at a time.
func (s *scheduler) chunkSize() int {
	if s.batch.Records > 0 {
		return s.batch.Records
	}
	return int(min(maxChunk, max(1, float64(chunkTime)/s.mean)))
}

// cut takes the next records of t for one worker: one that waits for another
// attempt (several of them in a batch), or a run of new ones. It returns nil if there were only control records.
func (s *scheduler) cut(t *tenure, now time.Time, nanos int64) *chunk {
	return s.cutUpTo(s.chunkSize(), s.maxAge, t, now, nanos)
}

// cutOne is cut for a single record, however old it is.
func (s *scheduler) cutOne(t *tenure, now time.Time, nanos int64) *chunk {
	return s.cutUpTo(1, 0, t, now, nanos)
}

func (s *scheduler) cutUpTo(size int, maxAge time.Duration, t *tenure, now time.Time, nanos int64) *chunk {
	c := s.blank()
	c.tenure, c.started = t, now
	if s.batch.Records > 0 {
		s.gather(c, size, maxAge, nanos)
	} else if len(t.due) > 0 && t.due[0] < t.stopAt {
		seq := t.due[0]
		t.due = t.due[1:]
		s.add(c, seq, maxAge, nanos)
	} else {
		// Control records at the head are settled, and freed, before they come here.
		t.next = t.fresh()
		end := min(t.window.Next(), t.stopAt)
		for ; t.next < end && len(c.attempts) < size; t.next++ {
			s.add(c, t.next, maxAge, nanos)
		}
	}
	if len(c.attempts) == 0 {
		s.spare = append(s.spare, c)
		return nil
	}
	s.launch(c)
	return c
}

// launch notes that c runs.
func (s *scheduler) launch(c *chunk) {
	t := c.tenure
	s.free--
	t.running++
	if c.prev = t.runningTail; c.prev == nil {
		t.runningHead = c
	} else {
		c.prev.next = c
	}
	t.runningTail = c
}

// add adds the record at seq to c, if it is one that waits and not older than maxAge.
func (s *scheduler) add(c *chunk, seq resequence.Seq, maxAge time.Duration, nanos int64) bool {
	slot := c.tenure.window.Slot(seq)
	switch {
	case slot.state != waiting: // a control record, settled maybe
		return false
	case maxAge > 0 && slot.granted == 0 && slot.age(c.started) > maxAge:
		s.expired = append(s.expired, seq)
		return false
	}
	c.add(slot, seq, nanos)
	return true
}

func (c *chunk) add(s *slot, seq resequence.Seq, nanos int64) {
	s.state = running
	s.begun++
	s.calls++
	if s.first == 0 {
		s.first = nanos
	}
	c.attempts = append(c.attempts, attempt{seq: seq, record: s.record, call: s.calls, number: s.begun})
	if s.failed != nil || s.note != nil {
		c.attempts[len(c.attempts)-1].past = s.past()
	}
}

// done takes back a chunk that a worker has finished.
func (s *scheduler) done(c *chunk) {
	s.free++
	t := c.tenure
	t.running--
	if c.prev == nil {
		t.runningHead = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		t.runningTail = c.prev
	} else {
		c.next.prev = c.prev
	}
	c.prev, c.next = nil, nil

	if c.beaten || c.preempted {
		return // it says only how long the other one took, or the others could wait
	}
	s.mean += (float64(c.took)/float64(s.calls(c)) - s.mean) / 16
}

// calls is how many calls of the transform a chunk took.
func (s *scheduler) calls(c *chunk) int {
	if s.batch.Records > 0 {
		return 1
	}
	n := 0
	for n < len(c.attempts) && c.attempts[n].ran {
		n++
	}
	return n
}

// recycle keeps the chunk for another use. Its slab stays with the outputs.
func (s *scheduler) recycle(c *chunk) {
	clear(c.attempts)
	c.attempts, c.tenure, c.taken, c.suspects = c.attempts[:0], nil, 0, 0
	c.ctx, c.cancel, c.asked, c.race, c.hedged, c.beaten, c.preempted = nil, nil, nil, nil, false, false, false
	c.finished.Store(0)
	s.spare = append(s.spare, c)
}

func (s *scheduler) blank() *chunk {
	if n := len(s.spare); n > 0 {
		c := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return c
	}
	return new(chunk)
}
