package demo

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// interval is the time between two records of one partition.
const interval = 250 * time.Millisecond

// partitions is how many every topic has.
const partitions = 4

// A feed is the input: every interval one record for each partition of its
// topics, the partitions taking turns.
type feed struct {
	client *kgo.Client
	topics []string
	// record returns the n-th record of a partition, counted from 0.
	record func(partition int32, n int64) *kgo.Record

	mu   sync.Mutex
	sent map[int32]int64 // acknowledged records of the first topic, by partition
}

// newFeed returns a feed. Its client must not be used by others.
func newFeed(client []kgo.Opt, topics []string, record func(partition int32, n int64) *kgo.Record) (*feed, error) {
	c, err := kgo.NewClient(append(client, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		return nil, err
	}
	return &feed{client: c, topics: topics, record: record, sent: make(map[int32]int64)}, nil
}

// run feeds until ctx ends. What was begun then is finished, and the client closed.
func (f *feed) run(ctx context.Context) {
	defer f.client.Close()
	var lanes sync.WaitGroup
	for i, topic := range f.topics {
		for p := range int32(partitions) {
			lanes.Go(func() { f.lane(ctx, topic, p, i == 0) })
		}
	}
	lanes.Wait()
}

// lane feeds one partition.
func (f *feed) lane(ctx context.Context, topic string, partition int32, count bool) {
	turn := time.NewTimer(interval * time.Duration(partition) / partitions)
	defer turn.Stop()
	select {
	case <-turn.C:
	case <-ctx.Done():
		return
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for n := int64(0); ctx.Err() == nil; {
		r := f.record(partition, n)
		r.Topic, r.Partition = topic, partition
		// A record that was begun is finished, so that what was sent is known.
		if f.client.ProduceSync(context.WithoutCancel(ctx), r).FirstErr() == nil {
			n++
			if count {
				f.mu.Lock()
				f.sent[partition] = n
				f.mu.Unlock()
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// counts returns how many records each partition of the first topic was sent.
func (f *feed) counts() (sent map[int32]int64, total int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sent = make(map[int32]int64, len(f.sent))
	for p, n := range f.sent {
		sent[p] = n
		total += int(n)
	}
	return sent, total
}
