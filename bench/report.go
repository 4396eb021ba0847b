package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"seriatim/internal/testkafka"
)

// tableOf shows the outcomes as a table in Markdown.
func tableOf(outcomes []outcome) string {
	cells := [][]string{{"row", "records/s", "against", "ratio", "95 % of medians", "µs CPU", "against", "bar", ""}}
	for _, o := range outcomes {
		rate := func(results []result) string { return fmt.Sprintf("%.0f", medianOf(results, result.rate)) }
		ratios := o.ratios()
		low, high := interval(ratios)
		between := fmt.Sprintf("%.3f-%.3f of %d", low, high, len(ratios))
		cpu, bar, verdict := "-", "-", "-"
		if o.b != nil {
			cpu = fmt.Sprintf("%.2f", medianOf(o.bs, result.cpu))
		}
		if o.bar > 0 {
			bar, verdict = fmt.Sprintf("%.2f", o.bar), "PASS"
		}
		if o.missed() {
			verdict = "MISS"
		}
		cells = append(cells, []string{
			o.name, rate(o.as), rate(o.bs), fmt.Sprintf("%.3f", median(ratios)), between,
			fmt.Sprintf("%.2f", medianOf(o.as, result.cpu)), cpu, bar, verdict,
		})
	}
	return markdown(cells) + footnotes(outcomes)
}

func footnotes(outcomes []outcome) string {
	var worst float64
	skipped := 0
	for _, o := range outcomes {
		worst = max(worst, o.foreign)
		skipped += o.skipped
	}
	return fmt.Sprintf("\nOther programs used up to %s of the machine during a pair; %d pairs were repeated because they used more than %s.\n"+
		"With less than six pairs the interval is that of all of them.\n", percent(worst), skipped, percent(most))
}

func medianOf(results []result, of func(result) float64) float64 {
	var values []float64
	for _, r := range results {
		values = append(values, of(r))
	}
	return median(values)
}

// markdown lines the cells up. The first row is the heading.
func markdown(rows [][]string) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	var text strings.Builder
	for i, row := range rows {
		for c, cell := range row {
			if c == 0 {
				fmt.Fprintf(&text, "| %-*s |", widths[c], cell)
			} else {
				fmt.Fprintf(&text, " %*s |", widths[c], cell)
			}
		}
		text.WriteByte('\n')
		if i > 0 {
			continue
		}
		for c, width := range widths {
			if c == 0 {
				text.WriteString("|" + strings.Repeat("-", width+2) + "|")
			} else {
				text.WriteString(strings.Repeat("-", width+1) + ":|")
			}
		}
		text.WriteByte('\n')
	}
	return text.String()
}

// heading says when, where and with what was measured.
func heading(ctx context.Context) string {
	var text strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&text, "- %s: %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&text, "# Speed, %s\n\n", time.Now().Format(time.DateOnly))
	line("Command", "`cd bench && go run . %s`", strings.Join(os.Args[1:], " "))
	line("Commit", "%s", commit(ctx))
	line("Machine", "%d x %s, %s, %s/%s %s", runtime.NumCPU(), field("/proc/cpuinfo", "model name"), field("/proc/meminfo", "MemTotal"),
		runtime.GOOS, runtime.GOARCH, first("/proc/sys/kernel/osrelease"))
	line("Versions", "Go %s, franz-go %s, Kafka %s (one node, on the same machine)", strings.TrimPrefix(runtime.Version(), "go"), version("github.com/twmb/franz-go"), testkafka.Version)
	return text.String()
}

// commit names what is checked out, and whether it was changed.
func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*").Output()
	if err != nil {
		return "not known"
	}
	return strings.TrimSpace(string(out))
}

// version is that of a module in this program.
func version(module string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == module {
				return strings.TrimPrefix(m.Version, "v")
			}
		}
	}
	return "not known"
}

// field is what a file like /proc/meminfo says of a name.
func field(file, name string) string {
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "not known"
}

func first(file string) string {
	text, _ := os.ReadFile(file)
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}
