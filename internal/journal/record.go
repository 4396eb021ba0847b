package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A Kind is what a state record tells.
type Kind string

// The kinds of state records.
const (
	KindOpen     Kind = "open"
	KindAttempts Kind = "attempts"
	KindReply    Kind = "reply"
	KindDecision Kind = "decision"
)

// A Key names a state record.
type Key struct {
	Group     string // the consumer group: it owns the partition, and counts its generations
	Topic     string // of the source, as Partition and Offset
	Partition int32
	Offset    int64 // -1 of KindOpen
	Kind      Kind
	// By is who wrote it: the generation of the owner in decimal, or, of KindOpen and
	// KindDecision, a random name.
	By string
}

// String returns the key as it stands in the topic.
func (k Key) String() string {
	at := "-"
	if k.Offset >= 0 {
		at = strconv.FormatInt(k.Offset, 10)
	}
	return url.PathEscape(k.Group) + "/" + k.Topic + "/" + strconv.Itoa(int(k.Partition)) + "/" + at + "/" + string(k.Kind) + "/" + k.By
}

// Place is the partition of the state topic, of n, that has everything about one
// source partition.
func Place(topic string, partition int32, n int) int32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(topic + "/" + strconv.Itoa(int(partition))))
	return int32(h.Sum32() % uint32(n))
}

// Why a state record is ignored.
var (
	ErrForeign   = errors.New("it is none of ours")
	ErrTorn      = errors.New("its value cannot be read")
	ErrOversized = errors.New("it is too large")
)

// MaxBytes is the most that a state record may have, key and value together.
const MaxBytes = 4 << 20

// ParseKey reads a key. The error is [ErrForeign].
func ParseKey(text []byte) (Key, error) {
	if len(text) > 1024 {
		return Key{}, fmt.Errorf("%w: a key of %d bytes", ErrForeign, len(text))
	}
	parts := strings.Split(string(text), "/")
	if len(parts) != 6 {
		return Key{}, fmt.Errorf("%w: key %.200q", ErrForeign, text)
	}
	partition, err := strconv.ParseInt(parts[2], 10, 32)
	group, escaped := url.PathUnescape(parts[0])
	err = errors.Join(err, escaped)
	k := Key{Group: group, Topic: parts[1], Partition: int32(partition), Offset: -1, Kind: Kind(parts[4]), By: parts[5]}
	if err == nil && parts[3] != "-" {
		k.Offset, err = strconv.ParseInt(parts[3], 10, 64)
	}
	switch k.Kind {
	case KindOpen:
	case KindAttempts, KindReply, KindDecision:
		if k.Offset < 0 {
			err = errors.Join(err, errors.New("no offset"))
		}
	default:
		err = errors.Join(err, errors.New("no such kind"))
	}
	if err != nil || k.String() != string(text) {
		return Key{}, fmt.Errorf("%w: key %.200q", ErrForeign, text)
	}
	return k, nil
}

// version is that of the values. Values of a later one are foreign.
const version = 1

// Open is the value of a tenure's marker: the process of that tenure has not ended in
// good order, or runs.
type Open struct {
	Generation int64  `json:"generation"`
	Group      int64  `json:"group"` // its generation when the partition was assigned: Generation, or lower
	Instance   string `json:"instance"`
}

// Attempts are the attempts at a record: those that have ended and the one that is to
// begin.
type Attempts struct {
	Generation int64     `json:"generation"`
	TopicID    string    `json:"topic_id,omitempty"` // of the source
	Epoch      *int32    `json:"epoch,omitempty"`    // of the leader that took the record: another one in its place has another; nil: not known
	Begun      int32     `json:"begun"`
	Failed     int32     `json:"failed"`            // of these, with an answer; of the others nobody saw the end
	Granted    int32     `json:"granted,omitempty"` // allowed by a person, all in all
	First      time.Time `json:"first"`             // when the first one was dispatched
	FirstError time.Time `json:"first_error,omitzero"`
	LastError  time.Time `json:"last_error,omitzero"`
	Error      string    `json:"error,omitempty"` // of the last one that failed
	Note       string    `json:"note,omitempty"`  // of the worker
	Hold       *Hold     `json:"hold,omitempty"`
	// Value is the By of the decision that has given the record another value.
	Value string `json:"value,omitempty"`
}

// A Hold says that the record waits for a person to decide.
type Hold struct {
	Since  time.Time `json:"since"`
	Why    string    `json:"why"`
	Reason string    `json:"reason"` // in words
}

// A Decision is what a person decided about a held record.
type Decision struct {
	Decision string   `json:"decision"`
	Attempts int      `json:"attempts,omitempty"`
	Value    []byte   `json:"value"` // null is a null value
	Outputs  [][]byte `json:"outputs,omitempty"`
	Reason   string   `json:"reason"`
}

// A Reply is the result of an attempt whose record waits for those before it.
type Reply struct {
	Generation int64    `json:"generation"`
	TopicID    string   `json:"topic_id,omitempty"`
	Epoch      *int32   `json:"epoch,omitempty"` // as in Attempts
	Outputs    []Output `json:"outputs"`
}

// overhead is about what a reply, and an output of it, take beside their bytes.
const overhead = 256

func (r *Reply) size() int64 {
	n := overhead
	for i := range r.Outputs {
		o := &r.Outputs[i]
		n += overhead + len(o.Key) + len(o.Value)
		for _, h := range o.Headers {
			n += len(h.Name) + len(h.Value)
		}
	}
	return int64(n)
}

// An Output is one of a reply, as it is to be produced. Nil is null.
type Output struct {
	Key       []byte   `json:"key"`
	Value     []byte   `json:"value"`
	Headers   []Header `json:"headers,omitempty"`
	Timestamp int64    `json:"timestamp"` // milliseconds since 1970; any number, as in Kafka
}

// A Header is one of an output. Names are bytes: a record may have any.
type Header struct {
	Name  []byte `json:"name"`
	Value []byte `json:"value"`
}

// maxText bounds texts of workers in values.
const maxText = 4096

// Text returns s as a value can hold it: UTF-8, and not too long.
func Text(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) > maxText {
		for n := maxText; ; n-- {
			if utf8.RuneStart(s[n]) {
				return s[:n]
			}
		}
	}
	return s
}

// Encode returns the text of a value: an [Open], [Attempts], [Decision] or [Reply].
func Encode[V Open | Attempts | Decision | Reply](value V) []byte {
	text, err := json.Marshal(struct {
		Version int `json:"v"`
		Value   V   `json:"state"`
	}{version, value})
	if err != nil {
		panic(err) // they have JSON but for times beyond the year 9999, and all are those of a clock
	}
	return text
}

// A Record is a state record that was read. All of its values but the one of its kind
// are nil, and that as well if the record deletes.
type Record struct {
	Key
	Open     *Open
	Attempts *Attempts
	Decision *Decision
	Reply    *Reply
}

// Deletes reports whether the record deletes the one with its key.
func (r *Record) Deletes() bool {
	return r.Open == nil && r.Attempts == nil && r.Decision == nil && r.Reply == nil
}

// Decode reads a state record of a group. The error is [ErrForeign], [ErrTorn] or
// [ErrOversized]. Records of other groups are no error: ours is false.
func Decode(group string, key, value []byte) (r Record, ours bool, err error) {
	r.Key, err = ParseKey(key)
	if err != nil || r.Group != group {
		return r, false, err
	}
	switch {
	case len(key)+len(value) > MaxBytes:
		return r, true, fmt.Errorf("%w: %v has %d bytes", ErrOversized, r.Key, len(key)+len(value))
	case value == nil:
		return r, true, nil
	}
	switch r.Kind {
	case KindOpen:
		r.Open, err = decode[Open](value)
	case KindAttempts:
		r.Attempts, err = decode[Attempts](value)
		if err == nil && (r.Attempts.Begun < 0 || r.Attempts.Failed < 0 || r.Attempts.Failed > r.Attempts.Begun || Owner(r.Attempts.Generation) != r.By) {
			err = ErrTorn
		}
	case KindDecision:
		r.Decision, err = decode[Decision](value)
	case KindReply:
		r.Reply, err = decode[Reply](value)
		if err == nil && Owner(r.Reply.Generation) != r.By {
			err = ErrTorn
		}
	}
	if err != nil {
		return Record{Key: r.Key}, true, fmt.Errorf("%v: %w", r.Key, err)
	}
	return r, true, nil
}

// Owner is the By of the owner in a generation.
func Owner(generation int64) string { return strconv.FormatInt(generation, 10) }

func decode[V any](text []byte) (*V, error) {
	var outer struct {
		Version int             `json:"v"`
		Value   json.RawMessage `json:"state"`
	}
	if err := json.Unmarshal(text, &outer); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTorn, err)
	}
	if outer.Version > version {
		return nil, fmt.Errorf("%w: a later version, %d, wrote it", ErrForeign, outer.Version)
	}
	var value *V
	if err := json.Unmarshal(outer.Value, &value); err != nil || outer.Version < 1 || value == nil {
		return nil, errors.Join(ErrTorn, err)
	}
	return value, nil
}
