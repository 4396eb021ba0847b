package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A selection is what one run measures.
type selection struct {
	rows   []row
	trials []trial
	sweeps []sweep
	again  bool // what was measured while others used the machine
	// profiles is the directory where the jobs write theirs; empty profiles nothing.
	profiles string
}

// speed measures what is selected and writes it down.
func speed(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	only := flags.String("only", "", "measure only what has a name that matches this `expression`")
	pairs := flags.Int("pairs", 0, "measure this many pairs of each row instead of its own number")
	build := flags.String("against", "", "compare with the same pipelines in another build of bench, this `file`")
	quick := flags.Bool("quick", false, "measure a selection in three minutes, as it comes, whatever others do")
	barred := flags.Bool("bars", false, "measure only what has a bar")
	list := flags.Bool("list", false, "name what would be measured, and how often")
	profile := flags.String("profile", "", "have the jobs write CPU and allocation profiles to this `directory`")
	out := flags.String("o", filepath.Join("results", time.Now().Format(time.DateOnly)+".md"), "write the results to this `file`, and pictures beside it; empty writes none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	selected := selection{again: !*quick, profiles: *profile}
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
		if *build != "" {
			b := r.a
			b.Program = *build
			r.name, r.b, r.bar, r.mostCPU, r.mostAllocs = r.name+", against "+*build, &b, 0, 0, 0
		}
		selected.rows = append(selected.rows, r)
	}
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
		selected.trials = append(selected.trials, t)
	}
	for _, s := range sweeps {
		if wanted.MatchString(s.name) && !*barred && !*quick && *build == "" {
			selected.sweeps = append(selected.sweeps, s)
		}
	}
	if len(selected.rows)+len(selected.trials)+len(selected.sweeps) == 0 {
		return fmt.Errorf("-only: nothing matches %q", *only)
	}
	if *list {
		selected.list()
		return nil
	}
	found := &findings{file: *out, heading: heading(ctx)}
	failed := selected.measure(ctx, found)
	fmt.Fprint(os.Stdout, "\n", found.text())
	if found.missed() {
		failed = errors.Join(failed, errors.New("a bar was missed"))
	}
	return failed
}

func (s selection) list() {
	for _, r := range s.rows {
		fmt.Fprintf(os.Stdout, "%2d pairs  %s\n", r.pairs, r.name)
	}
	for _, t := range s.trials {
		fmt.Fprintf(os.Stdout, "%2d times  %s\n", t.times, t.name)
	}
	for _, s := range s.sweeps {
		fmt.Fprintf(os.Stdout, "%2d points %s\n", len(s.points), s.name)
	}
}

// measure measures all of it, on Kafka and then in memory. What fails does not keep the rest
// from being measured, which takes an hour and more.
func (s selection) measure(ctx context.Context, found *findings) error {
	var failures []error
	// keep writes down what was found, or that it failed.
	keep := func(name string, err error) {
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
			progress("bench: %v\n", err)
			found.failed = append(found.failed, err.Error())
		}
		failures = append(failures, err, found.save())
	}
	for _, inMemory := range []bool{false, true} {
		rows := slices.DeleteFunc(slices.Clone(s.rows), func(r row) bool { return r.inMemory != inMemory })
		if len(rows) == 0 && (inMemory || len(s.trials)+len(s.sweeps) == 0) {
			continue
		}
		bed, err := newBed(ctx, inMemory)
		if err != nil {
			return errors.Join(append(failures, err)...)
		}
		bed.profiles = s.profiles
		for _, r := range rows {
			if ctx.Err() == nil {
				o, err := r.measure(ctx, bed, s.again)
				if err == nil {
					found.outcomes = append(found.outcomes, o)
				}
				keep(r.name, err)
			}
		}
		for _, t := range s.trials {
			if ctx.Err() == nil && !inMemory {
				keep(t.name, t.measure(ctx, bed, s.again, &found.figures))
			}
		}
		for _, s := range s.sweeps {
			if ctx.Err() == nil && !inMemory {
				d, err := s.measure(ctx, bed)
				if err == nil {
					found.drawings = append(found.drawings, d)
				}
				keep(s.name, err)
			}
		}
		bed.close()
	}
	return errors.Join(append(failures, ctx.Err())...)
}

// findings are what a run has found so far.
type findings struct {
	file     string // empty: nothing is written
	heading  string
	outcomes []outcome
	figures  measured
	drawings []drawing
	failed   []string
}

func (f *findings) text() string {
	parts := []string{f.heading}
	if len(f.outcomes) > 0 {
		parts = append(parts, tableOf(f.outcomes), costsOf(f.outcomes), footnotes(f.outcomes))
	}
	if len(f.figures.series) > 0 {
		parts = append(parts, f.figures.table())
	}
	for _, d := range f.drawings {
		parts = append(parts, fmt.Sprintf("## %s\n\n%s\n![](%s)\n\nEach point was measured once. Other programs used %s of the machine.\n",
			d.name, d.table(), filepath.Base(f.picture(d)), percent(d.foreign)))
	}
	for _, failed := range f.failed {
		parts = append(parts, "Failed: "+failed+"\n")
	}
	return strings.Join(parts, "\n")
}

// picture is the file of a drawing.
func (f *findings) picture(d drawing) string {
	return strings.TrimSuffix(f.file, ".md") + "-growth-" + d.over + ".svg"
}

// save writes what was found so far.
func (f *findings) save() error {
	if f.file == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(f.file), 0o755); err != nil {
		return err
	}
	for _, d := range f.drawings {
		if err := os.WriteFile(f.picture(d), []byte(d.draw()), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(f.file, []byte(f.text()), 0o644)
}

func (f *findings) missed() bool {
	return slices.ContainsFunc(f.outcomes, outcome.missed) || slices.ContainsFunc(f.figures.series, series.missed)
}
