package processor

import (
	"time"
)

// A limit is what keeps a pipeline from going faster.
type limit uint8

const (
	limitInput   limit = iota // nothing: all there is to read is being done
	limitWorkers              // records wait for a worker
	limitWindow               // a full window waits for its head, while workers are free
	limitMemory               // Window.Bytes are used up
	limitOutput               // finished records wait for the brokers
	limits
)

func (b limit) String() string {
	return [limits]string{"input", "workers", "window", "memory", "output"}[b]
}

// advice is what a person can do about a limit.
func (b limit) advice() string {
	return [limits]string{
		limitWorkers: "all workers are busy: raise workers, if what they call can take more, or make the transform faster",
		limitWindow:  "windows are full behind records that take long, and workers have nothing to do: raise window.records, or hedge",
		limitMemory:  "window.bytes are used up: raise them, if there is memory",
		limitOutput:  "finished records wait until the brokers have acknowledged outputs: look at the brokers and the network",
	}[b]
}

// A limiter keeps how long each limit held, by turns of the loop.
type limiter struct {
	since  time.Time // of spent
	last   time.Time // turn
	now    limit     // since then
	spent  [limits]time.Duration
	shares [limits]float64 // of the time before since; all zero at first

	steady limit // the limit of most of each of these periods
	times  int
}

// limitPeriod is the time that shares are of. A limit that has held for nine tenths of each
// of limitPeriods in a row is told.
const (
	limitPeriod  = 10 * time.Second
	limitPeriods = 6
)

// noteLimit is called once in each turn of the loop.
func (l *loop) noteLimit() {
	m := &l.limiter
	if m.last.IsZero() {
		m.since, m.last = l.now, l.now
	}
	m.spent[m.now] += l.now.Sub(m.last)
	m.last, m.now = l.now, l.limit()
	whole := l.now.Sub(m.since)
	if whole < limitPeriod {
		return
	}
	steady := limitInput
	for b := range limits {
		if m.shares[b] = float64(m.spent[b]) / float64(whole); m.shares[b] >= 0.9 {
			steady = b
		}
	}
	if m.times++; steady != m.steady {
		m.steady, m.times = steady, 1
	}
	if steady != limitInput && m.times == limitPeriods {
		l.log.Info("for a minute the pipeline could have been faster", "limited_by", steady.String(), "advice", steady.advice())
	}
	m.since, m.spent = l.now, [limits]time.Duration{}
}

// limit is what keeps the pipeline from going faster now.
func (l *loop) limit() limit {
	if l.sched.free == 0 && len(l.sched.ring) > l.sched.ringAt {
		return limitWorkers
	}
	bound := limitInput
	for t := range l.backed {
		switch full := t.window.Len() >= l.opts.Window.Records; {
		case t.tracker == nil, t.stopped != "", len(t.spill) == 0 && !full:
		case 2*int(uint64(t.emittable())-t.tracker.Settled()) >= t.window.Len():
			return limitOutput
		case full:
			bound = max(bound, limitWindow)
		default:
			bound = max(bound, limitMemory)
		}
	}
	return bound
}
