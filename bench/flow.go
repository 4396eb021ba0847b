package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A flow is records that arrive when they arrive, whatever becomes of those before them.
// Record i goes to partition i modulo partitions.
type flow struct {
	in, out    string
	partitions int
	at         []time.Duration // when each arrives, since the begin
	takes      []time.Duration // how long its transform takes; nil is no time
	again      bool            // outputs may be repeated, as after a crash
}

// randomly is when n records arrive that know nothing of each other, so many a second.
func randomly(n int, rate float64) []time.Duration {
	random := rand.New(rand.NewPCG(1, 2))
	at := make([]time.Duration, n)
	var now float64
	for i := range at {
		now += random.ExpFloat64() / rate
		at[i] = time.Duration(now * float64(time.Second))
	}
	return at
}

// steadily is when n records arrive at equal distances.
func steadily(n int, rate float64) []time.Duration {
	at := make([]time.Duration, n)
	for i := range at {
		at[i] = time.Duration(float64(i) / rate * float64(time.Second))
	}
	return at
}

// lognormally is how long the transforms of n records take.
func lognormally(n int, mean time.Duration, sigma float64) []time.Duration {
	random := rand.New(rand.NewPCG(3, 4))
	takes := make([]time.Duration, n)
	for i := range takes {
		takes[i] = draw(random, mean, sigma)
	}
	return takes
}

// draw returns a log-normal time with that mean; sigma is the standard deviation of its logarithm.
func draw(random *rand.Rand, mean time.Duration, sigma float64) time.Duration {
	mu := math.Log(float64(mean)) - sigma*sigma/2
	return time.Duration(math.Exp(mu + sigma*random.NormFloat64()))
}

// A passage is when the records of a flow came and went, since its begin. What was not
// seen is 0.
type passage struct {
	begin         time.Time
	arrived, seen []time.Duration
	repeated      int // outputs
}

// run sends the records, and returns when all have been read from the output, in
// order. Once all that will be sent has been, it waits a minute at most.
func (f flow) run(ctx context.Context, b *bed) (passage, error) {
	n := len(f.at)
	p := passage{arrived: make([]time.Duration, n), seen: make([]time.Duration, n)}
	start := make(map[int32]kgo.Offset)
	for partition := range int32(f.partitions) {
		start[partition] = kgo.NewOffset().AtStart()
	}
	reader, err := b.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{f.out: start}))
	if err != nil {
		return p, err
	}
	defer reader.Close()
	writer, err := b.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(f.in), kgo.ProducerLinger(0))
	if err != nil {
		return p, err
	}
	defer writer.Close()
	ctx, cancel := context.WithTimeout(ctx, f.at[n-1]+time.Minute)
	defer cancel()

	p.begin = time.Now()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		f.send(ctx, writer, p)
	}()
	defer func() { <-sent }()
	defer cancel()
	next := make([]int, f.partitions)
	for left := n; left > 0; {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return p, fmt.Errorf("%d of %d records have not come out: %w", left, n, err)
		}
		now := time.Since(p.begin)
		for records := fetches.RecordIter(); !records.Done(); {
			r := records.Next()
			place := int(binary.BigEndian.Uint64(r.Value))
			if f.again && place < next[r.Partition] {
				p.repeated++
				continue
			}
			if place != next[r.Partition] {
				return p, fmt.Errorf("partition %d: record %d came where %d was due", r.Partition, place, next[r.Partition])
			}
			next[r.Partition]++
			p.seen[place*f.partitions+int(r.Partition)] = now
			left--
		}
	}
	return p, nil
}

// send sends the records when they are due.
func (f flow) send(ctx context.Context, writer *kgo.Client, p passage) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i, at := range f.at {
		if wait := at - time.Since(p.begin); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
		}
		v := value(int64(i/f.partitions), 100)
		if f.takes != nil {
			binary.BigEndian.PutUint64(v[8:], uint64(f.takes[i]))
		} else {
			clear(v[8:16])
		}
		p.arrived[i] = time.Since(p.begin)
		writer.Produce(ctx, &kgo.Record{Partition: int32(i % f.partitions), Value: v}, nil) // what is missing is seen
	}
}

// optimum is when each record would leave at the earliest: so many workers take the records
// as they arrive, each goes as soon as it and those before it in its partition are done.
func (f flow) optimum(arrived []time.Duration, workers int) []time.Duration {
	free := make([]time.Duration, workers) // when each worker is
	released := make([]time.Duration, f.partitions)
	leaves := make([]time.Duration, len(arrived))
	for i, at := range arrived {
		first := 0
		for w := range free {
			if free[w] < free[first] {
				first = w
			}
		}
		done := max(at, free[first])
		if f.takes != nil {
			done += f.takes[i]
		}
		free[first] = done
		lane := &released[i%f.partitions]
		*lane = max(*lane, done)
		leaves[i] = *lane
	}
	return leaves
}
