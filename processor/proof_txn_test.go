//go:build synctests

package processor_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// A commit that reaches the coordinator while a transaction with outputs is under
// way could make it forget the transaction's offsets. None does, however long the
// transaction takes to end; and none is a plain one, which could come late.
func TestNoCommitBesideATransaction(t *testing.T) {
	virtual(t, 2, func(b *bed) {
		var underWay atomic.Bool
		var ends, alone, beside, plain atomic.Int32
		b.cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			if r.(*kmsg.ProduceRequest).TransactionID != nil {
				underWay.Store(true)
				b.cluster.SleepControl(func() { <-time.After(time.Second) })
			}
			return nil, nil, false
		})
		b.cluster.ControlKey(int16(kmsg.EndTxn), func(r kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			if strings.HasSuffix(r.(*kmsg.EndTxnRequest).TransactionalID, "/offsets") {
				alone.Add(1)
			} else {
				underWay.Store(false)
				ends.Add(1)
			}
			return nil, nil, false
		})
		b.cluster.ControlKey(int16(kmsg.TxnOffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			if underWay.Load() && strings.HasSuffix(r.(*kmsg.TxnOffsetCommitRequest).TransactionalID, "/offsets") {
				beside.Add(1)
			}
			return nil, nil, false
		})
		b.cluster.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			plain.Add(1)
			return nil, nil, false
		})
		opts := b.options()
		opts.ExactlyOnce = true
		r := b.run(opts, processor.TransformFunc(passOn))
		for i := range 20 {
			b.produceToAll(2, i, i+1)
			<-time.After(700 * time.Millisecond)
		}
		b.caughtUp(2)
		b.stop(r)
		if ends.Load() < 5 || alone.Load() < 2 || beside.Load() > 0 {
			b.t.Errorf("of %d commits without outputs %d came beside %d transactions with, want none of 2 or more beside 5 or more",
				alone.Load(), beside.Load(), ends.Load())
		}
		if plain.Load() > 0 {
			b.t.Errorf("%d commits were not in a transaction, want none", plain.Load())
		}
		for p := range int32(2) {
			b.inOrder(p, 0, 20)
		}
	})
}

// The broker refuses an output when the end of its transaction is being prepared.
// The client would commit without it.
func TestRefusalDuringTheEndAborts(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		b.cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
			req := r.(*kmsg.ProduceRequest)
			if req.TransactionID == nil {
				return nil, nil, false
			}
			b.cluster.SleepControl(func() { <-time.After(time.Second) })
			resp := req.ResponseKind().(*kmsg.ProduceResponse)
			for _, topic := range req.Topics {
				refused := kmsg.NewProduceResponseTopic()
				refused.Topic, refused.TopicID = topic.Topic, topic.TopicID
				for _, p := range topic.Partitions {
					part := kmsg.NewProduceResponseTopicPartition()
					part.Partition, part.ErrorCode = p.Partition, kerr.TopicAuthorizationFailed.Code
					refused.Partitions = append(refused.Partitions, part)
				}
				resp.Topics = append(resp.Topics, refused)
			}
			return resp, nil, true
		})
		opts := b.options()
		opts.ExactlyOnce = true
		b.produce("in", 0, 0, 10)
		r := b.run(opts, processor.TransformFunc(passOn))
		b.caughtUp(1)
		if aborted := b.status(r).Transactions["aborted"]; aborted != 1 {
			b.t.Errorf("%d transactions were aborted, want 1", aborted)
		}
		b.stop(r)
		b.inOrder(0, 0, 10)
	})
}

// The answer to the end of a transaction gets lost with the connection, and with
// that of the next attempt the transaction is over. What it had is committed and
// must not be emitted again.
func TestLostAnswerToTheEnd(t *testing.T) {
	virtual(t, 2, func(b *bed) {
		opts := b.options()
		opts.ExactlyOnce = true
		connections := b.cuttable(&opts)
		var ends, cuts int
		b.cluster.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			if ends++; ends%4 == 0 {
				cuts++
				connections.cut()
				time.AfterFunc(100*time.Millisecond, connections.mend)
			}
			return nil, nil, false
		})
		r := b.run(opts, processor.TransformFunc(passOn))
		for i := range 40 {
			b.produceToAll(2, i, i+1)
			<-time.After(700 * time.Millisecond)
		}
		b.caughtUp(2)
		b.stop(r)
		if cuts < 3 {
			b.t.Errorf("%d answers were lost, want 3 or more", cuts)
		}
		for p := range int32(2) {
			b.inOrder(p, 0, 40)
		}
	})
}
