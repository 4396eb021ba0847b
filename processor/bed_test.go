package processor_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

var (
	firstSeed = flag.Uint64("seed", 0, "the seed of the first random plan; 0 takes any")
	patience  = flag.Duration("patience", 0, "how long to wait for what must come; 0 is a minute, or an hour of virtual time")
)

// seed is the seed of a random test, or of the first of its plans.
func seed() uint64 {
	if *firstSeed != 0 {
		return *firstSeed
	}
	return rand.Uint64N(1 << 32)
}

// A bed is a broker inside the test process, and what a test asks of it.
type bed struct {
	t       *testing.T
	cluster *kfake.Cluster
	client  []kgo.Opt // to reach the cluster
	own     *kgo.Client
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	// eventually looks each step and gives up after patience.
	step, patience time.Duration
}

// newBed starts a broker on loopback, or on network if that is not nil, with the
// topics "in" and "out" of the given number of partitions.
func newBed(t *testing.T, partitions int32, network *kfake.VirtualNetwork, opts ...kfake.Opt) *bed {
	t.Helper()
	opts = append(opts, kfake.NumBrokers(1), kfake.SeedTopics(partitions, "in", "out"), kfake.GroupMinSessionTimeout(time.Second))
	if network != nil {
		opts = append(opts, kfake.ListenFn(network.Listen))
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	b := &bed{
		t: t, cluster: cluster, client: []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)},
		dial: new(net.Dialer).DialContext, step: 10 * time.Millisecond, patience: time.Minute,
	}
	if network != nil {
		b.step, b.patience = 100*time.Millisecond, time.Hour
		b.dial = network.DialContext
		b.client = append(b.client, kgo.Dialer(b.dial))
	}
	if *patience > 0 {
		b.patience = *patience
	}
	b.own = b.newClient(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	return b
}

func (b *bed) newClient(opts ...kgo.Opt) *kgo.Client {
	b.t.Helper()
	client, err := kgo.NewClient(append(slices.Clone(b.client), opts...)...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(client.Close)
	return client
}

// options are those of a pipeline from "in" to "out" that hurries.
func (b *bed) options() processor.Options {
	return processor.Options{
		Name:     "test",
		Instance: "one",
		Client:   b.client,
		Logger:   slog.New(slog.NewTextHandler(logTo{b.t}, &slog.HandlerOptions{Level: slog.LevelInfo})),
		Source:   processor.Source{Topics: []string{"in"}, Group: "group", SessionTimeout: 6 * time.Second},
		Output:   processor.Output{Topic: "out", Provenance: true},
		Commit:   processor.Commit{Interval: 200 * time.Millisecond},
	}
}

// logTo writes log lines to the test.
type logTo struct{ t *testing.T }

func (l logTo) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// A running is a pipeline that runs.
type running struct {
	*processor.Pipeline
	cancel context.CancelFunc
	done   chan error
}

// run starts a pipeline; the test's end stops it.
func (b *bed) run(opts processor.Options, transform processor.Transform) *running {
	b.t.Helper()
	p, err := processor.New(opts, transform)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Pipeline: p, cancel: cancel, done: make(chan error, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.done <- p.Run(ctx)
	}()
	b.t.Cleanup(func() { cancel(); <-ended })
	return r
}

// stop ends the pipeline as SIGTERM would and returns what Run returned.
func (r *running) stop() error {
	r.cancel()
	return <-r.done
}

func (b *bed) create(topic string, partitions int32, settings map[string]string) {
	b.t.Helper()
	if err := b.cluster.CreateTopic(topic, partitions, settings); err != nil {
		b.t.Fatal(err)
	}
}

// stop ends a pipeline, whose Run must return nil.
func (b *bed) stop(r *running) {
	b.t.Helper()
	if err := r.stop(); err != nil {
		b.t.Errorf("Run returned %v, want nil", err)
	}
}

// status returns the state of a pipeline.
func (b *bed) status(r *running) processor.Status {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := r.Status(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// produce writes records with the values from..to-1 to one partition of a topic.
func (b *bed) produce(topic string, partition int32, from, to int) {
	b.t.Helper()
	b.write(numbered(topic, partition, from, to)...)
}

// produceToAll writes records with the values from..to-1 to each partition of "in",
// all of them in one request.
func (b *bed) produceToAll(partitions int32, from, to int) {
	b.t.Helper()
	var records []*kgo.Record
	for p := range partitions {
		records = append(records, numbered("in", p, from, to)...)
	}
	b.write(records...)
}

func numbered(topic string, partition int32, from, to int) []*kgo.Record {
	var records []*kgo.Record
	for i := from; i < to; i++ {
		records = append(records, &kgo.Record{Topic: topic, Partition: partition, Key: []byte("key"), Value: []byte(strconv.Itoa(i))})
	}
	return records
}

func (b *bed) write(records ...*kgo.Record) {
	b.t.Helper()
	if err := b.own.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

// eventually waits until cond is true; it fails the test when patience ends.
func (b *bed) eventually(what string, cond func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(b.patience)
	for !cond() {
		if time.Now().After(deadline) {
			b.t.Fatalf("after %v still not: %s", b.patience, what)
		}
		<-time.After(b.step)
	}
}

// committed returns the group's offset of a partition of "in", -1 if none.
func (b *bed) committed(partition int32) int64 {
	if group := b.cluster.GroupInfo("group"); group != nil {
		if c, ok := group.Commits["in"][partition]; ok {
			return c.Offset
		}
	}
	return -1
}

// end returns the end of a partition's log.
func (b *bed) end(topic string, partition int32) int64 {
	return b.cluster.PartitionInfo(topic, partition).HighWatermark
}

// caughtUp waits until the group has committed the ends of all partitions of "in".
func (b *bed) caughtUp(partitions int32) {
	b.t.Helper()
	b.eventually("the group has committed all of the input", func() bool {
		for p := range partitions {
			if b.committed(p) != b.end("in", p) {
				return false
			}
		}
		return true
	})
}

// values reads what is visible of a partition.
func (b *bed) values(topic string, partition int32) []string {
	b.t.Helper()
	var values []string
	for _, r := range b.records(topic, partition) {
		values = append(values, string(r.Value))
	}
	return values
}

// records reads the records of a partition, as a reader of committed
// transactions does.
func (b *bed) records(topic string, partition int32) []*kgo.Record {
	b.t.Helper()
	end := b.end(topic, partition)
	reader := b.newClient(kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().AtStart()}}))
	defer reader.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var records []*kgo.Record
	for next := int64(0); next < end; {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			b.t.Fatal(errors.Join(fmt.Errorf("reading %s/%d at %d of %d", topic, partition, next, end), err))
		}
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			if !r.Attrs.IsControl() {
				records = append(records, r)
			}
		})
	}
	return records
}

// inOrder fails the test unless the partition of "out" has the values from..to-1,
// each once, in order.
func (b *bed) inOrder(partition int32, from, to int) {
	b.t.Helper()
	got := b.values("out", partition)
	if len(got) != to-from {
		b.t.Errorf("partition %d has %d records, want %d", partition, len(got), to-from)
	}
	for i, v := range got {
		if v != strconv.Itoa(from+i) {
			b.t.Fatalf("partition %d has %s at place %d, want %d", partition, v, i, from+i)
		}
	}
}

// passOn is a transform that changes nothing.
func passOn(_ context.Context, in processor.Input, out *processor.Outputs) error {
	out.Add(in.Value)
	return nil
}

// problem returns the reasons that the pipeline gives for a scope.
func (b *bed) problem(r *running, scope string) string {
	b.t.Helper()
	var reasons []string
	for _, p := range b.status(r).Problems {
		if p.Scope == scope {
			reasons = append(reasons, p.Reason)
		}
	}
	return strings.Join(reasons, "; ")
}
