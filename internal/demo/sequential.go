package demo

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

// sequential is the loop that everybody writes first: take a record, transform
// it, emit the result, commit, take the next. It processes one partition.
type sequential struct {
	client    *kgo.Client // consumes the partition
	admin     *kadm.Client
	group     string
	transform processor.Transform
	output    string
}

// run processes until ctx ends, and closes the client.
func (s *sequential) run(ctx context.Context) {
	defer s.client.Close()
	for ctx.Err() == nil {
		fetches := s.client.PollFetches(ctx)
		for records := fetches.RecordIter(); !records.Done() && ctx.Err() == nil; {
			s.process(ctx, records.Next())
		}
	}
}

// process takes one record to its end: a failed attempt is repeated after a while,
// as Seriatim does it.
func (s *sequential) process(ctx context.Context, r *kgo.Record) {
	attempts := 0
	outputs, err := backoff.Retry(ctx, func() ([]*kgo.Record, error) {
		attempts++
		return processor.Call(ctx, s.transform, processor.Input{Record: r, Pipeline: s.group, Attempt: attempts})
	}, backoff.WithBackOff(&backoff.ExponentialBackOff{
		InitialInterval: 100 * time.Millisecond, RandomizationFactor: 1, Multiplier: 2, MaxInterval: 10 * time.Second,
	}), backoff.WithMaxElapsedTime(0))
	if err != nil {
		return // the demo ends
	}
	for _, out := range outputs {
		out.Topic, out.Partition = s.output, r.Partition
	}
	if s.client.ProduceSync(ctx, outputs...).FirstErr() != nil {
		return
	}
	var offsets kadm.Offsets
	offsets.AddOffset(r.Topic, r.Partition, r.Offset+1, r.LeaderEpoch)
	_, _ = s.admin.CommitOffsets(ctx, s.group, offsets) // for those who look at its lag
}
