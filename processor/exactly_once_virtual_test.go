//go:build synctests

package processor_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// mishaps are what a broker may answer to the requests of a transaction.
// REQUEST_TIMED_OUT is an answer that got lost: what was asked has happened.
var mishaps = []struct {
	key    kmsg.Key
	errors []*kerr.Error
}{
	{kmsg.Produce, []*kerr.Error{kerr.TopicAuthorizationFailed, kerr.NotEnoughReplicas, kerr.RequestTimedOut, kerr.OutOfOrderSequenceNumber, kerr.InvalidProducerEpoch}},
	{kmsg.TxnOffsetCommit, []*kerr.Error{kerr.ConcurrentTransactions, kerr.RebalanceInProgress, kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.CoordinatorLoadInProgress, kerr.UnknownServerError, kerr.RequestTimedOut}},
	{kmsg.EndTxn, []*kerr.Error{kerr.RequestTimedOut, kerr.UnknownServerError, kerr.TransactionAbortable, kerr.NotCoordinator, kerr.ConcurrentTransactions}},
	{kmsg.InitProducerID, []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.ConcurrentTransactions, kerr.RequestTimedOut}},
}

// mishap has the broker answer one kind of request badly once or a few times.
func (c *churn) mishap() { c.mishapOf("out") }

// mishapOf is mishap with outputs to a certain topic.
func (c *churn) mishapOf(topic string) {
	m := mishaps[c.rng.IntN(len(mishaps))]
	f := kfake.Fault{Keys: []kmsg.Key{m.key}, Err: m.errors[c.rng.IntN(len(m.errors))], Count: 1 + c.rng.IntN(3)}
	switch m.key {
	case kmsg.Produce:
		f.Topic = topic
	case kmsg.InitProducerID:
		f.When = func(r kmsg.Request) bool { return r.(*kmsg.InitProducerIDRequest).TransactionalID != nil }
	}
	c.b.cluster.Fault(f)
}

// Whoever joins, leaves, is thrown out or gets bad answers: readers of committed
// records see every output once, in order.
func TestExactlyOnceUnderChurn(t *testing.T) {
	plans(t, 20, func(t *testing.T, rng *rand.Rand) {
		partitions := 1 + rng.Int32N(4)
		virtual(t, partitions, func(b *bed) {
			c := newChurn(b, rng, partitions)
			c.exactlyOnce = true
			c.drain = time.Duration(1+rng.IntN(10)) * time.Second
			c.transform = jitter(rng.Uint64(), time.Duration(1+rng.IntN(2000))*time.Millisecond)
			for range 15 {
				err := c.turn(func() {
					if rng.IntN(3) == 0 {
						c.kick()
					} else {
						c.mishap()
					}
				})
				if err != nil && !errors.Is(err, processor.ErrDrainDeadline) {
					b.t.Errorf("a member that left returned %v", err)
				}
				c.pause(3 * time.Second)
			}
			if err := c.finish(); err != nil && !errors.Is(err, processor.ErrDrainDeadline) {
				b.t.Errorf("members returned %v", err)
			}
			for p := range partitions {
				b.inOrder(p, 0, c.produced[p])
			}
		})
	})
}

// Of a transaction that is being ended the broker acknowledges nothing while the
// group takes the partition away and gives it back. Its offsets, sent afterwards,
// must not pass for those of the new tenure.
func TestTransactionOfALostTenureIsNotCommittedByTheNext(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		const records = 300
		var held atomic.Bool
		b.cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			if held.Load() && r.(*kmsg.ProduceRequest).TransactionID != nil {
				b.holdWhile(&held)
			}
			return nil, nil, false
		})
		c := newChurn(b, rand.New(rand.NewPCG(1, 1)), 1)
		c.exactlyOnce, c.serverSide, c.transform = true, false, processor.TransformFunc(passOn)
		c.drain = time.Second
		c.join()
		b.produce("in", 0, 0, 100)
		b.caughtUp(1)
		held.Store(true)
		b.produce("in", 0, 100, records)
		<-time.After(time.Second)
		c.kick()
		<-time.After(5 * time.Second)
		held.Store(false)
		c.produced[0] = records
		if err := c.finish(); err != nil {
			b.t.Errorf("the member returned %v", err)
		}
		b.inOrder(0, 0, records)
	})
}

// A truncation is found while a transaction is being ended. What that commits is not read again, but
// for what stands in the place of what is gone.
func TestTruncationWhileATransactionEnds(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		var held atomic.Bool
		b.cluster.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			if held.Load() {
				b.holdWhile(&held)
			}
			return nil, nil, false
		})
		opts := b.exactlyOnce()
		opts.Source.OnDataLoss = processor.LossEarliest
		b.produce("in", 0, 0, 100)
		r := b.run(opts, processor.TransformFunc(passOn))
		b.caughtUp(1)
		held.Store(true)
		b.produce("in", 0, 100, 200)
		b.eventually("all is emitted", func() bool { return b.first(r).Emitted == 200 })
		<-time.After(time.Second)
		b.truncateAt(150)
		<-time.After(3 * time.Second)
		held.Store(false)
		b.eventually("the rest is read again and committed", func() bool {
			p := b.first(r)
			return p.GapOffsets["truncated"] == 50 && p.CommittedOffset == 200
		})
		b.stop(r)
		b.outputsAre(0, 200, 150, 200)
	})
}

// A transaction ends before its time when nearly all that a full window holds is emitted, and
// not much earlier: slots are freed by the commit, and each end has its price.
func TestFullWindowEndsTheTransaction(t *testing.T) {
	const records, window = 2000, 100
	virtual(t, 1, func(b *bed) {
		opts := b.exactlyOnce()
		opts.Commit.Transaction, opts.Window.Records = 5*time.Second, window
		b.produce("in", 0, 0, records)
		began := time.Now()
		r := b.run(opts, jittered(2*time.Millisecond))
		b.caughtUp(1)
		if took := time.Since(began); took > 15*time.Second {
			b.t.Errorf("it took %v: full windows waited for the time of their transactions", took)
		}
		if n := b.status(r).Transactions["committed"]; n > records/window*3/2 {
			b.t.Errorf("%d transactions for %d windows", n, records/window)
		}
		b.stop(r)
		b.inOrder(0, 0, records)
	})
}

// slowAnswers has the client take its time for each output that it gives up.
type slowAnswers struct{}

func (slowAnswers) OnProduceRecordUnbuffered(_ *kgo.Record, err error) {
	if err != nil {
		<-time.After(100 * time.Millisecond)
	}
}

// A producer that is given up answers for its outputs after it was closed, as the race
// detector sees: not while the next one has them already.
func TestAnswersOfAProducerThatIsGivenUp(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		const records = 50
		var silent atomic.Bool
		b.cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			if r.(*kmsg.ProduceRequest).TransactionID != nil && silent.Load() {
				b.holdWhile(&silent)
			}
			return nil, nil, false
		})
		opts := b.exactlyOnce()
		opts.Client = append(slices.Clone(opts.Client), kgo.WithHooks(slowAnswers{}))
		r := b.run(opts, processor.TransformFunc(passOn))
		b.produce("in", 0, 0, 10)
		b.caughtUp(1)
		silent.Store(true)
		b.produce("in", 0, 10, records)
		b.eventually("the transaction is given up", func() bool { return b.status(r).Transactions["aborted"] > 0 })
		silent.Store(false)
		b.caughtUp(1)
		b.stop(r)
		b.inOrder(0, 0, records)
	})
}
