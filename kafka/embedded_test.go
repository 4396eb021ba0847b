package kafka_test

import (
	"bytes"
	"context"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/kafka"
)

// embedded starts an embedded broker for the test, with a topic "t" of one
// partition, and a client of it.
func embedded(tb testing.TB) (*kafka.Embedded, *kgo.Client) {
	tb.Helper()
	broker, err := kafka.StartEmbedded(0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(broker.Close)
	if err := broker.CreateTopics(tb.Context(), map[string]int32{"t": 1}); err != nil {
		tb.Fatal(err)
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(broker.Address()), kgo.ConsumeTopics("t"),
		kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()),
	)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(client.Close)
	return broker, client
}

func TestEmbeddedKeepsToThePort(t *testing.T) {
	broker, _ := embedded(t)
	_, text, _ := strings.Cut(broker.Address(), ":")
	port, err := strconv.Atoi(text)
	if err != nil || !strings.HasPrefix(broker.Address(), "127.0.0.1:") {
		t.Fatalf("got the address %s, want a port of 127.0.0.1", broker.Address())
	}
	if second, err := kafka.StartEmbedded(port); err == nil {
		second.Close()
		t.Errorf("a second broker started on port %d", port)
	}
	broker.Close()
	again, err := kafka.StartEmbedded(port)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Address() != broker.Address() {
		t.Errorf("got the address %s, want %s", again.Address(), broker.Address())
	}
}

func TestCreateTopics(t *testing.T) {
	broker, client := embedded(t)
	want := map[string]int32{"one": 1, "four": 4}
	if err := broker.CreateTopics(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "one"}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	// Those that exist stay as they are, whatever number is asked for.
	if err := broker.CreateTopics(t.Context(), map[string]int32{"one": 3, "two": 2}); err != nil {
		t.Fatal(err)
	}
	want["two"], want["t"] = 2, 1

	admin := kadm.NewClient(client)
	topics, err := admin.ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for topic, n := range want {
		if got := len(topics[topic].Partitions); got != int(n) {
			t.Errorf("%s: got %d partitions, want %d", topic, got, n)
		}
	}
	if len(topics) != len(want) {
		t.Errorf("got the topics %v, want %v", topics.Names(), want)
	}
	ends, err := admin.ListEndOffsets(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	if end, _ := ends.Lookup("one", 0); end.Offset != 1 {
		t.Errorf("got the end offset %d of a topic with one record", end.Offset)
	}
	if err := broker.CreateTopics(t.Context(), map[string]int32{"none": 0}); err == nil || !strings.Contains(err.Error(), "create topic none") {
		t.Errorf("got %v, want an error that names the topic", err)
	}
}

func TestEmbeddedForgetsOldRecords(t *testing.T) {
	const total = 256 << 20
	broker, client := embedded(t)
	value := bytes.Repeat([]byte("x"), 512<<10)
	before := heap()
	for range total / len(value) {
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Value: value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	// 16 MiB, a segment of 4 MiB, and the slack of the buffers they lie in.
	const most = 64 << 20
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	held := heap() - before
	for ; held > most && ctx.Err() == nil; held = heap() - before {
		pause(ctx)
	}
	if held > most {
		t.Errorf("the broker holds %d MiB of %d, want at most %d", held>>20, total>>20, most>>20)
	}

	// What is left is the newest and can be read from its start.
	starts, err := kadm.NewClient(client).ListStartOffsets(ctx, "t")
	if err != nil {
		t.Fatal(err)
	}
	start, _ := starts.Lookup("t", 0)
	if kept := total/len(value) - int(start.Offset); kept < 8<<20/len(value) {
		t.Errorf("only %d records are left, want 16 MiB", kept)
	}
	reader, err := kgo.NewClient(kgo.SeedBrokers(broker.Address()), kgo.ConsumeTopics("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	fetches := reader.PollRecords(ctx, 1)
	if err := fetches.Err(); err != nil {
		t.Fatal(err)
	}
	if first := fetches.Records()[0]; first.Offset < start.Offset || !bytes.Equal(first.Value, value) {
		t.Errorf("got the offset %d with %d bytes, want %d or later with %d", first.Offset, len(first.Value), start.Offset, len(value))
	}
}

// heap is what is reachable, in bytes.
func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// pause waits a moment before a condition is looked at again.
func pause(ctx context.Context) {
	timer := time.NewTimer(50 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
