package integration

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestHandover has instances join and leave while records arrive. Each finishes
// what it has begun before it hands a partition over, so nothing is repeated.
func TestHandover(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"classic", "consumer"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			const partitions = 8
			in := newInput(t, partitions)
			out := newTopic(t, ".out", partitions)
			name := unique(t, "")
			conf := pipeline(name, in.topic, out).with(settings{
				"input":     settings{"group_protocol": protocol},
				"transform": settings{"simulate": settings{"latency": "20ms", "sigma": 1}},
			})
			l := in.start(t, 1000)
			first := start(t, process(conf))
			first.awaitPartitions(t, name, partitions)
			second := start(t, process(conf))
			first.awaitPartitions(t, name, partitions/2)
			second.awaitPartitions(t, name, partitions/2)
			third := start(t, process(conf))
			third.awaitEmitted(t, name, 200)
			first.drain(t)
			second.awaitPartitions(t, name, partitions/2)
			third.awaitPartitions(t, name, partitions/2)
			second.drain(t)
			third.awaitPartitions(t, name, partitions)
			l.end()
			awaitCaughtUp(t, patience, group(name), in.topic)
			third.drain(t)
			v := compareExact(t, in.topic, out)
			t.Logf("%v", v)
		})
	}
}

// TestTerminate ends an instance while hundreds of records are being transformed:
// what it emitted is what it committed, and whoever comes next goes on from there.
func TestTerminate(t *testing.T) {
	t.Parallel()
	const partitions = 4
	in := newInput(t, partitions)
	out := newTopic(t, ".out", partitions)
	name := unique(t, "")
	conf := process(pipeline(name, in.topic, out).with(settings{
		"transform": settings{"simulate": settings{"latency": "100ms", "sigma": 0.5}},
		"workers":   256,
		"commit":    settings{"interval": "1h"}, // the last commit does it all
	}))
	l := in.start(t, 1000)
	first := start(t, conf)
	first.awaitEmitted(t, name, 1000)
	began := time.Now()
	first.drain(t)
	if took := time.Since(began); took > 12*time.Second {
		t.Errorf("the drain took %v, more than drain_timeout and 2 s", took)
	}
	ctx := within(t, patience)
	emitted, err := ends(ctx, out, kgo.ReadUncommitted())
	if err != nil {
		t.Fatal(err)
	}
	commits, err := committed(ctx, group(name), in.topic)
	if err != nil {
		t.Fatal(err)
	}
	for p := range int32(partitions) {
		if emitted[p] != commits[p] || emitted[p] == 0 {
			t.Errorf("partition %d: %d emitted, %d committed; want the same", p, emitted[p], commits[p])
		}
	}
	second := start(t, conf)
	second.awaitEmitted(t, name, 1000)
	l.end()
	second.drain(t)
	start(t, process(pipeline(name, in.topic, out)))
	awaitCaughtUp(t, patience, group(name), in.topic)
	compareExact(t, in.topic, out)
}

// TestDrainDeadline ends an instance whose attempts last longer than it may take.
func TestDrainDeadline(t *testing.T) {
	t.Parallel()
	const partitions = 2
	in := newInput(t, partitions)
	out := newTopic(t, ".out", partitions)
	in.produce(t, 1000)
	name := unique(t, "")
	conf := pipeline(name, in.topic, out).with(settings{"drain_timeout": "1s"})
	stuck := start(t, process(conf.with(settings{
		"transform": settings{"simulate": settings{"latency": "10m", "sigma": 0}},
	})))
	stuck.awaitBusy(t, name, 64)
	began := time.Now()
	if code := stuck.terminate(t); code != 75 {
		t.Errorf("exit code %d, want 75", code)
	}
	if took := time.Since(began); took < time.Second || took > 3*time.Second {
		t.Errorf("it took %v, want between drain_timeout, which is 1 s, and 2 s more", took)
	}
	next := start(t, process(conf))
	next.finish(t, name, in.topic, out)
}

// TestKill ends instances as kill -9 does. Nothing is lost, and what is repeated
// is what was emitted since the last commit that was acknowledged.
func TestKill(t *testing.T) {
	t.Parallel()
	const partitions = 4
	in := newInput(t, partitions)
	out := newTopic(t, ".out", partitions)
	name := unique(t, "")
	conf := process(pipeline(name, in.topic, out).with(settings{
		"input":     settings{"session_timeout": "3s"},
		"transform": settings{"simulate": settings{"latency": "10ms", "sigma": 1}},
		"commit":    settings{"interval": "3s"},
	}))
	ctx := within(t, 3*time.Minute)
	l := in.start(t, 1000)
	chance := random(t)
	allowed := 0
	for range 3 {
		i := start(t, conf)
		i.awaitEmitted(t, name, uint64(500+chance.IntN(3000)))
		i.kill(t)
		awaitQuiet(ctx, t, out)
		commits, err := committed(ctx, group(name), in.topic)
		if err != nil {
			t.Fatal(err)
		}
		seen := newest(read(t, out, kgo.ReadUncommitted()))
		for p := range int32(partitions) {
			allowed += seen[p] + 1 - int(commits[p]) // in this input, record n is at offset n
		}
	}
	i := start(t, conf)
	l.end()
	awaitCaughtUp(t, patience, group(name), in.topic)
	i.drain(t)
	v := compareSteps(t, in.topic, out)
	t.Logf("%v; at most %d could be", v, allowed)
	if v.repeats > allowed {
		t.Errorf("%v; want at most %d repeats", v, allowed)
	}
	if v.repeats == 0 {
		t.Errorf("%v: no kill came between an emit and its commit: the test has shown nothing", v)
	}
}

// awaitQuiet waits until nothing more arrives in a topic: of an instance that was
// killed, the broker may still have to read what it had sent.
func awaitQuiet(ctx context.Context, t *testing.T, topic string) {
	t.Helper()
	var last map[int32]int64
	same := 0
	await(t, patience, "silence in "+topic, func() (bool, string) {
		now, err := ends(ctx, topic, kgo.ReadUncommitted())
		if err == nil && maps.Equal(now, last) {
			same++
		} else {
			same, last = 0, now
		}
		return same >= 10, fmt.Sprintf("%v %v", now, err)
	})
}

// newest returns the newest record of each partition, -1 if there is none.
func newest(seen [][]sighting) []int {
	list := make([]int, len(seen))
	for p := range seen {
		list[p] = -1
		for i := range seen[p] {
			list[p] = max(list[p], seen[p][i].seq)
		}
	}
	return list
}
