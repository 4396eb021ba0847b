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
