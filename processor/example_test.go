package processor_test

import (
	"bytes"
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

// A program of your own makes a pipeline of a transform in Go and runs it until its
// context ends. The broker here is one in the process.
func ExampleNew() {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders.in", "orders.out"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer broker.Close()
	client := kgo.SeedBrokers(broker.ListenAddrs()...)

	upper := processor.TransformFunc(func(_ context.Context, in processor.Input, out *processor.Outputs) error {
		out.Add(bytes.ToUpper(in.Value)) // keeps key, headers and timestamp
		return nil
	})
	pipeline, err := processor.New(processor.Options{
		Name:   "orders",
		Client: []kgo.Opt{client},
		Source: processor.Source{Topics: []string{"orders.in"}, Group: "seriatim.orders"},
		Output: processor.Output{Topic: "orders.out"},
	}, upper)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- pipeline.Run(ctx) }()

	other, err := kgo.NewClient(client, kgo.ConsumeTopics("orders.out"), kgo.DefaultProduceTopic("orders.in"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer other.Close()
	other.Produce(ctx, kgo.StringRecord("one"), nil)
	other.Produce(ctx, kgo.StringRecord("two"), nil)
	for seen := 0; seen < 2; {
		other.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			fmt.Printf("%s\n", r.Value)
			seen++
		})
	}
	stop()
	fmt.Println(<-ended)
	// Output:
	// ONE
	// TWO
	// <nil>
}
