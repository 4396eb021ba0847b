package processor

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/internal/seeded"
)

// A Pipeline reads topics, transforms their records and emits the results in
// source order. Make one with [New] and run it once.
type Pipeline struct {
	opts      Options
	transform Transform
	loop      atomic.Pointer[loop] // of the membership that is, or was the last
}

// New checks the options and returns a pipeline that does nothing yet. The error
// names everything that is wrong with them.
func New(opts Options, transform Transform) (*Pipeline, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if _, ok := transform.(BatchTransform); opts.Batch.Records > 0 && !ok {
		return nil, errors.New("Batch: needs a BatchTransform")
	}
	p := &Pipeline{opts: opts, transform: transform}
	p.loop.Store(newLoop(&p.opts))
	return p, nil
}

// Run runs the pipeline until ctx ends, then drains it: what is being transformed
// may finish within Options.DrainTimeout, results are emitted, the frontier is
// committed, the group is left. It tries an unreachable cluster for ever. It
// returns nil after a clean drain, else [ErrDrainDeadline], a [*FencedError], an
// [*OldBrokersError], a [*GroupProtocolError], a [*PartitionsError], an [*InvariantError], or an error of
// the client's options.
func (p *Pipeline) Run(ctx context.Context) error {
	var before time.Time
	for {
		err := p.member(ctx)
		if !errors.Is(err, kerr.FencedInstanceID) || !before.IsZero() && time.Since(before) < twinInterval {
			return err
		}
		// Perhaps nobody uses our name: a request to join that our predecessor sent before it
		// was killed may arrive after ours (seen while the coordinator moved), and the client
		// holds on to the membership that it has lost. Another process would take it again.
		before = time.Now()
		old := p.loop.Load()
		old.log.Warn("somebody else has the static membership; joining anew", "instance", p.opts.Instance, "err", err)
		next := newLoop(&p.opts)
		next.counters, next.attempts, next.rebalances, next.seen, next.begun = old.counters, old.attempts, old.rebalances, old.seen, old.begun
		next.commits.ok, next.commits.failed = old.commits.ok, old.commits.failed
		if next.txn != nil {
			next.txn.committed, next.txn.aborted = old.txn.committed, old.txn.aborted
		}
		if next.hedger != nil {
			next.hedger.total = old.hedger.total
		}
		if next.stateLog != nil {
			next.stateLog.counts, next.replies = old.stateLog.counts, &replyLog{stored: old.replies.stored, skipped: old.replies.skipped, reused: old.replies.reused}
		}
		p.loop.Store(next)
	}
}

// member is the life of one member of the group.
func (p *Pipeline) member(ctx context.Context) error {
	l := p.loop.Load()
	dial := new(dialHook)
	poller := &poller{loop: l}
	g := &group{opts: &p.opts, loop: l, poller: poller}

	connected, disconnect := context.WithCancel(context.WithoutCancel(ctx))
	defer disconnect()
	consumer, err := kgo.NewClient(append(p.consumerOpts(g, dial), kgo.WithContext(connected))...)
	if err != nil {
		return err
	}
	if l.txn == nil {
		if l.producer, err = kgo.NewClient(append(p.producerOpts(dial), kgo.WithContext(connected))...); err != nil {
			consumer.Close()
			return err
		}
	} else {
		l.txn.producerOpts = append(p.producerOpts(dial),
			kgo.WithContext(connected), kgo.TransactionalID(l.txn.id), kgo.TransactionTimeout(transactionTimeout))
	}
	l.consumer, l.poller, poller.client = consumer, poller, consumer
	l.fetchMost = consumer.OptValue(kgo.FetchMaxPartitionBytes).(int32)
	if l.stateLog != nil { // it outlives the connections of the others, to write what is last
		if l.stateLog.producer, err = kgo.NewClient(p.stateProducerOpts()...); err != nil {
			consumer.Close()
			if l.producer != nil {
				l.producer.Close()
			}
			return err
		}
	} else {
		l.log.Info("the attempts at records, and holds, are remembered in memory only: a crash or a rebalance forgets them; state.topic keeps them")
	}

	var workers, watching, polling sync.WaitGroup
	for range p.opts.Workers {
		workers.Go(func() { work(p.transform, &p.opts, l.chunks, l.finished) })
	}
	aside, stopAside := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAside()
	go l.run()
	if l.txn != nil {
		l.do(func() { l.startProducer(nil) })
	}
	polling.Go(func() { poller.run(aside) })
	watching.Go(func() {
		(&watcher{loop: l, client: consumer, dial: dial, hurry: l.lookNow, told: make(map[string]settings)}).run(aside)
	})

	select {
	case <-ctx.Done():
		err = nil
	case err = <-l.fatal:
	}

	deadline := time.Now().Add(p.opts.DrainTimeout)
	drained := make(chan bool, 1)
	l.do(func() {
		l.state = "draining"
		tenures := make([]*tenure, 0, len(l.tenures))
		for _, t := range l.tenures {
			tenures = append(tenures, t)
		}
		if err != nil { // what we hold may be wrong: commit nothing of it
			l.lose(tenures, drained)
			return
		}
		l.drain(tenures, deadline, drained)
	})
	clean := false
	select {
	case clean = <-drained:
	case <-time.After(time.Until(deadline.Add(commitGrace + cancelGrace))):
	}
	if !clean && err == nil {
		err = ErrDrainDeadline
	}
	stopAside()
	var flushing sync.WaitGroup
	flushing.Go(l.stateLog.close)
	p.leave(consumer, disconnect)
	flushing.Wait()
	polling.Wait()
	watching.Wait()
	close(l.quit)
	<-l.stopped
	consumer.Close() // waits for callbacks, which wait for the loop
	l.beside.Wait()
	if l.producer != nil {
		l.producer.Close()
	}
	close(l.chunks) // attempts of closed tenures were cancelled
	if err == nil {
		workers.Wait()
	}
	return err
}

// cancelGrace is how long after a commit was cancelled its end is waited for. Requests
// of one connection are answered in order: one that is cancelled ends only after
// those before it, for which a broker that does not answer has 10 seconds and
// more. The same holds for closing a client, but for one whose context has ended.
const cancelGrace = 100 * time.Millisecond

// leaveTimeout bounds leaving the group, for brokers that do not answer.
const leaveTimeout = 400 * time.Millisecond

// leave leaves the group, so that others get the partitions at once, and cuts the
// consumer off. The client leaves only when a join in progress has ended, which
// takes as long as the slowest member needs; then another client says it, or the
// group would wait for the session timeout of a member that is gone.
func (p *Pipeline) leave(consumer *kgo.Client, disconnect func()) {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	err := consumer.LeaveGroupContext(ctx)
	member, _ := consumer.GroupMetadata()
	disconnect()
	if err == nil || member == "" || p.opts.Source.Static || p.opts.Source.ServerSide {
		return
	}
	ctx, cancel = context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	other, err := kgo.NewClient(append(slices.Clone(p.opts.Client), kgo.WithContext(ctx))...)
	if err != nil {
		return
	}
	defer other.Close()
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group, req.MemberID = p.opts.Source.Group, member
	req.Members = []kmsg.LeaveGroupRequestMember{{MemberID: member}}
	_, _ = req.RequestWith(ctx, other) // the session timeout does it otherwise
	cancel()
}

// Status returns the state of the pipeline. It fails when ctx ends before the
// pipeline's loop answers, which it does within microseconds unless it hangs.
func (p *Pipeline) Status(ctx context.Context) (Status, error) {
	l := p.loop.Load()
	answer := make(chan Status, 1)
	select {
	case l.calls <- func() { answer <- l.status() }:
		return <-answer, nil
	case <-l.stopped:
		return Status{Pipeline: p.opts.Name, Group: p.opts.Source.Group, State: "stopped", Workers: p.opts.Workers}, nil
	case <-ctx.Done():
		return Status{}, context.Cause(ctx)
	}
}

// fetchMaxBytes is the most that one broker sends at a time. The client holds up
// to two such answers of each broker, and the spill one more.
const fetchMaxBytes = 8 << 20

// maxBatch is the most bytes that a batch may have when it is decompressed, so that a small
// one does not take all memory.
const maxBatch = 128 << 20

// fetchMaxWait is how long a broker waits for records. It answers a fetch that it
// refuses at once, and the client, which fetches again when the answer was polled,
// asks as fast as it can; so after such an answer we wait ourselves.
const fetchMaxWait = 250 * time.Millisecond

// metadataAge bounds how late new topics and partitions are found. A leader that
// has moved is looked for at once: with the client's own 5 seconds between two
// looks, three refused produces took more than 10 seconds to be repeated.
const (
	metadataAge    = 15 * time.Second
	metadataMinAge = 250 * time.Millisecond
)

func (p *Pipeline) consumerOpts(g *group, dial *dialHook) []kgo.Opt {
	s := p.opts.Source
	isolation := kgo.ReadCommitted()
	if s.ReadUncommitted || seeded.Bug("aborted-records-read") {
		isolation = kgo.ReadUncommitted()
	}
	opts := append([]kgo.Opt{
		kgo.WithHooks(dial, groupHook{g.loop}),
		kgo.ConsumerGroup(s.Group),
		kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(g.assigned),
		kgo.OnPartitionsRevoked(g.revoked),
		kgo.OnPartitionsLost(g.lost),
		kgo.AdjustFetchOffsetsFn(g.adjust),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.KeepControlRecords(),
		kgo.FetchIsolationLevel(isolation),
		kgo.FetchMaxBytes(fetchMaxBytes),
		kgo.FetchMaxWait(fetchMaxWait),
		kgo.MaxDecompressBatchBytes(maxBatch),
		kgo.MetadataMaxAge(metadataAge),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.SessionTimeout(s.SessionTimeout),
		kgo.RebalanceTimeout(s.RebalanceTimeout),
		kgo.HeartbeatInterval(min(3*time.Second, s.SessionTimeout/3)),
	}, p.opts.Client...)
	if s.Regex != nil {
		opts = append(opts, kgo.ConsumeRegex(), kgo.ConsumeTopics(s.Regex.String()), kgo.ConsumeExcludeTopics(p.opts.excluded()...))
	} else {
		opts = append(opts, kgo.ConsumeTopics(s.Topics...))
	}
	if s.ServerSide {
		opts = append(opts, kgo.ServerSideBalancer(), kgo.WithHooks(joinHook{g.loop}))
	} else {
		opts = append(opts, kgo.Balancers(claims{kgo.CooperativeStickyBalancer(), g.loop}))
	}
	if s.Static {
		opts = append(opts, kgo.InstanceID(p.opts.Instance))
	}
	return opts
}

func (p *Pipeline) producerOpts(dial *dialHook) []kgo.Opt {
	return append([]kgo.Opt{
		kgo.WithHooks(dial),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), // the emitter knows, and waits for a partition that is down
		kgo.ProducerLinger(linger),
		kgo.MetadataMaxAge(metadataAge),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.ProducerBatchMaxBytesFn(p.loop.Load().batchLimit),
		// Window.Bytes bounds what is handed over: the loop must never wait here.
		kgo.MaxBufferedRecords(1 << 30),
		// Outputs wait for a missing topic, which Status names, instead of failing.
		kgo.UnknownTopicRetries(-1),
	}, p.opts.Client...)
}

// joinHook ends a pipeline whose client falls back to the classic protocol (see
// [GroupProtocolError]): nothing is assigned before its first join was sent.
type joinHook struct{ loop *loop }

// OnBrokerWrite is called by the client after each request that it has sent.
func (h joinHook) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	if key == int16(kmsg.JoinGroup) {
		h.loop.end(new(GroupProtocolError))
	}
}

// groupHook hears of errors of the group membership.
type groupHook struct{ loop *loop }

// OnGroupManageError is called by the client before it tries to join again.
func (h groupHook) OnGroupManageError(err error) {
	h.loop.do(func() { h.loop.groupFailed(err) })
}
