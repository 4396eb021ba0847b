package processor

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/offsets"
)

// A committer is the loop's part that commits. One commit is in flight at most;
// the request itself runs beside the loop.
type committer struct {
	policy   *offsets.Policy
	inFlight *commit
	ok       uint64
	failed   uint64
}

// A commit is one request for every partition whose position was known.
type commit struct {
	cancel context.CancelFunc
	marks  []mark
}

// A mark is what a commit says of one tenure.
type mark struct {
	tenure *tenure
	next   offsets.Next
	epoch  int32
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
	if l.commits.inFlight == nil && !l.txn.running() && l.commits.policy.Due(l.now) {
		l.commit(l.now.Add(commitTimeout))
	}
}

// commit commits every position that is known, moved or not: the tick that moves
// nothing is what tells a lag monitor that we are alive. It reports false if
// there is none. No commit may be in flight.
func (l *loop) commit(deadline time.Time) bool {
	l.commits.policy.Begin(l.now)
	var marks []mark
	for _, t := range l.tenures {
		if t.tracker != nil && t.phase != closed {
			next, epoch := t.tracker.Frontier()
			marks = append(marks, mark{t, next, epoch})
		}
	}
	if len(marks) == 0 {
		l.commits.policy.Done(l.now)
		return false
	}
	ctx, cancel := context.WithDeadline(l.life, deadline)
	l.commits.inFlight = &commit{cancel: cancel, marks: marks}
	l.beside.Go(func() {
		defer cancel()
		done, err := send(ctx, l.consumer, marks)
		l.do(func() { l.committed(marks, done, err) })
	})
	return true
}

// send commits the marks and returns those that the broker has taken.
func send(ctx context.Context, client *kgo.Client, marks []mark) (done map[partitionKey]bool, err error) {
	positions := make(map[string]map[int32]kgo.EpochOffset)
	for _, m := range marks {
		if positions[m.tenure.topic] == nil {
			positions[m.tenure.topic] = make(map[int32]kgo.EpochOffset)
		}
		positions[m.tenure.topic][m.tenure.partition] = kgo.EpochOffset{Epoch: m.epoch, Offset: int64(m.next)}
	}
	// Burrow misreads commits with long metadata; the client would put the member
	// id there.
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		for i := range req.Topics {
			for j := range req.Topics[i].Partitions {
				req.Topics[i].Partitions[j].Metadata = kmsg.StringPtr("")
			}
		}
		return nil
	})
	client.CommitOffsetsSync(ctx, positions, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, e error) {
		if err = e; err != nil {
			return
		}
		done = make(map[partitionKey]bool, len(marks))
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if e := kerr.ErrorForCode(p.ErrorCode); e != nil {
					err = e
					continue
				}
				done[partitionKey{t.Topic, p.Partition}] = true
			}
		}
	})
	return done, err
}

// committed takes the answer of the commit in flight.
func (l *loop) committed(marks []mark, done map[partitionKey]bool, err error) {
	l.commits.inFlight = nil
	l.commits.policy.Done(l.now)
	if l.txn != nil {
		defer l.emitAll() // a transaction may be opened now
	}
	for _, m := range marks {
		if t := m.tenure; t.phase != closed && done[t.partitionKey] {
			t.committed, t.hasCommitted, t.committedAt = m.next, true, l.now
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
