package processor_test

import (
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A sentCommit is one request to commit offsets of "in" as it reached the broker.
type sentCommit struct {
	at         time.Time
	member     string
	generation int32
	offsets    map[int32]int64
	metadata   string          // any that was not empty
	stored     map[int32]int64 // the group's offsets before it
	outEnds    map[int32]int64 // the ends of "out" before it
}

// commitLog is every commit that reaches the broker.
type commitLog struct {
	mu   sync.Mutex
	sent []sentCommit
}

func (b *bed) watchCommits() *commitLog {
	l := new(commitLog)
	b.cluster.ControlKey(int16(kmsg.OffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
		req := r.(*kmsg.OffsetCommitRequest)
		s := sentCommit{
			at: time.Now(), member: req.MemberID, generation: req.Generation,
			offsets: make(map[int32]int64), stored: make(map[int32]int64), outEnds: make(map[int32]int64),
		}
		for _, t := range req.Topics {
			for _, p := range t.Partitions {
				s.offsets[p.Partition] = p.Offset
				s.stored[p.Partition] = b.committed(p.Partition)
				s.outEnds[p.Partition] = b.end("out", p.Partition)
				if p.Metadata == nil || *p.Metadata != "" {
					s.metadata = "of partition " + strconv.Itoa(int(p.Partition))
				}
			}
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.sent = append(l.sent, s)
		return nil, nil, false
	})
	return l
}

// all returns the commits so far.
func (l *commitLog) all() []sentCommit {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent[:len(l.sent):len(l.sent)]
}

// holds fails the test if a commit was ahead of the output, if the group's
// offset of a partition went back, or if a commit had metadata. It is for inputs
// with the values 0, 1 ... at these offsets and one output each.
func (l *commitLog) holds(b *bed, partitions int32) {
	b.t.Helper()
	for p := range partitions {
		frontiers := []int{0} // after each output
		for i, v := range b.values("out", p) {
			next := frontiers[i]
			if v == strconv.Itoa(next) {
				next++
			}
			frontiers = append(frontiers, next)
		}
		last := int64(-1)
		for _, s := range l.all() {
			at, ok := s.offsets[p]
			if !ok {
				continue
			}
			if s.metadata != "" {
				b.t.Errorf("a commit has metadata %s, want none", s.metadata)
			}
			if frontier := frontiers[s.outEnds[p]]; at > int64(frontier) {
				b.t.Errorf("%v: partition %d was committed at %d when its output had the values up to %d", s.at, p, at, frontier)
			}
			if s.stored[p] < last {
				b.t.Errorf("%v: the offset of partition %d went back from %d to %d", s.at, p, last, s.stored[p])
			}
			last = s.stored[p]
		}
	}
}

// of returns the commits that name the partition.
func of(partition int32, sent []sentCommit) []sentCommit {
	var named []sentCommit
	for _, s := range sent {
		if _, ok := s.offsets[partition]; ok {
			named = append(named, s)
		}
	}
	return named
}
