package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestRejectedRecordStopsItsPartition has a worker refuse one record. The other
// partitions go on; the reason is in the log, in a metric and in readiness; a
// restart tries again.
func TestRejectedRecordStopsItsPartition(t *testing.T) {
	t.Parallel()
	const partitions, each, poison = 4, 500, 123
	in := newInput(t, partitions)
	out := newTopic(t, ".out", partitions)
	in.produce(t, each)
	worker := newWorker(t)
	bad := fmt.Sprintf("%s/2/%d", in.topic, poison)
	worker.answer(bad, http.StatusUnprocessableEntity)
	name := unique(t, "")
	conf := process(pipeline(name, in.topic, out).with(settings{
		"transform":    settings{"http": settings{"urls": []string{worker.url}}},
		"on_exhausted": "stop",
	}))
	i := start(t, conf)
	where := in.topic + "/2"
	i.awaitUnready(t, where, "stopped", fmt.Sprintf("offset %d", poison), "422", "restart")
	ctx := within(t, patience)
	await(t, patience, "the other partitions to finish, and this one to stand", func() (bool, string) {
		commits, err := committed(ctx, group(name), in.topic)
		return err == nil && commits[0] == each && commits[1] == each && commits[2] == poison && commits[3] == each, fmt.Sprint(commits, err)
	})
	if got := i.metric(t, "seriatim_partition_stopped", `partition="2"`); got != 1 {
		t.Errorf("partition_stopped is %v, want 1", got)
	}
	if got := i.metric(t, "seriatim_partition_stopped", name); got != 1 {
		t.Errorf("partition_stopped of all partitions is %v, want 1", got)
	}
	if text := i.logText(); !strings.Contains(text, "the partition is stopped") || !strings.Contains(text, "422") {
		t.Errorf("the log does not say that the partition is stopped:\n%s", text)
	}
	i.drain(t)

	again := start(t, conf) // the worker is as it was
	again.awaitUnready(t, where, "stopped", "422")
	again.drain(t)

	worker.answer(bad, 0)
	mended := start(t, conf)
	awaitCaughtUp(t, patience, group(name), in.topic)
	mended.awaitReady(t)
	mended.drain(t)
	compareExact(t, in.topic, out)
}

// TestExhaustedRecordStopsItsPartition has every attempt fail.
func TestExhaustedRecordStopsItsPartition(t *testing.T) {
	t.Parallel()
	in := newInput(t, 1)
	out := newTopic(t, ".out", 1)
	in.produce(t, 1)
	name := unique(t, "")
	conf := pipeline(name, in.topic, out)
	i := start(t, process(conf.with(settings{
		"transform":    settings{"simulate": settings{"latency": "1ms", "failure_rate": 1}},
		"retry":        settings{"attempts": 3, "initial": "1ms"},
		"on_exhausted": "stop",
	})))
	i.awaitUnready(t, in.topic+"/0", "stopped", "offset 0", "failed 3 times")
	i.drain(t)
	mended := start(t, process(conf))
	mended.finish(t, name, in.topic, out)
}

// TestRetriesKeepTheOrder has one attempt in five fail.
func TestRetriesKeepTheOrder(t *testing.T) {
	t.Parallel()
	in := newInput(t, 3)
	out := newTopic(t, ".out", 3)
	in.produce(t, 1000)
	name := unique(t, "")
	i := start(t, process(pipeline(name, in.topic, out).with(settings{
		"transform": settings{"simulate": settings{"latency": "2ms", "sigma": 1, "failure_rate": 0.2}},
		"retry":     settings{"attempts": 50, "initial": "1ms", "max": "50ms"},
	})))
	awaitCaughtUp(t, patience, group(name), in.topic)
	if failed := i.metric(t, "seriatim_attempts_total", name, `result="retry"`); failed < 300 {
		t.Errorf("%v attempts have failed, want hundreds", failed)
	}
	i.drain(t)
	compareExact(t, in.topic, out)
}

// TestStuckRecord has one attempt in one of 8 partitions hang: the others go on as
// if nothing were.
func TestStuckRecord(t *testing.T) {
	t.Parallel()
	const partitions, each, stuck = 8, 2000, 77
	in := newInput(t, partitions)
	out := newTopic(t, ".out", partitions)
	worker := newWorker(t)
	worker.hold(fmt.Sprintf("%s/5/%d", in.topic, stuck))
	name := unique(t, "")
	i := start(t, process(pipeline(name, in.topic, out).with(settings{
		"transform": settings{"http": settings{"urls": []string{worker.url}, "timeout": "10m"}},
		"window":    settings{"records": 512},
	})))
	in.produce(t, each)
	ctx := within(t, 2*patience)
	await(t, patience, "the seven other partitions to finish", func() (bool, string) {
		commits, err := committed(ctx, group(name), in.topic)
		for p := range int32(partitions) {
			want := int64(each)
			if p == 5 {
				want = stuck
			}
			if err != nil || commits[p] != want {
				return false, fmt.Sprint(commits, err)
			}
		}
		return true, ""
	})
	i.awaitUnready(t, in.topic+"/5", fmt.Sprintf("offset %d", stuck), "attempt 1 runs")
	if held := i.metric(t, "seriatim_window_records", name, `partition="5"`); held > 512 {
		t.Errorf("the window of the stuck partition has %v records, more than window.records", held)
	}
	worker.release()
	awaitCaughtUp(t, patience, group(name), in.topic)
	i.awaitReady(t)
	i.drain(t)
	compareExact(t, in.topic, out)
}

// TestWorkerDown has no worker listen for a while: that is no fault of a record,
// and uses no attempt up.
func TestWorkerDown(t *testing.T) {
	t.Parallel()
	in := newInput(t, 2)
	out := newTopic(t, ".out", 2)
	in.produce(t, 100)
	name := unique(t, "")
	addr := freeAddr(t)
	i := start(t, process(pipeline(name, in.topic, out).with(settings{
		"transform": settings{"http": settings{"urls": []string{"http://" + addr}}},
		"retry":     settings{"attempts": 1},
	})))
	i.awaitUnready(t, name, addr, "out of reach", "connection refused")
	listen(t, addr)
	i.finish(t, name, in.topic, out)
}
