package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/kafka"
	"seriatim/processor"
)

func TestUpper(t *testing.T) {
	tests := map[string]struct {
		value []byte
		want  []string
	}{
		"text":      {[]byte("één"), []string{"ÉÉN"}},
		"blank":     {[]byte(" \n"), nil},
		"tombstone": {nil, []string{"<null>"}},
	}
	for name, test := range tests {
		out, err := processor.Call(t.Context(), processor.TransformFunc(upper), processor.Input{Record: &kgo.Record{Value: test.value}})
		var got []string
		for _, r := range out {
			if r.Value == nil {
				got = append(got, "<null>")
			} else {
				got = append(got, string(r.Value))
			}
		}
		if err != nil || fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%s: got %q and error %v, want %q", name, got, err, test.want)
		}
	}
	_, err := processor.Call(t.Context(), processor.TransformFunc(upper), processor.Input{Record: &kgo.Record{Value: []byte{0xff}}})
	var failure *processor.Failure
	if !errors.As(err, &failure) || failure.Kind != processor.Reject {
		t.Errorf("not UTF-8: got error %v, want a rejection", err)
	}
}

func TestRun(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	broker, err := kafka.StartEmbedded(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	if err := broker.CreateTopics(ctx, map[string]int32{"words": 1, "words.upper": 1}); err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(broker.Address()), kgo.DefaultProduceTopic("words"), kgo.ConsumeTopics("words.upper"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	const n = 1000
	for i := range n {
		client.Produce(ctx, kgo.StringRecord(fmt.Sprintf("word %d", i)), nil)
	}
	if err := client.Flush(ctx); err != nil {
		t.Fatal(err)
	}

	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- run(running, slog.New(slog.NewTextHandler(t.Output(), nil)), []string{broker.Address()}, "words", "words.upper")
	}()
	seen := 0
	for seen < n && ctx.Err() == nil {
		client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			if want := fmt.Sprintf("WORD %d", seen); string(r.Value) != want {
				t.Errorf("output %d is %q, want %q", seen, r.Value, want)
			}
			seen++
		})
	}
	stop()
	if err := <-ended; err != nil || seen != n {
		t.Errorf("got %d outputs and error %v, want %d and none", seen, err, n)
	}
}
