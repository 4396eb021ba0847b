package history

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A stream is what one partition of the input should give to one sink: places in
// order, one for each output.
type stream struct {
	first []int32 // by seq, and one past: the first place of its outputs
	seq   []int64 // by place
	at    []int64 // by place: the offset of the first appearance, -1 before it

	newest int32 // the highest place that has appeared, -1 before any
	last   int32 // the place that appeared last
}

func (c *Check) stream(p int32, sink Sink) *stream {
	part := c.partitions[p]
	if part.streams[sink] != nil {
		return part.streams[sink]
	}
	s := &stream{newest: -1, last: -1}
	for seq := range part.status {
		s.first = append(s.first, int32(len(s.seq)))
		for range c.due(Origin{p, int64(seq)}, sink) {
			s.seq = append(s.seq, int64(seq))
			s.at = append(s.at, -1)
		}
	}
	s.first = append(s.first, int32(len(s.seq)))
	part.streams[sink] = s
	return s
}

// due is how many records a record brings to a sink.
func (c *Check) due(o Origin, sink Sink) int {
	switch {
	case sink == Outputs:
		return c.work.Outputs(o)
	case c.work.Dead(o):
		return 1
	default:
		return 0
	}
}

// Visible takes the records of a sink that a reader of committed records sees,
// those of a partition in order.
func (c *Check) Visible(sink Sink, r *kgo.Record) {
	c.verdict.Seen[sink]++
	where := fmt.Sprintf("%s %s/%d@%d (producer %d, epoch %d)", sink, r.Topic, r.Partition, r.Offset, r.ProducerID, r.ProducerEpoch)
	o, err := c.work.identify(r)
	if err != nil {
		c.Fault(Intact, "%s: %v", where, err)
		return
	}
	if int(o.Partition) >= len(c.partitions) || o.Seq >= int64(len(c.partitions[o.Partition].status)) {
		c.Fault(Intact, "%s: record %d of partition %d was never sent", where, o.Seq, o.Partition)
		return
	}
	part := c.partitions[o.Partition]
	where = fmt.Sprintf("%s, of record %d of partition %d (%v, offset %d)", where, o.Seq, o.Partition, c.work.Class(o), part.offset[o.Seq])
	if part.status[o.Seq] == forbidden {
		c.Fault(NoAborted, "%s: it is not visible in the input", where)
		return
	}
	if want := c.place(o.Partition, sink); r.Partition != want {
		c.Fault(InOrder, "%s: it belongs into partition %d", where, want)
		return
	}
	n := c.due(o, sink)
	i, err := index(sink, r, n)
	if n == 0 || err != nil {
		c.Fault(OneOutcome, "%s: %d are due: %v", where, n, err)
		return
	}
	if err := c.compare(sink, r, o, i, n); err != nil {
		c.Fault(Intact, "%s: %v", where, err)
	}
	c.appear(sink, r, o, int32(i-1), where)
}

// index returns which of n outputs of a record this is, from 1.
func index(sink Sink, r *kgo.Record, n int) (int, error) {
	text, many := "", false
	for i := range r.Headers {
		if r.Headers[i].Key == "seriatim.output" {
			text, many = string(r.Headers[i].Value), true
		}
	}
	if !many && (n <= 1 || sink == DeadLetters) {
		return 1, nil
	}
	number, of, _ := strings.Cut(text, "/")
	i, err := strconv.Atoi(number)
	if err != nil || of != strconv.Itoa(n) || i < 1 || i > n || n == 1 {
		return 0, fmt.Errorf("the header seriatim.output is %q", text)
	}
	return i, nil
}

// appear checks an appearance against those before it.
func (c *Check) appear(sink Sink, r *kgo.Record, o Origin, i int32, where string) {
	part := c.partitions[o.Partition]
	s := c.stream(o.Partition, sink)
	pos := s.first[o.Seq] + i
	defer func() { s.last, s.newest = pos, max(s.newest, pos) }()
	if s.at[pos] >= 0 {
		c.repeat(sink, r, o, s, pos, where)
		return
	}
	s.at[pos] = r.Offset
	if pos < s.newest {
		// What is optional may have been compacted away when the first reader came by.
		c.Fault(InOrder, "%s: it appears for the first time after record %d", where, s.seq[s.newest])
		return
	}
	for missing := s.newest + 1; missing < pos; missing++ {
		if part.status[s.seq[missing]] == required {
			c.Fault(InOrder, "%s: it appears before record %d", where, s.seq[missing])
			return
		}
	}
	c.follows(part, s, pos, where)
}

func (c *Check) repeat(sink Sink, r *kgo.Record, o Origin, s *stream, pos int32, where string) {
	c.verdict.Repeats++
	if c.opts.ExactlyOnce {
		c.Fault(NoRepeat, "%s: it is visible a second time, and was at %d before", where, s.at[pos])
		return
	}
	part := c.partitions[o.Partition]
	if pos <= s.last {
		c.verdict.StepsBack++
	}
	if c.opts.Unclean == 0 {
		c.Fault(BoundedRepeats, "%s: it is repeated, although no instance was killed, frozen or cut off", where)
	}
	committed := c.committedBefore(sink, r.Partition, r.Offset, o.Partition)
	if offset := part.offset[o.Seq]; offset >= 0 && offset < committed {
		c.Fault(BoundedRepeats, "%s: it is repeated after %d was committed", where, committed)
	}
	c.follows(part, s, pos, where)
}

// follows checks that an appearance comes next after the one before it, or steps
// back. Where an instance may have gone on beside the next owner their runs mix.
func (c *Check) follows(part *partition, s *stream, pos int32, where string) {
	if c.opts.Zombies || c.opts.ExactlyOnce {
		return
	}
	for missing := s.last + 1; missing < pos; missing++ {
		if part.status[s.seq[missing]] == required {
			c.Fault(InOrder, "%s: it comes after record %d without record %d between", where, s.seq[max(0, s.last)], s.seq[missing])
			return
		}
	}
}

// compare checks the bytes of an outcome.
func (c *Check) compare(sink Sink, r *kgo.Record, o Origin, i, n int) error {
	in := c.work.Record(o)
	value := in.Value
	if sink == Outputs {
		value = c.work.Output(in, i, n)
	}
	switch {
	case !same(r.Key, in.Key):
		return fmt.Errorf("the key is %s, want %s", show(r.Key), show(in.Key))
	case !same(r.Value, value):
		return fmt.Errorf("the value is %s, want %s", show(r.Value), show(value))
	case !r.Timestamp.Equal(in.Timestamp):
		return fmt.Errorf("the timestamp is %v, want %v", r.Timestamp, in.Timestamp)
	case len(r.Headers) < len(in.Headers):
		return fmt.Errorf("it has %d headers, want the %d of the input and ours", len(r.Headers), len(in.Headers))
	}
	for k, want := range in.Headers {
		if got := r.Headers[k]; got.Key != want.Key || !same(got.Value, want.Value) {
			return fmt.Errorf("header %d is %s=%s, want %s=%s", k, got.Key, show(got.Value), want.Key, show(want.Value))
		}
	}
	ours := r.Headers[len(in.Headers):]
	if sink == DeadLetters {
		return c.deadHeaders(ours, o)
	}
	names := []string{"seriatim.source"}
	if n > 1 {
		names = append(names, "seriatim.output") // index has read it
	}
	if len(ours) != len(names) {
		return fmt.Errorf("it has %d headers of ours, want %v", len(ours), names)
	}
	for k, name := range names {
		if ours[k].Key != name {
			return fmt.Errorf("it has a header %s, want %s", ours[k].Key, name)
		}
	}
	return c.fromHere("seriatim.source", string(ours[0].Value), fmt.Sprintf("%s/%d/", c.opts.Topic, o.Partition), o)
}

// fromHere checks a text that ends in the offset of a record.
func (c *Check) fromHere(name, text, prefix string, o Origin) error {
	want := c.partitions[o.Partition].offset[o.Seq]
	rest, ok := strings.CutPrefix(text, prefix)
	offset, err := strconv.ParseInt(rest, 10, 64)
	if !ok || err != nil || want >= 0 && offset != want {
		return fmt.Errorf("header %s is %q, want %s%d", name, text, prefix, want)
	}
	return nil
}

// deadHeaders checks those that a dead letter has got.
func (c *Check) deadHeaders(ours []kgo.RecordHeader, o Origin) error {
	values := make(map[string]string)
	for _, h := range ours {
		values[h.Key] = string(h.Value)
	}
	kind, least := "reject", 1
	if c.work.Class(o) == Exhausted {
		kind, least = "attempts", c.opts.Attempts
	}
	for name, want := range map[string]string{
		"__dlq.errors.topic":     c.opts.Topic,
		"__dlq.errors.partition": strconv.Itoa(int(o.Partition)),
		"__dlq.errors.group":     c.opts.Group,
		"seriatim.error.kind":    kind,
	} {
		if values[name] != want {
			return fmt.Errorf("header %s is %q, want %q", name, values[name], want)
		}
	}
	if n, err := strconv.Atoi(values["__dlq.errors.delivery.count"]); err != nil || n < least || n > c.opts.Attempts {
		return fmt.Errorf("header __dlq.errors.delivery.count is %q, want %d to %d", values["__dlq.errors.delivery.count"], least, c.opts.Attempts)
	}
	return c.fromHere("__dlq.errors.offset", values["__dlq.errors.offset"], "", o)
}

// same reports whether two values are the same; null is not empty.
func same(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

func show(b []byte) string {
	if b == nil {
		return "null"
	}
	if len(b) > 80 {
		return fmt.Sprintf("%q… (%d bytes)", b[:80], len(b))
	}
	return strconv.Quote(string(b))
}
