package integration

import (
	"testing"
	"time"
)

// TestOrder puts 100,000 records of each of 6 partitions through transforms that
// take log-normal times on 256 workers.
func TestOrder(t *testing.T) {
	const partitions, each = 6, 100_000
	in := newInput(t, partitions)
	out := newTopic(t, ".out", partitions)
	in.produce(t, each)

	name := unique(t, "")
	i := start(t, process(pipeline(name, in.topic, out).with(settings{
		"workers":   256,
		"transform": settings{"simulate": settings{"latency": "1ms", "sigma": 1, "seed": int64(*seed % 1e9)}},
	})))
	began := time.Now()
	awaitCaughtUp(t, 3*time.Minute, group(name), in.topic)
	t.Logf("%d records in %v", partitions*each, time.Since(began).Round(time.Millisecond))
	i.awaitReady(t)
	if got := i.metric(t, "seriatim_emitted_total"); got != partitions*each {
		t.Errorf("emitted_total is %v, want %d", got, partitions*each)
	}
	i.drain(t)
	if v := compareExact(t, in.topic, out); v.records != partitions*each {
		t.Errorf("%v; want %d records", v, partitions*each)
	}
}
