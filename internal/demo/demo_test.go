package demo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/kafka"
	"seriatim/processor"
	"seriatim/transform"
)

func startBroker(t *testing.T) *kafka.Embedded {
	t.Helper()
	broker, err := kafka.StartEmbedded(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	return broker
}

// plant writes a record into a topic before the demo begins.
func plant(t *testing.T, broker *kafka.Embedded, r *kgo.Record) {
	t.Helper()
	if err := broker.CreateTopics(t.Context(), map[string]int32{r.Topic: partitions}); err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(broker.Address()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func TestSideBySideTellsWhatIsOutOfOrder(t *testing.T) {
	t.Parallel()
	broker := startBroker(t)
	r := record(2, 1000) // all that come after it are late
	r.Topic, r.Partition = outTopic, 2
	plant(t, broker, r)
	plant(t, broker, &kgo.Record{Topic: outTopic, Partition: 1, Value: []byte("somebody else's")})
	var out, log bytes.Buffer
	wrong, err := SideBySide(t.Context(), broker, Options{Screen: NewScreen(&out, &log), Length: 2 * time.Second})
	if err != nil || !wrong {
		t.Errorf("wrong is %v (%v), want true", wrong, err)
	}
	if !regexp.MustCompile(`(?m)^\d+ records, [1-9]\d* out of order, 0 lost; latency `).Match(out.Bytes()) {
		t.Errorf("the verdict does not tell it:\n%s", &out)
	}
	if log.Len() > 0 {
		t.Errorf("it logs:\n%s", &log)
	}
}

func TestSideBySideEndsEarlyWithItsVerdict(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var out, log bytes.Buffer
	wrong, err := SideBySide(ctx, startBroker(t), Options{Screen: NewScreen(&out, &log), Length: time.Hour, Keep: true})
	if err != nil || wrong {
		t.Errorf("wrong is %v (%v), want neither", wrong, err)
	}
	if !regexp.MustCompile(`(?m)^[1-9]\d* records, 0 out of order, 0 lost`).Match(out.Bytes()) {
		t.Errorf("no verdict of what there was so far:\n%s", &out)
	}
}

// A watcher is told of everything that is written, once it has been.
type watcher struct {
	bytes.Buffer
	see func(written string)
}

// Write tells of what is written.
func (w *watcher) Write(p []byte) (int, error) {
	n, err := w.Buffer.Write(p)
	w.see(string(p))
	return n, err
}

func TestKeepGoesOnAfterTheVerdict(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &watcher{see: func(written string) {
		if strings.Contains(written, "until Ctrl-C") {
			time.AfterFunc(time.Second, cancel)
		}
	}}
	wrong, err := SideBySide(ctx, startBroker(t), Options{Screen: NewScreen(out, io.Discard), Length: time.Second, Keep: true})
	if err != nil || wrong {
		t.Errorf("wrong is %v (%v), want neither", wrong, err)
	}
	verdicts := regexp.MustCompile(`(?m)^(\d+) records, 0 out of order, 0 lost`).FindAllStringSubmatch(out.String(), -1)
	if len(verdicts) != 2 || verdicts[0][1] == verdicts[1][1] {
		t.Errorf("verdicts %q, want two, the second of more records:\n%s", verdicts, out)
	}
}

func TestVerdictTellsLostFromUnderWay(t *testing.T) {
	for name, test := range map[string]struct {
		came    []int64
		hurried bool
		want    string
		wrong   bool
	}{
		"all came":               {[]int64{0, 1, 2, 3}, false, "4 records, 0 out of order, 0 lost; ", false},
		"the last did not come":  {[]int64{0, 1}, false, "4 records, 0 out of order, 2 lost; ", true},
		"they had no time":       {[]int64{0, 1}, true, "4 records, 0 out of order, 0 lost, 2 still under way; ", false},
		"one was skipped":        {[]int64{0, 2}, true, "4 records, 0 out of order, 1 lost, 1 still under way; ", true},
		"one came again":         {[]int64{0, 1, 1, 2, 3}, false, "4 records, 0 out of order, 0 lost, 1 repeated; ", false},
		"one came after another": {[]int64{0, 2, 1, 3}, false, "4 records, 1 out of order, 0 lost; ", true},
	} {
		now := time.Now()
		s := sideBySide{seriatim: newTally(now), sequential: newTally(now), marked: map[int32]int64{1: 4}}
		for _, n := range test.came {
			r := record(1, n)
			r.Topic, r.Partition, r.Timestamp = outTopic, 1, now
			s.see(r, now.Add(time.Second))
		}
		lines, wrong := s.verdict(now.Add(time.Second), test.hurried)
		if want := test.want + "latency 1.0 s against -"; lines[0] != want || wrong != test.wrong {
			t.Errorf("%s: %q, wrong %v; want %q, %v", name, lines[0], wrong, want, test.wrong)
		}
	}
}

// ownOf is a pipeline as a user's configuration makes it.
func ownOf(t *testing.T, broker *kafka.Embedded, tr processor.Transform) (OwnPipeline, *processor.Pipeline) {
	t.Helper()
	p, err := processor.New(processor.Options{
		Name:   "orders",
		Client: []kgo.Opt{kgo.SeedBrokers(broker.Address())},
		Source: processor.Source{Topics: []string{"orders.in"}, Group: "orders"},
		Output: processor.Output{Topic: "orders.out", Provenance: true},
		Retry:  processor.Retries{Attempts: 1},
	}, tr)
	if err != nil {
		t.Fatal(err)
	}
	return OwnPipeline{Name: "orders", Topics: []string{"orders.in"}, Output: "orders.out", Provenance: true, Status: p.Status}, p
}

func TestOwnTellsWhatIsOutOfOrder(t *testing.T) {
	t.Parallel()
	broker := startBroker(t)
	own, p := ownOf(t, broker, transform.Pass())
	plant(t, broker, &kgo.Record{
		Topic: "orders.out", Partition: 3,
		Headers: []kgo.RecordHeader{{Key: "seriatim.source", Value: []byte("orders.in/3/1000")}},
	})
	var out, log bytes.Buffer
	wrong, err := Own(t.Context(), broker, []OwnPipeline{own}, p.Run, "nowhere", Options{Screen: NewScreen(&out, &log), Length: 2 * time.Second})
	if err != nil || !wrong {
		t.Errorf("wrong is %v (%v), want true", wrong, err)
	}
	if !regexp.MustCompile(`(?m)^orders: (\d+) records, \d+ outputs, [1-9]\d* out of order(, \d+ waiting)?; latency `).Match(out.Bytes()) {
		t.Errorf("the verdict does not tell it:\n%s", &out)
	}
}

func TestOwnShowsWhyRecordsWait(t *testing.T) {
	t.Parallel()
	broker := startBroker(t)
	refuse := processor.TransformFunc(func(context.Context, processor.Input, *processor.Outputs) error {
		return &processor.Failure{Kind: processor.Reject, Err: errors.New("no such customer")}
	})
	own, p := ownOf(t, broker, refuse)
	var out, log bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	wrong, err := Own(ctx, broker, []OwnPipeline{own}, p.Run, "nowhere", Options{Screen: NewScreen(&out, &log), Length: time.Hour})
	if err != nil || wrong {
		t.Errorf("wrong is %v (%v), want neither: a stopped partition is no disorder", wrong, err)
	}
	if !strings.Contains(out.String(), "no such customer") {
		t.Errorf("the lines do not tell the reason:\n%s", &out)
	}
	if !regexp.MustCompile(`(?m)^orders: .*[1-9]\d* waiting`).Match(out.Bytes()) {
		t.Errorf("the verdict does not tell that records wait:\n%s", &out)
	}
}

func TestOwnEndsWithItsPipelines(t *testing.T) {
	t.Parallel()
	broker := startBroker(t)
	own, _ := ownOf(t, broker, transform.Pass())
	broken := errors.New("broken")
	var out, log bytes.Buffer
	_, err := Own(t.Context(), broker, []OwnPipeline{own}, func(context.Context) error { return broken }, "nowhere",
		Options{Screen: NewScreen(&out, &log), Length: time.Hour})
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want what the pipelines ended with", err)
	}
}
