package transform

import (
	"sync"
	"time"

	"seriatim/internal/seeded"
)

// longestTerm is how many times the time for an attempt may grow to at most: a worker that
// asks for more for ever must not hold its record for ever.
const longestTerm = 10

// A term is the time that an attempt has. The worker may ask for more while it runs. It
// is safe for use by many goroutines.
type term struct {
	usual   time.Duration
	expired func() // called when it ends before stop is called

	mu    sync.Mutex
	timer *time.Timer
	began time.Time
	ends  time.Time
	over  bool
}

// newTerm begins a term of the usual length.
func newTerm(usual time.Duration, expired func()) *term {
	t := &term{usual: usual, expired: expired}
	t.begin(time.Now())
	return t
}

// begin begins the term, or begins it again after it was stopped.
func (t *term) begin(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.began, t.ends, t.over = now, now.Add(t.usual), false
	if t.timer != nil {
		t.timer.Reset(t.usual)
		return
	}
	t.timer = time.AfterFunc(t.usual, func() {
		if t.expire() {
			t.expired()
		}
	})
}

// expire reports whether the term is over by now, and was not before.
func (t *term) expire() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if left := time.Until(t.ends); t.over || left > 0 {
		return false // the timer was set anew meanwhile
	}
	t.over = true
	return true
}

// end is when the term ends, as it looks now.
func (t *term) end() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ends
}

// extend makes the term end so long after now, or as it is if that is later, but never
// after ten times its usual length. Zero is the usual length. It returns what is left, and
// false if the term is over, of which nothing changes then.
func (t *term) extend(by time.Duration) (left time.Duration, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over && !seeded.Bug("late-extend-accepted") {
		return 0, false
	}
	if by <= 0 {
		by = t.usual
	}
	now := time.Now()
	if ends := now.Add(min(by, longestTerm*t.usual)); ends.After(t.ends) {
		if latest := t.began.Add(longestTerm * t.usual); ends.After(latest) {
			ends = latest
		}
		t.ends = ends
		t.timer.Reset(ends.Sub(now))
	}
	return max(0, t.ends.Sub(now)), true
}

// stop ends the term: the attempt is over. It reports whether that was in time: if not,
// expired is called, perhaps after stop has returned.
func (t *term) stop() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	inTime := !t.over
	t.over = true
	t.timer.Stop()
	return inTime
}
