//go:build synctests

package processor_test

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// lateJoin holds the second join of the first member up until goOn is closed, and tells when.
func (b *bed) lateJoin(goOn <-chan struct{}) *atomic.Bool {
	var id atomic.Value // of the first member
	held := new(atomic.Bool)
	b.cluster.ControlKey(int16(kmsg.JoinGroup), func(r kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		as := r.(*kmsg.JoinGroupRequest).MemberID
		if as != "" && !id.CompareAndSwap(nil, as) && id.Load() == as && held.CompareAndSwap(false, true) {
			b.cluster.SleepControl(func() { <-goOn })
		}
		return nil, nil, false
	})
	return held
}

// A member is late in joining, the group goes on without it, and the client joins again
// under another id without a word of partitions that were lost. What the member still has
// of them must not be committed in its new name: somebody else has had them, and has them
// still, or has left, so that the client never gives them up.
func TestMemberThatJoinsTooLate(t *testing.T) {
	for _, c := range []struct {
		name                string
		exactlyOnce, leaves bool
	}{
		{"exactly once", true, false},
		{"exactly once, and the other has left", true, true},
		{"at least once", false, false},
		{"at least once, and the other has left", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			virtual(t, 2, func(b *bed) {
				goOn := make(chan struct{})
				held := b.lateJoin(goOn)
				opts := b.options()
				opts.ExactlyOnce = c.exactlyOnce
				opts.Source.RebalanceTimeout = 5 * time.Second
				opts.Window.Records = 8
				transform := jittered(time.Second)
				first := b.run(opts, transform)
				b.produceToAll(2, 0, 20)
				b.caughtUp(2)
				done := b.neverBack(2)
				b.produceToAll(2, 20, 400)

				opts.Instance = "two"
				second := b.run(opts, transform)
				b.eventually("the join is held up", held.Load)
				b.eventually("the second has all", func() bool { return len(b.status(second).Partitions) == 2 })
				at := b.committed(0)
				b.eventually("the second has gone on", func() bool { return b.committed(0) > at+20 })
				if c.leaves {
					b.stop(second)
				}
				close(goOn)
				if !c.leaves {
					b.eventually("each has one", func() bool {
						return len(b.status(first).Partitions) == 1 && len(b.status(second).Partitions) == 1
					})
				}
				b.caughtUp(2)
				done()
				b.stop(first)
				if !c.leaves {
					b.stop(second)
				}
				if c.exactlyOnce {
					b.inOrder(0, 0, 400)
					b.inOrder(1, 0, 400)
				}
			})
		})
	}
}

// The offsets of partitions are being fetched when the group goes on without us. When we are back
// one of them is refused once: the client leaves it out, and would not fetch it again.
func TestMemberThatJoinsTooLateAndIsRefusedAnOffset(t *testing.T) {
	virtual(t, 2, func(b *bed) {
		goOn := make(chan struct{})
		held := b.lateJoin(goOn)
		refuse := func(err *kerr.Error, times int) *kfake.FaultHandle {
			return b.cluster.Fault(kfake.Fault{
				Keys: []kmsg.Key{kmsg.OffsetFetch}, Topic: "in", Partitions: []int32{1}, Err: err, Count: times,
				When: func(r kmsg.Request) bool { return r.(*kmsg.OffsetFetchRequest).Groups[0].MemberID != nil }, // the client's own
			})
		}
		pending := refuse(kerr.UnstableOffsetCommit, -1)
		opts := b.options()
		opts.Source.RebalanceTimeout = 5 * time.Second
		first := b.run(opts, processor.TransformFunc(passOn))
		b.eventually("the offsets are fetched", func() bool { return pending.Hits() > 0 })
		opts.Instance = "two"
		second := b.run(opts, processor.TransformFunc(passOn))
		b.eventually("the join is held up", held.Load)
		pending.Remove()
		b.eventually("the second has all", func() bool { return len(b.status(second).Partitions) == 2 })
		b.stop(second)
		refused := refuse(kerr.TopicAuthorizationFailed, 1)
		close(goOn)
		b.eventually("an offset is refused", func() bool { return refused.Hits() > 0 })
		b.produceToAll(2, 0, 20)
		b.caughtUp(2)
		b.stop(first)
		for p := range int32(2) {
			b.inOrder(p, 0, 20)
		}
	})
}

// The group rebalances again before a member that was late has its assignment. It joins once more, and
// must not claim partitions in the generation in which the other has them: of two that
// claim one it is given it at once, while the other drains it.
func TestMemberThatJoinsTooLateClaimsNothing(t *testing.T) {
	virtual(t, 5, func(b *bed) {
		const records = 200
		var late, again, other atomic.Bool
		goOn := make(chan struct{})
		until := func(cond *atomic.Bool) {
			for !cond.Load() {
				<-time.After(10 * time.Millisecond)
			}
		}
		b.cluster.ControlKey(int16(kmsg.JoinGroup), func(r kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			switch who := r.(*kmsg.JoinGroupRequest); {
			case strings.HasPrefix(who.MemberID, "b"):
				other.Store(again.Load())
			case len(who.MemberID) > 0 && strings.Contains(*who.Reason, "normal rebalance") && late.CompareAndSwap(false, true):
				b.cluster.SleepControl(func() { <-goOn })
			}
			return nil, nil, false
		})
		b.cluster.ControlKey(int16(kmsg.SyncGroup), func(r kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			if strings.HasPrefix(r.(*kmsg.SyncGroupRequest).MemberID, "a") && late.Load() && again.CompareAndSwap(false, true) {
				b.cluster.SleepControl(func() { until(&other) })
			}
			return nil, nil, false
		})
		opts := b.exactlyOnce()
		opts.Source.RebalanceTimeout = 5 * time.Second
		opts.Window.Records = 8
		start := func(name string) *running {
			opts.Instance = name
			opts.Client = append(slices.Clone(b.client), kgo.ClientID(name)) // the leader sees them in this order
			return b.run(opts, jittered(time.Second))
		}
		b.produceToAll(5, 0, 20)
		first := start("a")
		b.caughtUp(5)
		b.produceToAll(5, 20, records)
		second := start("b")
		b.eventually("the second has all", func() bool { return len(b.status(second).Partitions) == 5 })
		close(goOn)
		b.eventually("the second has joined again", other.Load)
		b.eventually("each has some", func() bool {
			return min(len(b.status(first).Partitions), len(b.status(second).Partitions)) == 2
		})
		b.caughtUp(5)
		b.stop(first)
		b.stop(second)
		for p := range int32(5) {
			b.inOrder(p, 0, records)
		}
	})
}
