package processor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/internal/seeded"
	"seriatim/offsets"
)

// A poller is the one goroutine that polls. It never waits for a partition: the
// loop takes whatever it brings.
type poller struct {
	client *kgo.Client
	loop   *loop

	mu      sync.Mutex
	cancel  context.CancelFunc // of the poll in progress
	waiters []chan struct{}
	ended   bool
}

// run polls until ctx ends.
func (p *poller) run(ctx context.Context) {
	defer p.end()
	for ctx.Err() == nil {
		poll, cancel := context.WithCancel(ctx)
		p.pass(cancel)
		select {
		case <-p.loop.polls:
		case <-poll.Done():
			continue
		case <-p.loop.stopped:
			return
		}
		fetches := p.client.PollFetches(poll)
		select {
		case p.loop.fetched <- fetches:
		case <-p.loop.stopped:
		}
		if fetches.Err() != nil && fetches.NumRecords() == 0 {
			select {
			case <-poll.Done():
			case <-time.After(fetchMaxWait):
			}
		}
		cancel()
	}
}

// pass is the point between two polls at which all that was polled before has
// been handed over.
func (p *poller) pass(cancel context.CancelFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cancel = cancel
	p.dismiss()
}

// end is the last pass. Whoever comes later does not wait.
func (p *poller) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.dismiss()
}

func (p *poller) dismiss() {
	for _, w := range p.waiters {
		close(w)
	}
	p.waiters = nil
}

// flush returns when everything that was polled before has been handed over to
// the loop. Without it, records 120-200 of a partition that were polled before a
// revoke could be admitted by the next tenure that begins at 50, which would then
// skip 50-119.
func (p *poller) flush() {
	p.mu.Lock()
	if p.ended || p.cancel == nil || seeded.Bug("poll-not-flushed") {
		p.mu.Unlock()
		return
	}
	w := make(chan struct{})
	p.waiters = append(p.waiters, w)
	p.cancel()
	p.mu.Unlock()
	<-w
}

// group is the group's side of a loop: the callbacks of the client. They run one
// at a time, on the client's goroutine, and return only when the loop has done
// what they ask.
type group struct {
	opts   *Options
	loop   *loop
	poller *poller
}

// assigned begins a tenure for each partition, without a position yet: adjust,
// which runs next, finds it.
func (g *group) assigned(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	g.enter()
	g.loop.do(func() { g.loop.assign(partitions) })
	if len(partitions) > 0 {
		// The client tells a loss first and stops fetching afterwards. Records 120-199 that were
		// polled in between are dropped now, as the tenures have no position; after adjust has
		// placed one at 50 they would be taken, and 50-119 passed over.
		g.poller.flush()
	}
}

// revoked drains the tenures and returns when they are closed, so that nothing of
// them is committed under the next generation.
func (g *group) revoked(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	if len(partitions) == 0 {
		return
	}
	g.enter()
	budget := min(g.opts.DrainTimeout, g.opts.Source.RebalanceTimeout/2)
	done := make(chan bool, 1)
	ok := g.loop.do(func() {
		g.loop.rebalances++
		g.loop.log.Info("partitions are revoked", "partitions", partitions)
		if seeded.Bug("revoke-without-commit") {
			g.loop.lose(g.loop.held(partitions), done)
			return
		}
		g.loop.drain(g.loop.held(partitions), g.loop.now.Add(budget), done)
	})
	g.poller.flush() // a draining tenure drops what this brings
	g.await(ok, done)
}

// lost forgets the tenures: others have the partitions already.
func (g *group) lost(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	if len(partitions) == 0 {
		return
	}
	done := make(chan bool, 1)
	ok := g.loop.do(func() {
		g.loop.rebalances++
		g.loop.disturbed = g.loop.now
		g.loop.log.Warn("the group has taken partitions away without asking; what is unfinished is done again by whoever has them", "partitions", partitions)
		g.loop.lose(g.loop.held(partitions), done)
	})
	g.poller.flush()
	g.await(ok, done)
}

func (g *group) await(asked bool, done <-chan bool) {
	if !asked {
		return
	}
	select {
	case <-done:
	case <-g.loop.stopped:
	}
}

// held returns the tenures of the partitions.
func (l *loop) held(partitions map[string][]int32) []*tenure {
	var held []*tenure
	for topic, ps := range partitions {
		for _, p := range ps {
			if t := l.tenures[partitionKey{topic, p}]; t != nil {
				held = append(held, t)
			}
		}
	}
	return held
}

func (l *loop) assign(partitions map[string][]int32) {
	if l.state == "draining" {
		return // nothing new begins; what is polled of them is dropped
	}
	l.state = "running"
	l.over("group")
	if len(partitions) > 0 {
		l.rebalances++
		l.log.Info("partitions are assigned", "partitions", partitions)
	}
	for topic, ps := range partitions {
		for _, p := range ps {
			key := partitionKey{topic, p}
			if old := l.tenures[key]; old != nil {
				l.close(old)
			}
			c := l.counters[key]
			if c == nil {
				c = new(counters)
				l.counters[key] = c
			}
			t := newTenure(key, l.opts, c, l.now)
			t.reads = l.topicIDs[topic]
			t.memory = l.newMemory()
			l.tenures[key] = t
			if !t.remembers() {
				l.pause(t) // until it does: see readmit
			} else if !seeded.Bug("pause-outlives-tenure") {
				l.resumeAnyway(t) // a pause outlives a revoke in the client
			}
			if reason := l.recreated[topic]; reason != "" {
				l.forsake(t, reason)
			}
		}
	}
	l.budget.assign(l.tenures)
	l.consumer.UpdateFetchMaxBytes(l.consumer.OptValue(kgo.FetchMaxBytes).(int32), min(l.budget.fetch(), l.fetchMost))
	l.pauses.apply(l.consumer)
	l.remember()
	l.hurry() // for the output topics and the ends of the logs
}

// hurry has the watcher look now.
func (l *loop) hurry() {
	select {
	case l.lookNow <- struct{}{}:
	default:
	}
}

// place gives a tenure its position.
func (l *loop) place(t *tenure, next offsets.Next) {
	t.unplaced = ""
	t.tracker = offsets.NewTracker(next)
	l.commits.policy.Assigned(l.now)
}

// adjust resolves where each partition starts, so that its position is known, and
// committed, before its first record arrives. It never returns an error: the
// client would rejoin again and again. A partition that cannot be resolved is
// paused at a placeholder and tried again. So is one whose commit the brokers do not
// tell: the client leaves it out, and would not ask for it again.
func (g *group) adjust(ctx context.Context, committed map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	found := make(map[partitionKey]int64)
	missing := make(map[string][]int32)
	for topic, partitions := range committed {
		for p, o := range partitions {
			if at := o.EpochOffset().Offset; at >= 0 {
				found[partitionKey{topic, p}] = at
			} else {
				missing[topic] = append(missing[topic], p)
			}
		}
	}
	g.loop.do(func() {
		for key, t := range g.loop.tenures {
			if _, told := committed[key.topic][key.partition]; !told && !t.given && t.phase == open && !t.recreated {
				missing[key.topic] = append(missing[key.topic], key.partition)
			}
		}
	})
	reasons := make(map[partitionKey]error)
	if len(missing) > 0 {
		g.resolve(ctx, missing, found, reasons)
	}
	g.loop.do(func() {
		for key, next := range found {
			if t := g.loop.tenures[key]; t != nil && !t.recreated {
				g.loop.place(t, offsets.Next(next))
			}
		}
		for key, err := range reasons {
			switch t := g.loop.tenures[key]; {
			case t == nil || t.recreated:
			case t.tracker != nil: // lookUp has found it meanwhile
				found[key] = int64(t.tracker.Position())
			default:
				g.unplaced(t, err, firstPlacing)
			}
		}
		for topic, partitions := range missing {
			if committed[topic] == nil {
				committed[topic] = make(map[int32]kgo.Offset)
			}
			for _, p := range partitions {
				committed[topic][p] = kgo.NewOffset().At(max(0, found[partitionKey{topic, p}]))
			}
		}
		for key, t := range g.loop.tenures {
			if _, told := committed[key.topic][key.partition]; told {
				t.given = true
			}
		}
		g.loop.pauses.apply(g.loop.consumer)
	})
	return committed, nil
}

const (
	firstPlacing = time.Second
	lastPlacing  = 30 * time.Second
)

// unplaced pauses a tenure whose start is not known and tries again later.
func (g *group) unplaced(t *tenure, err error, wait time.Duration) {
	l := g.loop
	if reason := "its start offset cannot be read; trying again: " + explain(err); reason != t.unplaced {
		t.unplaced = reason
		l.log.Warn("records wait", "scope", t.String(), "reason", reason)
	}
	l.pause(t)
	g.lookUp(t, wait)
}

// lookUp finds out where t starts, once wait is over, and has it go on from there.
func (g *group) lookUp(t *tenure, wait time.Duration) {
	l := g.loop
	l.at(l.now.Add(wait), func() {
		if t.phase != open || t.tracker != nil {
			return
		}
		l.beside.Go(func() { // ends with the request's time limit
			ctx, cancel := context.WithTimeout(t.ctx, 10*time.Second)
			defer cancel()
			found, reasons := make(map[partitionKey]int64), make(map[partitionKey]error)
			g.resolve(ctx, map[string][]int32{t.topic: {t.partition}}, found, reasons)
			l.do(func() {
				next, ok := found[t.partitionKey]
				switch {
				case t.phase != open || t.tracker != nil || t.recreated:
				case !ok:
					g.unplaced(t, reasons[t.partitionKey], min(max(2*wait, firstPlacing), lastPlacing))
				default:
					l.move(t, offsets.Next(next))
				}
			})
		})
	})
}

// resolve finds the start of partitions: what the group has committed, or else
// Source.Start. Where the group has a commit for another partition of the topic, one
// without is new, and its first record is the start; unless it was there when we asked first, and the group
// had none: then another member was faster with its own.
func (g *group) resolve(ctx context.Context, missing map[string][]int32, found map[partitionKey]int64, reasons map[partitionKey]error) {
	for topic, partitions := range missing {
		commits, err := commitsOf(ctx, g.loop.consumer, g.opts.Source.Group, topic)
		var begun int32
		if err == nil {
			g.loop.do(func() { begun = g.loop.begins(topic, commits) })
		}
		var beginning, added []int32
		for _, p := range partitions {
			key := partitionKey{topic, p}
			switch c, told := commits[p]; {
			case err != nil:
				reasons[key] = fmt.Errorf("the group's offsets: %w", err)
			case !told:
				reasons[key] = fmt.Errorf("the group's offset was not told")
			case c.pending:
				reasons[key] = fmt.Errorf("the group's offset: %w", kerr.UnstableOffsetCommit)
			case c.at >= 0:
				found[key] = c.at
			case p < begun:
				beginning = append(beginning, p)
			default:
				added = append(added, p)
			}
		}
		g.list(ctx, topic, beginning, g.opts.Source.Start, found, reasons)
		g.list(ctx, topic, added, Start{}, found, reasons)
	}
}

// list asks where partitions of a topic have their start.
func (g *group) list(ctx context.Context, topic string, partitions []int32, start Start, found map[partitionKey]int64, reasons map[partitionKey]error) {
	if len(partitions) == 0 {
		return
	}
	client := kadm.NewClient(g.loop.consumer)
	var listed kadm.ListedOffsets
	var err error
	switch {
	case start.earliest():
		listed, err = client.ListStartOffsets(ctx, topic)
	case start.End && g.opts.Source.ReadUncommitted:
		listed, err = client.ListEndOffsets(ctx, topic)
	case start.End:
		listed, err = client.ListCommittedOffsets(ctx, topic)
	default:
		listed, err = client.ListOffsetsAfterMilli(ctx, start.Time.UnixMilli(), topic)
	}
	for _, p := range partitions {
		key := partitionKey{topic, p}
		switch o, ok := listed.Lookup(topic, p); {
		case err != nil:
			reasons[key] = err
		case !ok:
			reasons[key] = fmt.Errorf("no offset was listed")
		case o.Err != nil:
			reasons[key] = o.Err
		default:
			found[key] = o.Offset
		}
	}
}

// begins is one past the last partition of a topic that the group begins with: of all, if it has no commit for
// the topic now, and of those that were there when we asked first, if it had none then.
func (l *loop) begins(topic string, commits map[int32]standing) int32 {
	var now int32
	for p, c := range commits {
		if c.at >= 0 || c.pending { // there is one, or may be
			now = 0
			break
		}
		now = max(now, p+1)
	}
	first, asked := l.begun[topic]
	if !asked {
		first = now
		l.begun[topic] = now
	}
	return max(first, now)
}

// A standing is what the group has committed for a partition.
type standing struct {
	at      int64 // negative: nothing
	pending bool  // a transaction that has not ended has a newer one
}

// commitsOf asks for a group's commits for all partitions of a topic. The request
// names them: when all there are is asked for, brokers leave out what this user must
// not see, and a commit would look like none.
func commitsOf(ctx context.Context, client *kgo.Client, group, topic string) (map[int32]standing, error) {
	listed, err := kadm.NewClient(client).ListTopics(ctx, topic)
	if err != nil {
		return nil, err
	}
	detail := listed[topic]
	if detail.Err != nil {
		return nil, detail.Err
	}
	named := kmsg.NewOffsetFetchRequestGroupTopic()
	named.Topic, named.TopicID, named.Partitions = topic, detail.ID, detail.Partitions.Numbers()
	asked := kmsg.NewOffsetFetchRequestGroup()
	asked.Group = group
	asked.Topics = append(asked.Topics, named)
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable = true
	req.Groups = append(req.Groups, asked)
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return nil, err
	}
	commits := make(map[int32]standing)
	for _, answer := range resp.Groups {
		if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
			return nil, err
		}
		for _, t := range answer.Topics {
			for _, p := range t.Partitions {
				err := kerr.ErrorForCode(p.ErrorCode)
				pending := errors.Is(err, kerr.UnstableOffsetCommit)
				if err != nil && !pending {
					return nil, err
				}
				commits[p.Partition] = standing{p.Offset, pending}
			}
		}
	}
	return commits, nil
}
