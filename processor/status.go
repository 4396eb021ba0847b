package processor

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"seriatim/resequence"
)

// Status is the state of a pipeline at one moment, for people and metrics. It is
// a copy: nobody else holds or changes it.
type Status struct {
	Pipeline string
	Group    string
	// State is "starting" (no assignment yet), "running", "draining" or "stopped".
	State string
	// Problems are the reasons, in words, why records wait that should not: an
	// unreachable broker, a missing topic, a refused ACL, a stopped partition.
	// Empty is healthy.
	Problems []Problem
	// Partitions are the assigned partitions by topic and number.
	Partitions []PartitionStatus

	Workers     int // Options.Workers
	WorkersBusy int // attempts that run now
	// WindowBytes counts what is admitted, spilled, or emitted and unsettled.
	WindowBytes      int64
	WindowLimitBytes int64

	// Counters since the process started. Those of a partition that was revoked
	// are kept in Partitions' sums of its next tenure here.
	Attempts map[string]uint64 // by result: ok, filter, retry, reject, deployment, panic, late, cancelled
	Commits  map[string]uint64 // by result: ok, error
	// Transactions of exactly-once delivery, by result: committed, aborted. Empty
	// at least once.
	Transactions map[string]uint64
	Hedges       uint64 // second attempts beside one that ran for long
	// LimitedBy is what kept the pipeline from going faster, as shares (0 to 1) of the
	// last full ten seconds: input (nothing did: there was no more to read), workers (all
	// were busy), window (full behind a slow head, while workers were free), memory
	// (Window.Bytes were used up), output (finished records waited for the brokers).
	LimitedBy map[string]float64
	// RetriesWaiting are records whose back-off is over and that wait because
	// Retries.Budget is used up.
	RetriesWaiting int
	BreakerOpen    bool // too many records were dead letters: see Breaker
	// StateWrites are the records written to Options.StateTopic, by kind: open, attempts,
	// note, hold, decision, reply, delete. StateIgnored are those that were read and ignored, by kind:
	// foreign, torn, oversized, older. Both are empty without one.
	StateWrites, StateIgnored map[string]uint64
	// Replies are the results that wait behind the head of their partition, by result:
	// stored, skipped (too large, the state topic is too slow, or too many were read at once), reused (emitted without
	// another call). Empty without Options.ReplyLog.
	Replies    map[string]uint64
	Rebalances uint64 // assignments, revocations and losses that named a partition
}

// A Problem is one reason why records wait.
type Problem struct {
	// Scope is the pipeline, a topic, a partition ("orders/3") or a broker.
	Scope  string
	Reason string
	Since  time.Time
}

// PartitionStatus is the state of one tenure. Offsets are -1 where they are not
// known yet.
type PartitionStatus struct {
	Topic     string
	Partition int32

	WindowRecords      int // admitted and not settled
	WindowLimitRecords int
	WindowBytes        int64
	SpilledRecords     int // polled and waiting for room in the window
	Head               *HeadStatus
	Held               []HeldRecord // oldest first; their number is bounded by the window

	NextOffset      int64 // the frontier: what the next commit says
	CommittedOffset int64 // what the last acknowledged commit said
	EndOffset       int64 // the high watermark that the last fetch told
	LagRecords      int64 // EndOffset - NextOffset, 0 at the least
	// LagTime is the age of the oldest record that is not settled; 0 if none.
	LagTime time.Duration
	// CommitAge is the time since the last acknowledged commit of the partition.
	CommitAge time.Duration

	Paused bool // fetching is paused because the window is full
	// TailWithoutRecords: the log ends in offsets that no fetch returns, as
	// compaction leaves them; the lag that remains is not work.
	TailWithoutRecords bool
	// Stopped says why the partition does not go on; empty if it does.
	Stopped string

	// Counters since the process started, over all tenures of the partition.
	Emitted    uint64            // outputs handed to the producer for the first time
	Settled    uint64            // records
	Filtered   uint64            // records without an output
	Dropped    uint64            // records given up by OnExhausted Drop, or skipped by a person
	GapOffsets map[string]uint64 // offsets without a record, by kind: absent (compaction, aborted transactions), lost, beyond_end, truncated
	// DeadLetters are the records emitted to the dead-letter topic, by reason:
	// attempts (used up), reject, output (its topic does not take one), max_age.
	DeadLetters map[string]uint64
}

// HeadStatus is the oldest record of a partition that is not released.
type HeadStatus struct {
	Offset    int64
	Timestamp time.Time
	Age       time.Duration // since it was admitted
	Attempt   int           // attempts begun
	Running   bool          // an attempt runs now; else it waits for a worker or a retry
	LastError string
	// Behind counts the finished records that wait for it.
	Behind int
}

// Hooks are called synchronously by the pipeline; a nil one is not called. They
// must return at once and be safe for concurrent use.
type Hooks struct {
	// TransformDuration is told how long one record took: each record of slow
	// transforms, the mean of each chunk of cheap ones. The outcome is ok, retry,
	// reject or deployment.
	TransformDuration func(outcome string, d time.Duration)
	// ResequenceWait is told how long a finished record waited for those before
	// it, sampled once for each run of records released together.
	ResequenceWait func(d time.Duration)
}

// slowHead is how long a record or a commit may wait before that is told as a
// problem; slowStart is how long looking up where to start may take.
const (
	slowHead  = 30 * time.Second
	slowStart = 5 * time.Second
)

// status describes the pipeline as it is now.
func (l *loop) status() Status {
	l.noteLimit()
	s := Status{
		Pipeline: l.opts.Name, Group: l.opts.Source.Group, State: l.state,
		Problems: l.problems.list(l.now),
		Workers:  l.opts.Workers, WorkersBusy: l.opts.Workers - l.sched.free,
		WindowLimitBytes: l.opts.Window.Bytes,
		Attempts:         make(map[string]uint64, results),
		Commits:          map[string]uint64{"ok": l.commits.ok, "error": l.commits.failed},
		Rebalances:       l.rebalances,
		LimitedBy:        make(map[string]float64, limits),
		RetriesWaiting:   l.retriesWaiting(),
	}
	for b, share := range l.limiter.shares {
		s.LimitedBy[limit(b).String()] = share
	}
	if l.hedger != nil {
		s.Hedges = l.hedger.total
	}
	if l.stateLog != nil {
		s.StateWrites, s.StateIgnored = maps.Clone(l.stateLog.counts.writes), maps.Clone(l.stateLog.counts.ignored)
	}
	if l.opts.ReplyLog {
		s.Replies = map[string]uint64{"stored": l.replies.stored, "skipped": l.replies.skipped, "reused": l.replies.reused}
	}
	if x := l.txn; x != nil {
		s.Transactions = map[string]uint64{"committed": x.committed, "aborted": x.aborted}
	}
	for r, n := range l.attempts {
		s.Attempts[result(r).String()] = n
	}
	if o := l.outage; o != nil {
		s.Problems = append(s.Problems, Problem{
			Scope:  "transform",
			Reason: "the worker's deployment is wrong, not the record; probing until it answers otherwise: " + o.reason,
			Since:  o.since,
		})
	}
	if b := l.breaker; b.paused() {
		s.BreakerOpen = true
		s.Problems = append(s.Problems, Problem{
			Scope: "dead_letter",
			Reason: fmt.Sprintf("too many records are exhausted: %s; nothing is dispatched, and those are held (seriatim held); one record at a time is tried, and with %d answered in a row it goes on (now %d), or with seriatim breaker close",
				b.reason, b.enough(), b.streak),
			Since: b.since,
		})
	}
	for _, t := range l.tenures {
		if late := max(slowHead, 3*l.opts.Commit.Interval); t.hasCommitted && l.now.Sub(t.committedAt) > late {
			s.Problems = append(s.Problems, Problem{Scope: l.opts.Name, Reason: "no commit has been acknowledged since then; trying again", Since: t.committedAt})
			break
		}
	}
	for _, t := range l.tenures {
		if reason, since := l.waitsFor(t); reason != "" {
			s.Problems = append(s.Problems, Problem{Scope: t.String(), Reason: reason, Since: since})
		}
		p := l.partitionStatus(t)
		s.WindowBytes += p.WindowBytes
		s.Partitions = append(s.Partitions, p)
	}
	slices.SortFunc(s.Partitions, func(a, b PartitionStatus) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	slices.SortStableFunc(s.Problems, func(a, b Problem) int { return strings.Compare(a.Scope, b.Scope) })
	return s
}

// waitsFor says why a partition does not go on, or why it goes on so slowly that
// a person should know; empty if there is no such reason.
func (l *loop) waitsFor(t *tenure) (reason string, since time.Time) {
	switch {
	case t.stopped != "":
		return "stopped: " + t.stopped, t.stoppedAt
	case t.tracker == nil:
		if t.unplaced == "" && l.now.Sub(t.assignedAt) > slowStart {
			return "its start offset is not known yet", t.assignedAt
		}
		return t.unplaced, t.assignedAt
	case !t.remembers() && l.now.Sub(t.assignedAt) > slowStart:
		return "what " + l.opts.StateTopic + " remembers of it has not been read yet", t.assignedAt
	case t.gone():
		return "the topic is not there, or must not be seen by this user: nothing is committed until it is seen again", t.goneSince
	case t.refused != nil:
		return "outputs to " + t.refusedBy + " are refused; trying again: " + explain(t.refused), t.refusedSince
	}
	if s := t.window.Slot(t.barred); s != nil && s.state == held {
		return l.heldReason(t, t.barred)
	}
	if oldest := resequence.Seq(t.tracker.Settled()); oldest < t.emittable() && t.sink != nil {
		if s := t.window.Slot(oldest); l.age(s.finished) > slowHead {
			topic := t.output
			if s.outputs != nil { // a dead letter, perhaps
				topic = s.outputs.record.Topic
			}
			return fmt.Sprintf("the broker has not acknowledged the output of the record at offset %d to %s; trying again", s.record.Offset, topic), l.epoch.Add(time.Duration(s.finished))
		}
	}
	head, ok := t.head()
	if !ok {
		if t.hasEnd && t.stable >= 0 && t.stable < t.end && int64(t.tracker.Position()) >= t.stable && l.now.Sub(t.stableSince) > slowHead {
			return fmt.Sprintf("an open transaction holds the input at offset %d: it ends with its producer or its transaction timeout", t.stable), t.stableSince
		}
		return "", time.Time{}
	}
	h := t.window.Slot(head)
	if h.state == held {
		return l.heldReason(t, head)
	}
	if l.outage != nil || l.age(h.admitted) < slowHead {
		return "", time.Time{}
	}
	doing := h.doing()
	if n := len(t.delayed); n > 0 {
		doing = fmt.Sprintf("%s; %d retries wait for retry.budget", doing, n)
	}
	return fmt.Sprintf("the record at offset %d holds the partition: %s", h.record.Offset, doing), l.epoch.Add(time.Duration(h.admitted))
}

// heldReason says why a record is held, and since when.
func (l *loop) heldReason(t *tenure, seq resequence.Seq) (reason string, since time.Time) {
	s, h := t.window.Slot(seq), t.holds[seq]
	return fmt.Sprintf("the record at offset %d %s and is held: %s: decide with seriatim held", s.record.Offset, h.what, s.failed.err), h.since
}

// doing says in words what the record of a slot waits for.
func (s *slot) doing() string {
	text := "it waits for a worker"
	switch s.state {
	case running:
		text = fmt.Sprintf("attempt %d runs", s.begun)
	case backoff:
		text = fmt.Sprintf("it waits for attempt %d", s.begun+1)
	}
	if s.failed != nil {
		text += "; the last one failed: " + s.failed.err.Error()
	}
	return text
}

func (l *loop) partitionStatus(t *tenure) PartitionStatus {
	p := PartitionStatus{
		Topic: t.topic, Partition: t.partition,
		WindowRecords: t.window.Len(), WindowLimitRecords: l.opts.Window.Records,
		WindowBytes: t.bytes(), SpilledRecords: t.spillCount,
		NextOffset: -1, CommittedOffset: -1, EndOffset: -1,
		Paused: t.paused, Stopped: t.stopped,
		Emitted: t.emitted, Settled: t.settled, Filtered: t.filtered,
		Dropped: t.dropped, GapOffsets: make(map[string]uint64, gapKinds),
	}
	for k, n := range t.gaps {
		p.GapOffsets[gapKind(k).String()] = n
	}
	if l.opts.DeadLetterTopic != "" {
		p.DeadLetters = make(map[string]uint64, reasons)
		for r, n := range t.deadLetters {
			p.DeadLetters[reason(r).String()] = n
		}
	}
	if t.hasCommitted {
		p.CommittedOffset, p.CommitAge = int64(t.committed), l.now.Sub(t.committedAt)
	}
	if t.hasEnd {
		p.EndOffset = t.end
	}
	if t.tracker == nil {
		return p
	}
	next, _ := t.tracker.Frontier()
	p.NextOffset = int64(next)
	if t.hasEnd {
		p.LagRecords = max(0, t.end-int64(next))
		p.TailWithoutRecords = t.window.Len() == 0 && t.tailEmpty
	}
	if oldest := t.window.Slot(resequence.Seq(t.tracker.Settled())); oldest != nil {
		p.LagTime = max(0, l.now.Sub(oldest.record.Timestamp))
	}
	p.Held = t.heldRecords()
	if head, ok := t.window.Head(); ok {
		h := t.window.Slot(head)
		p.Head = &HeadStatus{
			Offset: h.record.Offset, Timestamp: h.record.Timestamp, Age: l.age(h.admitted),
			Attempt: int(h.begun), Running: h.state == running, Behind: t.window.Waiting(),
		}
		if h.failed != nil {
			p.Head.LastError = h.failed.err.Error()
		}
	}
	return p
}
