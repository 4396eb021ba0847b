package history

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A story is a run that was made up: what the brokers hold and what was seen.
type story struct {
	rand    *rand.Rand
	work    *Workload
	opts    Options
	fates   [][]Fate
	input   [][]*kgo.Record        // by partition: what is in the log
	read    [][]*kgo.Record        // by partition: what was in the log when it was read
	sinks   [sinks][][]*kgo.Record // by partition of the sink
	now     time.Time
	samples []Sample
	end     End
}

// tell makes up a run that keeps every promise. It has crashes, with at-least-once
// delivery; with zombies those who crashed go on for a while.
func tell(seed uint64, opts Options, compacted bool) *story {
	var mix Mix
	for c := range mix {
		mix[c] = 10
	}
	mix[Large] = 0 // slow to make, and nothing is special about it here
	s := &story{
		rand: rand.New(rand.NewPCG(seed, 1)),
		work: &Workload{Run: "r", Seed: seed, Start: time.UnixMilli(1e12), Mix: mix, Keys: 20, Compacted: compacted},
		opts: opts,
		now:  time.UnixMilli(2e12),
	}
	s.sinks[Outputs] = make([][]*kgo.Record, opts.Partitions)
	s.sinks[DeadLetters] = make([][]*kgo.Record, opts.DeadPartitions)
	for p := range opts.Partitions {
		s.send(int32(p))
		s.end.Committed = append(s.end.Committed, 0)
	}
	s.process()
	for sink := range sinks {
		for _, list := range s.sinks[sink] {
			s.end.High[sink] = append(s.end.High[sink], int64(len(list)))
			s.end.Stable[sink] = append(s.end.Stable[sink], int64(len(list)))
		}
	}
	return s
}

// send makes the input of a partition, with gaps in its offsets.
func (s *story) send(p int32) {
	var fates []Fate
	var log, read []*kgo.Record
	offset := int64(s.rand.IntN(5))
	for seq := range int64(60) {
		r := s.work.Record(Origin{p, seq})
		r.Topic, r.Offset = s.opts.Topic, offset
		offset += 1 + int64(s.rand.IntN(3))
		if s.rand.IntN(6) == 0 {
			fates = append(fates, Aborted)
			continue
		}
		fates = append(fates, Committed)
		gone := s.work.Compacted && s.rand.IntN(4) == 0 && seq < 50
		if !gone {
			log = append(log, r)
		}
		if !gone || s.rand.IntN(2) == 0 {
			read = append(read, r)
		}
	}
	s.fates = append(s.fates, fates)
	s.input, s.read = append(s.input, log), append(s.read, read)
	s.end.LogEnd = append(s.end.LogEnd, offset)
}

// process emits and commits, a little of one partition after a little of another.
func (s *story) process() {
	next := make([]int, s.opts.Partitions)      // of the owner, in read
	committed := make([]int, s.opts.Partitions) // in read
	zombie := make([]int, s.opts.Partitions)    // of the owner before; -1 if there is none
	for p := range zombie {
		zombie[p] = -1
	}
	for range 100_000 {
		p := s.rand.IntN(s.opts.Partitions)
		if next[p] == len(s.read[p]) && committed[p] == next[p] {
			if !slices.ContainsFunc(s.end.Committed, func(o int64) bool { return o == 0 }) && s.done(committed) {
				s.sample()
				return
			}
		}
		switch s.rand.IntN(12) {
		case 0: // commit
			if s.opts.ExactlyOnce {
				continue // emit does it
			}
			committed[p] += s.rand.IntN(next[p] - committed[p] + 1)
			s.commit(p, committed[p])
		case 1:
			s.sample()
		case 2: // crash
			if s.opts.ExactlyOnce || s.opts.Unclean == 0 {
				continue
			}
			if s.opts.Zombies && s.rand.IntN(2) == 0 {
				zombie[p] = next[p]
			}
			next[p] = committed[p]
		case 3: // what the owner before still emits
			if z := zombie[p]; z >= 0 && z < len(s.read[p]) {
				s.emit(s.read[p][z])
				zombie[p]++
			}
		default:
			for range s.rand.IntN(4) {
				if next[p] < len(s.read[p]) {
					s.emit(s.read[p][next[p]])
					next[p]++
				}
			}
			if s.opts.ExactlyOnce {
				committed[p] = next[p]
				s.commit(p, next[p])
			}
		}
	}
	panic("the story does not end")
}

func (s *story) done(committed []int) bool {
	for p := range committed {
		if committed[p] < len(s.read[p]) {
			return false
		}
	}
	return true
}

func (s *story) commit(p, next int) {
	s.end.Committed[p] = s.end.LogEnd[p]
	if next < len(s.read[p]) {
		s.end.Committed[p] = s.read[p][next].Offset
	}
}

func (s *story) sample() {
	s.now = s.now.Add(time.Second)
	sample := Sample{At: s.now, Committed: slices.Clone(s.end.Committed)}
	for sink := range sinks {
		for _, list := range s.sinks[sink] {
			sample.Ends[sink] = append(sample.Ends[sink], int64(len(list)))
		}
	}
	s.samples = append(s.samples, sample)
}

// emit appends all that is due of a record.
func (s *story) emit(in *kgo.Record) {
	o, err := s.work.identify(in)
	if err != nil {
		panic(err)
	}
	n := s.work.Outputs(o)
	for i := range n {
		s.append(Outputs, s.output(in, i+1, n))
	}
	if s.work.Dead(o) {
		s.append(DeadLetters, s.letter(in, o))
	}
}

func (s *story) append(sink Sink, r *kgo.Record) {
	list := s.sinks[sink][r.Partition]
	r.Offset = int64(len(list))
	s.sinks[sink][r.Partition] = append(list, r)
}

func (s *story) output(in *kgo.Record, i, n int) *kgo.Record {
	r := *in
	r.Value = s.work.Output(in, i, n)
	r.Headers = append(slices.Clone(in.Headers), kgo.RecordHeader{Key: "seriatim.source", Value: fmt.Appendf(nil, "%s/%d/%d", in.Topic, in.Partition, in.Offset)})
	if n > 1 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "seriatim.output", Value: fmt.Appendf(nil, "%d/%d", i, n)})
	}
	return &r
}

func (s *story) letter(in *kgo.Record, o Origin) *kgo.Record {
	r := *in
	r.Partition %= int32(s.opts.DeadPartitions)
	kind, count := "reject", 1
	if s.work.Class(o) == Exhausted {
		kind, count = "attempts", s.opts.Attempts
	}
	r.Headers = slices.Clone(in.Headers)
	for _, h := range [][2]string{
		{"__dlq.errors.topic", in.Topic},
		{"__dlq.errors.partition", strconv.Itoa(int(in.Partition))},
		{"__dlq.errors.offset", strconv.FormatInt(in.Offset, 10)},
		{"__dlq.errors.group", s.opts.Group},
		{"__dlq.errors.delivery.count", strconv.Itoa(count)},
		{"seriatim.error.kind", kind},
	} {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
	}
	return &r
}

// verdict judges the story.
func (s *story) verdict() (Verdict, error) {
	c := NewCheck(s.work, s.opts, s.fates)
	for _, list := range s.input {
		for _, r := range list {
			if err := c.Input(r); err != nil {
				return Verdict{}, err
			}
		}
	}
	for _, sample := range s.samples {
		c.Sample(sample)
	}
	for sink := range sinks {
		for _, list := range s.sinks[sink] {
			for _, r := range list {
				c.Visible(sink, r)
			}
		}
	}
	c.Finish(s.end)
	return c.Verdict(), nil
}
