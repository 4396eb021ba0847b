//go:build synctests

package processor_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A revoke waits for the commit that is in flight, then commits once more, and
// nothing that its owner commits later names the partition.
func TestRevokeWaitsForTheCommitInFlight(t *testing.T) {
	const slow = 3 * time.Second
	virtual(t, 2, func(b *bed) {
		commits := b.watchCommits()
		var joining, armed atomic.Bool
		slept := make(chan time.Time, 1)
		b.cluster.ControlKey(int16(kmsg.SyncGroup), func(kmsg.Request) (kmsg.Response, error, bool) {
			armed.Store(joining.Load()) // the answer tells the old owner what to give away
			return nil, nil, false
		})
		b.cluster.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
			if armed.Load() {
				b.cluster.DropControl()
				slept <- time.Now()
				b.cluster.SleepControl(func() { <-time.After(slow) })
			}
			return nil, nil, false
		})

		opts := b.options()
		open := make(chan struct{})
		old := b.run(opts, gate(5, open))
		b.produceToAll(2, 0, 10)
		b.eventually("the outputs before the stuck records are committed", func() bool { return b.committed(0) == 5 && b.committed(1) == 5 })
		joining.Store(true)
		opts.Instance = "two"
		heir := b.run(opts, gate(5, open))
		began := <-slept
		during := len(commits.all()) - 1 // the slow one
		owner := commits.all()[during].member
		<-time.After(time.Second)
		close(open)
		b.caughtUp(2)
		b.eventually("the heir has its partition", func() bool { return len(b.status(heir).Partitions) == 1 })
		<-time.After(10 * time.Second)
		moved := b.status(heir).Partitions[0].Partition

		last, first := -1, -1 // of the old owner, and of the heir, that name the partition
		final := 0
		for i, s := range commits.all() {
			if _, named := s.offsets[moved]; !named || i <= during {
				continue
			}
			if s.member == owner {
				last = i
				final++
				if s.offsets[moved] != 10 {
					b.t.Errorf("the last commit is at %d, want 10", s.offsets[moved])
				}
				if waited := s.at.Sub(began); waited < slow {
					b.t.Errorf("it came %v after the slow commit began, want at least %v", waited, slow)
				}
			} else if first < 0 {
				first = i
			}
		}
		if final != 1 || first < last {
			b.t.Errorf("the old owner committed the partition %d times after the slow commit, the last time as number %d; the heir first as number %d; want once, before the heir",
				final, last, first)
		}
		for _, r := range []*running{old, heir} {
			b.stop(r)
		}
		for p := range int32(2) {
			b.inOrder(p, 0, 10)
		}
		commits.holds(b, 2)
	})
}

// A member that was thrown out commits nothing more, and does not wait for the
// broker's answer to a commit in flight.
func TestLossCommitsNothing(t *testing.T) {
	virtual(t, 1, func(b *bed) {
		commits := b.watchCommits()
		var armed, behind atomic.Bool
		lost := make(chan time.Time, 1)
		// Answers of one connection come in order: the commit waits behind the
		// heartbeat, and is slow after it.
		b.cluster.ControlKey(int16(kmsg.Heartbeat), func(r kmsg.Request) (kmsg.Response, error, bool) {
			if !armed.Load() {
				return nil, nil, false
			}
			behind.Store(true)
			b.cluster.SleepControl(func() { <-time.After(time.Second) })
			resp := r.ResponseKind().(*kmsg.HeartbeatResponse)
			resp.ErrorCode = kerr.UnknownMemberID.Code
			lost <- time.Now()
			return resp, nil, true
		})
		b.cluster.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
			if behind.Load() {
				b.cluster.DropControl()
				b.cluster.SleepControl(func() { <-time.After(5 * time.Second) })
			}
			return nil, nil, false
		})
		open := make(chan struct{})
		r := b.run(b.options(), gate(5, open))
		b.produce("in", 0, 0, 10)
		b.eventually("the outputs before the stuck record are committed", func() bool { return b.committed(0) == 5 })
		old := commits.all()[0]
		armed.Store(true)
		at := <-lost
		b.eventually("the partition is assigned anew", func() bool {
			s := b.status(r)
			return s.Rebalances == 3 && len(s.Partitions) == 1
		})
		if waited := time.Since(at); waited > 2*time.Second {
			b.t.Errorf("the partition came back %v after it was lost: the loss waited for the commit", waited)
		}
		close(open)
		b.caughtUp(1)
		b.stop(r)
		after := 0
		for _, s := range commits.all() {
			if s.member == old.member && s.generation == old.generation && s.at.After(at) {
				after++
			}
		}
		if after > 1 {
			b.t.Errorf("%d commits of the member came after it was lost, want at most the one in flight", after)
		}
		b.firstInOrder(0, 10)
		commits.holds(b, 1)
	})
}
