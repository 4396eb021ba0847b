package integration

import (
	"syscall"
	"testing"
)

// TestStandingWorkerIsHedged has one of two Node workers stand still under load. Its calls
// would take five minutes; the other worker is asked beside it, and nothing waits.
func TestStandingWorkerIsHedged(t *testing.T) {
	t.Parallel()
	const partitions = 3
	inBothModes(t, func(t *testing.T, delivery settings) {
		in := newInput(t, partitions)
		in.json = true
		out := newTopic(t, ".out", partitions)
		name := unique(t, "")
		first, firstAddr := startNode(t, "0")
		_, secondAddr := startNode(t, "0")
		i := start(t, process(pipeline(name, in.topic, out).with(settings{
			"workers":   16,
			"hedge":     settings{"after": "300ms", "budget": "100%"},
			"transform": settings{"http": settings{"urls": []string{"http://" + firstAddr + "/", "http://" + secondAddr + "/"}, "timeout": "5m"}},
		}).with(delivery)))
		l := in.start(t, 100)
		i.awaitEmitted(t, name, 100)

		if err := first.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		awaitOutput(t, out, records(within(t, patience), t, out)+300)
		if err := first.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		l.end()
		awaitCaughtUp(t, patience, group(name), in.topic)
		if n := i.metric(t, "seriatim_hedges_total", `pipeline="`+name+`"`); n == 0 {
			t.Error("there were no hedges: the worker did not stand still")
		}
		i.drain(t)
		compareExact(t, in.topic, out)
	})
}

// TestCallsThatHang has a worker in Node take 750 ms for a record, of which one comes each
// 250 ms in each partition, and never answer one call in a hundred. (How long records take
// then is measured by make hanging.)
func TestCallsThatHang(t *testing.T) {
	t.Parallel()
	const partitions, count = 12, 600
	in := newInput(t, partitions)
	out := newTopic(t, ".out", partitions)
	name := unique(t, "")
	_, addr := startWorker(t, "0", "node", "testdata/hanging.mjs")
	i := start(t, process(pipeline(name, in.topic, out).with(settings{
		"hedge":     settings{"after": "2s"},
		"transform": settings{"http": settings{"urls": []string{"http://" + addr + "/"}, "timeout": "5m"}},
	})))
	l := in.start(t, 4*partitions)
	awaitOutput(t, out, count)
	l.end()
	awaitCaughtUp(t, patience, group(name), in.topic)
	total := float64(records(within(t, patience), t, in.topic))
	hedges := i.metric(t, "seriatim_hedges_total", `pipeline="`+name+`"`)
	if hedges < 1 || hedges > total*5/100 {
		t.Errorf("%v second calls for %v records, want some and at most 5 %%", hedges, total)
	}
	if n := i.metric(t, "seriatim_attempts_total", `pipeline="`+name+`"`, `result="ok"`); n != total {
		t.Errorf("%v calls were answered for %v records", n, total)
	}
	i.drain(t)
	compareExact(t, in.topic, out)
}
