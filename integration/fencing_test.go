package integration

import (
	"strings"
	"syscall"
	"testing"
)

// TestFrozenInstance stops an instance for longer than its session, as a laptop
// lid or a hypervisor does. Another one takes over; when the first wakes up, what
// it still emits are repeats, and nothing of it is committed.
func TestFrozenInstance(t *testing.T) {
	t.Parallel()
	const partitions = 2
	in := newInput(t, partitions)
	out := newTopic(t, ".out", partitions)
	name := unique(t, "")
	conf := process(pipeline(name, in.topic, out).with(settings{
		"input":     settings{"session_timeout": "2s"},
		"transform": settings{"simulate": settings{"latency": "20ms", "sigma": 1}},
	}))
	l := in.start(t, 500)
	frozen := start(t, conf)
	frozen.awaitEmitted(t, name, 500)
	if err := frozen.process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	other := start(t, conf)
	other.awaitPartitions(t, name, partitions)
	other.awaitEmitted(t, name, 500)
	if err := frozen.process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	await(t, patience, "the instance to notice", func() (bool, string) {
		return strings.Contains(frozen.logText(), "without asking"), frozen.logTail(3)
	})
	frozen.awaitPartitions(t, name, partitions/2)
	other.awaitPartitions(t, name, partitions/2)
	l.end()
	awaitCaughtUp(t, patience, group(name), in.topic)
	frozen.drain(t)
	other.drain(t)
	t.Log(compare(t, in.topic, out))
}

// TestStaticMembership restarts an instance within its session timeout: the
// other one does not notice.
func TestStaticMembership(t *testing.T) {
	t.Parallel()
	const partitions = 4
	in := newInput(t, partitions)
	out := newTopic(t, ".out", partitions)
	name := unique(t, "")
	conf := process(pipeline(name, in.topic, out).with(settings{
		"input": settings{"static_membership": true, "session_timeout": "30s"},
	}))
	named := conf.with(settings{"instance": unique(t, "")})
	l := in.start(t, 200)
	first, other := start(t, named), start(t, conf)
	first.awaitPartitions(t, name, partitions/2)
	other.awaitPartitions(t, name, partitions/2)
	before := other.metric(t, "seriatim_rebalances_total", name)
	first.drain(t)
	again := start(t, named)
	again.awaitPartitions(t, name, partitions/2)
	again.awaitEmitted(t, name, 100)
	if after := other.metric(t, "seriatim_rebalances_total", name); after != before {
		t.Errorf("the other instance has seen %v rebalances, want %v as before the restart", after, before)
	}
	l.end()
	awaitCaughtUp(t, patience, group(name), in.topic)
	again.drain(t)
	other.drain(t)
	compareExact(t, in.topic, out)
}

// TestTwin gives two processes the same static name: the second one wins, the
// first ends and says why.
func TestTwin(t *testing.T) {
	t.Parallel()
	in := newInput(t, 1)
	name := unique(t, "")
	twin := unique(t, "")
	conf := process(pipeline(name, in.topic, newTopic(t, ".out", 1)).with(settings{
		"input": settings{"static_membership": true},
	})).with(settings{"instance": twin})
	first := start(t, conf)
	first.awaitPartitions(t, name, 1)
	first.end(t)
	second := start(t, conf)
	if code := first.exit(t); code != 75 {
		t.Errorf("exit code %d, want 75", code)
	}
	if text := first.logText(); !strings.Contains(text, "another process uses instance") || !strings.Contains(text, twin) {
		t.Errorf("the log does not say that another process uses instance %s:\n%s", twin, text)
	}
	second.awaitPartitions(t, name, 1)
	second.drain(t)
}
