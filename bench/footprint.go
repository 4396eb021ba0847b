package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seriatim/processor"
	"seriatim/transform"
)

// footprints measure the program as it is built, with default settings.
var footprints = []trial{
	{name: "footprint, start", times: 7, quick: true, bars: true, run: startUp},
	{name: "footprint, memory at full speed, 100 B, 6 partitions", times: 7, bars: true, run: memoryAtSpeed(100)},
	{name: "footprint, memory at full speed, 1 KiB, 6 partitions", times: 7, bars: true, run: memoryAtSpeed(1024)},
	{name: "footprint, garbage collector, 100 B, 6 partitions", times: 4, run: collected(100)},
	{name: "footprint, garbage collector, 1 KiB, 6 partitions", times: 4, run: collected(1024)},
	{name: "footprint, memory without work, and with a full window", times: 3, run: memoryAtRest},
	{name: "footprint, 1,000 workers by 100 ms", times: 1, run: goroutines},
	{name: "footprint, 10 idle partitions (kfake)", times: 1, run: idle(10, true, 0, 0)},
	{name: "footprint, 1,000 idle partitions (kfake)", times: 1, run: idle(1000, true, 0, 0)},
	{name: "footprint, 10,000 idle partitions (kfake)", times: 3, bars: true, run: idle(10_000, true, 400, 5)},
	{name: "footprint, 1,000 idle partitions", times: 1, run: idle(1000, false, 0, 0)},
}

// passConfig is a pipeline from one topic to another.
func passConfig(in, out, more string) string {
	return fmt.Sprintf("    input: {topics: [%s], group: %s, start: earliest}\n    output: {topic: %s}\n%s", in, out, out, more)
}

const passing = "    transform: {pass: {}}\n"

// pairOfTopics makes an input and an output.
func (b *bed) pairOfTopics(ctx context.Context, partitions int32) (in, out string, err error) {
	now := time.Now().UnixNano()
	in, out = fmt.Sprintf("in-%d", now), fmt.Sprintf("out-%d", now)
	if err := b.create(ctx, in, partitions); err != nil {
		return "", "", err
	}
	return in, out, b.create(ctx, out, partitions)
}

// startUp measures the time from the start of the program to the output of a record that
// waited for it, without and with offsets of its group.
func startUp(ctx context.Context, b *bed) ([]figure, error) {
	program, err := b.program(ctx)
	if err != nil {
		return nil, err
	}
	in, out, err := b.pairOfTopics(ctx, 1)
	if err != nil {
		return nil, err
	}
	client, err := b.client(kgo.DefaultProduceTopic(in), kgo.ConsumeTopics(out))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var figures []figure
	for _, run := range []struct {
		name string
		bar  float64
	}{{"to the first output, new group", 0}, {"to the first output, warm group", 1000}} {
		if err := client.ProduceSync(ctx, &kgo.Record{Value: value(0, 100)}).FirstErr(); err != nil {
			return nil, err
		}
		began := time.Now()
		instance, err := program.startInstance(b.brokers[0], "one", passConfig(in, out, passing))
		if err != nil {
			return nil, err
		}
		seen, cancel := context.WithTimeout(ctx, time.Minute)
		err = client.PollRecords(seen, 1).Err()
		cancel()
		if err != nil {
			return nil, err
		}
		figures = append(figures, milliseconds(run.name, time.Since(began), run.bar))
		if err := instance.leave(); err != nil {
			return nil, err
		}
	}
	return figures, b.remove(ctx, in, out)
}

// memoryAtRest measures the memory of the program while it has nothing to do, and while its
// window is full.
func memoryAtRest(ctx context.Context, b *bed) ([]figure, error) {
	program, err := b.program(ctx)
	if err != nil {
		return nil, err
	}
	const partitions, size = 6, 1024
	in, out, err := b.pairOfTopics(ctx, partitions)
	if err != nil {
		return nil, err
	}
	instance, err := program.startInstance(b.brokers[0], "one", passConfig(in, out, passing))
	if err != nil {
		return nil, err
	}
	if err := b.awaitCommits(ctx, b.admin, out, partitions); err != nil {
		return nil, err
	}
	idle, err := memory(instance.Pid(), "VmRSS")
	if err != nil {
		return nil, err
	}
	if err := instance.leave(); err != nil {
		return nil, err
	}
	if err := b.refill(ctx, topic{name: in, partitions: partitions, records: 100_000, size: size}); err != nil {
		return nil, err
	}
	// The default window.bytes binds when window.records does not.
	config := passConfig(in, out, "    transform: {simulate: {latency: 1h}}\n    window: {records: 65536}\n")
	if instance, err = program.startInstance(b.brokers[0], "one", config); err != nil {
		return nil, err
	}
	if err := pause(ctx, time.After(20*time.Second)); err != nil {
		return nil, err
	}
	full, err := memory(instance.Pid(), "VmHWM")
	if err != nil {
		return nil, err
	}
	if err := instance.kill(); err != nil {
		return nil, err
	}
	return []figure{
		{name: "RSS without work", value: float64(idle), unit: "MiB"},
		{name: "most RSS with a full window, 1 KiB, above window.bytes", value: float64(full - windowMiB), unit: "MiB"},
	}, b.remove(ctx, in, out)
}

// awaitEnds waits until the partitions hold so many records.
func (b *bed) awaitEnds(ctx context.Context, topic string, want []int64) error {
	return until(ctx, topic+" is not complete", func() (bool, error) {
		ends, err := b.ends(ctx, topic, len(want))
		return slices.Equal(ends, want), err
	})
}

// awaitCommits waits until a group has committed so many partitions.
func (b *bed) awaitCommits(ctx context.Context, admin *kadm.Client, group string, partitions int) error {
	return until(ctx, group+" has not committed", func() (bool, error) {
		offsets, err := admin.FetchOffsets(ctx, group)
		n := 0
		offsets.Each(func(kadm.OffsetResponse) { n++ })
		return n >= partitions, err
	})
}

// goroutines measures what 1,000 workers are in goroutines and memory.
func goroutines(ctx context.Context, b *bed) ([]figure, error) {
	program, err := b.program(ctx)
	if err != nil {
		return nil, err
	}
	in, out, err := b.pairOfTopics(ctx, 12)
	if err != nil {
		return nil, err
	}
	if err := b.refill(ctx, topic{name: in, partitions: 12, records: 10_000, size: 100}); err != nil {
		return nil, err
	}
	instance, err := program.startInstance(b.brokers[0], "one",
		passConfig(in, out, "    transform: {simulate: {latency: 100ms}}\n    workers: 1000\n"))
	if err != nil {
		return nil, err
	}
	err = until(ctx, "no output", func() (bool, error) {
		ends, err := b.ends(ctx, out, 12)
		return err == nil && ends[0] > 3000, err
	})
	if err != nil {
		return nil, err
	}
	running, err := instance.metric(ctx, "go_goroutines")
	if err != nil {
		return nil, err
	}
	rss, err := memory(instance.Pid(), "VmRSS")
	if err != nil {
		return nil, err
	}
	if err := instance.leave(); err != nil {
		return nil, err
	}
	return []figure{{name: "goroutines", value: running}, {name: "RSS", value: float64(rss), unit: "MiB"}}, b.remove(ctx, in, out)
}

// idle measures what partitions cost that have nothing to read. A real node takes minutes
// to make ten thousand: those are of a broker in memory. The output has one partition.
func idle(partitions int32, inMemory bool, maxRSS, maxCPU float64) func(context.Context, *bed) ([]figure, error) {
	return func(ctx context.Context, b *bed) ([]figure, error) {
		broker, admin := b.brokers[0], b.admin
		if inMemory {
			own, err := newBed(ctx, true)
			if err != nil {
				return nil, err
			}
			defer own.close()
			broker, admin = own.brokers[0], own.admin
		}
		in := fmt.Sprintf("in-%d", time.Now().UnixNano())
		out := "out" + in[2:]
		for topic, n := range map[string]int32{in: partitions, out: 1} {
			if _, err := admin.CreateTopic(ctx, n, 1, nil, topic); err != nil {
				return nil, err
			}
		}
		program, err := b.program(ctx)
		if err != nil {
			return nil, err
		}
		began := time.Now()
		instance, err := program.startInstance(broker, "one", strings.Replace(passConfig(in, out, passing), "{topic: "+out, "{partition: key, topic: "+out, 1))
		if err != nil {
			return nil, err
		}
		if err := b.awaitCommits(ctx, admin, out, int(partitions)); err != nil {
			return nil, err
		}
		started := time.Since(began)
		const settle, measure = 5 * time.Second, 10 * time.Second
		if err := pause(ctx, time.After(settle)); err != nil {
			return nil, err
		}
		before, err := processCPU(instance.Pid())
		if err != nil {
			return nil, err
		}
		if err := pause(ctx, time.After(measure)); err != nil {
			return nil, err
		}
		after, err := processCPU(instance.Pid())
		if err != nil {
			return nil, err
		}
		rss, err := memory(instance.Pid(), "VmRSS")
		if err != nil {
			return nil, err
		}
		if err := instance.leave(); err != nil {
			return nil, err
		}
		requests, took, bytes, err := ticks(ctx, broker, in, out)
		if err != nil {
			return nil, err
		}
		return []figure{
			{name: "RSS", value: float64(rss), unit: "MiB", most: maxRSS},
			{name: "CPU, of a core", value: 100 * (after - before).Seconds() / measure.Seconds(), unit: "%", most: maxCPU},
			milliseconds("from the start to the first commit of all", started, 0),
			{name: "commit request of a tick", value: float64(bytes) / float64(requests), unit: "B"},
			milliseconds("... answered in", took/time.Duration(requests), 0),
		}, remove(ctx, admin, in, out)
	}
}

// ticks runs a pipeline over the idle partitions for a few ticks and counts its commits.
func ticks(ctx context.Context, broker, in, out string) (requests int, took time.Duration, bytes int, err error) {
	counted := tallyOf(new(kmsg.OffsetCommitRequest))
	pipeline, err := processor.New(processor.Options{
		Name:   "bench",
		Client: []kgo.Opt{kgo.SeedBrokers(broker), kgo.WithHooks(counted)},
		Source: processor.Source{Topics: []string{in}, Group: out},
		Output: processor.Output{Topic: out, ByKey: true},
	}, transform.Pass())
	if err != nil {
		return 0, 0, 0, err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- pipeline.Run(running) }()
	if err := pause(ctx, time.After(5*time.Second)); err != nil {
		return 0, 0, 0, err
	}
	counted.read() // those of the start
	if err := pause(ctx, time.After(11*time.Second)); err != nil {
		return 0, 0, 0, err
	}
	requests, took, bytes = counted.read()
	stop()
	if err := <-ended; err != nil {
		return 0, 0, 0, err
	}
	if requests == 0 {
		return 0, 0, 0, errors.New("nothing was committed in 11 s")
	}
	return requests, took, bytes, nil
}
