package demo

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/kafka"
	"seriatim/processor"
	"seriatim/transform"
)

const hangingTopic = "hanging.in"

// Both sides give up a call after giveUp; one of them asks the other worker before,
// about the record that its partition waits for.
const (
	giveUp = 5 * time.Second
	askOn  = time.Second
)

// Hanging runs two pipelines on the same input and the same two workers, one of
// which hangs now and then: one pipeline with head-only hedging, one without. It
// ends with a verdict, or when ctx ends, and reports whether any output was wrong.
// Without Node it says that it is left out.
func Hanging(ctx context.Context, broker *kafka.Embedded, opts Options) (wrong bool, err error) {
	urls, end, err := startWorkers(context.WithoutCancel(ctx))
	if err != nil {
		opts.Screen.print(fmt.Sprintf("%s: left out, because %v", hangingTitle, err))
		return false, nil
	}
	defer end()
	log := slog.New(slog.NewTextHandler(opts.Screen.Log(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	client, err := kafka.Options{Brokers: []string{broker.Address()}, ClientID: "demo", Logger: log}.Client()
	if err != nil {
		return false, err
	}
	h := &hanging{address: broker.Address()}
	h.stage = stage{client: client, inputs: []string{hangingTopic}, record: record, see: h.see}
	topics := map[string]int32{hangingTopic: partitions}
	for _, side := range []struct {
		name, topic string
		hedge       processor.Hedges
	}{
		{"without hedging", "hanging.without", processor.Hedges{}},
		{"with hedging", "hanging.with", processor.Hedges{After: askOn, Budget: 0.2}},
	} {
		topics[side.topic] = partitions
		s := &hangingSide{name: side.name, topic: side.topic, hedged: side.hedge.After > 0, tally: newTally(time.Now())}
		worker, err := transform.HTTP(transform.HTTPOptions{URLs: urls, Timeout: giveUp})
		if err != nil {
			return false, err
		}
		s.pipeline, err = processor.New(processor.Options{
			Name: strings.ReplaceAll(side.topic, ".", "-"), Client: client, // no log: calls fail all the time
			Source:       processor.Source{Topics: []string{hangingTopic}, Group: "seriatim." + side.topic},
			Output:       processor.Output{Topic: side.topic, Provenance: true},
			Hedge:        side.hedge,
			DrainTimeout: time.Second,
		}, processor.TransformFunc(func(ctx context.Context, in processor.Input, out *processor.Outputs) error {
			s.calls.Add(1)
			return worker.Transform(ctx, in, out)
		}))
		if err != nil {
			return false, err
		}
		h.sides = append(h.sides, s)
		h.runs, h.outputs = append(h.runs, runOf(s.pipeline)), append(h.outputs, side.topic)
	}
	if err := broker.CreateTopics(ctx, topics); err != nil {
		return false, err
	}
	if !opts.Screen.live() {
		opts.Screen.print("")
	}
	return h.perform(ctx, h, opts)
}

// hanging is the demo of workers that hang.
type hanging struct {
	stage

	address string
	sides   []*hangingSide  // without hedging, and with it
	marked  map[int32]int64 // what the verdict is about
}

type hangingSide struct {
	name, topic string
	hedged      bool
	pipeline    *processor.Pipeline
	calls       atomic.Int64 // of workers
	tally       *tally
	history     history

	mu        sync.Mutex
	latencies []time.Duration // of all that came out
}

// see takes what the reader read.
func (h *hanging) see(r *kgo.Record, now time.Time) {
	n, ok := numberOf(r)
	for _, s := range h.sides {
		if ok && s.topic == r.Topic {
			s.tally.numbered(r.Partition, n, r.Timestamp, now)
			s.mu.Lock()
			s.latencies = append(s.latencies, now.Sub(r.Timestamp))
			s.mu.Unlock()
		}
	}
}

const hangingTitle = "Two workers, one of which hangs"

func (h *hanging) title() string { return hangingTitle }

func (h *hanging) about() []string {
	return []string{
		fmt.Sprintf("Both get the same input, one record every %s for each of %d destinations, and ask the same two workers in Node, which take 200 to 400 ms. One of them does not answer one call in ten. Both give up a call after %v; one side asks the other worker after %v, about the record that the rest waits for.",
			millis(interval), partitions, giveUp, askOn),
		fmt.Sprintf("Look in with any Kafka client: %s, topics %s, %s, %s.", h.address, hangingTopic, h.sides[0].topic, h.sides[1].topic),
	}
}

func (h *hanging) frame(now time.Time) frame {
	_, sent := h.feed.counts()
	f := frame{title: h.title(), footer: h.about()}
	for _, s := range h.sides {
		r := s.tally.report(now)
		waiting := int64(max(0, sent-r.seen))
		s.history.add(now, waiting)
		f.sides = append(f.sides, side{s.name, s.hedged, waiting, r.rates, r.outOfOrder})
		f.charts = append(f.charts, chart{s.name, s.hedged, s.history.values})
		if status, ok := ask(s.pipeline.Status); ok && s.hedged {
			for _, p := range status.Partitions {
				f.heads = append(f.heads, headOf(destinations[p.Partition], p))
			}
			f.notes = problemsOf(status)
		}
	}
	return f
}

func (h *hanging) mark() { h.marked, _ = h.feed.counts() }

// p99 is about all that came out: what hung comes last.
func (s *hangingSide) p99() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return quantile(slices.Sorted(slices.Values(s.latencies)), 99)
}

func (h *hanging) pending() (n int) {
	for _, s := range h.sides {
		skipped, coming := s.tally.missing(h.marked)
		n += skipped + coming
	}
	return n
}

func (h *hanging) verdict(now time.Time, hurried bool) (lines []string, wrong bool) {
	total, disorder, lost, coming := 0, 0, 0, 0
	for _, n := range h.marked {
		total += int(n)
	}
	for _, s := range h.sides {
		disorder += s.tally.report(now).outOfOrder
		l, c := s.tally.missing(h.marked)
		if !hurried { // they had time enough
			l, c = l+c, 0
		}
		lost, coming = lost+l, coming+c
	}
	line := fmt.Sprintf("%d records twice, %d out of order, %d lost", total, disorder, lost)
	if coming > 0 {
		line += fmt.Sprintf(", %d still under way", coming)
	}
	without, with := h.sides[0], h.sides[1]
	_, sent := h.feed.counts()
	extra := float64(with.calls.Load()-int64(sent)) / float64(max(1, sent))
	line += fmt.Sprintf("; latency p99 %s with hedging, %s without, for %.0f %% more calls", seconds(with.p99()), seconds(without.p99()), max(0, extra)*100)
	return []string{line}, disorder > 0 || lost > 0
}
