package processor

import (
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/seeded"
	"seriatim/resequence"
)

// Outputs collects what a [Transform] makes of one record. It belongs to that
// call and must not be kept.
type Outputs struct {
	in   *kgo.Record
	slab *slab
	head *output
	tail *output
	n    int
}

// Add adds one output with the given value and the key, headers and timestamp
// of the input, and returns it so that they can be changed; its topic and
// partition are not the transform's to set. A nil value is a tombstone. The
// value, and whatever key and headers are set, must not change afterwards; to
// change headers set a new slice.
func (o *Outputs) Add(value []byte) *kgo.Record {
	if value == nil && seeded.Bug("tombstone-lost") {
		value = []byte{}
	}
	out := o.slab.output()
	out.record.Key = o.in.Key
	out.record.Value = value
	out.record.Headers = o.in.Headers[:len(o.in.Headers):len(o.in.Headers)]
	out.record.Timestamp = o.in.Timestamp
	if o.tail == nil {
		o.head = out
	} else {
		o.tail.next = out
	}
	o.tail = out
	o.n++
	return &out.record
}

// Len is the number of outputs added.
func (o *Outputs) Len() int { return o.n }

// output is one record on its way out. It is the context of its own record, so
// that the producer's promise finds its way back to the slot without a closure
// or a map.
type output struct {
	record kgo.Record
	next   *output // of the same input

	lane  *lane  // nil before it is handed over, and in transactions
	place uint64 // in the lane

	tenure  *tenure
	seq     resequence.Seq
	of      int32 // outputs of the same input
	emitted bool  // handed to the producer once at least
	acked   bool
	dead    bool // a dead letter
}

// size is what the output counts against Window.Bytes.
func (o *output) size() int64 { return recordSize(&o.record) - recordOverhead }

// slab hands out the memory of a chunk's outputs in few allocations. What it
// handed out lives as long as any output of the chunk.
type slab struct {
	outputs []output
	headers []kgo.RecordHeader
	bytes   []byte
}

// reset gives the slab room for n more outputs.
func (s *slab) reset(n int) {
	if cap(s.outputs)-len(s.outputs) < n {
		s.outputs = make([]output, 0, n)
	}
}

func (s *slab) output() *output {
	if len(s.outputs) == cap(s.outputs) {
		s.outputs = make([]output, 0, min(64, 1+2*cap(s.outputs)))
	}
	s.outputs = s.outputs[:len(s.outputs)+1]
	out := &s.outputs[len(s.outputs)-1]
	return out
}

const (
	sourceHeader = "seriatim.source"
	outputHeader = "seriatim.output"
)

// provenance adds the headers that tell where the output came from. They go
// into a new slice: the input's headers are shared with other attempts.
func (s *slab) provenance(out *output, source string, offset int64, i, n int) {
	old := out.record.Headers
	extra := 1
	if n > 1 {
		extra = 2
	}
	if cap(s.headers)-len(s.headers) < len(old)+extra {
		s.headers = make([]kgo.RecordHeader, 0, max(64, len(old)+extra))
	}
	if cap(s.bytes)-len(s.bytes) < len(source)+64 {
		s.bytes = make([]byte, 0, max(2048, len(source)+64))
	}
	start := len(s.headers)
	s.headers = append(s.headers, old...)

	from := len(s.bytes)
	s.bytes = strconv.AppendInt(append(s.bytes, source...), offset, 10)
	s.headers = append(s.headers, kgo.RecordHeader{Key: sourceHeader, Value: s.bytes[from:len(s.bytes):len(s.bytes)]})
	if n > 1 {
		from = len(s.bytes)
		s.bytes = strconv.AppendInt(s.bytes, int64(i), 10)
		s.bytes = strconv.AppendInt(append(s.bytes, '/'), int64(n), 10)
		s.headers = append(s.headers, kgo.RecordHeader{Key: outputHeader, Value: s.bytes[from:len(s.bytes):len(s.bytes)]})
	}
	out.record.Headers = s.headers[start:len(s.headers):len(s.headers)]
}

// recordOverhead is what a record counts beside its bytes: the slot, the
// record's struct and its share of allocation.
const recordOverhead = 256

// recordSize is what a record counts against Window.Bytes.
func recordSize(r *kgo.Record) int64 {
	n := recordOverhead + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return int64(n)
}
