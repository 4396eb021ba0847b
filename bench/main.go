package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

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
		case "growth":
			run, args = growth, args[1:]
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

// speed measures the rows and writes them down.
func speed(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	only := flags.String("only", "", "measure only what has a name that matches this `expression`")
	pairs := flags.Int("pairs", 0, "measure this many pairs of each row instead of its own number")
	build := flags.String("against", "", "compare with the same pipelines in another build of bench, this `file`")
	quick := flags.Bool("quick", false, "measure a selection in three minutes, as it comes, whatever others do")
	barred := flags.Bool("bars", false, "measure only what has a bar")
	inMemory := flags.Bool("kfake", false, "measure on a broker in memory instead of a real one")
	list := flags.Bool("list", false, "name what would be measured, and how often")
	profile := flags.String("profile", "", "have the jobs write CPU and allocation profiles to this `directory`")
	out := flags.String("o", filepath.Join("results", time.Now().Format(time.DateOnly)+".md"), "write the results to this `file`; empty writes none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	var compared []row
	for _, r := range rows {
		if *quick {
			r.pairs = r.quick
		}
		if r.pairs == 0 || !wanted.MatchString(r.name) || *barred && !r.barred() {
			continue
		}
		if *pairs > 0 {
			r.pairs = *pairs
		}
		compared = append(compared, r)
	}
	var tried []trial
	for _, t := range trials {
		if !wanted.MatchString(t.name) || *barred && !t.bars || *build != "" || *quick && !t.quick {
			continue
		}
		if *quick {
			t.times = 1
		}
		if *pairs > 0 {
			t.times = *pairs
		}
		tried = append(tried, t)
	}
	if len(compared)+len(tried) == 0 {
		return fmt.Errorf("-only: nothing matches %q", *only)
	}
	if *list {
		for _, r := range compared {
			fmt.Fprintf(os.Stdout, "%2d pairs  %s\n", r.pairs, r.name)
		}
		for _, t := range tried {
			fmt.Fprintf(os.Stdout, "%2d times  %s\n", t.times, t.name)
		}
		return nil
	}
	bed, err := newBed(ctx, *inMemory)
	if err != nil {
		return err
	}
	defer bed.close()

	var outcomes []outcome
	for _, r := range compared {
		if *build != "" {
			b := r.a
			b.Program = *build
			r.name, r.b, r.bar, r.mostCPU, r.mostAllocs = r.name+", against "+*build, &b, 0, 0, 0
		}
		r.a.Profile = *profile
		if r.b != nil {
			r.b.Profile = *profile
		}
		o, err := r.measure(ctx, bed, !*quick)
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		outcomes = append(outcomes, o)
	}
	var figures measured
	for _, t := range tried {
		if err := t.measure(ctx, bed, !*quick, &figures); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	var tables []string
	if len(outcomes) > 0 {
		tables = append(tables, tableOf(outcomes), costsOf(outcomes), footnotes(outcomes))
	}
	if len(figures.series) > 0 {
		tables = append(tables, figures.table())
	}
	table := strings.Join(tables, "\n")
	fmt.Fprint(os.Stdout, "\n", table)
	if *out != "" {
		if err := os.MkdirAll(filepath.Dir(*out), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(*out, []byte(heading(ctx, *inMemory)+"\n"+table), 0o644); err != nil {
			return err
		}
	}
	for _, o := range outcomes {
		if o.missed() {
			return errors.New("a bar was missed")
		}
	}
	if slices.ContainsFunc(figures.series, series.missed) {
		return errors.New("a bar was missed")
	}
	return nil
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
