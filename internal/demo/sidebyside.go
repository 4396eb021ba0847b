package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/kafka"
	"seriatim/processor"
	"seriatim/transform"
)

// Options say how a demo is shown.
type Options struct {
	Screen *Screen
	Length time.Duration // until the verdict
	Keep   bool          // go on after the verdict until the context ends
}

// The topics of the demo, and the names of its two sides.
const (
	inTopic         = "demo.in"
	outTopic        = "demo.out"
	sequentialTopic = "demo.one-at-a-time"

	seriatimName   = "Seriatim"
	sequentialName = "one at a time"
	// sequentialGroup is where the other side commits, so that its lag can be
	// looked at.
	sequentialGroup = "one-at-a-time"
)

// destinations are the keys of the records, one for each partition.
var destinations = [partitions]string{"north", "east", "south", "west"}

// simulated is the work that both sides do: the same record takes the same time
// and fails as often on either.
var simulated = transform.SimulateOptions{Latency: 750 * time.Millisecond, Sigma: 0.5, FailureRate: 0.02, Seed: 1}

// message is the value of a record.
type message struct {
	Destination string `json:"destination"`
	N           *int64 `json:"n"`
}

// SideBySide runs one-at-a-time processing and Seriatim on the same input until
// the verdict, or until ctx ends. It reports whether the output was wrong: out of
// order, or with records missing.
func SideBySide(ctx context.Context, broker *kafka.Embedded, opts Options) (wrong bool, err error) {
	err = broker.CreateTopics(ctx, map[string]int32{inTopic: partitions, outTopic: partitions, sequentialTopic: partitions})
	if err != nil {
		return false, err
	}
	log := slog.New(slog.NewTextHandler(opts.Screen.Log(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	client, err := kafka.Options{Brokers: []string{broker.Address()}, ClientID: "demo", Logger: log}.Client()
	if err != nil {
		return false, err
	}
	s := &sideBySide{
		address:    broker.Address(),
		seriatim:   newTally(time.Now()),
		sequential: newTally(time.Now()),
	}
	s.pipeline, err = processor.New(processor.Options{
		Name: "demo", Instance: "demo",
		Client: client, Logger: log,
		Source:       processor.Source{Topics: []string{inTopic}, Group: "seriatim.demo"},
		Output:       processor.Output{Topic: outTopic, Provenance: true},
		DrainTimeout: time.Second,
	}, transform.Simulate(simulated))
	if err != nil {
		return false, err
	}
	s.stage = stage{
		client: client, runs: []func(context.Context) error{runOf(s.pipeline)},
		inputs: []string{inTopic}, record: record, outputs: []string{outTopic, sequentialTopic}, see: s.see,
	}
	for p := range int32(partitions) {
		loop, err := newSequential(client, p)
		if err != nil {
			return false, err
		}
		s.runs = append(s.runs, func(ctx context.Context) error {
			loop.run(ctx)
			return nil
		})
	}
	return s.perform(ctx, s, opts)
}

// sideBySide is the demo that compares.
type sideBySide struct {
	stage

	address              string
	pipeline             *processor.Pipeline
	seriatim, sequential *tally

	history, sequentialHistory history
	marked                     map[int32]int64 // what the verdict is about
	growing                    bool            // what waits for the sequential side then
}

// newSequential returns the loop of one partition.
func newSequential(client []kgo.Opt, partition int32) (*sequential, error) {
	c, err := kgo.NewClient(append(client,
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{inTopic: {partition: kgo.NewOffset().AtStart()}}),
	)...)
	if err != nil {
		return nil, err
	}
	return &sequential{client: c, admin: kadm.NewClient(c), group: sequentialGroup, transform: transform.Simulate(simulated), output: sequentialTopic}, nil
}

// record is the input.
func record(partition int32, n int64) *kgo.Record {
	value, _ := json.Marshal(message{Destination: destinations[partition], N: &n})
	return &kgo.Record{Key: []byte(destinations[partition]), Value: value}
}

// see takes what the reader read. Records that others wrote into the topics are
// none of ours.
func (s *sideBySide) see(r *kgo.Record, now time.Time) {
	n, ok := numberOf(r)
	if !ok {
		return
	}
	t := s.seriatim
	if r.Topic == sequentialTopic {
		t = s.sequential
	}
	t.numbered(r.Partition, n, r.Timestamp, now)
}

// numberOf reads the number of a record of [record].
func numberOf(r *kgo.Record) (n int64, ok bool) {
	var m message
	if json.Unmarshal(r.Value, &m) != nil || m.N == nil || m.Destination != destinations[r.Partition] {
		return 0, false
	}
	return *m.N, true
}

func (s *sideBySide) title() string {
	return "One at a time against Seriatim"
}

func (s *sideBySide) about() []string {
	return []string{
		fmt.Sprintf("Both get the same input, one record every %s for each of %d destinations, and do the same work: %s on average (log-normal), and %.0f %% of the attempts fail. A third client reads what comes out and counts what is out of order.",
			millis(interval), partitions, millis(simulated.Latency), simulated.FailureRate*100),
		fmt.Sprintf("Look in with any Kafka client: %s, topics %s, %s, %s.", s.address, inTopic, outTopic, sequentialTopic),
	}
}

func (s *sideBySide) frame(now time.Time) frame {
	_, sent := s.feed.counts()
	ours, theirs := s.seriatim.report(now), s.sequential.report(now)
	waiting, sequentialWaiting := int64(max(0, sent-ours.seen)), int64(max(0, sent-theirs.seen))
	s.history.add(now, waiting)
	s.sequentialHistory.add(now, sequentialWaiting)
	f := frame{
		title: s.title(),
		sides: []side{
			{sequentialName, false, sequentialWaiting, theirs.rates, theirs.outOfOrder},
			{seriatimName, true, waiting, ours.rates, ours.outOfOrder},
		},
		charts: []chart{
			{sequentialName, false, s.sequentialHistory.values},
			{seriatimName, true, s.history.values},
		},
		footer: s.about(),
	}
	if status, ok := ask(s.pipeline.Status); ok {
		for _, p := range status.Partitions {
			f.heads = append(f.heads, headOf(destinations[p.Partition], p))
		}
		f.notes = problemsOf(status)
	}
	return f
}

func (s *sideBySide) mark() {
	s.marked, _ = s.feed.counts()
	s.growing = s.sequentialHistory.grows()
}

func (s *sideBySide) pending() int {
	skipped, coming := s.seriatim.missing(s.marked)
	return skipped + coming
}

func (s *sideBySide) verdict(now time.Time, hurried bool) (lines []string, wrong bool) {
	total := 0
	for _, n := range s.marked {
		total += int(n)
	}
	ours, theirs := s.seriatim.report(now), s.sequential.report(now)
	lost, coming := s.seriatim.missing(s.marked)
	if !hurried { // they had time enough
		lost, coming = lost+coming, 0
	}
	line := fmt.Sprintf("%d records, %d out of order, %d lost", total, ours.outOfOrder, lost)
	if ours.repeated > 0 {
		line += fmt.Sprintf(", %d repeated", ours.repeated)
	}
	if coming > 0 {
		line += fmt.Sprintf(", %d still under way", coming)
	}
	line += fmt.Sprintf("; latency %s against %s", seconds(ours.p50), seconds(theirs.p50))
	if s.growing {
		line += " and growing"
	}
	return []string{line}, ours.outOfOrder > 0 || lost > 0
}
