package integration

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The tests of this file need the broker for themselves: they stop it.

// TestBrokerDownAtStart starts an instance before its broker.
func TestBrokerDownAtStart(t *testing.T) {
	in := newInput(t, 2)
	out := newTopic(t, ".out", 2)
	in.produce(t, 100)
	node := bed.cluster.Nodes[0]
	if err := node.Stop(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	back := startAgain(t)
	name := unique(t, "")
	i := start(t, process(pipeline(name, in.topic, out)))
	i.awaitUnready(t, name, node.Addr())
	if code, body := i.get(t, "/livez"); code != 200 {
		t.Errorf("/livez answers %d %q: an outage of the brokers must not restart us", code, body)
	}
	back()
	i.awaitReady(t)
	i.finish(t, name, in.topic, out)
}

// startAgain returns a function that starts the broker. It is called at the end
// of the test in any case.
func startAgain(t *testing.T) func() {
	running := false
	back := func() {
		t.Helper()
		if running {
			return
		}
		running = true
		if err := bed.cluster.Nodes[0].Start(within(t, 2*patience)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if !running {
			ctx, cancel := lasting(patience)
			defer cancel()
			if err := bed.cluster.Nodes[0].Start(ctx); err != nil {
				t.Error(err)
			}
		}
	})
	return back
}

// TestBrokerRestart restarts the broker under load, once in good order and once
// after kill -9. Records wait, none is lost, and none overtakes another.
//
// A member of a classic group that reaches no broker at all gives its membership
// up, and what it had not committed is done again. One of a consumer group goes
// on where it was.
//
// A second instance is terminated while the broker is down and it can no longer
// commit: it gives up in time, and says so with its exit code.
func TestBrokerRestart(t *testing.T) {
	const partitions = 4
	protocols := []string{"classic", "consumer"}
	inputs, outs, pipelines := make([]*input, 2), make([]string, 2), make([]settings, 2)
	loads := make([]*load, 2)
	for n, protocol := range protocols {
		inputs[n], outs[n] = newInput(t, partitions), newTopic(t, ".out", partitions)
		pipelines[n] = pipeline(unique(t, "-"+protocol), inputs[n].topic, outs[n]).with(settings{
			"input":     settings{"group_protocol": protocol},
			"transform": settings{"simulate": settings{"latency": "20ms", "sigma": 1}},
		})
		loads[n] = inputs[n].start(t, 500)
	}
	i := start(t, process(pipelines...))
	last, lastOut, lastName := newInput(t, partitions), newTopic(t, ".out", partitions), unique(t, "-last")
	lastOne := pipeline(lastName, last.topic, lastOut).with(settings{
		"input":         settings{"group_protocol": "consumer"},
		"commit":        settings{"interval": "1h"},
		"drain_timeout": "3s",
	})
	ending := start(t, process(lastOne))
	last.produce(t, 500)
	ending.awaitEmitted(t, lastName, 500*partitions)
	ctx := within(t, 5*patience)
	node := bed.cluster.Nodes[0]
	stop := func() {
		if err := node.Stop(ctx); err != nil {
			t.Fatal(err)
		}
	}
	kill := func() {
		if err := node.Kill(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if code := ending.terminate(t); code != 75 {
			t.Errorf("an instance that cannot commit ends with exit code %d, want 75", code)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it ends after %v, which is more than drain_timeout, 3 s, and 2 s", took)
		}
	}
	for _, end := range []func(){stop, kill} {
		for _, out := range outs {
			awaitOutput(t, out, records(ctx, t, out)+500)
		}
		end()
		back := startAgain(t)
		i.awaitUnready(t, node.Addr())
		back()
	}
	for n, protocol := range protocols {
		loads[n].end()
		awaitCaughtUp(t, patience, group(pipelines[n]["name"].(string)), inputs[n].topic)
		v := compareSteps(t, inputs[n].topic, outs[n])
		t.Logf("%s: %v", protocol, v)
		if protocol == "consumer" && v.repeats > 0 {
			t.Errorf("%s: %v; want no repeats", protocol, v)
		}
	}
	i.awaitReady(t)
	i.drain(t)

	next := start(t, process(lastOne.with(settings{"commit": settings{"interval": "500ms"}})))
	awaitCaughtUp(t, patience, group(lastName), last.topic)
	next.drain(t)
	compareSteps(t, last.topic, lastOut)
}

// records returns how many records a topic without transactions has.
func records(ctx context.Context, t *testing.T, topic string) (n int64) {
	t.Helper()
	end, err := ends(ctx, topic, kgo.ReadUncommitted())
	if err != nil {
		t.Fatal(err)
	}
	for _, offset := range end {
		n += offset
	}
	return n
}

// TestBrokerFrozen has the broker not answer, with all connections open. That
// is said in time, and all goes on when it answers again.
func TestBrokerFrozen(t *testing.T) {
	const partitions = 4
	in := newInput(t, partitions)
	out := newTopic(t, ".out", partitions)
	name := unique(t, "")
	i := start(t, process(pipeline(name, in.topic, out)))
	l := in.start(t, 500)
	i.awaitEmitted(t, name, 500)
	node := bed.cluster.Nodes[0]
	if err := node.Freeze(); err != nil {
		t.Fatal(err)
	}
	thaw := sync.OnceValue(node.Thaw)
	t.Cleanup(func() { _ = thaw() })
	began := time.Now()
	t.Log(i.awaitUnready(t, name))
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the instance has said nothing for %v, more than 30 s", took)
	}
	if err := thaw(); err != nil {
		t.Fatal(err)
	}
	awaitOutput(t, out, records(within(t, patience), t, out)+500)
	l.end()
	awaitCaughtUp(t, patience, group(name), in.topic)
	i.awaitReady(t)
	i.drain(t)
	t.Log(compareSteps(t, in.topic, out))
}
