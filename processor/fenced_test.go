//go:build synctests

package processor_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// A request of a dead predecessor that arrives late takes its static membership away from a
// process that has just started (seen with a coordinator that moved while an instance was
// killed and started again). It joins anew. Taken away again soon, it is used by another process.
func TestStaticMemberIsFenced(t *testing.T) {
	for _, exactlyOnce := range []bool{false, true} {
		for _, key := range []kmsg.Key{kmsg.SyncGroup, kmsg.Heartbeat} {
			t.Run(key.Name(), func(t *testing.T) {
				virtual(t, 2, func(b *bed) {
					opts := b.options()
					opts.Source.Static = true
					opts.ExactlyOnce = exactlyOnce
					fence := func() {
						b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: kerr.FencedInstanceID, Count: 1})
					}
					if key == kmsg.SyncGroup {
						fence()
					}
					r := b.run(opts, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
						<-time.After(time.Duration(in.Offset%7) * time.Millisecond)
						return passOn(ctx, in, out)
					}))
					b.produceToAll(2, 0, 50)
					b.caughtUp(2)
					var before processor.Status
					if key == kmsg.Heartbeat {
						<-time.After(time.Minute)
						before = b.status(r)
						fence()
						<-time.After(30 * time.Second)
					}
					b.produceToAll(2, 50, 100)
					b.caughtUp(2)
					for p := range int32(2) {
						b.firstInOrder(p, 100)
					}
					s := b.status(r)
					if s.State != "running" || len(s.Partitions) != 2 {
						b.t.Errorf("the state is %s with %d partitions", s.State, len(s.Partitions))
					}
					if s.Commits["ok"] <= before.Commits["ok"] || exactlyOnce && s.Transactions["committed"] <= before.Transactions["committed"] {
						b.t.Errorf("commits are %v and transactions %v, and were %v and %v", s.Commits, s.Transactions, before.Commits, before.Transactions)
					}
					if key == kmsg.SyncGroup {
						return
					}

					fence()
					var fenced *processor.FencedError
					if err := <-r.done; !errors.As(err, &fenced) {
						b.t.Errorf("fenced twice in a minute: Run returned %v, want a FencedError", err)
					}
					r.done <- nil // for the end of the test
				})
			})
		}
	}
}

// Two processes with one name take their transactional ids from each other with every tick,
// although nothing is emitted. One of them ends, and the other goes on.
func TestTwinsThatOnlyTick(t *testing.T) {
	for _, interval := range []time.Duration{5 * time.Second, 2 * time.Minute} {
		t.Run(interval.String(), func(t *testing.T) {
			virtual(t, 2, func(b *bed) {
				opts := b.options()
				opts.ExactlyOnce = true
				opts.Commit.Interval = interval
				one := b.run(opts, processor.TransformFunc(passOn))
				<-time.After(2 * time.Minute)
				two := b.run(opts, processor.TransformFunc(passOn))
				var fenced *processor.FencedError
				left := two
				select {
				case err := <-one.done:
					if !errors.As(err, &fenced) {
						b.t.Errorf("Run returned %v, want a FencedError", err)
					}
					one.done <- nil // for the end of the test
				case err := <-two.done:
					if !errors.As(err, &fenced) {
						b.t.Errorf("Run returned %v, want a FencedError", err)
					}
					left = one
					two.done <- nil
				case <-time.After(4 * interval):
					b.t.Errorf("after %v both run", 4*interval)
				}
				<-time.After(4 * interval)
				b.produceToAll(2, 0, 10)
				b.caughtUp(2)
				b.stop(left)
			})
		})
	}
}

// Requests for the transactional id that were given up without an answer are carried out one
// after the other later. Nobody else uses the id.
func TestOwnLateRequestIsNoTwin(t *testing.T) {
	const records = 120
	virtual(t, 1, func(b *bed) {
		var asked atomic.Int32
		b.cluster.ControlKey(int16(kmsg.InitProducerID), func(r kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			if r.(*kmsg.InitProducerIDRequest).TransactionalID != nil && asked.Add(1) <= 2 {
				b.cluster.SleepControl(func() { <-time.After(40 * time.Second) })
			}
			return nil, nil, false
		})
		opts := b.options()
		opts.ExactlyOnce = true
		r := b.run(opts, processor.TransformFunc(passOn))
		for i := range records {
			b.produce("in", 0, i, i+1)
			<-time.After(time.Second)
		}
		b.caughtUp(1)
		b.stop(r)
		b.inOrder(0, 0, records)
		if asked.Load() < 8 { // two ids each: given up twice, taken, taken again after two late requests
			b.t.Errorf("ids were asked for %d times, want 8 or more", asked.Load())
		}
	})
}
