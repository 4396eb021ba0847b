package processor

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/seeded"
	"seriatim/offsets"
)

// A loop is the one owner of a pipeline's state. Everything else, the poller, the
// workers, the producer's promises, the group's callbacks, sends it messages that
// carry chunks, and it never waits for any of them: it sends to a channel only
// where there is room, and what takes time (commits, look-ups) runs beside it.
type loop struct {
	opts     *Options
	log      *slog.Logger
	consumer *kgo.Client
	producer *kgo.Client
	poller   *poller

	polls    chan struct{}    // to the poller: it may poll
	fetched  chan kgo.Fetches // from the poller
	chunks   chan *chunk      // to the workers; has room for all of them
	finished chan *chunk      // from the workers; has room for all of them
	acks     *acks            // from the producer
	notes    *notes           // from attempts that run
	calls    chan func()      // from everybody else: see do
	lookNow  chan struct{}    // to the watcher; has room for one
	quit     chan struct{}    // ends the loop
	stopped  chan struct{}    // closed when it has ended
	life     context.Context  // of what runs beside the loop; ends with it
	beside   sync.WaitGroup   // that

	now   time.Time
	epoch time.Time
	timers

	as       member // what the tenures are given to
	tenures  map[partitionKey]*tenure
	counters map[partitionKey]*counters
	sched    *scheduler
	budget   budget
	outage   *outage
	commits  committer
	txn      *transactor // nil: at least once
	drains   []*drain
	pauses   pauses
	backed   map[*tenure]struct{} // with a spill, or paused
	holding  time.Time            // no poll since then; zero if polls go on
	problems problems

	fetchMost int32               // bytes of one partition in an answer of a broker, at the most
	topicIDs  map[string][16]byte // of the input topics that exist
	begun     map[string]int32    // by topic: see begins
	recreated map[string]string   // topics that were deleted and created anew, and the reason to stop
	disturbed time.Time           // the group took partitions away, or the process stood still

	state      string
	seen       bool       // the cluster's topics, once: the start is over
	fatal      chan error // what ends the pipeline; has room for one
	attempts   [results]uint64
	panicked   *PanicError // that was logged last
	rebalances uint64
	spareAcks  []ack
	handedOver bool    // outputs, to the producer in this turn
	harvesting bool    // a timer is set
	preempting bool    // likewise
	hedger     *hedger // nil: no hedges
	retries    allowance
	breaker    *breaker // nil: dead letters are not counted
	limiter    limiter
	stateLog   *stateLog // nil: what is remembered of records is in memory
	replies    *replyLog
	suspects   trial                // records that may kill the process, of all tenures
	careful    map[*tenure]struct{} // with a trial of their own
	lanes      map[string][]*lane   // by output topic and partition
	sinkIDs    map[string][16]byte  // of output topics

	batchLimits atomic.Pointer[map[string]int32] // by output topic; read by the producer
}

func newLoop(opts *Options) *loop {
	now := time.Now()
	l := &loop{
		opts:     opts,
		log:      opts.Logger.With("pipeline", opts.Name),
		polls:    make(chan struct{}),
		fetched:  make(chan kgo.Fetches),
		chunks:   make(chan *chunk, opts.Workers),
		finished: make(chan *chunk, opts.Workers),
		acks:     newAcks(),
		notes:    &notes{wake: make(chan struct{}, 1)},
		calls:    make(chan func()),
		lookNow:  make(chan struct{}, 1),
		quit:     make(chan struct{}),
		stopped:  make(chan struct{}),
		now:      now,
		epoch:    now.Add(-1), // so that no moment is 0
		tenures:  make(map[partitionKey]*tenure),
		counters: make(map[partitionKey]*counters),
		sched:    newScheduler(opts.Workers, opts.WorkersPerPartition, opts.MaxAge),
		budget:   budget{limit: opts.Window.Bytes},
		hedger:   newHedger(opts.Hedge, now),
		retries:  newAllowance(opts, now),
		breaker:  newBreaker(opts.Breaker),
		commits:  newCommitter(opts.Commit),
		backed:   make(map[*tenure]struct{}),
		pauses:   make(pauses),
		problems: make(problems),

		lanes:     make(map[string][]*lane),
		sinkIDs:   make(map[string][16]byte),
		stateLog:  newStateLog(opts),
		replies:   new(replyLog),
		suspects:  trial{most: 1},
		careful:   make(map[*tenure]struct{}),
		begun:     make(map[string]int32),
		recreated: make(map[string]string),
		state:     "starting",
		fatal:     make(chan error, 1),
	}
	l.sched.batch = opts.Batch
	if opts.ExactlyOnce {
		l.txn = newTransactor(opts)
	}
	return l
}

// run is the loop. It ends with quit.
func (l *loop) run() {
	var end context.CancelFunc
	l.life, end = context.WithCancel(context.Background())
	defer close(l.stopped)
	defer end()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var armed time.Time
	hungry := true
	for {
		next := l.nextTimer()
		if !l.txn.running() { // its end is a timer, and takes the tick with it
			next = earliest(next, l.commits.deadline(l.now))
		}
		if !l.holding.IsZero() {
			next = earliest(next, l.holding.Add(holdPolls))
		}
		if !next.Equal(armed) {
			armed = next
			timer.Reset(time.Until(next))
		}
		var polls chan struct{}
		if hungry {
			polls = l.polls
		}
		select {
		case polls <- struct{}{}:
			l.now = time.Now()
		case fetches := <-l.fetched:
			l.now = time.Now()
			l.take(fetches)
		case c := <-l.finished:
			l.now = time.Now()
			l.finish(c)
			for more := true; more; {
				select {
				case c := <-l.finished:
					l.finish(c)
				default:
					more = false
				}
			}
		case <-l.acks.wake:
			l.now = time.Now()
			l.answer()
		case <-l.notes.wake:
			l.now = time.Now()
			l.takeNotes()
		case <-l.stateLog.wakes():
			l.now = time.Now()
			l.takeWritten()
		case call := <-l.calls:
			l.now = time.Now()
			call()
		case <-timer.C:
			l.now = time.Now()
			if !armed.IsZero() && l.now.Sub(armed) > freeze {
				l.disturbed = l.now
			}
			armed = time.Time{}
		case <-l.quit:
			return
		}
		l.fireTimers(l.now)
		l.readmit()
		l.proceedTrials()
		l.dispatch()
		l.endTxnIfDue()
		l.commitIfDue()
		l.send()
		l.proceedDrains()
		l.noteLimit()
		hungry = l.hungry()
		l.pauses.apply(l.consumer)
	}
}

// freeze is how late a timer must fire to show that the process stood still.
const freeze = 2 * time.Second

// do runs call in the loop and waits for it. It reports false if the loop has
// ended. It must not be called by the loop.
func (l *loop) do(call func()) bool {
	done := make(chan struct{})
	select {
	case l.calls <- func() { call(); close(done) }:
		<-done
		return true
	case <-l.stopped:
		return false
	}
}

// nanos is the present as slots keep it.
func (l *loop) nanos() int64 { return int64(l.now.Sub(l.epoch)) }

func (l *loop) age(nanos int64) time.Duration { return time.Duration(l.nanos() - nanos) }

// take admits what a poll returned. Records of a partition without an open tenure
// are dropped: whoever has the partition reads them again.
func (l *loop) take(fetches kgo.Fetches) {
	fetches.EachError(l.fetchFailed)
	for i := range fetches {
		for j := range fetches[i].Topics {
			topic := &fetches[i].Topics[j]
			for k := range topic.Partitions {
				p := &topic.Partitions[k]
				t := l.tenures[partitionKey{topic.Topic, p.Partition}]
				if t == nil || t.phase != open || t.tracker == nil || t.searching {
					continue
				}
				if p.HighWatermark >= 0 && p.Err == nil {
					t.end, t.hasEnd = p.HighWatermark, true
				}
				if p.Err == nil && len(l.problems) > 0 {
					l.over("fetch " + t.String())
				}
				if topic.TopicID != ([16]byte{}) {
					t.reads = topic.TopicID
				}
				if t.window.Next() == 0 { // workers read it from the first dispatch on; old brokers have none
					t.topicID = topic.TopicID
				}
				if len(p.Records) > 0 {
					l.receive(t, p.Records)
				}
			}
		}
	}
}

// receive takes records that were polled.
func (l *loop) receive(t *tenure, records []*kgo.Record) {
	if len(t.spill) == 0 {
		records = l.admit(t, records, false)
	}
	t.spilled(records)
	if len(t.spill) > 0 {
		l.backed[t] = struct{}{}
	}
	l.advance(t)
	l.sched.want(t)
	l.ripen(t)
}

// readmit moves what waits for room into windows that have got some.
func (l *loop) readmit() {
	for t := range l.backed {
		if t.stopped != "" || t.tracker == nil || !t.remembers() {
			continue
		}
		before := t.spillCount
		for len(t.spill) > 0 {
			records := t.spill[0]
			rest := l.admit(t, records, true)
			t.spillCount -= len(records) - len(rest)
			if len(rest) > 0 {
				t.spill[0] = rest
				break
			}
			t.spill[0] = nil
			t.spill = t.spill[1:]
		}
		if t.spillCount != before {
			l.advance(t)
			l.ripen(t)
		}
		l.sched.want(t) // also if there is no room: then its next batch gets no fuller
		// Resume with half a window of room: the next fetch takes a round trip to
		// arrive, and what it brings shall not be spilled at once.
		if len(t.spill) == 0 && !t.searching && !t.gone() && 2*t.window.Len() <= l.opts.Window.Records {
			l.resume(t)
		}
	}
}

// admit admits records, which come fresh from a poll or from the spill, as long
// as the window and the budget have room, and returns the rest.
func (l *loop) admit(t *tenure, records []*kgo.Record, fromSpill bool) []*kgo.Record {
	if !t.remembers() {
		return records
	}
	now := l.nanos()
	var headAge time.Duration
	if head, ok := t.head(); ok {
		headAge = time.Duration(now - t.window.Slot(head).admitted)
	}
	for i, r := range records {
		size := recordSize(r)
		if !t.window.Fits(size) {
			return records[i:]
		}
		if fromSpill {
			t.spillBytes -= size
		}
		if !l.budget.allows(t, size, headAge) {
			if fromSpill {
				t.spillBytes += size
			}
			return records[i:]
		}
		gap, err := t.tracker.Track(offsets.Offset(r.Offset), r.LeaderEpoch)
		if err != nil {
			l.stop(t, t.window.Next(), "the log went back: "+err.Error()+": it was truncated or made anew")
			return records[i:]
		}
		if r.Topic != "" { // else it is a jump, which has been counted
			t.gaps[gapAbsent] += uint64(gap)
		}
		seq, s, err := t.window.Admit(size)
		if err != nil {
			l.bug(t, err)
			return records[i:]
		}
		s.record, s.admitted = r, now
		if !r.Attrs.IsControl() {
			t.unfinished += size
			if l.opts.Batch.Records > 0 {
				t.freshBytes += size - recordOverhead
			}
		}
		if r.Attrs.IsControl() && !seeded.Bug("control-dispatched") {
			s.state, s.finished = control, now
			if err := t.window.Complete(seq, 0); err != nil {
				l.bug(t, err)
			}
		} else if t.memory != nil {
			if l.recall(t, seq); l.opts.Batch.Records > 0 && s.state != waiting {
				t.freshBytes -= size - recordOverhead
			}
		}
	}
	return nil
}

// bug stops the pipeline: a rule of the engine is broken, and every guess from
// here on could lose a record.
func (l *loop) bug(t *tenure, err error) {
	l.log.Error("this is a bug in seriatim; the pipeline stops so that no record is lost",
		"topic", t.topic, "partition", t.partition, "err", err)
	l.end(&InvariantError{Partition: t.String(), Err: err})
	for _, t := range l.tenures {
		l.close(t)
	}
}

// end stops the pipeline with err.
func (l *loop) end(err error) {
	select {
	case l.fatal <- err:
	default:
	}
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
