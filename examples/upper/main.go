// Upper is a binary of one's own around the engine, with a transform in Go: it
// turns the text of every record into capitals, in order.
//
//	go run ./examples/upper -brokers 127.0.0.1:9092 -input words -output words.upper
//
// In a module of one's own it needs to know where this repository is:
//
//	go mod edit -require seriatim@v0.0.0 -replace seriatim=path/to/seriatim
//	go mod tidy
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode/utf8"

	"seriatim/kafka"
	"seriatim/processor"
)

func main() {
	brokers := flag.String("brokers", "127.0.0.1:9092", "brokers, separated by commas")
	input := flag.String("input", "words", "topic to read")
	output := flag.String("output", "words.upper", "topic to write, with as many partitions")
	flag.Parse()

	// The first signal drains the pipeline, a second one ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := run(ctx, log, strings.Split(*brokers, ","), *input, *output); err != nil {
		log.Error("upper ends", "err", err)
		os.Exit(1)
	}
}

// run transforms records until ctx ends.
func run(ctx context.Context, log *slog.Logger, brokers []string, input, output string) error {
	client, err := kafka.Options{Brokers: brokers, ClientID: "upper", Logger: log}.Client()
	if err != nil {
		return err
	}
	pipeline, err := processor.New(processor.Options{
		Name:   "upper",
		Client: client,
		Logger: log,
		Source: processor.Source{Topics: []string{input}, Group: "upper"},
		Output: processor.Output{Topic: output},
	}, processor.TransformFunc(upper))
	if err != nil {
		return err
	}
	return pipeline.Run(ctx)
}

var errNoText = &processor.Failure{Kind: processor.Reject, Err: errors.New("the value is not UTF-8")}

// upper is the transform: called from many goroutines at once, for any record at
// any time. Adding no output filters a record.
func upper(_ context.Context, in processor.Input, out *processor.Outputs) error {
	switch {
	case in.Value == nil:
		out.Add(nil) // a tombstone stays one
	case !utf8.Valid(in.Value):
		return errNoText
	case len(bytes.TrimSpace(in.Value)) > 0:
		out.Add(bytes.ToUpper(in.Value))
	}
	return nil
}
