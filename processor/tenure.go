package processor

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/seeded"
	"seriatim/offsets"
	"seriatim/resequence"
)

// topicKey is a topic in one of its lives.
type topicKey struct {
	name string
	id   [16]byte
}

// partitionKey names a partition.
type partitionKey struct {
	topic     string
	partition int32
}

func (k partitionKey) String() string { return fmt.Sprintf("%s/%d", k.topic, k.partition) }

// A phase is how far a tenure's life has come. It only moves forward.
type phase uint8

const (
	open     phase = iota // admits, dispatches, emits, commits
	draining              // finishes what runs, emits, commits
	closed                // forgotten: whatever still refers to it is dropped
)

// A tenure is one assignment of one partition: made when the group assigns it,
// closed when the group takes it back, never reused. All of it belongs to the
// loop, except for the fields of the first block, which workers read and which do
// not change once the first record has been dispatched.
type tenure struct {
	partitionKey
	ctx        context.Context // ends when the tenure is closed
	output     string          // output topic
	provenance string          // "topic/partition/"
	topicID    [16]byte

	cancel context.CancelFunc
	phase  phase
	// unplaced says why the position cannot be found; empty if it is known or being
	// looked up.
	unplaced  string
	reads     [16]byte  // id of the topic, as far as it is known: the client keeps to it
	searching bool      // what the log has lost is being looked up
	recreated bool      // the topic is another one by now: no position is given
	goneSince time.Time // the topic is not there: nothing is committed; zero if it is
	// stopped says why the partition does not go on until it is assigned again.
	stopped   string
	stoppedAt time.Time
	stopAt    resequence.Seq // it goes no further than this one

	assignedAt time.Time

	window  *resequence.Window[slot]
	tracker *offsets.Tracker // nil until the position is known

	spill      [][]*kgo.Record // polled, and no room in the window
	spillBytes int64
	spillCount int
	paused     bool
	unfinished int64 // bytes of records admitted and not completed
	held       int64 // bytes, as the budget last counted them
	overdraft  int64 // of these above the guarantee
	replies    int64 // of these results from the state topic, likewise

	holds map[resequence.Seq]*hold // records that are, or were, held and are not complete
	// barred is a released record that is not emitted, because a topic does not take its
	// output: it is held, or attempted again. MaxUint64 if there is none.
	barred resequence.Seq
	memory *memory // nil without a state topic

	next        resequence.Seq   // the next record that was never dispatched
	freshBytes  int64            // payload of those that never were; with batches only
	ripe        resequence.Seq   // records before it wait for no fuller batch
	ripening    bool             // a timer is set for the next of these
	due         []resequence.Seq // records to attempt again now, ascending
	delayed     []resequence.Seq // and once the allowance lets them, ascending
	runningHead *chunk           // oldest running chunk
	runningTail *chunk
	running     int       // chunks
	beaten      int       // of these, whose results do not count any more
	hedgeAt     time.Time // when the loop looks for slow attempts; zero if not
	queued      bool
	wanting     bool

	sink     *sink          // nil until the output topic has been seen, with a partition for it
	deadSink *sink          // likewise, of the dead-letter topic
	emitNext resequence.Seq // the next slot to emit
	inFlight int            // outputs handed to the producer and not answered
	// refused is why the producer did not take an output; nothing later of the
	// partition is emitted until those before it are answered.
	refused      error
	refusedBy    string // topic
	refusedSince time.Time
	refusals     int // in a row

	committed    offsets.Next
	hasCommitted bool
	committedAt  time.Time
	end          int64 // high watermark
	hasEnd       bool
	given        bool  // adjust has told the client where it begins, so that it is fetched
	silent       bool  // its leader did not tell where the log ends at the last look
	stable       int64 // last stable offset as the watcher saw it; -1 if never
	stableSince  time.Time
	tailEmpty    bool         // the log ends in offsets that no fetch returns
	idleAt       offsets.Next // the position at the last look, if all was admitted and settled; else -1

	*counters
}

// counters outlive tenures: they count since the process started.
type counters struct {
	emitted, settled, filtered, dropped uint64
	deadLetters                         [reasons]uint64
	gaps                                [gapKinds]uint64
	lastLoss                            loss // that stopped the partition
}

// A slot is what the window holds of one record until it is settled.
type slot struct {
	record   *kgo.Record
	original *kgo.Record // of which that is a copy with another value; nil: none was replaced
	outputs  *output
	pending  int32 // outputs not yet acknowledged
	begun    int32 // attempts that count
	calls    int32 // attempts, and those that did not count
	granted  int32 // attempts that a person allowed, all in all
	state    slotState
	company  uint16 // the most records of a batch that it may be in; 0 is no limit

	preempted bool // an attempt, once

	admitted int64 // nanoseconds since the loop's epoch, like all times here
	first    int64 // the first attempt was dispatched
	finished int64
	failed   *failures // nil: no attempt has
	note     *string   // of an attempt; nil: none
	kept     *kept     // in the state topic; nil: nothing
}

// ended is how many attempts that count have ended.
func (s *slot) ended() int32 {
	if s.state == running {
		return s.begun - 1
	}
	return s.begun
}

type slotState uint8

const (
	waiting  slotState = iota // for a worker
	running                   // an attempt
	backoff                   // for its next attempt
	held                      // for a person to decide
	complete                  // has its result
	control                   // a control record: complete, and nothing to count
	settled
)

func newTenure(key partitionKey, opts *Options, c *counters, now time.Time) *tenure {
	ctx, cancel := context.WithCancel(context.Background())
	return &tenure{
		partitionKey: key,
		ctx:          ctx,
		cancel:       cancel,
		assignedAt:   now,
		stable:       -1,
		stopAt:       math.MaxUint64,
		barred:       math.MaxUint64,
		idleAt:       -1,
		output:       outputTopic(opts.Output.Topic, key.topic, opts.Source.Regex),
		provenance:   key.String() + "/",
		window: resequence.New[slot](resequence.Limits{
			Records: opts.Window.Records,
			Bytes:   opts.Window.Bytes,
		}),
		counters: c,
	}
}

// gone reports whether the topic was not there at the last look.
func (t *tenure) gone() bool { return !t.goneSince.IsZero() }

// bytes is what the tenure holds.
func (t *tenure) bytes() int64 {
	n := t.window.Bytes() + t.spillBytes
	if t.memory != nil {
		n += t.memory.Replies
	}
	return n
}

// wants reports whether there is something to dispatch.
func (t *tenure) wants() bool {
	return t.phase == open && (len(t.due) > 0 && t.due[0] < t.stopAt || t.next < min(t.window.Next(), t.stopAt))
}

// quiet reports whether a draining tenure has nothing left to wait for.
func (t *tenure) quiet() bool {
	if t.running > t.beaten || t.inFlight > 0 {
		return false
	}
	return t.emitNext == t.emittable() || t.sink == nil
}

// released is one past the newest released record.
func (t *tenure) released() resequence.Seq {
	if head, ok := t.window.Head(); ok {
		return head
	}
	return t.window.Next()
}

// head is the record that the partition waits for: the oldest that is not released, or one that is and
// is not emitted. False if there is none.
func (t *tenure) head() (resequence.Seq, bool) {
	if t.window.Slot(t.barred) != nil {
		return t.barred, true
	}
	return t.window.Head()
}

// emittable is one past the newest record whose outputs may be emitted.
func (t *tenure) emittable() resequence.Seq {
	if seeded.Bug("held-output-overtaken") {
		return min(t.released(), t.stopAt)
	}
	return min(t.released(), t.stopAt, t.barred)
}

// again puts a record back in line for an attempt.
func (t *tenure) again(seq resequence.Seq) {
	t.window.Slot(seq).state = waiting
	i := len(t.due)
	for i > 0 && t.due[i-1] > seq {
		i--
	}
	t.due = append(t.due, 0)
	copy(t.due[i+1:], t.due[i:])
	t.due[i] = seq
}

// spilled puts records that the window has no room for in line.
func (t *tenure) spilled(records []*kgo.Record) {
	if len(records) == 0 || seeded.Bug("spill-dropped") {
		return
	}
	t.spill = append(t.spill, records)
	t.spillCount += len(records)
	for _, r := range records {
		t.spillBytes += recordSize(r)
	}
}

// waits reports whether records wait for room while more may come.
func (t *tenure) waits() bool { return len(t.spill) > 0 && !t.paused }

// dropSpill forgets what was never admitted: whoever gets the partition next
// reads it again.
func (t *tenure) dropSpill() { t.spill, t.spillBytes, t.spillCount = nil, 0, 0 }

// dropSpillFrom does so from an offset on.
func (t *tenure) dropSpillFrom(from offsets.Next) {
	spill := t.spill
	t.dropSpill()
	for _, records := range spill {
		n := slices.IndexFunc(records, func(r *kgo.Record) bool { return r.Offset >= int64(from) })
		if n < 0 {
			n = len(records)
		}
		t.spilled(records[:n])
	}
}

// polled is the position after all that was polled.
func (t *tenure) polled() offsets.Next {
	if n := len(t.spill); n > 0 {
		last := t.spill[n-1]
		return offsets.Next(last[len(last)-1].Offset + 1)
	}
	return t.tracker.Position()
}
