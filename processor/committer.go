package processor

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/internal/seeded"
	"seriatim/offsets"
	"seriatim/resequence"
)

// A committer is the loop's part that commits. One commit is in flight at most;
// the request itself runs beside the loop.
type committer struct {
	policy   *offsets.Policy
	inFlight context.CancelFunc // ends the commit in flight; nil if there is none
	ok       uint64
	failed   uint64
}

// A mark is what a commit says of one tenure.
type mark struct {
	tenure *tenure
	next   offsets.Next
	epoch  int32
	end    resequence.Seq // one past the last record with outputs in the transaction; 0 if there are none
}

// commitTimeout bounds one commit. A rebalance in which another member is slow
// to rejoin may hold a classic group's commits back for all that time.
const commitTimeout = 30 * time.Second

func newCommitter(c Commit) committer {
	return committer{policy: offsets.NewPolicy(c.Interval, c.Records)}
}

// deadline is when the loop must look at the policy again; zero if it need not.
func (c *committer) deadline(now time.Time) time.Time {
	return c.policy.Deadline(now)
}

func (l *loop) commitIfDue() {
	if l.commits.inFlight == nil && (!l.txn.running() || seeded.Bug("commit-beside-transaction")) && l.commits.policy.Due(l.now) {
		l.commit(l.now.Add(commitTimeout))
	}
}

// commit commits every position that is known, moved or not: the tick that moves
// nothing is what tells a lag monitor that we are alive. It reports false if
// there is none. No commit may be in flight, and no transaction under way.
func (l *loop) commit(deadline time.Time) bool {
	l.commits.policy.Begin(l.now)
	var marks []mark
	for _, t := range l.tenures {
		if !l.committable(t) || seeded.Bug("ticks-only-on-progress") && !l.uncommitted(t) {
			continue
		}
		next, epoch := t.tracker.Frontier()
		if seeded.Bug("commit-polled") {
			next = t.tracker.Position()
		}
		marks = append(marks, mark{tenure: t, next: next, epoch: epoch})
	}
	if len(marks) == 0 { // what was refused is with others
		l.over("commit")
		l.over("transaction")
	}
	member := l.member()
	if len(marks) == 0 || member.id == "" { // no member: the broker would take it for an outsider's
		l.commits.policy.Done(l.now)
		return false
	}
	send := l.commitPlainly
	if l.txn != nil && !seeded.Bug("commit-outside-of-transactions") {
		send, deadline = l.commitAlone, earliest(deadline, l.now.Add(endTimeout))
	}
	ctx, cancel := context.WithDeadline(l.life, deadline)
	l.commits.inFlight = cancel
	run := send(member, marks)
	l.beside.Go(func() {
		defer cancel()
		taken := run(ctx)
		l.do(func() {
			taken()
			if l.txn != nil {
				l.emitAll() // a transaction may be opened now
			}
		})
	})
	return true
}

// commitAlone prepares a transaction of offsets alone.
func (l *loop) commitAlone(as member, marks []mark) func(context.Context) func() {
	l.txn.since = l.now
	o, client, alone := l.txnOffsets(as, marks), l.producer, l.txn.alone
	return func(ctx context.Context) func() {
		alone, outcome, err := o.commitAlone(ctx, client, alone)
		return func() {
			l.txn.alone = alone
			if l.committed(marks, nil, err); outcome == unknownTxn {
				l.recover(err)
			}
		}
	}
}

// commitPlainly prepares a commit.
//
// The request is our own, with the member and the generation of this moment. The
// client's commit would read them when it builds the request, so that a commit
// which was computed before a loss could go out under the next generation; and it
// waits while the group joins, as long as the slowest member needs to hand its
// partitions over, although the broker takes commits all that time.
func (l *loop) commitPlainly(as member, marks []mark) func(context.Context) func() {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = l.opts.Source.Group
	req.MemberID, req.Generation, req.InstanceID = as.id, as.generation, as.instance
	byTopic := make(map[topicKey]int)
	for _, m := range marks {
		t := m.tenure
		key := topicKey{t.topic, t.reads}
		i, ok := byTopic[key]
		if !ok {
			i = len(req.Topics)
			byTopic[key] = i
			topic := kmsg.NewOffsetCommitRequestTopic()
			topic.Topic, topic.TopicID = key.name, key.id
			req.Topics = append(req.Topics, topic)
		}
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.LeaderEpoch = t.partition, int64(m.next), m.epoch
		p.Metadata = kmsg.StringPtr("") // Burrow misreads commits with long metadata
		if seeded.Bug("commit-with-metadata") {
			p.Metadata = &req.MemberID
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, p)
	}
	// The producer's connection to the coordinator: to cancel a request ends its
	// connection, which shall not be that of the heartbeats.
	client := l.producer
	return func(ctx context.Context) func() {
		refused, err := sendCommit(ctx, client, req)
		return func() { l.committed(marks, refused, err) }
	}
}

// committable reports whether the position of t can be committed: it is known, and
// so is the id of the topic, without which new brokers refuse a commit; and the
// topic is there.
func (l *loop) committable(t *tenure) bool {
	_, known := l.topicIDs[t.topic]
	return known && t.tracker != nil && t.phase != closed && !t.gone()
}

// sendCommit commits and returns what the broker has refused, and why. With err it is not
// known what it has taken.
func sendCommit(ctx context.Context, client *kgo.Client, req *kmsg.OffsetCommitRequest) (refused map[partitionKey]error, err error) {
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return nil, err
	}
	names := make(map[[16]byte]string, len(req.Topics)) // from version 10 on answers have ids
	for _, t := range req.Topics {
		names[t.TopicID] = t.Topic
	}
	for _, t := range resp.Topics {
		if t.Topic == "" {
			t.Topic = names[t.TopicID]
		}
		for _, p := range t.Partitions {
			if e := kerr.ErrorForCode(p.ErrorCode); e != nil {
				if refused == nil {
					refused = make(map[partitionKey]error)
				}
				refused[partitionKey{t.Topic, p.Partition}] = e
			}
		}
	}
	return refused, nil
}

// committed takes the answer of the commit in flight.
func (l *loop) committed(marks []mark, refused map[partitionKey]error, err error) {
	l.commits.inFlight = nil
	l.commits.policy.Done(l.now)
	if err == nil {
		for _, m := range marks {
			t := m.tenure
			if e := refused[t.partitionKey]; e != nil {
				err = e
			} else if t.phase != closed {
				t.committed, t.hasCommitted, t.committedAt = m.next, true, l.now
				l.forget(t, m.next)
			}
		}
	}
	switch {
	case err == nil:
		l.commits.ok++
		l.over("commit")
	case errors.Is(err, context.Canceled):
		l.commits.failed++
	case passing(err):
		l.commits.failed++
		l.log.Info("a commit has to be repeated", "err", err)
	default:
		l.commits.failed++
		if goneTopicError(err) {
			l.hurry()
		}
		l.note("commit", l.opts.Name, "commits are refused; the next tick tries again: "+explain(err), 0)
	}
}

// passing reports whether err is what a rebalance does to commits.
func passing(err error) bool {
	for _, e := range []error{kerr.RebalanceInProgress, kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.StaleMemberEpoch} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
