package history

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Class is what a record is for.
type Class uint8

// The classes.
const (
	Echo        Class = iota // one output
	Filtered                 // no output
	Several                  // two to five outputs
	Slow                     // one output, after 750 ms
	Flaky                    // one output, after one to three failed attempts
	Rejected                 // a dead letter: the worker says that it can never work
	Exhausted                // a dead letter: every attempt fails
	Large                    // one output, of 100 to 300 KB
	Tombstone                // one output, both without a value; the identity is in a header
	Empty                    // one output; empty but not null value and key
	NullKey                  // one output
	ManyHeaders              // one output; repeated, empty, null and binary headers
	classes
)

var classNames = [classes]string{
	"echo", "filtered", "several", "slow", "flaky", "rejected", "exhausted", "large", "tombstone", "empty", "null-key", "many-headers",
}

func (c Class) String() string { return classNames[c] }

// SlowTime is how long the worker takes for a [Slow] record.
const SlowTime = 750 * time.Millisecond

// Mix is how often each class occurs, in any unit.
type Mix [classes]int

// A Workload says what the records of a run are.
type Workload struct {
	Run  string // tells runs apart; no slash
	Seed uint64
	// Start is the timestamp of the first records; each following one of a
	// partition is a millisecond later.
	Start time.Time
	Mix   Mix
	Keys  int // of a partition
	// Compacted: every record needs a key.
	Compacted bool
}

// An Origin is the identity of a record: the seq-th of its partition.
type Origin struct {
	Partition int32
	Seq       int64
}

func (w *Workload) random(o Origin) *rand.Rand {
	return rand.New(rand.NewPCG(w.Seed^uint64(o.Partition)<<48, uint64(o.Seq)))
}

// Class returns the class of a record.
func (w *Workload) Class(o Origin) Class {
	c, _ := w.draw(o)
	return c
}

func (w *Workload) draw(o Origin) (Class, *rand.Rand) {
	r := w.random(o)
	sum := 0
	for _, weight := range w.Mix {
		sum += weight
	}
	n := r.IntN(max(1, sum))
	class := Echo
	for c, weight := range w.Mix {
		if n < weight {
			class = Class(c)
			break
		}
		n -= weight
	}
	if w.Compacted && (class == NullKey || class == Empty) {
		class = Echo
	}
	return class, r
}

// Failures returns how many attempts at a record fail before one succeeds.
func (w *Workload) Failures(o Origin) int {
	class, _ := w.draw(o)
	if class != Flaky {
		return 0
	}
	return 1 + int(mix(w.Seed, o)%3)
}

// Outputs returns how many outputs a record has; a dead letter is none.
func (w *Workload) Outputs(o Origin) int {
	switch w.Class(o) {
	case Filtered, Rejected, Exhausted:
		return 0
	case Several:
		return 2 + int(mix(w.Seed, o)%4)
	default:
		return 1
	}
}

// Dead reports whether a record becomes a dead letter.
func (w *Workload) Dead(o Origin) bool {
	c := w.Class(o)
	return c == Rejected || c == Exhausted
}

func mix(seed uint64, o Origin) uint64 {
	x := seed + uint64(o.Partition)*0x9e3779b97f4a7c15 + uint64(o.Seq)*0xbf58476d1ce4e5b9
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// IdentityHeader is the first header of every record: run/partition/seq/class.
// Values begin with the same words, where there is a value.
const IdentityHeader = "w.id"

// Record returns a record as it is produced, without a topic.
func (w *Workload) Record(o Origin) *kgo.Record {
	class, r := w.draw(o)
	id := fmt.Sprintf("%s/%d/%d/%v", w.Run, o.Partition, o.Seq, class)
	rec := &kgo.Record{
		Partition: o.Partition,
		Timestamp: w.Start.Truncate(time.Millisecond).Add(time.Duration(o.Seq) * time.Millisecond),
		Key:       []byte(fmt.Sprintf("k%d", r.IntN(max(1, w.Keys)))),
		Headers:   []kgo.RecordHeader{{Key: IdentityHeader, Value: []byte(id)}},
	}
	length := 20 + r.IntN(100)
	switch class {
	case Tombstone:
		return rec
	case Empty:
		rec.Key, rec.Value = []byte{}, []byte{}
		return rec
	case NullKey:
		rec.Key = nil
	case Large:
		length = 75_000 + r.IntN(150_000)
	case ManyHeaders:
		rec.Headers = append(rec.Headers, manyHeaders(r)...)
	}
	rec.Value = sealed(id, r, length)
	return rec
}

// sealed returns id/padding/checksum, without a line break.
func sealed(id string, r *rand.Rand, length int) []byte {
	padding := make([]byte, length)
	for i := range padding {
		padding[i] = byte(r.Uint32())
	}
	value := make([]byte, 0, len(id)+2+base64.StdEncoding.EncodedLen(length)+8)
	value = append(append(value, id...), '/')
	value = base64.RawURLEncoding.AppendEncode(value, padding)
	return fmt.Appendf(value, "/%08x", crc32.ChecksumIEEE(value))
}

func manyHeaders(r *rand.Rand) []kgo.RecordHeader {
	list := []kgo.RecordHeader{
		{Key: "w.null"},
		{Key: "w.empty", Value: []byte{}},
		{Key: "Capital-Ä %", Value: []byte{0, 1, 255, '\r', '\n', '%'}},
		{Key: "drop", Value: []byte("nothing")},
	}
	for range 20 + r.IntN(20) { // some names repeat
		value := make([]byte, r.IntN(20))
		for i := range value {
			value[i] = byte(r.Uint32())
		}
		list = append(list, kgo.RecordHeader{Key: "w." + strconv.Itoa(r.IntN(30)), Value: value})
	}
	return list
}

// Output returns the value of the i-th of n outputs of a record, from 1, which is
// what the worker makes of its value.
func (w *Workload) Output(rec *kgo.Record, i, n int) []byte {
	if len(rec.Value) == 0 {
		return rec.Value
	}
	return fmt.Appendf(bytes.Clone(rec.Value), "|%d/%d", i, n)
}

// Parse reads an identity.
func (w *Workload) Parse(identity string) (Origin, error) {
	parts := strings.Split(identity, "/")
	if len(parts) != 4 {
		return Origin{}, fmt.Errorf("%q is no identity", identity)
	}
	p, err := strconv.ParseInt(parts[1], 10, 32)
	if err != nil {
		return Origin{}, fmt.Errorf("%q is no identity: %w", identity, err)
	}
	seq, err := strconv.ParseInt(parts[2], 10, 64)
	if err != nil {
		return Origin{}, fmt.Errorf("%q is no identity: %w", identity, err)
	}
	o := Origin{int32(p), seq}
	if parts[0] != w.Run || p < 0 || seq < 0 {
		return Origin{}, fmt.Errorf("%q is of another run than %s", identity, w.Run)
	}
	if class := w.Class(o).String(); parts[3] != class {
		return Origin{}, fmt.Errorf("%q has class %s, want %s", identity, parts[3], class)
	}
	return o, nil
}

// identify returns the identity in a record's headers.
func (w *Workload) identify(r *kgo.Record) (Origin, error) {
	for i := range r.Headers {
		if r.Headers[i].Key == IdentityHeader {
			return w.Parse(string(r.Headers[i].Value))
		}
	}
	return Origin{}, fmt.Errorf("it has no header %s", IdentityHeader)
}
