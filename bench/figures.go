package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// A trial measures what is not a comparison of two speeds.
type trial struct {
	name  string
	times int  // how often it is repeated
	quick bool // it belongs to the selection of -quick, which measures it once
	bars  bool // one of its figures has one, which -bars asks for
	// warmUp has the first repetition not count: the broker compiles its code meanwhile, which
	// is more CPU than what is measured.
	warmUp bool
	run    func(ctx context.Context, b *bed) ([]figure, error)
}

// trials are what is measured beside the rows.
var trials = slices.Concat(windows, latencies, commits, footprints, rebalances)

// A figure is one number of a trial.
type figure struct {
	name        string
	value       float64
	unit        string
	most, least float64 // its bars; 0 is none
}

func milliseconds(name string, d time.Duration, most float64) figure {
	return figure{name: name, value: float64(d.Microseconds()) / 1000, unit: "ms", most: most}
}

// A series is a figure with what each repetition came to.
type series struct {
	trial string
	figure
	values []float64
}

func (s series) judge() string { return judge(slices.Sorted(slices.Values(s.values)), s.least, s.most) }

func (s series) missed() bool { return s.judge() == missed }

// measured is what all trials came to.
type measured struct {
	series  []series
	foreign float64 // the most CPU that others used during a repetition
	skipped int     // repetitions that were repeated because others used more
}

// measure repeats the trial, and once more, if again, what was measured while others used the
// machine.
func (t trial) measure(ctx context.Context, b *bed, again bool, m *measured) error {
	var all []series
	skipped := 0
	cold := t.warmUp
	for done := 0; done < t.times; {
		progress("%s\n", t.name)
		before := readLoad()
		figures, err := t.run(ctx, b)
		if err != nil {
			return err
		}
		foreign := readLoad().foreign(before)
		verdict := ""
		switch {
		case cold:
			cold, verdict = false, "warm-up"
		case again && foreign > most && skipped < t.times:
			skipped++
			verdict = "repeated"
		}
		for i, f := range figures {
			progress("  %9s  %s\n", amount(f.value)+" "+f.unit, f.name)
			if verdict != "" {
				continue
			}
			if done == 0 {
				all = append(all, series{trial: t.name, figure: f})
			}
			all[i].values = append(all[i].values, f.value)
		}
		progress("  (others used %s) %s\n", percent(foreign), verdict)
		if verdict == "" {
			done++
			m.foreign = max(m.foreign, foreign)
		}
	}
	m.series = append(m.series, all...)
	m.skipped += skipped
	return nil
}

// amount shows about three digits.
func amount(v float64) string {
	switch {
	case v >= 100 || v <= -100 || v == float64(int64(v)):
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 0.1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.4f", v)
}

// table shows the figures as a table in Markdown.
func (m measured) table() string {
	if len(m.series) == 0 {
		return ""
	}
	cells := [][]string{{"measure", "", "median", "95 % of medians", "bar", ""}}
	for i, s := range m.series {
		bar, verdict := "-", "-"
		switch {
		case s.most > 0:
			bar, verdict = "≤ "+amount(s.most), s.judge()
		case s.least > 0:
			bar, verdict = "≥ "+amount(s.least), s.judge()
		}
		name := s.trial
		if i > 0 && m.series[i-1].trial == name {
			name = ""
		}
		low, high := interval(slices.Sorted(slices.Values(s.values)))
		between := fmt.Sprintf("%s-%s of %d", amount(low), amount(high), len(s.values))
		cells = append(cells, []string{name, s.name, amount(median(s.values)) + " " + s.unit, between, bar, verdict})
	}
	return markdown(cells) + fmt.Sprintf("\nOther programs used up to %s of the machine during a measurement; %d were repeated because they used more than %s.\n"+
		"With less than six measurements the interval is that of all of them. %s\n", percent(m.foreign), m.skipped, percent(most), verdicts)
}
