package processor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/resequence"
)

func TestOutputTopic(t *testing.T) {
	for _, test := range []struct{ template, topic, expr, want string }{
		{"orders.out", "orders.in", "", "orders.out"},
		{"{topic}.out", "orders", "", "orders.out"},
		{"{topic}-{topic}", "a", "", "a-a"},
		{"out.{1}", "in.orders", `^in\.(.+)$`, "out.orders"},
		{"{2}.{1}", "in.orders", `^(in)\.(.+)$`, "orders.in"},
		{"{topic}.{1}", "in.{1}", `^in\.(.+)$`, "in.{1}.{1}"}, // what is filled in is not filled again
		{"out.{1}", "in.", `^in\.(.*)$`, "out."},
		{"out.{3}", "in.orders", `^in\.(.+)$`, "out.{3}"},
		{"out.{name}", "in", "", "out.{name}"},
		{"{9}{10}", "abcdefghij", `^(a)(b)(c)(d)(e)(f)(g)(h)(i)(j)$`, "i{10}"},
	} {
		var expr *regexp.Regexp
		if test.expr != "" {
			expr = regexp.MustCompile(test.expr)
		}
		if got := outputTopic(test.template, test.topic, expr); got != test.want {
			t.Errorf("outputTopic(%q, %q, %q) is %q, want %q", test.template, test.topic, test.expr, got, test.want)
		}
	}
}

// Outputs keep the partition of their source; by key they go where Java clients
// would send them.
func TestOutputPartition(t *testing.T) {
	const n = 7
	s := &sink{partitions: n}
	from := func(partition int32, key []byte, dead bool) *output {
		return &output{tenure: &tenure{partitionKey: partitionKey{"in", partition}}, record: kgo.Record{Key: key}, dead: dead}
	}
	for _, test := range []struct {
		key  string
		hash int32 // murmur2 of the key, as the tests of Kafka's own client have it
	}{
		{"21", -973932308},
		{"foobar", -790332482},
		{"a-little-bit-long-string", -985981536},
		{"a-little-bit-longer-string", -1486304829},
		{"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971},
		{"abc", 479470107},
		{"", 275646681},
	} {
		key, want := []byte(test.key), int(test.hash&0x7fffffff)%n
		if got := s.partitionOf(from(5, key, false), true); int(got) != want {
			t.Errorf("by key %q goes to partition %d, want %d", key, got, want)
		}
		if got := s.partitionOf(from(5, key, false), false); got != 5 {
			t.Errorf("key %q goes to partition %d, want that of the source, 5", key, got)
		}
		if got := s.partitionOf(from(10, key, true), true); got != 3 {
			t.Errorf("the dead letter of partition 10 with key %q goes to partition %d of 7, want 3", key, got)
		}
	}
	if got := s.partitionOf(from(12, nil, false), true); got != 5 {
		t.Errorf("by key, without one, partition 12 of the source goes to %d of 7, want 5", got)
	}
}

func runOne(transform Transform, in *kgo.Record, provenance bool) *attempt {
	opts := &Options{Name: "test", Window: Window{Records: 1, Bytes: 1}, Output: Output{Topic: "out", Provenance: provenance}}
	tenure := newTenure(partitionKey{"in", 3}, opts, new(counters), time.Time{})
	c := &chunk{tenure: tenure, attempts: []attempt{{record: in, number: 2}}}
	c.run(transform, opts)
	return &c.attempts[0]
}

func headers(r *kgo.Record) []string {
	var all []string
	for _, h := range r.Headers {
		all = append(all, h.Key+"="+string(h.Value))
	}
	return all
}

// An output says where it came from, behind the headers of its input, and leaves
// these alone: other attempts share them.
func TestProvenance(t *testing.T) {
	in := &kgo.Record{Topic: "in", Partition: 3, Offset: 42, Headers: make([]kgo.RecordHeader, 1, 8)}
	in.Headers[0] = kgo.RecordHeader{Key: "mine", Value: []byte("1")}
	for _, test := range []struct {
		outputs    int
		provenance bool
		want       [][]string
	}{
		{0, true, nil},
		{1, true, [][]string{{"mine=1", "seriatim.source=in/3/42"}}},
		{2, true, [][]string{{"mine=1", "seriatim.source=in/3/42", "seriatim.output=1/2"}, {"mine=1", "seriatim.source=in/3/42", "seriatim.output=2/2"}}},
		{1, false, [][]string{{"mine=1"}}},
	} {
		a := runOne(TransformFunc(func(_ context.Context, _ Input, out *Outputs) error {
			for range test.outputs {
				out.Add([]byte("value"))
			}
			return nil
		}), in, test.provenance)
		var got [][]string
		for o := a.outputs; o != nil; o = o.next {
			got = append(got, headers(&o.record))
		}
		if fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%d outputs, provenance %v: headers are %v, want %v", test.outputs, test.provenance, got, test.want)
		}
		if len(in.Headers) != 1 || in.Headers[:2][1].Key != "" {
			t.Errorf("the input's headers were changed: %v", in.Headers[:2])
		}
	}
}

// The memory of many outputs comes in pieces; none may show in another.
func TestOutputsShareNoMemory(t *testing.T) {
	const records, outputs = 64, 5
	opts := &Options{Name: "test", Window: Window{Records: 1, Bytes: 1}, Output: Output{Topic: "out", Provenance: true}}
	tenure := newTenure(partitionKey{"a-topic-with-a-long-name", 3}, opts, new(counters), time.Time{})
	transform := TransformFunc(func(_ context.Context, in Input, out *Outputs) error {
		for i := range outputs {
			r := out.Add(fmt.Appendf(nil, "%d.%d", in.Offset, i))
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: fmt.Sprint(i), Value: fmt.Append(nil, in.Offset)})
		}
		return nil
	})
	made := make(map[*output]int64) // of the record at an offset
	c := &chunk{tenure: tenure}
	for round := range 3 { // chunks are used again while their outputs live on
		c.attempts = c.attempts[:0]
		for i := range records {
			c.attempts = append(c.attempts, attempt{record: &kgo.Record{Offset: int64(round*records + i)}, number: 1})
		}
		c.run(transform, opts)
		for i := range c.attempts { // as many as ran before the worker gave the rest back
			for o := c.attempts[i].outputs; o != nil; o = o.next {
				made[o] = c.attempts[i].record.Offset
			}
		}
	}
	if len(made) < 3*outputs {
		t.Fatalf("%d outputs, want %d or some fewer", len(made), 3*records*outputs)
	}
	for o, offset := range made {
		i := int(o.record.Value[len(o.record.Value)-1] - '0')
		want := []string{
			fmt.Sprintf("%d=%d", i, offset),
			fmt.Sprintf("seriatim.source=a-topic-with-a-long-name/3/%d", offset),
			fmt.Sprintf("seriatim.output=%d/%d", i+1, outputs),
		}
		if got := headers(&o.record); string(o.record.Value) != fmt.Sprintf("%d.%d", offset, i) || !slices.Equal(got, want) {
			t.Fatalf("output %d of offset %d is %q with %v, want %v", i, offset, o.record.Value, got, want)
		}
	}
}

// What a transform does not set comes from the input; what it sets stays.
func TestOutputsInheritFromTheirInput(t *testing.T) {
	at := time.UnixMilli(1700000000000)
	in := &kgo.Record{Topic: "in", Partition: 3, Offset: 42, Key: []byte("key"), Value: []byte("value"), Timestamp: at, Headers: []kgo.RecordHeader{{Key: "mine"}}}
	a := runOne(TransformFunc(func(_ context.Context, in Input, out *Outputs) error {
		if in.Attempt != 2 || in.Pipeline != "test" || in.Offset != 42 {
			t.Errorf("the input is attempt %d of %s at %d, want 2 of test at 42", in.Attempt, in.Pipeline, in.Offset)
		}
		out.Add([]byte("first"))
		r := out.Add(nil) // a tombstone
		r.Key, r.Headers, r.Topic, r.Partition = nil, nil, "elsewhere", 9
		out.Add([]byte{})
		if out.Len() != 3 {
			t.Errorf("%d outputs were added, want 3", out.Len())
		}
		return nil
	}), in, false)
	first, second, third := &a.outputs.record, &a.outputs.next.record, &a.outputs.next.next.record
	if string(first.Key) != "key" || string(first.Value) != "first" || !first.Timestamp.Equal(at) || len(first.Headers) != 1 {
		t.Errorf("the first output is %+v", first)
	}
	if second.Key != nil || second.Value != nil || len(second.Headers) != 0 || second.Topic != "out" || second.Partition != 3 {
		t.Errorf("the second output is %+v, want a tombstone without key for out/3", second)
	}
	if third.Value == nil || len(third.Value) != 0 {
		t.Errorf("the third output's value is %v, want empty and not null", third.Value)
	}
	if a.n != 3 || a.bytes != first3(a) {
		t.Errorf("%d outputs of %d bytes, want 3 of %d", a.n, a.bytes, first3(a))
	}
}

func first3(a *attempt) (bytes int64) {
	for o := a.outputs; o != nil; o = o.next {
		bytes += int64(len(o.record.Key) + len(o.record.Value))
		for _, h := range o.record.Headers {
			bytes += int64(len(h.Key) + len(h.Value))
		}
	}
	return bytes
}

func TestFailedAttemptsHaveNoOutputs(t *testing.T) {
	cause := errors.New("cause")
	for _, test := range []struct {
		err  error
		want Kind
	}{
		{cause, Retry},
		{&Failure{Kind: Reject, Err: cause}, Reject},
		{fmt.Errorf("wrapped: %w", &Failure{Kind: Deployment, Err: cause}), Deployment},
	} {
		a := runOne(TransformFunc(func(_ context.Context, _ Input, out *Outputs) error {
			out.Add([]byte("half done"))
			return test.err
		}), new(kgo.Record), true)
		if a.outputs != nil || a.n != 0 || !errors.Is(a.err, cause) || failureOf(a.err).Kind != test.want {
			t.Errorf("%v: %d outputs, error %v of kind %v, want none and %v", test.err, a.n, a.err, failureOf(a.err).Kind, test.want)
		}
	}
	a := runOne(TransformFunc(func(context.Context, Input, *Outputs) error { panic("oh") }), new(kgo.Record), true)
	var p *PanicError
	if !errors.As(a.err, &p) || p.Value != "oh" || !bytes.Contains(p.Stack, []byte("outputs_test.go")) {
		t.Errorf("a panic became %v", a.err)
	}
}

// The key is the same at every attempt and names the topic by its id, so that a
// topic made anew under the same name is another one.
func TestIdempotencyKey(t *testing.T) {
	in := Input{Record: &kgo.Record{Topic: "in", Partition: 3, Offset: 42}, Pipeline: "orders", Attempt: 1}
	if got := in.IdempotencyKey(); got != "orders/in/3/42" {
		t.Errorf("without a topic id the key is %q", got)
	}
	in.TopicID = [16]byte{0xde, 0xad, 0xbe, 0xef, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
	first := in.IdempotencyKey()
	in.Attempt = 2
	if again := in.IdempotencyKey(); again != first || first != "orders/3q2-7wABAgMEBQYHCAkKCw/3/42" {
		t.Errorf("the keys of two attempts are %q and %q", first, again)
	}
}

// The producer asks the first output of a batch whether it is done when nothing before
// it is in flight. Done waits until the promises of those before it have been called, and
// after a refusal it is closed until the lane is opened again.
func TestLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAcks()
		l := &lane{acks: a}
		outs := make([]output, 6)
		for i := range outs {
			o := &outs[i]
			o.tenure, o.seq, o.of, o.record.Context = &tenure{}, resequence.Seq(i), 1, o
		}
		next := 0
		take := func() *output {
			next++
			l.take(&outs[next-1])
			return &outs[next-1]
		}
		done := func(o *output) (waits, closed bool) {
			waits = true
			go func() {
				closed = o.Done() != nil
				waits = false
			}()
			synctest.Wait()
			return waits, closed
		}
		heard := func() { a.take(nil) }

		first := take()
		if waits, closed := done(first); waits || closed || first.Err() != nil {
			t.Fatal("the first output may not be sent")
		}
		second := take()
		result := make(chan (<-chan struct{}))
		go func() { result <- second.Done() }()
		synctest.Wait()
		a.promise(&first.record, nil)
		if <-result != nil {
			t.Fatal("an output may not be sent after the one before it was acknowledged")
		}

		third := take()
		go func() { result <- third.Done() }()
		synctest.Wait()
		select {
		case <-result:
			t.Fatal("Done did not wait for the answer of the output before it")
		default:
		}
		a.promise(&second.record, errors.New("refused"))
		if <-result == nil || !errors.Is(third.Err(), errOvertaking) || !errors.Is(third.Err(), context.Canceled) {
			t.Fatalf("an output may overtake a refused one; Err is %v", third.Err())
		}
		if l.open() {
			t.Fatal("the lane opens with an output in flight")
		}
		a.promise(&third.record, third.Err())
		if l.open() {
			t.Fatal("the lane opens before the loop has heard of the refusal")
		}
		heard()
		if !l.open() {
			t.Fatal("the lane does not open though all is answered and heard")
		}
		if waits, closed := done(take()); waits || closed {
			t.Fatal("nothing may be sent though the lane was opened again")
		}
	})
}

// A record has an output for an open lane and one for a lane that is closed. None is
// handed over before both may be: the first one would be handed over twice.
func TestOutputsWaitForAllOfTheirLanes(t *testing.T) {
	p, err := New(Options{
		Name: "test", Instance: "one", Client: []kgo.Opt{kgo.SeedBrokers("127.0.0.1:1")},
		Source: Source{Topics: []string{"in"}, Group: "group"}, Output: Output{Topic: "out", ByKey: true},
	}, TransformFunc(nil))
	if err != nil {
		t.Fatal(err)
	}
	l := p.loop.Load()
	if l.producer, err = kgo.NewClient(p.opts.Client...); err != nil {
		t.Fatal(err)
	}
	defer l.producer.Close()
	source := newTenure(partitionKey{"in", 0}, l.opts, new(counters), l.now)
	l.tenures[source.partitionKey] = source
	lanes := []*lane{{acks: l.acks}, {acks: l.acks}}
	source.sink = &sink{partitions: 2, settings: settings{maxBytes: defaultBatch}, lanes: lanes}
	l.budget.assign(l.tenures)
	l.place(source, 0)
	l.receive(source, []*kgo.Record{{Topic: "in"}})

	var key [2][]byte // of each output partition
	for i := byte(0); key[0] == nil || key[1] == nil; i++ {
		key[byHash.Partition(&kgo.Record{Key: []byte{i}}, 2)] = []byte{i}
	}
	second := &output{tenure: source, of: 2, record: kgo.Record{Topic: "out", Key: key[1]}}
	first := &output{tenure: source, of: 2, record: kgo.Record{Topic: "out", Key: key[0]}, next: second}
	others := &output{tenure: &tenure{}, of: 1}
	first.record.Context, second.record.Context, others.record.Context = first, second, others //nolint:fatcontext // an output is the context of its own record
	lanes[1].take(others)
	lanes[1].refused.Store(true)
	l.fillWith(source, 0, first)
	l.advance(source)
	l.emit(source)
	if lanes[0].handed != 0 || lanes[1].handed != 1 {
		t.Fatalf("%d and %d are handed over, want none and that of another source", lanes[0].handed, lanes[1].handed)
	}
	l.acks.promise(&others.record, nil)
	l.acks.take(nil)
	l.emit(source)
	if lanes[0].handed != 1 || lanes[1].handed != 2 || source.inFlight != 2 {
		t.Errorf("%d and %d are handed over, %d in flight, want 1, 2 and 2", lanes[0].handed, lanes[1].handed, source.inFlight)
	}
}
