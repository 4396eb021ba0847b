package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	updates = 100_000 // records whose offsets are committed
	sampled = 5_000   // of which the slow ways measure so many
)

var commits = []trial{{name: "commits of 100,000 records", times: 7, quick: true, bars: true, run: compareCommits}}

// A tally is a hook that counts the requests of some kinds and how long the broker took.
type tally struct {
	keys map[int16]bool

	mu       sync.Mutex
	requests int
	took     time.Duration
	bytes    int // of all requests
}

func tallyOf(requests ...kmsg.Request) *tally {
	t := &tally{keys: make(map[int16]bool)}
	for _, r := range requests {
		t.keys[r.Key()] = true
	}
	return t
}

var _ kgo.HookBrokerE2E = new(tally)

// OnBrokerE2E counts a request that was answered.
func (t *tally) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if !t.keys[key] {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests++
	t.took += e2e.DurationE2E()
	t.bytes += e2e.BytesWritten
}

// read returns what was counted since the last call.
func (t *tally) read() (requests int, took time.Duration, bytes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	requests, took, bytes = t.requests, t.took, t.bytes
	t.requests, t.took, t.bytes = 0, 0, 0
	return requests, took, bytes
}

// compareCommits compares what commits cost: the summed time of their requests.
func compareCommits(ctx context.Context, b *bed) ([]figure, error) {
	input := topic{partitions: 4, records: updates / 4, size: 100}
	var err error
	if input.name, err = b.input(ctx, input); err != nil {
		return nil, err
	}
	var figures []figure
	add := func(what string, requests int, took time.Duration) {
		figures = append(figures,
			figure{name: what, value: took.Seconds(), unit: "s"},
			figure{name: "... in requests", value: float64(requests)})
	}

	requests, each, err := b.commitEvery(ctx, input, 1, sampled)
	if err != nil {
		return nil, err
	}
	const times = updates / sampled
	each *= times
	add(fmt.Sprintf("one synchronous commit each (%d, times %d)", sampled, times), requests*times, each)

	requests, took, err := b.produceEach(ctx, sampled)
	if err != nil {
		return nil, err
	}
	add(fmt.Sprintf("one record each to a compacted topic (%d, times %d)", sampled, times), requests*times, took*times)

	if requests, took, err = b.commitEvery(ctx, input, 25, updates); err != nil {
		return nil, err
	}
	add("windows of 25 records", requests, took)

	for _, way := range []struct {
		name string
		job  job
		bar  float64
	}{
		{"at full speed", pass, 2000},
		{"at 25,600/s", job{Workers: 4 * workers, Window: window, Latency: 10 * time.Millisecond}, 0},
		{"exactly once at full speed, with the ends of transactions", onceOnly, 0},
	} {
		counted := tallyOf(new(kmsg.OffsetCommitRequest), new(kmsg.TxnOffsetCommitRequest), new(kmsg.EndTxnRequest))
		j := way.job
		j.Brokers, j.In, j.Records, j.hooks = b.brokers, input.name, updates, []kgo.Hook{counted}
		j.Out = fmt.Sprintf("out-%d", time.Now().UnixNano())
		j.Group = j.Out
		if err := b.create(ctx, j.Out, input.partitions); err != nil {
			return nil, err
		}
		if _, err := j.run(ctx); err != nil {
			return nil, err
		}
		if err := b.remove(ctx, j.Out); err != nil {
			return nil, err
		}
		requests, took, _ := counted.read()
		add("our committer, "+way.name, requests, took)
		figures = append(figures, figure{name: "... so many times less than one each", value: each.Seconds() / took.Seconds(), least: way.bar})
	}
	return figures, nil
}

// commitEvery consumes some records and commits, and waits for the answer, as often as so
// many have been read.
func (b *bed) commitEvery(ctx context.Context, input topic, every, records int) (requests int, took time.Duration, err error) {
	counted := tallyOf(new(kmsg.OffsetCommitRequest))
	client, err := b.client(
		kgo.WithHooks(counted),
		kgo.ConsumerGroup(fmt.Sprintf("group-%d", time.Now().UnixNano())),
		kgo.ConsumeTopics(input.name),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
	)
	if err != nil {
		return 0, 0, err
	}
	defer client.Close()
	for n := 0; n < records; {
		fetches := client.PollRecords(ctx, records-n)
		if err := fetches.Err(); err != nil {
			return 0, 0, err
		}
		for records := fetches.RecordIter(); !records.Done(); {
			r := records.Next()
			if n++; n%every == 0 {
				if err := client.CommitRecords(ctx, r); err != nil {
					return 0, 0, err
				}
			}
		}
	}
	requests, took, _ = counted.read()
	return requests, took, nil
}

// produceEach writes offsets into a compacted topic, one after the other.
func (b *bed) produceEach(ctx context.Context, records int) (requests int, took time.Duration, err error) {
	name := fmt.Sprintf("offsets-%d", time.Now().UnixNano())
	if _, err := b.admin.CreateTopic(ctx, 1, 1, map[string]*string{"cleanup.policy": kadm.StringPtr("compact")}, name); err != nil {
		return 0, 0, err
	}
	counted := tallyOf(new(kmsg.ProduceRequest))
	client, err := b.client(kgo.WithHooks(counted), kgo.DefaultProduceTopic(name), kgo.ProducerLinger(0))
	if err != nil {
		return 0, 0, err
	}
	defer client.Close()
	for i := range records {
		r := &kgo.Record{Key: []byte("in/0"), Value: value(int64(i), 8)}
		if err := client.ProduceSync(ctx, r).FirstErr(); err != nil {
			return 0, 0, err
		}
	}
	requests, took, _ = counted.read()
	return requests, took, b.remove(ctx, name)
}
