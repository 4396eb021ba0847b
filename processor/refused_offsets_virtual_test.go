//go:build synctests

package processor_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
)

// A partition of which the brokers do not tell the committed offset waits with the
// reason while others go on. When they do, it goes on from there: neither from its
// beginning nor from where the group would start without a commit.
func TestCommittedOffsetThatIsRefused(t *testing.T) {
	for what, start := range map[string]processor.Start{"earliest": {}, "latest": {End: true}} {
		t.Run(what, func(t *testing.T) {
			inBothModes(t, func(t *testing.T, exactlyOnce bool) {
				virtual(t, 2, func(b *bed) {
					b.produceToAll(2, 0, 20)
					b.commit(0, 10)
					b.commit(1, 0)
					refused := b.cluster.Fault(kfake.Fault{
						Keys: []kmsg.Key{kmsg.OffsetFetch}, Topic: "in", Partitions: []int32{0}, Err: kerr.TopicAuthorizationFailed, Count: -1,
					})
					opts := b.options()
					opts.ExactlyOnce, opts.Source.Start = exactlyOnce, start
					// To kfake all commits of a group are unstable while one is: ticks and tries
					// must not fall together.
					opts.Commit.Interval = 170 * time.Millisecond
					r := b.run(opts, processor.TransformFunc(passOn))
					b.eventually("the other partition is done", func() bool { return b.committed(1) == 20 })
					<-time.After(2 * time.Minute)
					if reason := b.problem(r, "in/0"); !strings.Contains(reason, "start offset cannot be read") || !strings.Contains(reason, "grant this user") {
						b.t.Errorf("two minutes later the reason is %q", reason)
					}
					if at := b.committed(0); at != 10 {
						b.t.Errorf("its commit is at %d, want 10 as before", at)
					}
					refused.Remove()
					b.patience = time.Minute
					b.caughtUp(2)
					if s := b.status(r); len(s.Problems) != 0 {
						b.t.Errorf("problems are %v, want none", s.Problems)
					}
					b.produceToAll(2, 20, 30)
					b.caughtUp(2)
					b.stop(r)
					b.inOrder(0, 10, 30)
					b.inOrder(1, 0, 30)
				})
			})
		})
	}
}

// hideInput has the brokers leave "in" out when they are asked for all commits of a
// group, as if this user may not see it.
func (b *bed) hideInput() {
	b.cluster.ControlKey(int16(kmsg.OffsetFetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		req := r.(*kmsg.OffsetFetchRequest)
		if len(req.Groups) != 1 || req.Groups[0].Topics != nil {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
		group := kmsg.NewOffsetFetchResponseGroup()
		group.Group = req.Groups[0].Group
		resp.Groups = append(resp.Groups, group)
		return resp, nil, true
	})
}

// Where in/0 starts with latest, in a group that has committed 10 of in/1, if the
// brokers do not tell the commits at once.
func TestStartBesideCommitsThatAreNotTold(t *testing.T) {
	fault := func(partition int32, err *kerr.Error, count int, byMember bool) kfake.Fault {
		return kfake.Fault{
			Keys: []kmsg.Key{kmsg.OffsetFetch}, Topic: "in", Partitions: []int32{partition}, Err: err, Count: count,
			When: func(r kmsg.Request) bool { return (r.(*kmsg.OffsetFetchRequest).Groups[0].MemberID != nil) == byMember },
		}
	}
	for _, test := range []struct {
		what      string
		committed int64 // of in/0; -1 is nothing
		faults    []kfake.Fault
		want      int64
	}{
		{"all is told", -1, nil, 0},
		{"what it may see is refused for a while", -1, []kfake.Fault{fault(1, kerr.TopicAuthorizationFailed, 3, false)}, 0},
		{"the other partition has one in an open transaction", -1, []kfake.Fault{fault(1, kerr.UnstableOffsetCommit, -1, false)}, 0},
		{"it has one itself, for a while", 10, []kfake.Fault{
			fault(0, kerr.TopicAuthorizationFailed, 1, true), fault(0, kerr.UnstableOffsetCommit, 3, false),
		}, 10},
	} {
		t.Run(test.what, func(t *testing.T) {
			virtual(t, 2, func(b *bed) {
				b.produceToAll(2, 0, 20)
				b.commit(1, 10)
				if test.committed >= 0 {
					b.commit(0, test.committed)
				}
				b.hideInput()
				b.cluster.Fault(test.faults...)
				opts := b.options()
				opts.Source.Start = processor.Start{End: true}
				r := b.run(opts, processor.TransformFunc(passOn))
				b.patience = time.Minute
				b.caughtUp(2)
				b.stop(r)
				b.inOrder(0, int(test.want), 20)
			})
		})
	}
}

// The answer to the end of a transaction gets lost, and what it has committed may not
// be seen for a while: nothing is emitted until it is known, and nothing again.
func TestLostEndWhoseCommitIsNotTold(t *testing.T) {
	for _, test := range []struct {
		err    *kerr.Error
		reason string
	}{
		{kerr.TopicAuthorizationFailed, "grant this user"},
		{kerr.UnknownTopicID, "UNKNOWN_TOPIC_ID"}, // of a coordinator that does not know the topic yet
	} {
		t.Run(test.err.Message, func(t *testing.T) {
			virtual(t, 1, func(b *bed) {
				b.commit(0, 0)
				b.hideInput()
				opts := b.options()
				opts.ExactlyOnce = true
				connections := b.cuttable(&opts)
				var cut atomic.Bool
				b.cluster.ControlKey(int16(kmsg.EndTxn), func(r kmsg.Request) (kmsg.Response, error, bool) {
					b.cluster.KeepControl()
					alone := strings.HasSuffix(r.(*kmsg.EndTxnRequest).TransactionalID, "/offsets")
					if !alone && cut.CompareAndSwap(false, true) {
						connections.cut()
						time.AfterFunc(100*time.Millisecond, connections.mend)
					}
					return nil, nil, false
				})
				refused := b.cluster.Fault(kfake.Fault{
					Keys: []kmsg.Key{kmsg.OffsetFetch}, Topic: "in", Err: test.err, Count: -1,
					When: func(r kmsg.Request) bool { return r.(*kmsg.OffsetFetchRequest).Groups[0].MemberID == nil },
				})
				b.produce("in", 0, 0, 20)
				r := b.run(opts, processor.TransformFunc(passOn))
				b.eventually("the reason is told", func() bool {
					reason := b.problem(r, "test")
					return strings.Contains(reason, "producer cannot be made") && strings.Contains(reason, test.reason)
				})
				refused.Remove()
				b.produce("in", 0, 20, 30)
				b.caughtUp(1)
				b.stop(r)
				b.inOrder(0, 0, 30)
			})
		})
	}
}
