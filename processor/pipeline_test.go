package processor_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"seriatim/processor"
)

func TestOutputsKeepSourceOrder(t *testing.T) {
	const partitions, records = 4, 3000
	b := newBed(t, partitions, nil)
	for p := range int32(partitions) {
		b.produce("in", p, 0, records)
	}
	r := b.run(b.options(), processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rand.N(2 * time.Millisecond)):
		}
		return passOn(ctx, in, out)
	}))
	b.caughtUp(partitions)
	b.stop(r)
	for p := range int32(partitions) {
		b.inOrder(p, 0, records)
	}
}

// The transform is cheap, so that its records come in chunks; one in the middle of
// a chunk hangs.
func TestFinishedRecordsOfAChunkDoNotWaitForItsRest(t *testing.T) {
	const hanging = 5000
	b := newBed(t, 1, nil)
	b.produce("in", 0, 0, 10000)
	release := make(chan struct{})
	r := b.run(b.options(), processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
		if in.Offset == hanging {
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		return passOn(ctx, in, out)
	}))
	b.eventually("all before the hanging record is committed", func() bool { return b.committed(0) == hanging })
	status, err := r.Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if head := status.Partitions[0].Head; head == nil || head.Offset != hanging {
		t.Errorf("the head is %+v, want the record at offset %d", head, hanging)
	}
	close(release)
	b.caughtUp(1)
	b.stop(r)
	b.inOrder(0, 0, 10000)
}

// Every transaction ends with a control record; after an aborted one that is all
// there is to admit.
func TestCommittedReachesTheEndBehindTransactions(t *testing.T) {
	b := newBed(t, 1, nil)
	producer := b.newClient(kgo.TransactionalID("other"), kgo.DefaultProduceTopic("in"))
	sent := 0
	r := b.run(b.options(), processor.TransformFunc(passOn))
	for i := range 60 {
		if err := producer.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		value, how := strconv.Itoa(sent), kgo.TryCommit
		if i%3 == 2 {
			value, how = "aborted", kgo.TryAbort
		} else {
			sent++
		}
		if err := producer.ProduceSync(context.Background(), kgo.StringRecord(value)).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := producer.EndTransaction(context.Background(), how); err != nil {
			t.Fatal(err)
		}
	}
	b.caughtUp(1)
	b.stop(r)
	b.inOrder(0, 0, sent)
}

// When Run has returned nothing of the pipeline goes on.
func TestRunLeavesNothingBehind(t *testing.T) {
	for _, exactlyOnce := range []bool{false, true} {
		t.Run(fmt.Sprintf("exactly once %v", exactlyOnce), func(t *testing.T) {
			b := newBed(t, 2, nil)
			b.produceToAll(2, 0, 1000)
			before := goleak.IgnoreCurrent()
			opts := b.options()
			opts.ExactlyOnce = exactlyOnce
			r := b.run(opts, jittered(2*time.Millisecond))
			b.caughtUp(2)
			b.stop(r)
			// The broker's side of the connections ends a moment later, and is waited for. On a
			// connection of the test itself it begins to read anew after each request.
			goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("github.com/twmb/franz-go/pkg/kfake.(*clientConn).read.func1"))
		})
	}
}
