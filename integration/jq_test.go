package integration

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestJQ has a jq program rewrite records, and then meet one that is not JSON.
func TestJQ(t *testing.T) {
	t.Parallel()
	const partitions = 3
	in := newInput(t, partitions)
	in.json = true
	out := newTopic(t, ".out", partitions)
	in.produce(t, 500)
	name := unique(t, "")
	i := start(t, process(pipeline(name, in.topic, out).with(settings{
		"transform": settings{"jq": "select(.who)\n| {who, key: $key, from: \"\\($topic)/\\($partition)/\\($offset)\"}"},
	})))
	awaitCaughtUp(t, patience, group(name), in.topic)
	i.awaitReady(t)
	compareExact(t, in.topic, out)
	if first := firstValue(t, out); !strings.Contains(first, `"from":"`+in.topic+`/0/0"`) || !strings.Contains(first, `"key":"key-0"`) {
		t.Errorf("the first value is %s, want one with the key and the place of its record", first)
	}

	answers, producer := newAnswers(t), newProducer(t)
	producer.Produce(t.Context(), &kgo.Record{Topic: in.topic, Partition: 1, Value: []byte("who: nobody")}, answers.note)
	answers.flush(producer)
	i.awaitUnready(t, in.topic+"/1", "is held", "offset 500", "not JSON")
	in.next = in.next[:1]
	in.produce(t, 100) // to partition 0, which goes on
	awaitOutput(t, out, partitions*500+100)
	i.drain(t)
	if text := i.logText(); strings.Contains(text, "nobody") {
		t.Errorf("the log tells the value of a record:\n%s", i.logTail(20))
	}
}
