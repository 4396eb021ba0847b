package integration

import (
	"context"
	"testing"

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
	awaitCaughtUp(t, patience, group(name), in.topic)
	i.drain(t)
	compareExact(t, in.topic, out)
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
	ctx := within(t, 5*patience)
	node := bed.cluster.Nodes[0]
	for _, end := range []func() error{func() error { return node.Stop(ctx) }, node.Kill} {
		for _, out := range outs {
			awaitOutput(t, out, records(ctx, t, out)+500)
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		back := startAgain(t)
		i.awaitUnready(t, node.Addr())
		back()
	}
	for n, protocol := range protocols {
		loads[n].end()
		awaitCaughtUp(t, patience, group(pipelines[n]["name"].(string)), inputs[n].topic)
		v := compare(t, inputs[n].topic, outs[n])
		t.Logf("%s: %v", protocol, v)
		if protocol == "consumer" && v.repeats > 0 {
			t.Errorf("%s: %v; want no repeats", protocol, v)
		}
	}
	i.awaitReady(t)
	i.drain(t)
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
