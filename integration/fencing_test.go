package integration

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
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

// TestDataLoss deletes records that an instance still has to read: it stops there
// instead of going on behind the hole.
func TestDataLoss(t *testing.T) {
	t.Parallel()
	in := newInput(t, 2)
	out := newTopic(t, ".out", 2)
	name := unique(t, "")
	conf := process(pipeline(name, in.topic, out))
	first := start(t, conf)
	in.produce(t, 100)
	awaitCaughtUp(t, patience, group(name), in.topic)
	first.drain(t)

	in.produce(t, 100)
	var before kadm.Offsets
	before.AddOffset(in.topic, 1, 150, -1)
	if _, err := bed.admin.DeleteRecords(within(t, patience), before); err != nil {
		t.Fatal(err)
	}
	second := start(t, conf)
	second.awaitUnready(t, in.topic+"/1", "no longer has offset 100", "reset")
	ctx := within(t, patience)
	await(t, patience, "the other partition to finish", func() (bool, string) {
		commits, err := committed(ctx, group(name), in.topic)
		return commits[0] == 200 && commits[1] == 100, fmt.Sprint(commits, err)
	})
	second.drain(t)
	end, err := ends(ctx, out, kgo.ReadUncommitted())
	if err != nil {
		t.Fatal(err)
	}
	if end[0] != 200 || end[1] != 100 {
		t.Errorf("the output partitions have %v records, want 200 and 100", end)
	}
	commits, err := committed(ctx, group(name), in.topic)
	if err != nil || commits[1] != 100 {
		t.Errorf("committed %v, %v; want 100 of partition 1, as before", commits, err)
	}
}
