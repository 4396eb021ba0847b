package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

var names atomic.Int64

// unique returns a name for what belongs to a test: a topic, a pipeline.
func unique(t *testing.T, suffix string) string {
	name := strings.ToLower(strings.NewReplacer("Test", "", "/", "-", "_", "-").Replace(t.Name()))
	return fmt.Sprintf("%s-%d%s", name, names.Add(1), suffix)
}

// newTopic creates a topic of the test and returns its name.
func newTopic(t *testing.T, suffix string, partitions int) string {
	t.Helper()
	name := unique(t, suffix)
	createTopic(t, name, partitions)
	return name
}

// createTopic creates a topic and waits until the broker has it.
func createTopic(t *testing.T, name string, partitions int) {
	t.Helper()
	if _, err := bed.admin.CreateTopic(within(t, patience), int32(partitions), -1, nil, name); err != nil {
		t.Fatalf("create topic %s: %v", name, err)
	}
	awaitTopic(t, name, partitions)
}

// growTopic adds partitions until there are so many.
func growTopic(t *testing.T, name string, partitions int) {
	t.Helper()
	if _, err := bed.admin.UpdatePartitions(within(t, patience), partitions, name); err != nil {
		t.Fatalf("add partitions to %s: %v", name, err)
	}
	awaitTopic(t, name, partitions)
}

// awaitTopic waits until the broker has all partitions of a topic.
func awaitTopic(t *testing.T, name string, partitions int) {
	t.Helper()
	await(t, patience, fmt.Sprintf("topic %s to have %d partitions", name, partitions), func() (bool, string) {
		end, err := ends(t.Context(), name, kgo.ReadUncommitted())
		return err == nil && len(end) == partitions, fmt.Sprint(end, err)
	})
}

// An input is a topic to produce to. The value of each record says who it is: the
// topic, the partition and a sequence number, which is dense.
type input struct {
	topic string
	next  []int // sequence numbers, by partition
	json  bool  // values are objects that tell the same
}

func newInput(t *testing.T, partitions int) *input {
	t.Helper()
	return &input{topic: newTopic(t, ".in", partitions), next: make([]int, partitions)}
}

// record returns the next record of a partition.
func (in *input) record(partition int) *kgo.Record {
	seq := in.next[partition]
	in.next[partition]++
	value := fmt.Appendf(nil, "%s/%d/%d", in.topic, partition, seq)
	if in.json {
		value = fmt.Appendf(nil, `{"who": %q}`, value)
	}
	return &kgo.Record{
		Topic: in.topic, Partition: int32(partition),
		Key:   fmt.Appendf(nil, "key-%d", seq%101),
		Value: value,
	}
}

// produce appends n records to every partition.
func (in *input) produce(t *testing.T, n int) {
	t.Helper()
	client := newProducer(t)
	answers := newAnswers(t)
	for range n {
		for p := range in.next {
			client.Produce(t.Context(), in.record(p), answers.note)
		}
	}
	answers.flush(client)
}

// A load produces at a steady rate until it is stopped.
type load struct {
	stop    context.CancelFunc
	stopped chan struct{}
	client  *kgo.Client
	answers *answers
}

// start begins to produce so many records a second, over all partitions.
func (in *input) start(t *testing.T, perSecond int) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{stop: cancel, stopped: make(chan struct{}), client: newProducer(t), answers: newAnswers(t)}
	go func() {
		defer close(l.stopped)
		began, sent := time.Now(), 0
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			for due := int(time.Since(began).Seconds() * float64(perSecond)); sent < due; sent++ {
				l.client.Produce(context.WithoutCancel(ctx), in.record(sent%len(in.next)), l.answers.note)
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-l.stopped })
	return l
}

// end stops the load and waits until all of it is acknowledged.
func (l *load) end() {
	l.answers.t.Helper()
	l.stop()
	<-l.stopped
	l.answers.flush(l.client)
}

// answers are what the broker answered to a producer.
type answers struct {
	t    *testing.T
	mu   sync.Mutex
	errs []error
}

func newAnswers(t *testing.T) *answers { return &answers{t: t} }

func (r *answers) note(_ *kgo.Record, err error) {
	if err != nil {
		r.mu.Lock()
		r.errs = append(r.errs, err)
		r.mu.Unlock()
	}
}

// flush waits for all answers. Every record must have been taken.
func (r *answers) flush(client *kgo.Client) {
	r.t.Helper()
	if err := client.Flush(within(r.t, patience)); err != nil {
		r.t.Fatalf("the records of the test are not acknowledged: %v", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.errs) > 0 {
		r.t.Fatalf("%d records of the test were not taken: %v", len(r.errs), errors.Join(r.errs[:min(3, len(r.errs))]...))
	}
}

// newProducer returns a client that produces to the partitions it is told to.
func newProducer(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := bed.cluster.Client(append([]kgo.Opt{
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(5 * time.Millisecond),
		kgo.MaxBufferedRecords(100_000),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}
