package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/testkafka"
)

// TestExactlyOnceMembers kills an instance as kill -9 does, starts it again under
// its name and terminates the other one, for each way of being a member of a group.
// Readers of committed records see every output once.
func TestExactlyOnceMembers(t *testing.T) {
	t.Parallel()
	members := map[string]settings{
		"classic":         {"session_timeout": "3s"},
		"static":          {"session_timeout": "3s", "static_membership": true},
		"consumer":        {"group_protocol": "consumer"},
		"consumer static": {"group_protocol": "consumer", "static_membership": true},
	}
	for kind, member := range members {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			killExactlyOnce(t, settings{"input": member})
		})
	}
}

// TestOldTransactions runs on a cluster whose transactions do not fence each
// other: refused without allow_old_brokers, exactly once with it.
func TestOldTransactions(t *testing.T) {
	onCluster(t, testkafka.Options{Features: map[string]int{"transaction.version": 1}})
	in := newInput(t, 1)
	in.produce(t, 10)
	out := newTopic(t, ".out", 1)
	i := start(t, process(pipeline(unique(t, ""), in.topic, out).with(settings{"delivery": "exactly_once"})))
	i.end(t)
	if code := i.exit(t); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	text := i.logText()
	t.Log(i.logTail(1))
	for _, words := range []string{"transaction.version 2, the cluster has 1", "upgrade", "allow_old_brokers", "KAFKA-17754"} {
		if !strings.Contains(text, words) {
			t.Errorf("the log does not say %q:\n%s", words, text)
		}
	}
	if n := records(within(t, patience), t, out); n != 0 {
		t.Errorf("there are %d outputs, want none", n)
	}
	killExactlyOnce(t, settings{"allow_old_brokers": true, "input": settings{"session_timeout": "3s"}})
}

// killExactlyOnce has two instances of a pipeline with these settings work, kills
// one with a transaction open, starts it again, and terminates the other.
func killExactlyOnce(t *testing.T, more settings) {
	t.Helper()
	const partitions = 4
	in := newInput(t, partitions)
	out := newTopic(t, ".out", partitions)
	name := unique(t, "")
	conf := func() settings {
		return process(pipeline(name, in.topic, out).with(settings{
			"delivery":  "exactly_once",
			"commit":    settings{"transaction": "1s"}, // one is open at most times
			"transform": settings{"simulate": settings{"latency": "10ms", "sigma": 1}},
		}).with(more)).with(settings{"instance": unique(t, "")})
	}
	killed, other := conf(), conf()
	l := in.start(t, 500)
	first, second := start(t, killed), start(t, other)
	first.awaitPartitions(t, name, partitions/2)
	second.awaitPartitions(t, name, partitions/2)
	awaitYoungTransaction(t, out, first.status(t, name).Partitions[0].Partition)
	first.kill(t)
	again := start(t, killed)
	again.awaitEmitted(t, name, 200)
	second.drain(t)
	again.awaitPartitions(t, name, partitions)
	l.end()
	awaitCaughtUp(t, patience, group(name), in.topic)
	again.drain(t)

	source := read(t, in.topic, kgo.ReadCommitted())
	if v := judge(source, read(t, out, kgo.ReadCommitted())); v.faults > 0 || v.repeats > 0 {
		t.Errorf("%s → %s (seed %d): %v; want every output once", in.topic, out, *seed, v)
	}
	all := judge(source, read(t, out, kgo.ReadUncommitted()))
	t.Logf("%v for readers of uncommitted records", all)
	if all.repeats == 0 {
		t.Error("the kill met no outputs of an open transaction: the test has shown nothing")
	}
}

// awaitYoungTransaction waits until a transaction has just begun to write to a
// partition.
func awaitYoungTransaction(t *testing.T, topic string, partition int32) {
	t.Helper()
	ctx := within(t, 2*patience)
	stable := int64(-1) // where readers of committed records stood before it
	await(t, patience, "a transaction to begin", func() (bool, string) {
		visible, err := ends(ctx, topic, kgo.ReadCommitted())
		if err != nil {
			return false, err.Error()
		}
		written, err := ends(ctx, topic, kgo.ReadUncommitted())
		if err != nil {
			return false, err.Error()
		}
		if stable < 0 {
			stable = visible[partition]
		}
		return visible[partition] > stable && written[partition] > visible[partition], fmt.Sprintf("%v of %v are visible", visible, written)
	})
}

// onCluster has a test that is not parallel use a cluster of its own.
func onCluster(t *testing.T, opts testkafka.Options) {
	t.Helper()
	cluster, err := testkafka.Start(within(t, 2*patience), opts)
	if err != nil {
		t.Fatal(err)
	}
	shared := bed
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the broker's log:\n%s", cluster.LogTail(30))
		}
		bed.cluster, bed.client, bed.admin = shared.cluster, shared.client, shared.admin
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	client, err := cluster.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	bed.cluster, bed.client, bed.admin = cluster, client, kadm.NewClient(client)
}
