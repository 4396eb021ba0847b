package processor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// problems are the reasons why records wait, by what they are about.
type problems map[string]problem

type problem struct {
	Problem
	until time.Time // zero: until it is deleted
}

// note keeps a reason until it is deleted.
func (p problems) note(key, scope, reason string, now time.Time) {
	p.noteUntil(key, scope, reason, now, time.Time{})
}

func (p problems) noteUntil(key, scope, reason string, now, until time.Time) {
	since := now
	if old, ok := p[key]; ok && old.Reason == reason {
		since = old.Since
	}
	p[key] = problem{Problem{Scope: scope, Reason: reason, Since: since}, until}
}

// list returns what holds now, by scope.
func (p problems) list(now time.Time) []Problem {
	var list []Problem
	for key, problem := range p {
		if !problem.until.IsZero() && problem.until.Before(now) {
			delete(p, key)
			continue
		}
		list = append(list, problem.Problem)
	}
	slices.SortFunc(list, func(a, b Problem) int {
		return strings.Compare(a.Scope+a.Reason, b.Scope+b.Reason)
	})
	return list
}

// repeats is how long an error of a fetch counts: the client repeats one that
// lasts every few seconds.
const repeats = 30 * time.Second

// fetchFailed takes an error that a poll returned.
func (l *loop) fetchFailed(topic string, partition int32, err error) {
	key := partitionKey{topic, partition}
	var lost *kgo.ErrDataLoss
	var session *kgo.ErrGroupSession
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, kgo.ErrClientClosed):
	case errors.Is(err, kerr.OffsetOutOfRange), errors.As(err, &lost):
		if t := l.tenures[key]; t != nil && t.tracker != nil {
			l.stop(t, fmt.Sprintf("the log no longer has offset %d: %v: reset the group's offset of the partition, then restart this instance",
				t.tracker.Position(), err))
		}
	case errors.As(err, &session):
		l.groupFailed(session.Err)
	case topic == "":
		l.problems.noteUntil("fetch", l.opts.Name, "fetching fails: "+err.Error(), l.now, l.now.Add(repeats))
	default:
		l.problems.noteUntil("fetch "+key.String(), key.String(), "fetching fails: "+explain(err), l.now, l.now.Add(repeats))
	}
}

// groupFailed takes an error of the group membership.
func (l *loop) groupFailed(err error) {
	if errors.Is(err, kerr.FencedInstanceID) {
		l.end(&FencedError{Instance: l.opts.Instance, Err: err})
		return
	}
	if passing(err) || errors.Is(err, context.Canceled) || errors.Is(err, kgo.ErrClientClosed) {
		return
	}
	l.log.Warn("the group cannot be joined; trying again", "group", l.opts.Source.Group, "err", err)
	l.problems.noteUntil("group", "group "+l.opts.Source.Group, "cannot be joined: "+explain(err), l.now, l.now.Add(repeats))
}

// explain adds to an error of the broker what a person can do about it.
func explain(err error) string {
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return err.Error() + ": grant this user READ and DESCRIBE on input topics, WRITE and DESCRIBE on output topics"
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return err.Error() + ": grant this user READ and DESCRIBE on the group"
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		return err.Error() + ": grant this user IDEMPOTENT_WRITE on the cluster (brokers before 2.8)"
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return err.Error() + ": check kafka.sasl"
	default:
		return err.Error()
	}
}

// A watcher looks at the cluster every few seconds and tells the loop what is
// missing, so that records which wait for it do not wait in silence.
type watcher struct {
	loop   *loop
	client *kgo.Client
	dial   *dialHook
}

// dialHook remembers why the last connection could not be made.
type dialHook struct{ last atomic.Pointer[string] }

// OnBrokerConnect is called by the client after each attempt to connect.
func (h *dialHook) OnBrokerConnect(meta kgo.BrokerMetadata, _ time.Duration, _ connection, err error) {
	if err == nil {
		h.last.Store(nil)
		return
	}
	text := fmt.Sprintf("%s:%d: %v", meta.Host, meta.Port, err)
	h.last.Store(&text)
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
		if len(found) > 0 {
			wait = watchTroubled
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// watched replaces what the watcher found the last time.
func (l *loop) watched(found []Problem) {
	for key := range l.problems {
		if strings.HasPrefix(key, "watch ") && !slices.ContainsFunc(found, func(p Problem) bool { return "watch "+p.Scope == key }) {
			delete(l.problems, key)
		}
	}
	for _, p := range found {
		key := "watch " + p.Scope
		if old, ok := l.problems[key]; !ok || old.Reason != p.Reason {
			l.log.Warn("records wait", "scope", p.Scope, "reason", p.Reason)
		}
		l.problems.note(key, p.Scope, p.Reason, l.now)
	}
}

// look asks the cluster for the topics of the pipeline.
func (w *watcher) look(ctx context.Context) []Problem {
	opts := w.loop.opts
	inputs := make(map[string]bool)
	for _, topic := range opts.Source.Topics {
		inputs[topic] = true
	}
	if opts.Source.Regex != nil {
		w.loop.do(func() {
			for key := range w.loop.tenures {
				inputs[key.topic] = true
			}
		})
	}
	topics := slices.Collect(maps.Keys(inputs))
	for _, topic := range topics[:len(inputs):len(inputs)] {
		topics = append(topics, outputTopic(opts.Output.Topic, topic, opts.Source.Regex))
	}
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	var metadata kadm.Metadata
	var err error
	if len(topics) == 0 {
		metadata, err = kadm.NewClient(w.client).BrokerMetadata(ctx)
	} else {
		metadata, err = kadm.NewClient(w.client).Metadata(ctx, topics...)
	}
	if err != nil {
		reason := explain(err)
		if last := w.dial.last.Load(); last != nil {
			reason = *last
		}
		return []Problem{{Scope: "cluster", Reason: "no broker can be reached; trying again: " + reason}}
	}
	var found []Problem
	for _, topic := range topics[:len(inputs)] {
		in := metadata.Topics[topic]
		if reason := w.missing(topic, in, 0); reason != "" {
			found = append(found, Problem{Scope: "input topic " + topic, Reason: reason})
		}
		name := outputTopic(opts.Output.Topic, topic, opts.Source.Regex)
		out := metadata.Topics[name]
		reason := w.missing(name, out, len(in.Partitions))
		if have, want := len(out.Partitions), len(in.Partitions); reason == "" && !opts.Output.ByKey && have < want {
			reason = fmt.Sprintf("has %d partitions, but the input topic %s has %d and output.partition is source: %s",
				have, topic, want, w.command("--alter", name, want))
		}
		if reason != "" && !slices.ContainsFunc(found, func(p Problem) bool { return p.Scope == "output topic "+name }) {
			found = append(found, Problem{Scope: "output topic " + name, Reason: reason})
		}
	}
	return found
}

// missing says what keeps a topic from being used; empty if nothing.
func (w *watcher) missing(topic string, detail kadm.TopicDetail, partitions int) string {
	switch {
	case detail.Err == nil:
		return ""
	case errors.Is(detail.Err, kerr.UnknownTopicOrPartition):
		return "does not exist; seriatim does not create topics: " + w.command("--create", topic, partitions)
	default:
		return explain(detail.Err)
	}
}

// command is what a person can type to mend a topic.
func (w *watcher) command(verb, topic string, partitions int) string {
	servers, _ := w.client.OptValue(kgo.SeedBrokers).([]string)
	n := "N"
	if partitions > 0 {
		n = fmt.Sprint(partitions)
	}
	return fmt.Sprintf("kafka-topics.sh --bootstrap-server %s %s --topic %s --partitions %s", strings.Join(servers, ","), verb, topic, n)
}
