//go:build synctests

package processor_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// A commit without outputs is given up, because the broker does not answer, and
// carried out after the next transaction: the group must not go back.
func TestLateCommitDoesNotPutTheGroupBack(t *testing.T) {
	const late = 40 * time.Second // more than a client waits
	virtual(t, 1, func(b *bed) {
		opts := b.options()
		opts.ExactlyOnce = true
		opts.Commit.Interval = time.Second
		b.produce("in", 0, 0, 10)
		r := b.run(opts, processor.TransformFunc(passOn))
		b.caughtUp(1)
		b.eventually("ten are committed", func() bool { return b.committed(0) == 10 })
		<-time.After(2 * time.Second) // no transaction with outputs is under way

		var held atomic.Bool
		hold := func(r kmsg.Request) (kmsg.Response, error, bool) {
			txn, ok := r.(*kmsg.TxnOffsetCommitRequest)
			withOutputs := ok && !strings.HasSuffix(txn.TransactionalID, "/offsets")
			if !withOutputs && held.CompareAndSwap(false, true) {
				b.cluster.SleepControl(func() { <-time.After(late) })
			}
			return nil, nil, false
		}
		b.cluster.ControlKey(int16(kmsg.OffsetCommit), hold)
		b.cluster.ControlKey(int16(kmsg.TxnOffsetCommit), hold)
		b.eventually("a commit is held up", held.Load)
		b.produce("in", 0, 10, 20)
		most, first := int64(0), time.Time{}
		for began := time.Now(); time.Since(began) < 2*late; {
			<-time.After(50 * time.Millisecond)
			at := b.committed(0)
			if at < most {
				b.t.Errorf("after %v the group is back at %d from %d", time.Since(began), at, most)
				break
			}
			if most = at; at == 20 && first.IsZero() {
				first = time.Now()
				b.t.Logf("at 20 after %v", time.Since(began))
			}
		}
		if first.IsZero() {
			b.t.Errorf("the group is at %d, want 20", most)
		}
		b.stop(r)
		b.inOrder(0, 0, 20)
	})
}

// What was told about commits is over when a transaction has committed, although none
// without outputs follows for as long as outputs do.
func TestTransactionEndsTheProblemOfCommits(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		var refuse atomic.Bool
		b.cluster.ControlKey(int16(kmsg.TxnOffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			return nil, nil, refuse.Load() // without an answer
		})
		b.cluster.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			b.cluster.SleepControl(func() { <-time.After(20 * time.Millisecond) }) // while results wait
			return nil, nil, false
		})
		opts := b.options()
		opts.ExactlyOnce = true
		r := b.run(opts, processor.TransformFunc(passOn))
		b.eventually("a tick is committed", func() bool { return b.committed(0) == 0 })
		refuse.Store(true)
		b.eventually("commits are a problem", func() bool { return strings.Contains(b.problem(r, "test"), "commits are refused") })
		refuse.Store(false)
		const records = 2000
		for i := range records {
			b.produce("in", 0, i, i+1)
			<-time.After(5 * time.Millisecond)
		}
		if reason := b.problem(r, "test"); reason != "" {
			b.t.Errorf("after %d outputs the problem is %q, want none", records, reason)
		}
		b.caughtUp(1)
		b.stop(r)
		b.inOrder(0, 0, records)
	})
}
