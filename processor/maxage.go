package processor

import (
	"fmt"
	"time"
)

// age is how old the record is by its timestamp; less than 0 if that lies ahead, and 0
// if it has none (the oldest message formats).
func (s *slot) age(now time.Time) time.Duration {
	if s.record.Timestamp.UnixMilli() < 0 {
		return 0
	}
	return now.Sub(s.record.Timestamp)
}

// expire exhausts the records of t that were found too old for an attempt.
func (l *loop) expire(t *tenure) {
	if len(l.sched.expired) == 0 {
		return
	}
	for _, seq := range l.sched.expired {
		s := t.window.Slot(seq)
		err := fmt.Errorf("it is %v old, and max_age is %v", s.age(l.now).Round(time.Second), l.opts.MaxAge)
		if s.failed != nil {
			err = fmt.Errorf("%w; attempt %d failed: %w", err, s.begun, s.failed.err)
		}
		s.remember(l.now, err)
		l.exhausted(t, seq, reasonMaxAge, "is too old")
	}
	l.sched.expired = l.sched.expired[:0]
	l.advance(t)
}
