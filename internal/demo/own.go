package demo

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/kafka"
	"seriatim/processor"
)

// An OwnPipeline is a pipeline of the user's own, as far as a demo has to know it.
type OwnPipeline struct {
	Name       string
	Topics     []string       // or
	Regex      *regexp.Regexp // which matches whole names
	Output     string         // a name, with {topic} and {1} to {9}
	Provenance bool           // outputs tell their source
	DeadLetter string         // topic; empty is none

	Status func(context.Context) (processor.Status, error)
}

// Own runs pipelines of the user's own until the verdict, or until ctx ends: it
// creates their topics, feeds those that no pipeline writes, and watches what
// comes out. run runs the pipelines until its context ends; where is where else
// to look at them. Own reports whether the output was wrong, and with what error
// run ended before its time.
func Own(ctx context.Context, broker *kafka.Embedded, pipelines []OwnPipeline, run func(context.Context) error, where string, opts Options) (wrong bool, err error) {
	o := &own{where: fmt.Sprintf("Look in with any Kafka client: %s; admin: %s.", broker.Address(), where), tallies: make(map[string]*tally)}
	if err := o.plan(pipelines); err != nil {
		return false, err
	}
	if err := broker.CreateTopics(ctx, o.topics); err != nil {
		return false, err
	}
	log := slog.New(slog.NewTextHandler(opts.Screen.Log(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	client, err := kafka.Options{Brokers: []string{broker.Address()}, ClientID: "demo", Logger: log}.Client()
	if err != nil {
		return false, err
	}
	o.stage = stage{
		client: client,
		runs: []func(context.Context) error{func(ctx context.Context) error {
			if err := run(ctx); ctx.Err() == nil {
				return err
			}
			return nil
		}},
		inputs: o.fed, record: simpleRecord, outputs: slices.Sorted(maps.Keys(o.tallies)), see: o.see,
	}
	return o.perform(ctx, o, opts)
}

// own is the demo of the user's pipelines.
type own struct {
	stage

	where     string
	pipelines []*ownPipeline
	topics    map[string]int32 // all of them, with their partitions
	fed       []string         // the topics that get records
	tallies   map[string]*tally
	ended     bool // the input
}

type ownPipeline struct {
	OwnPipeline
	tally *tally
	// told is whether its outputs tell the source and come from it alone, so that
	// their order is known.
	told    bool
	history history
	status  processor.Status // the last one that is known
}

// plan finds out which topics there are, and who writes them.
func (o *own) plan(pipelines []OwnPipeline) error {
	o.topics = make(map[string]int32)
	writers := make(map[string][]*ownPipeline)
	var inputs []string
	for _, p := range pipelines {
		in, out, err := topicsOf(p)
		if err != nil {
			return err
		}
		pl := &ownPipeline{OwnPipeline: p, tally: newTally(time.Now()), told: p.Provenance}
		o.pipelines = append(o.pipelines, pl)
		inputs = append(inputs, in...)
		for _, topic := range slices.Concat(in, out) {
			o.topics[topic] = partitions
		}
		if p.DeadLetter != "" {
			o.topics[p.DeadLetter] = partitions
		}
		slices.Sort(out)
		for _, topic := range slices.Compact(out) {
			writers[topic] = append(writers[topic], pl)
			o.tallies[topic] = pl.tally
		}
	}
	for _, by := range writers {
		for _, pl := range by {
			pl.told = pl.told && len(by) == 1
		}
	}
	for _, topic := range inputs {
		if writers[topic] == nil && !slices.Contains(o.fed, topic) {
			o.fed = append(o.fed, topic)
		}
	}
	return nil
}

// simpleRecord is the input.
func simpleRecord(partition int32, n int64) *kgo.Record {
	return &kgo.Record{
		Key:   fmt.Appendf(nil, "key-%d", partition),
		Value: fmt.Appendf(nil, `{"n":%d,"text":"record %d of partition %d"}`, n, n, partition),
	}
}

// see takes what the reader read.
func (o *own) see(r *kgo.Record, now time.Time) {
	t := o.tallies[r.Topic]
	for _, h := range r.Headers {
		if h.Key != "seriatim.source" {
			continue
		}
		source, offset, _ := cutLast(string(h.Value), "/")
		if n, err := strconv.ParseInt(offset, 10, 64); err == nil {
			t.sourced(fmt.Sprintf("%s %s/%d", source, r.Topic, r.Partition), n, r.Timestamp, now)
			return
		}
	}
	t.unsourced(r.Timestamp, now)
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func (o *own) title() string { return "Your own pipelines" }

func (o *own) about() []string {
	topics := slices.Sorted(maps.Keys(o.topics))
	return []string{
		fmt.Sprintf("The kafka section of your configuration is ignored: a broker inside this process holds %s, with %d partitions each.",
			strings.Join(topics, ", "), partitions),
		fmt.Sprintf("Every partition of %s gets a simple record every %s.", strings.Join(o.fed, ", "), millis(interval)),
		o.where,
	}
}

// maxHeads is how many partitions are shown.
const maxHeads = 12

func (o *own) frame(now time.Time) frame {
	f := frame{title: o.title(), footer: o.about()}
	for _, p := range o.pipelines {
		p.ask()
		r, waiting := p.tally.report(now), p.waiting()
		p.history.add(now, waiting)
		if !p.told {
			r.outOfOrder = -1
		}
		healthy := len(p.status.Problems) == 0
		f.sides = append(f.sides, side{p.Name, healthy, waiting, r.rates, r.outOfOrder})
		f.charts = append(f.charts, chart{p.Name, healthy, p.history.values})
		f.notes = append(f.notes, problemsOf(p.status)...)
		for _, partition := range p.status.Partitions {
			f.heads = append(f.heads, headOf(fmt.Sprintf("%s/%d", partition.Topic, partition.Partition), partition))
		}
	}
	if len(f.heads) > maxHeads {
		slices.SortStableFunc(f.heads, func(a, b head) int { return cmp.Compare(b.age, a.age) })
		f.heads = f.heads[:maxHeads]
	}
	return f
}

func (p *ownPipeline) ask() {
	if status, ok := ask(p.Status); ok {
		p.status = status
	}
}

// waiting counts the input that is not settled.
func (p *ownPipeline) waiting() (n int64) {
	for _, partition := range p.status.Partitions {
		n += partition.LagRecords
	}
	return n
}

// counts are the records that were settled and the outputs that were emitted.
func (p *ownPipeline) counts() (settled, emitted int) {
	for _, partition := range p.status.Partitions {
		settled += int(partition.Settled)
		emitted += int(partition.Emitted)
	}
	return settled, emitted
}

func (o *own) stopInput() {
	o.stage.stopInput()
	o.ended = true
}

// mark does nothing: what comes out of the user's transforms for a record is not
// known.
func (o *own) mark() {}

// pending counts what is to come once the input has ended.
func (o *own) pending() int {
	pending := 0
	if !o.ended {
		return 0
	}
	for _, p := range o.pipelines {
		p.ask()
		pending += int(p.waiting()) + p.unread()
	}
	return pending
}

// unread counts the outputs that were emitted and that the reader has not seen.
func (p *ownPipeline) unread() int {
	if !p.told {
		return 0
	}
	_, emitted := p.counts()
	return max(0, emitted-p.tally.report(time.Now()).seen)
}

func (o *own) verdict(now time.Time, hurried bool) (lines []string, wrong bool) {
	for _, p := range o.pipelines {
		p.ask()
		settled, emitted := p.counts()
		r := p.tally.report(now)
		line := fmt.Sprintf("%s: %d records, %d outputs", p.Name, settled, emitted)
		if p.told {
			line += fmt.Sprintf(", %d out of order", r.outOfOrder)
			wrong = wrong || r.outOfOrder > 0
		} else {
			line += ", order not known (output.provenance is off, or the output topic is shared)"
		}
		if lost := p.unread(); lost > 0 && o.ended && !hurried {
			line += fmt.Sprintf(", %d lost", lost)
			wrong = true
		}
		if waiting := p.waiting(); waiting > 0 {
			line += fmt.Sprintf(", %d waiting", waiting)
		}
		lines = append(lines, line+fmt.Sprintf("; latency %s", seconds(r.p50)))
	}
	return lines, wrong
}
