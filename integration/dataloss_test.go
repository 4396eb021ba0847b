package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/internal/testkafka"
)

// inBothModes runs a test for each delivery.
func inBothModes(t *testing.T, test func(t *testing.T, delivery settings)) {
	t.Helper()
	for _, mode := range []string{"at_least_once", "exactly_once"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			test(t, settings{"delivery": mode})
		})
	}
}

// onLoss is a setting of a pipeline.
func onLoss(policy string) settings { return settings{"input": settings{"on_data_loss": policy}} }

// sequences returns the sequence numbers that one partition of a topic tells to
// readers of committed records.
func sequences(t *testing.T, topic string, partition int) []int {
	t.Helper()
	var list []int
	for _, s := range read(t, topic, kgo.ReadCommitted())[partition] {
		list = append(list, s.seq)
	}
	return list
}

// numbers returns the numbers of these ranges, from and to in turn.
func numbers(bounds ...int) []int {
	var list []int
	for i := 0; i < len(bounds); i += 2 {
		for n := bounds[i]; n < bounds[i+1]; n++ {
			list = append(list, n)
		}
	}
	return list
}

func mustBe(t *testing.T, what string, got, want []int) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// setCommitted gives a group an offset, as the tools do.
func setCommitted(t *testing.T, group, topic string, partition int32, at int64, epoch int32) {
	t.Helper()
	o := make(kadm.Offsets)
	o.Add(kadm.Offset{Topic: topic, Partition: partition, At: at, LeaderEpoch: epoch})
	must(t, bed.admin.CommitAllOffsets(within(t, patience), group, o))
}

// awaitCommitted waits until a group has committed an offset of a partition.
func awaitCommitted(t *testing.T, group, topic string, partition int32, at int64) {
	t.Helper()
	ctx := within(t, 2*patience)
	await(t, patience, fmt.Sprintf("%s to commit %d of %s/%d", group, at, topic, partition), func() (bool, string) {
		commits, err := committed(ctx, group, topic)
		return err == nil && commits[partition] == at, fmt.Sprint(commits, err)
	})
}

// TestDeletedRecords deletes records that an instance still has to read.
func TestDeletedRecords(t *testing.T) {
	t.Parallel()
	inBothModes(t, func(t *testing.T, delivery settings) {
		for policy, test := range map[string]struct {
			gone    float64
			outputs []int
		}{
			"stop":     {50, numbers(0, 100)},
			"earliest": {50, numbers(0, 100, 150, 210)},
			"latest":   {100, numbers(0, 100, 200, 210)},
		} {
			t.Run(policy, func(t *testing.T) {
				t.Parallel()
				in := newInput(t, 2)
				out := newTopic(t, ".out", 2)
				name := unique(t, "")
				conf := process(pipeline(name, in.topic, out).with(delivery).with(onLoss(policy)))
				first := start(t, conf)
				in.produce(t, 100)
				awaitCaughtUp(t, patience, group(name), in.topic)
				first.drain(t)

				end := int64(200)
				in.produce(t, 100)
				var before kadm.Offsets
				before.AddOffset(in.topic, 1, 150, -1)
				_, err := bed.admin.DeleteRecords(within(t, patience), before)
				must(t, err)
				second := start(t, conf)
				if policy == "stop" {
					second.awaitUnready(t, in.topic+"/1", "offsets 100 to 149 (50 records at most) are gone", "on_data_loss",
						"kafka-consumer-groups.sh --bootstrap-server "+bed.cluster.Brokers()[0]+" --group "+group(name)+
							" --topic "+in.topic+":1 --reset-offsets --to-offset 150 --execute")
				} else {
					awaitCommitted(t, group(name), in.topic, 1, end)
					in.produce(t, 10)
					end += 10
				}
				awaitCommitted(t, group(name), in.topic, 0, end)
				if got := second.metric(t, "seriatim_gap_offsets_total", `partition="1"`, `kind="lost"`); got != test.gone {
					t.Errorf("%v offsets are counted as lost, want %v", got, test.gone)
				}
				if text := second.logText(); !strings.Contains(text, "offsets 100 to 149 (50 records at most) are gone") {
					t.Errorf("the log does not name the offsets:\n%s", text)
				}
				if policy == "stop" {
					awaitCommitted(t, group(name), in.topic, 1, 100)
				} else {
					awaitCaughtUp(t, patience, group(name), in.topic)
				}
				second.drain(t)
				mustBe(t, "outputs", sequences(t, out, 1), test.outputs)
			})
		}
	})
}

// TestCommittedBeyondTheEnd sets the group's offset behind the end of the log; with
// the leader's epoch the broker can tell where the log really ended.
func TestCommittedBeyondTheEnd(t *testing.T) {
	t.Parallel()
	inBothModes(t, func(t *testing.T, delivery settings) {
		for name, test := range map[string]struct {
			policy  string
			epoch   int32
			kind    string
			outputs []int
		}{
			"stop":                {"stop", -1, "beyond_end", nil},
			"earliest":            {"earliest", -1, "beyond_end", numbers(0, 110)},
			"latest":              {"latest", -1, "beyond_end", numbers(100, 110)},
			"stop-with-epoch":     {"stop", 0, "truncated", nil},
			"earliest-with-epoch": {"earliest", 0, "truncated", numbers(100, 110)},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				in := newInput(t, 1)
				out := newTopic(t, ".out", 1)
				in.produce(t, 100)
				name := unique(t, "")
				setCommitted(t, group(name), in.topic, 0, 700, test.epoch)
				i := start(t, process(pipeline(name, in.topic, out).with(delivery).with(onLoss(test.policy))))
				if test.policy == "stop" {
					i.awaitUnready(t, in.topic+"/0", "offsets 100 to 699 (600 records at most) are gone", "--to-offset 100")
					awaitCommitted(t, group(name), in.topic, 0, 700)
				} else {
					awaitCommitted(t, group(name), in.topic, 0, 100)
					in.produce(t, 10)
					awaitCaughtUp(t, patience, group(name), in.topic)
				}
				if got := i.metric(t, "seriatim_gap_offsets_total", `kind="`+test.kind+`"`); got != 600 {
					t.Errorf("%v offsets are counted as %s, want 600", got, test.kind)
				}
				i.drain(t)
				mustBe(t, "outputs", sequences(t, out, 0), test.outputs)
			})
		}
	})
}

// TestRecreatedTopic deletes one of two input topics and creates it anew. Nothing
// is committed for it any more, the other goes on, and a restart reads it.
func TestRecreatedTopic(t *testing.T) {
	t.Parallel()
	inBothModes(t, func(t *testing.T, delivery settings) {
		in, other := newInput(t, 1), newInput(t, 1)
		outs := []string{in.topic + ".out", other.topic + ".out"}
		for _, out := range outs {
			createTopic(t, out, 1)
		}
		name := unique(t, "")
		conf := process(pipeline(name, in.topic, "{topic}.out").with(delivery).with(settings{
			"input": settings{"topics": []string{in.topic, other.topic}},
		}))
		first := start(t, conf)
		in.produce(t, 100)
		other.produce(t, 100)
		awaitCaughtUp(t, patience, group(name), in.topic)
		awaitCaughtUp(t, patience, group(name), other.topic)

		_, err := bed.admin.DeleteTopics(within(t, patience), in.topic)
		must(t, err)
		first.awaitUnready(t, in.topic, "does not exist")
		other.produce(t, 100)
		awaitCaughtUp(t, patience, group(name), other.topic)
		createTopic(t, in.topic, 1)
		in.produce(t, 10) // 100 to 109
		first.awaitUnready(t, in.topic+"/0", "deleted and created anew", "restart")
		other.produce(t, 100)
		awaitCaughtUp(t, patience, group(name), other.topic)
		first.drain(t)
		commits, err := committed(within(t, patience), group(name), in.topic)
		if err != nil || len(commits) > 0 {
			t.Errorf("of the new topic %v is committed, %v; want nothing", commits, err)
		}

		second := start(t, conf)
		awaitCaughtUp(t, patience, group(name), in.topic)
		second.awaitReady(t)
		second.drain(t)
		mustBe(t, "outputs", sequences(t, outs[0], 0), numbers(0, 110))
		compareExact(t, other.topic, outs[1])
	})
}

// TestTooLargeForTheOutput has records which the output topic cannot take go to the
// dead letters, in their turn.
func TestTooLargeForTheOutput(t *testing.T) {
	t.Parallel()
	inBothModes(t, func(t *testing.T, delivery settings) {
		in := newInput(t, 1)
		out, dead := unique(t, ".out"), newTopic(t, ".dead", 1)
		limit := "5000"
		_, err := bed.admin.CreateTopic(within(t, patience), 1, -1, map[string]*string{"max.message.bytes": &limit}, out)
		must(t, err)
		rng := random(t)
		producer := newProducer(t)
		for i := range 100 {
			r := in.record(0)
			if i%10 == 3 {
				padding := make([]byte, 6000) // that does not compress
				for j := range padding {
					padding[j] = byte(rng.Uint32())
				}
				r.Headers = []kgo.RecordHeader{{Key: "padding", Value: padding}}
			}
			must(t, producer.ProduceSync(t.Context(), r).FirstErr())
		}
		name := unique(t, "")
		i := start(t, process(pipeline(name, in.topic, out).with(delivery).with(settings{
			"on_exhausted": "dead_letter", "dead_letter": settings{"topic": dead},
		})))
		awaitCaughtUp(t, patience, group(name), in.topic)
		if got := i.metric(t, "seriatim_dead_letters_total", `reason="output"`); got != 10 {
			t.Errorf("%v dead letters are counted, want 10", got)
		}
		i.drain(t)
		large := func(n int) bool { return n%10 == 3 }
		mustBe(t, "outputs", sequences(t, out, 0), slices.DeleteFunc(numbers(0, 100), large))
		mustBe(t, "dead letters", sequences(t, dead, 0), []int{3, 13, 23, 33, 43, 53, 63, 73, 83, 93})
	})
}

// TestUncleanElection has a broker that lacks records become the leader: they are
// gone, and others are written in their place.
func TestUncleanElection(t *testing.T) {
	ctx := within(t, 5*time.Minute)
	cluster, err := testkafka.Start(ctx, testkafka.Options{Nodes: 3, Properties: map[string]string{
		"unclean.leader.election.interval.ms": "1000",
	}})
	must(t, err)
	t.Cleanup(func() { must(t, cluster.Close()) })
	in := &input{topic: "in", next: make([]int, 1)}
	leader, follower := cluster.Nodes[0], cluster.Nodes[1]
	// A client anew for each request: one that has met a broker which is down asks it again.
	with := func(do func(*kgo.Client)) {
		client, err := cluster.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RequestRetries(3))
		must(t, err)
		defer client.Close()
		do(client)
	}
	with(func(client *kgo.Client) {
		create := kmsg.NewPtrCreateTopicsRequest()
		create.TimeoutMillis = 30_000
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = in.topic, -1, -1
		replicas := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		replicas.Replicas = []int32{leader.ID(), follower.ID()}
		topic.ReplicaAssignment = append(topic.ReplicaAssignment, replicas)
		for key, value := range map[string]string{"unclean.leader.election.enable": "true", "min.insync.replicas": "1"} {
			config := kmsg.NewCreateTopicsRequestTopicConfig()
			config.Name, config.Value = key, &value
			topic.Configs = append(topic.Configs, config)
		}
		create.Topics = append(create.Topics, topic)
		created, err := create.RequestWith(ctx, client)
		must(t, err)
		must(t, kerr.ErrorForCode(created.Topics[0].ErrorCode))
	})

	pipelines := map[string]settings{
		"stops":    onLoss("stop"),
		"goes-on":  onLoss("earliest"),
		"once":     onLoss("earliest").with(settings{"delivery": "exactly_once"}),
		"from-end": onLoss("latest"),
	}
	var list []settings
	for name, more := range pipelines {
		with(func(client *kgo.Client) {
			_, err := kadm.NewClient(client).CreateTopic(ctx, 1, -1, nil, name+".out")
			must(t, err)
		})
		list = append(list, pipeline(name, in.topic, name+".out").with(more))
	}
	produce := func(n int) {
		t.Helper()
		var records []*kgo.Record
		for range n {
			records = append(records, in.record(0))
		}
		with(func(client *kgo.Client) { must(t, client.ProduceSync(ctx, records...).FirstErr()) })
	}
	awaitAll := func(at int64, but ...string) {
		t.Helper()
		await(t, patience, fmt.Sprintf("%d to be committed", at), func() (ok bool, state string) {
			with(func(client *kgo.Client) {
				for name := range pipelines {
					fetched, err := kadm.NewClient(client).FetchOffsets(ctx, group(name))
					if o, _ := fetched.Lookup(in.topic, 0); !slices.Contains(but, name) && (err != nil || o.At != at) {
						state = fmt.Sprintf("%s: %d, %v", name, o.At, err)
						return
					}
				}
				ok = true
			})
			return ok, state
		})
	}
	conf := process(list...)
	conf["kafka"] = settings{"brokers": cluster.Brokers()}
	i := start(t, conf)
	produce(100)
	awaitAll(100)
	must(t, follower.Kill())
	produce(100) // which it will lack
	awaitAll(200)
	must(t, leader.Kill())
	must(t, follower.Start(ctx))
	const gone = "offsets 100 to 199 (100 records at most) are gone"
	i.awaitUnready(t, in.topic+"/0", "the log was truncated", gone, "--to-offset 100")
	await(t, patience, "the loss to be counted", func() (bool, string) {
		got := i.metric(t, "seriatim_gap_offsets_total", `kind="truncated"`)
		return got == float64(100*len(pipelines)), fmt.Sprint(got)
	})
	produce(10) // 200 to 209, at the offsets 100 to 109
	awaitAll(110, "stops")
	must(t, leader.Start(ctx))
	must(t, cluster.AwaitReady(ctx))
	i.drain(t)
	for name := range pipelines {
		want := numbers(0, 210)
		if name == "stops" {
			want = numbers(0, 200)
		}
		mustBe(t, name, sequencesOf(t, cluster, name+".out", len(want), name == "once"), want)
	}
}

// sequencesOf reads the only partition of a topic in another cluster than that of the bed up
// to its nth record, as a reader of committed records. Those of a partition that began again
// from its commit replace what they repeat, unless it is exactly once: the broker that dies
// may be the one that keeps the group, and a membership ends that does not find another in time.
func sequencesOf(t *testing.T, cluster *testkafka.Cluster, topic string, n int, exactlyOnce bool) []int {
	t.Helper()
	reader, err := cluster.Client(kgo.ConsumeTopics(topic), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	must(t, err)
	defer reader.Close()
	ctx := within(t, patience)
	var list []int
	for len(list) < n {
		fetches := reader.PollFetches(ctx)
		must(t, fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			s, err := sight(r)
			must(t, err)
			if again := slices.Index(list, s.seq); again >= 0 && !exactlyOnce {
				list = list[:again]
			}
			list = append(list, s.seq)
		})
	}
	return list
}
