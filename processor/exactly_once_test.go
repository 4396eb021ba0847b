package processor_test

import (
	"context"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// exactlyOnce are options with short transactions.
func (b *bed) exactlyOnce() processor.Options {
	opts := b.options()
	opts.ExactlyOnce = true
	opts.Commit.Transaction = 20 * time.Millisecond
	return opts
}

func jittered(longest time.Duration) processor.Transform {
	return processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rand.N(longest)):
		}
		return passOn(ctx, in, out)
	})
}

func TestExactlyOnceKeepsSourceOrder(t *testing.T) {
	const partitions, records = 4, 3000
	b := newBed(t, partitions, nil)
	for p := range int32(partitions) {
		b.produce("in", p, 0, records)
	}
	r := b.run(b.exactlyOnce(), jittered(2*time.Millisecond))
	b.caughtUp(partitions)
	b.stop(r)
	for p := range int32(partitions) {
		b.inOrder(p, 0, records)
	}
}

// Whatever a broker answers, the outputs become visible once each, in order, and
// the offsets with them.
func TestExactlyOnceSurvivesFaults(t *testing.T) {
	tests := map[string]kfake.Fault{
		"produce refused":               {Keys: []kmsg.Key{kmsg.Produce}, Topic: "out", Err: kerr.TopicAuthorizationFailed, Count: 3},
		"produce not replicated":        {Keys: []kmsg.Key{kmsg.Produce}, Topic: "out", Err: kerr.NotEnoughReplicas, Count: 3},
		"produce answer lost":           {Keys: []kmsg.Key{kmsg.Produce}, Topic: "out", Err: kerr.RequestTimedOut, Count: 3},
		"produce out of sequence":       {Keys: []kmsg.Key{kmsg.Produce}, Topic: "out", Err: kerr.OutOfOrderSequenceNumber, Count: 2},
		"produce of an old epoch":       {Keys: []kmsg.Key{kmsg.Produce}, Topic: "out", Err: kerr.InvalidProducerEpoch},
		"offsets meet a transaction":    {Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.ConcurrentTransactions, Count: 5},
		"offsets meet a rebalance":      {Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.RebalanceInProgress, Count: 3},
		"offsets of an old generation":  {Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.IllegalGeneration, Count: 2},
		"offsets of an unknown member":  {Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.UnknownMemberID, Count: 2},
		"offsets refused":               {Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.GroupAuthorizationFailed, Count: 2},
		"offsets: coordinator loads":    {Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.CoordinatorLoadInProgress, Count: 3},
		"offsets: unknown error":        {Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.UnknownServerError, Count: 2},
		"end: answer lost":              {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.RequestTimedOut, Count: 2},
		"end: unknown error":            {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.UnknownServerError, Count: 2},
		"end: abortable":                {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.TransactionAbortable},
		"end: fenced":                   {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.ProducerFenced},
		"end: not the coordinator":      {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.NotCoordinator, Count: 2},
		"end: meets a transaction":      {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.ConcurrentTransactions, Count: 3},
		"init: coordinator loads":       {Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.CoordinatorLoadInProgress, Count: 2},
		"init: not allowed for a while": {Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.TransactionalIDAuthorizationFailed, Count: 2},
	}
	for name, fault := range maps.Clone(tests) {
		if fault.Topic == "" { // there are transactions without outputs, too
			fault.TxnID = "group-test-one/offsets"
			tests[name+", without outputs"] = fault
			fault.TxnID = "group-test-one"
			tests[name] = fault
		}
	}
	for name, fault := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const records = 600
			b := newBed(t, 2, nil)
			injected := b.cluster.Fault(fault)
			r := b.run(b.exactlyOnce(), jittered(2*time.Millisecond))
			for i := 0; i < records; i += 20 {
				b.produce("in", 0, i, i+20)
				b.produce("in", 1, i, i+20)
			}
			b.caughtUp(2)
			b.eventually("the fault was met", func() bool { return injected.Hits() > 0 })
			b.stop(r)
			for p := range int32(2) {
				b.inOrder(p, 0, records)
			}
		})
	}
}
