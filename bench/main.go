package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"seriatim/kafka"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	run, args := speed, os.Args[1:]
	if len(args) > 0 {
		switch args[0] {
		case "soak":
			run, args = soak, args[1:]
		case "hanging":
			run, args = hanging, args[1:]
		case childCommand:
			run, args = child, args[1:]
		case workerCommand:
			run, args = work, args[1:]
		case brokerCommand:
			run, args = fakeBroker, args[1:]
		}
	}
	if err := run(ctx, args); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// childCommand is the first argument of a process that runs one job.
const childCommand = "child"

// child runs the job in its only argument and prints the result.
func child(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s: want one argument, got %q", childCommand, strings.Join(args, " "))
	}
	var j job
	if err := json.Unmarshal([]byte(args[0]), &j); err != nil {
		return err
	}
	r, err := j.run(ctx)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// brokerCommand is the first argument of a process that is a broker in memory.
const brokerCommand = "broker"

// fakeBroker is a broker in memory, until ctx ends.
func fakeBroker(ctx context.Context, _ []string) error {
	broker, err := kafka.StartEmbedded(0)
	if err != nil {
		return err
	}
	defer broker.Close()
	fmt.Fprintln(os.Stdout, broker.Address())
	<-ctx.Done()
	return nil
}
