package processor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A watcher looks at the cluster every few seconds and tells the loop what is
// there and what is missing, so that records which wait for it do not wait in
// silence. Outputs are emitted only to topics that it has seen.
type watcher struct {
	loop   *loop
	client *kgo.Client
	dial   *dialHook
	hurry  chan struct{} // asks for a look now; has room for one

	mayProduce bool                // the brokers have said so once
	hasAsked   bool                // for what the group has committed when we begin
	told       map[string]settings // of output topics, as the cluster told them last
}

// dialHook remembers why the last connection could not be made.
type dialHook struct{ last atomic.Pointer[error] }

// OnBrokerConnect is called by the client after each attempt to connect.
func (h *dialHook) OnBrokerConnect(meta kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err == nil {
		h.last.Store(nil)
		return
	}
	err = fmt.Errorf("%s:%d: %w", meta.Host, meta.Port, err)
	h.last.Store(&err)
}

const (
	watchInterval = 5 * time.Second
	watchTimeout  = 5 * time.Second
	watchTroubled = time.Second // while there is a problem
)

func (w *watcher) run(ctx context.Context) {
	for {
		found := w.look(ctx)
		if ctx.Err() != nil || !w.loop.do(func() { w.loop.watched(found) }) {
			return
		}
		wait := watchInterval
		if len(found.problems) > 0 {
			wait = watchTroubled
		}
		select {
		case <-ctx.Done():
			return
		case <-w.hurry:
		case <-time.After(wait):
		}
	}
}

// A sighting is what one look at the cluster found.
type sighting struct {
	problems []Problem
	both     map[string]string // input topics of an expression that are the output of another one
	sinks    map[string]*sink  // output topics
	ends     map[partitionKey]logEnd
	silent   map[partitionKey]error        // why the end of a partition is not known
	ids      map[string][16]byte           // of the input topics that exist; nil: not known
	commits  map[string]map[int32]standing // of the group, by topic, at the first look; nil: not asked
	narrow   *PartitionsError              // an output topic with too few partitions; nil: none
}

// A logEnd is where a partition ends for writers and for readers of committed
// transactions.
type logEnd struct{ high, stable int64 }

// watched takes what the watcher found.
func (l *loop) watched(found sighting) {
	if found.ids != nil && !l.seen { // before anything is emitted: that waits for a sink
		if l.seen = true; found.narrow != nil {
			l.end(found.narrow)
			return
		}
	}
	for topic, commits := range found.commits {
		l.begins(topic, commits)
	}
	for key := range l.problems {
		if strings.HasPrefix(key, "watch ") && !slices.ContainsFunc(found.problems, func(p Problem) bool { return "watch "+p.Scope == key }) {
			l.over(key)
		}
	}
	for _, p := range found.problems {
		l.note("watch "+p.Scope, p.Scope, p.Reason, 0)
	}
	limits := make(map[string]int32, len(found.sinks))
	for topic, s := range found.sinks {
		limits[topic] = int32(s.maxBytes)
		lanes := l.lanes[topic]
		if len(lanes) > 0 && len(lanes) < s.partitions && l.producer != nil {
			l.producer.ForceMetadataRefresh() // its own view may be old by now
		}
		for len(lanes) < s.partitions {
			lanes = append(lanes, &lane{acks: l.acks})
		}
		l.lanes[topic], s.lanes = lanes, lanes
		if s.id == ([16]byte{}) {
			continue // the broker has none
		}
		if was, known := l.sinkIDs[topic]; known && was != s.id && topic != l.opts.StateTopic {
			l.outputRecreated(topic)
		}
		l.sinkIDs[topic] = s.id
	}
	if len(limits) > 0 {
		l.batchLimits.Store(&limits)
	}
	if found.ids != nil {
		l.sawTopics(found.ids)
	}
	if s := found.sinks[l.opts.StateTopic]; s != nil {
		l.stateLog.saw(s)
		l.remember()
	}
	for _, t := range l.tenures {
		if from := found.both[t.topic]; from != "" {
			l.stop(t, 0, fmt.Sprintf("the topic is the output of %s, so reading it would go round in circles: have the expression leave it out", from))
			continue
		}
		if s := found.sinks[t.output]; s != nil {
			if t.sink = s; !l.opts.Output.ByKey && int(t.partition) >= s.partitions {
				t.sink = nil // it has no partition for these outputs, which is told
			}
		}
		if s := found.sinks[l.opts.DeadLetterTopic]; s != nil {
			t.deadSink = s
		}
		if t.tracker != nil {
			l.emit(t) // what has waited for its topic
		}
		if end, ok := found.ends[t.partitionKey]; ok && t.tracker != nil {
			l.sawEnd(t, end)
		}
		switch err := found.silent[t.partitionKey]; {
		case err == nil && t.silent:
			t.silent = false
			l.over("leader " + t.String())
		case err == nil:
		case !t.silent || t.unplaced != "": // an election; or that it cannot be read is told
			t.silent = true
		default:
			l.note("leader "+t.String(), t.String(), "its leader is not there or does not answer, so that nothing may be read; trying again: "+explain(err), repeats)
		}
	}
}

// outputRecreated has the producer forget a topic that was deleted and created anew. It would keep
// to the old one, and every output would be refused for ever.
func (l *loop) outputRecreated(topic string) {
	l.log.Warn("an output topic was deleted and created anew; outputs go to the new one", "topic", topic)
	if l.txn != nil {
		l.txn.renew = true // what a transaction has of the topic must not be forgotten before its end
		return
	}
	producer := l.producer
	l.beside.Go(func() { producer.PurgeTopicsFromProducing(topic) }) // waits for the client's look at the cluster
}

// sawEnd notes where the log ends. A log that has offsets beyond what was read
// but, at two looks in a row, no record to admit ends in offsets without records.
func (l *loop) sawEnd(t *tenure, end logEnd) {
	if t.stable != end.stable {
		t.stable, t.stableSince = end.stable, l.now
	}
	t.end, t.hasEnd = end.high, true
	position := t.tracker.Position()
	idle := t.window.Len() == 0 && len(t.spill) == 0 && !t.paused && int64(position) < end.stable
	t.tailEmpty = idle && t.idleAt == position
	t.idleAt = -1
	if idle {
		t.idleAt = position
	}
}

// look asks the cluster for the topics of the pipeline.
func (w *watcher) look(ctx context.Context) sighting {
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	admin := kadm.NewClient(w.client)
	metadata, inputs, err := w.inputs(ctx, admin)
	if err != nil {
		if last := w.dial.last.Load(); last != nil {
			err = *last
		}
		return sighting{problems: []Problem{{Scope: "cluster", Reason: outOfReach(err)}}}
	}
	opts := w.loop.opts
	found := sighting{both: make(map[string]string)}
	problem := func(kind, topic, reason string) {
		scope := kind + " topic " + topic
		if reason != "" && !slices.ContainsFunc(found.problems, func(p Problem) bool { return p.Scope == scope }) {
			found.problems = append(found.problems, Problem{Scope: scope, Reason: reason})
		}
	}
	if len(inputs) == 0 {
		found.problems = append(found.problems, Problem{
			Scope: "input", Reason: fmt.Sprintf("no topic matches the regular expression; a new one is found within %v", metadataAge),
		})
	}
	var outputs []string
	if dead := opts.DeadLetterTopic; dead != "" {
		outputs = append(outputs, dead)
		detail := metadata.Topics[dead]
		if !metadata.Topics.Has(dead) {
			detail.Err = kerr.UnknownTopicOrPartition
		}
		problem("dead-letter", dead, w.missing(dead, detail, 0, ""))
	}
	if state := opts.StateTopic; state != "" {
		outputs = append(outputs, state)
		detail := metadata.Topics[state]
		if !metadata.Topics.Has(state) {
			detail.Err = kerr.UnknownTopicOrPartition
		}
		problem("state", state, w.missing(state, detail, 0, compactedConfig))
	}
	for _, topic := range inputs {
		name := outputTopic(opts.Output.Topic, topic, opts.Source.Regex)
		if slices.Contains(inputs, name) {
			found.both[name] = topic
		}
		if !slices.Contains(outputs, name) {
			outputs = append(outputs, name)
		}
	}
	for _, topic := range inputs {
		if found.both[topic] != "" {
			continue
		}
		in := metadata.Topics[topic]
		problem("input", topic, w.missing(topic, in, 0, ""))
		name := outputTopic(opts.Output.Topic, topic, opts.Source.Regex)
		out := metadata.Topics[name]
		if !metadata.Topics.Has(name) {
			out.Err = kerr.UnknownTopicOrPartition
		}
		problem("output", name, w.missing(name, out, len(in.Partitions), ""))
		if have, want := len(out.Partitions), len(in.Partitions); !opts.Output.ByKey && have < want {
			narrow := &PartitionsError{Output: name, Input: topic, Have: have, Want: want, Command: w.command("--alter", name, want)}
			problem("output", name, strings.TrimPrefix(narrow.Error(), "output topic "+name+" "))
			if out.Err == nil && in.Err == nil {
				found.narrow = narrow
			}
		}
	}
	found.ids = make(map[string][16]byte, len(inputs))
	for _, topic := range inputs {
		if detail := metadata.Topics[topic]; metadata.Topics.Has(topic) && detail.Err == nil {
			found.ids[topic] = detail.ID
		}
	}
	if !w.hasAsked && !opts.Source.Start.earliest() {
		w.hasAsked = true
		found.commits = make(map[string]map[int32]standing)
		for topic := range found.ids {
			if commits, err := commitsOf(ctx, w.client, opts.Source.Group, topic); err == nil { // else whoever needs it asks again
				found.commits[topic] = commits
			}
		}
	}
	if err := w.askToProduce(ctx); err != nil {
		found.problems = append(found.problems, Problem{
			Scope: "outputs", Reason: "nothing can be produced; trying again: " + explain(err),
		})
	} else {
		var err error
		found.sinks, err = w.sinks(ctx, admin, metadata, outputs)
		kinds := map[string]string{opts.DeadLetterTopic: "dead-letter", opts.StateTopic: "state"}
		for _, topic := range outputs {
			if err != nil && metadata.Topics.Has(topic) && metadata.Topics[topic].Err == nil && found.sinks[topic] == nil {
				problem(cmp.Or(kinds[topic], "output"), topic, "its settings cannot be read; trying again: "+explain(err))
			}
		}
	}
	if s := found.sinks[opts.StateTopic]; s != nil && s.told && (!s.compacted || s.expires) {
		delete(found.sinks, opts.StateTopic)
		problem("state", opts.StateTopic, "is not compacted, or deletes what is old, and so would lose state: "+w.tool("kafka-configs.sh")+
			" --alter --topic "+opts.StateTopic+" --add-config cleanup.policy=compact")
	}
	found.ends, found.silent = w.ends(ctx, admin, found.ids)
	return found
}

// askToProduce asks whether this user may produce at all, which brokers refuse to
// users that may write to no topic. The producer must not be the first to ask: its
// client would keep the refusal, and go on failing after the grant. One with
// transactions is made anew after a refusal.
func (w *watcher) askToProduce(ctx context.Context) error {
	if w.mayProduce || w.loop.opts.ExactlyOnce {
		return nil
	}
	resp, err := kmsg.NewPtrInitProducerIDRequest().RequestWith(ctx, w.client)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	w.mayProduce = err == nil
	return err
}

// inputs returns the input topics, and what the cluster says of them and of the
// output topics.
func (w *watcher) inputs(ctx context.Context, admin *kadm.Client) (kadm.Metadata, []string, error) {
	opts := w.loop.opts
	if opts.Source.Regex == nil {
		topics := opts.Source.Topics
		for _, topic := range []string{opts.DeadLetterTopic, opts.StateTopic} {
			if topic != "" {
				topics = append(topics[:len(topics):len(topics)], topic)
			}
		}
		for _, topic := range opts.Source.Topics {
			topics = append(topics[:len(topics):len(topics)], outputTopic(opts.Output.Topic, topic, nil))
		}
		metadata, err := topicsOf(ctx, admin, topics)
		return metadata, opts.Source.Topics, err
	}
	metadata, err := admin.Metadata(ctx)
	var inputs []string
	for _, topic := range metadata.Topics.Names() {
		written := topic == opts.Output.Topic || topic == opts.DeadLetterTopic || topic == opts.StateTopic
		if !metadata.Topics[topic].IsInternal && !written && opts.Source.Regex.MatchString(topic) {
			inputs = append(inputs, topic)
		}
	}
	return metadata, inputs, err
}

// topicsOf asks for topics by name. Where this user may not see one of them, the
// admin client tells of none; then each is asked for alone.
func topicsOf(ctx context.Context, admin *kadm.Client, topics []string) (kadm.Metadata, error) {
	metadata, err := admin.Metadata(ctx, topics...)
	if _, refused := errors.AsType[*kadm.AuthError](err); !refused {
		return metadata, err
	}
	metadata.Topics = make(kadm.TopicDetails)
	for _, topic := range topics {
		one, err := admin.Metadata(ctx, topic)
		if e, refused := errors.AsType[*kadm.AuthError](err); refused {
			metadata.Topics[topic] = kadm.TopicDetail{Topic: topic, Err: e.Err}
			continue
		}
		if err != nil {
			return metadata, err
		}
		maps.Copy(metadata.Topics, one.Topics)
	}
	return metadata, nil
}

// ends asks where the logs of the partitions that we have end, of topics that exist, and
// why that is not told of others.
func (w *watcher) ends(ctx context.Context, admin *kadm.Client, topics map[string][16]byte) (ends map[partitionKey]logEnd, silent map[partitionKey]error) {
	asked := make(map[partitionKey]bool)
	var names []string
	w.loop.do(func() {
		for key := range w.loop.tenures {
			if _, exists := topics[key.topic]; exists {
				asked[key] = true
				if !slices.Contains(names, key.topic) {
					names = append(names, key.topic)
				}
			}
		}
	})
	if len(names) == 0 {
		return nil, nil
	}
	// Side by side, as a broker that does not answer takes all the time there is.
	var high, stable kadm.ListedOffsets
	var highErr, stableErr error
	var listing sync.WaitGroup
	listing.Go(func() { high, highErr = admin.ListEndOffsets(ctx, names...) })
	if w.loop.opts.Source.ReadUncommitted {
		listing.Wait()
		stable, stableErr = high, highErr
	} else {
		listing.Go(func() { stable, stableErr = admin.ListCommittedOffsets(ctx, names...) })
		listing.Wait()
	}
	ends, silent = make(map[partitionKey]logEnd), make(map[partitionKey]error)
	for key := range asked {
		h, told := high.Lookup(key.topic, key.partition)
		s, stably := stable.Lookup(key.topic, key.partition)
		if err := cmp.Or(h.Err, s.Err); told && stably && err == nil {
			ends[key] = logEnd{h.Offset, s.Offset}
		} else {
			silent[key] = cmp.Or(err, highErr, stableErr, errNotTold)
		}
	}
	return ends, silent
}

var errNotTold = errors.New("its log is not known")

// missing says what keeps a topic from being used; empty if nothing.
func (w *watcher) missing(topic string, detail kadm.TopicDetail, partitions int, config string) string {
	switch {
	case detail.Err == nil:
		return ""
	case errors.Is(detail.Err, kerr.UnknownTopicOrPartition):
		return "does not exist; seriatim does not create topics: " + w.command("--create", topic, partitions) + config
	default:
		return explain(detail.Err)
	}
}

// compactedConfig is what the state topic is to be created with.
const compactedConfig = " --config cleanup.policy=compact"

// command is what a person can type to mend a topic.
func (w *watcher) command(verb, topic string, partitions int) string {
	n := "N"
	if partitions > 0 {
		n = strconv.Itoa(partitions)
	}
	return fmt.Sprintf("%s %s --topic %s --partitions %s", w.tool("kafka-topics.sh"), verb, topic, n)
}

// tool is the beginning of a command line.
func (w *watcher) tool(name string) string {
	servers, _ := w.client.OptValue(kgo.SeedBrokers).([]string)
	return name + " --bootstrap-server " + strings.Join(servers, ",")
}
