package history

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Options say what a run was like.
type Options struct {
	ExactlyOnce    bool
	Partitions     int    // of the input and the output topic
	DeadPartitions int    // of the dead-letter topic
	Topic          string // the input topic
	Group          string
	Attempts       int // retry.attempts

	// Unclean is how many events allow outputs to repeat in at-least-once delivery:
	// kills, freezes, lost sessions, drains that were given up.
	Unclean int
	// Zombies: an instance may have gone on for a while after others had got its
	// partitions, because it was frozen or cut off. Then two runs may be mixed, and
	// repeats may reach as far back as what was committed Lateness ago.
	Zombies  bool
	Lateness time.Duration
	// LateCommits: a commit may have been delivered late, by a network or a broker
	// that stood still, which Kafka takes as long as the generation lives.
	LateCommits bool
}

// Sink is a topic that outcomes go to.
type Sink int

// The sinks.
const (
	Outputs Sink = iota
	DeadLetters
	sinks
)

func (s Sink) String() string { return [sinks]string{"output", "dead letter"}[s] }

// Fate is what became of a record that was sent.
type Fate uint8

// The fates. Unknown is that of a transaction whose end was not answered.
const (
	Aborted Fate = iota
	Committed
	Unknown
)

// status is whether a record's outcome has to be there.
type status uint8

const (
	forbidden status = iota // it was never visible
	optional                // it was compacted away at some time
	required
)

// A Check judges one run. Give it the fates, then the input, then samples, then
// what is visible in the sinks, then the final state. It is for one goroutine.
type Check struct {
	work *Workload
	opts Options

	partitions []*partition
	samples    []Sample
	verdict    Verdict
}

// A partition is what is known of one of the input.
type partition struct {
	status []status // by seq
	offset []int64  // by seq; -1 if it is not in the log
	// inLog are the seqs that are in the log, in its order.
	inLog   []int64
	streams [sinks]*stream
}

// A Sample is what the broker said during the run. Committed was read before the
// ends.
type Sample struct {
	At        time.Time
	Committed []int64        // by partition; -1 if there is none
	Ends      [sinks][]int64 // by partition of the sink, uncommitted records included
}

// A Verdict is what a check has found.
type Verdict struct {
	Records   int // of the input, not aborted
	Gaps      int // records of the input that were aborted or compacted away
	Seen      [sinks]int
	Repeats   int
	StepsBack int
	// CommitsBack is how often a committed offset was seen to move back.
	CommitsBack int
	Faults      map[Rule]int
	First       []string // of each rule the first few
	All         []string // as many as anybody will read
}

const firstFaults, allFaults = 5, 10000

// Fault notes that a rule was broken.
func (c *Check) Fault(rule Rule, format string, args ...any) {
	c.verdict.Faults[rule]++
	text := fmt.Sprintf("%s: %s", rule, fmt.Sprintf(format, args...))
	if c.verdict.Faults[rule] <= firstFaults {
		c.verdict.First = append(c.verdict.First, text)
	}
	if len(c.verdict.All) < allFaults {
		c.verdict.All = append(c.verdict.All, text)
	}
}

// NewCheck returns a check of a run of the workload. fates are those of the
// records of each partition, by seq.
func NewCheck(work *Workload, opts Options, fates [][]Fate) *Check {
	c := &Check{work: work, opts: opts, verdict: Verdict{Faults: make(map[Rule]int)}}
	for _, list := range fates {
		p := &partition{status: make([]status, len(list)), offset: make([]int64, len(list))}
		for seq, fate := range list {
			p.offset[seq] = -1
			// Without compaction what is not in the log was not committed.
			if work.Compacted && fate != Aborted {
				p.status[seq] = optional
			}
		}
		c.partitions = append(c.partitions, p)
	}
	return c
}

// Input takes the records of the input topic that a reader of committed records
// sees, those of a partition in order.
func (c *Check) Input(r *kgo.Record) error {
	o, err := c.work.identify(r)
	if err != nil || o.Partition != r.Partition || int(o.Partition) >= len(c.partitions) {
		return fmt.Errorf("the input %s/%d@%d is not of this run: %w", r.Topic, r.Partition, r.Offset, err)
	}
	p := c.partitions[o.Partition]
	if o.Seq >= int64(len(p.status)) || len(p.inLog) > 0 && p.inLog[len(p.inLog)-1] >= o.Seq {
		return fmt.Errorf("the input %s/%d@%d has seq %d out of order", r.Topic, r.Partition, r.Offset, o.Seq)
	}
	p.status[o.Seq] = required
	p.offset[o.Seq] = r.Offset
	p.inLog = append(p.inLog, o.Seq)
	c.verdict.Records++
	return nil
}

// Sample takes what was seen during the run, in the order of time.
func (c *Check) Sample(s Sample) {
	if len(c.samples) > 0 {
		last := &c.samples[len(c.samples)-1]
		for p := range s.Committed {
			if s.Committed[p] < last.Committed[p] {
				c.verdict.CommitsBack++
				if !c.opts.LateCommits {
					c.Fault(CommitForward, "partition %d: the committed offset moved back from %d to %d at %v", p, last.Committed[p], s.Committed[p], s.At)
				}
			}
		}
	}
	c.samples = append(c.samples, s)
}

// committedBefore returns the offset that was surely committed when what lies at
// an offset of a sink's partition was written.
func (c *Check) committedBefore(sink Sink, at int32, offset int64, p int32) int64 {
	i := sort.Search(len(c.samples), func(i int) bool { return c.samples[i].Ends[sink][at] > offset }) - 1
	if i >= 0 && c.opts.Zombies {
		limit := c.samples[i].At.Add(-c.opts.Lateness)
		for i >= 0 && c.samples[i].At.After(limit) {
			i--
		}
	}
	if i < 0 {
		return -1
	}
	committed := c.samples[i].Committed[p]
	if c.opts.LateCommits {
		for _, later := range c.samples[i+1:] {
			committed = min(committed, later.Committed[p])
		}
	}
	return committed
}

// End is the state at the end, by partition.
type End struct {
	Committed []int64 // of the group
	LogEnd    []int64 // of the input
	// TailUnknown: the logs may end in offsets that no record has, so that the end
	// cannot be committed.
	TailUnknown bool
	Stable      [sinks][]int64 // ends for readers of committed records
	High        [sinks][]int64 // ends for all readers
	Open        []string       // transactions that are not ended
}

// Finish takes the state at the end.
func (c *Check) Finish(end End) {
	for p, part := range c.partitions {
		for seq, s := range part.status {
			if s == optional {
				c.verdict.Records++
			}
			if s == forbidden || s == optional {
				c.verdict.Gaps++
			}
			if s == required && part.offset[seq] >= end.Committed[p] {
				c.Fault(Final, "partition %d: record %d at offset %d is not committed: the group is at %d", p, seq, part.offset[seq], end.Committed[p])
				break
			}
		}
		if end.Committed[p] != end.LogEnd[p] && !end.TailUnknown || end.Committed[p] > end.LogEnd[p] {
			c.Fault(Final, "partition %d: committed %d, the log ends at %d", p, end.Committed[p], end.LogEnd[p])
		}
		for sink := range sinks {
			c.complete(int32(p), sink)
		}
		c.behind(p)
	}
	for sink := range sinks {
		for p, stable := range end.Stable[sink] {
			if high := end.High[sink][p]; stable != high {
				c.Fault(Final, "%s partition %d: readers of committed records see up to %d, the log ends at %d", sink, p, stable, high)
			}
		}
	}
	for _, id := range end.Open {
		c.Fault(Final, "transaction %s is open", id)
	}
}

// Verdict returns what was found.
func (c *Check) Verdict() Verdict { return c.verdict }

// complete checks that everything that had to come has come.
func (c *Check) complete(p int32, sink Sink) {
	s := c.stream(p, sink)
	part := c.partitions[p]
	for seq := range part.status {
		from, to := s.first[seq], s.first[seq+1]
		seen := int32(0)
		for pos := from; pos < to; pos++ {
			if s.at[pos] >= 0 {
				seen++
			}
		}
		switch {
		case seen == to-from:
		case seen == 0 && part.status[seq] != required:
		case c.opts.ExactlyOnce && seen > 0:
			c.Fault(NotTorn, "partition %d, record %d (%v, offset %d): %d of its %d outputs are visible", p, seq, c.work.Class(Origin{p, int64(seq)}), part.offset[seq], seen, to-from)
		default:
			c.Fault(NoLoss, "partition %d, record %d (%v, offset %d): %d of %d %ss are there", p, seq, c.work.Class(Origin{p, int64(seq)}), part.offset[seq], seen, to-from, sink)
		}
	}
}

// behind checks the commits that were seen against the outcomes that were in the
// log then.
func (c *Check) behind(p int) {
	part := c.partitions[p]
	n := len(part.inLog)
	// newest[i] is the highest first appearance of the outcomes of the first i records.
	var newest [sinks][]int64
	for sink := range sinks {
		newest[sink] = make([]int64, n+1)
		newest[sink][0] = -1
		s := c.stream(int32(p), sink)
		for i, seq := range part.inLog {
			high := newest[sink][i]
			for pos := s.first[seq]; pos < s.first[seq+1]; pos++ {
				high = max(high, s.at[pos])
			}
			newest[sink][i+1] = high
		}
	}
	for _, sample := range c.samples {
		committed := sample.Committed[p]
		i := sort.Search(n, func(i int) bool { return part.offset[part.inLog[i]] >= committed })
		for sink := range sinks {
			if at := newest[sink][i]; at >= sample.Ends[sink][c.place(int32(p), sink)] {
				c.Fault(CommitBehind, "partition %d: offset %d was committed at %v, when the %s at offset %d of a record before it was not yet written (the log ended at %d)",
					p, committed, sample.At, sink, at, sample.Ends[sink][c.place(int32(p), sink)])
				return
			}
		}
	}
}

// place is the partition of a sink that the outcomes of a partition go to.
func (c *Check) place(p int32, sink Sink) int32 {
	if sink == DeadLetters {
		return p % int32(c.opts.DeadPartitions)
	}
	return p
}

// Green reports whether no rule was broken.
func (v *Verdict) Green() bool { return len(v.Faults) == 0 }

// String names the rules that were broken and the first places.
func (v *Verdict) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%d records, %d outputs, %d dead letters, %d gaps in the input, %d repeated in %d steps back", v.Records, v.Seen[Outputs], v.Seen[DeadLetters], v.Gaps, v.Repeats, v.StepsBack)
	if v.CommitsBack > 0 {
		fmt.Fprintf(&text, ", %d late commits", v.CommitsBack)
	}
	if v.Green() {
		text.WriteString("; no rule is broken")
		return text.String()
	}
	var rules []string
	for rule, n := range v.Faults {
		rules = append(rules, fmt.Sprintf("%s %d times", rule, n))
	}
	slices.Sort(rules)
	fmt.Fprintf(&text, "; BROKEN: %s; the first:\n\t%s", strings.Join(rules, ", "), strings.Join(v.First, "\n\t"))
	return text.String()
}
