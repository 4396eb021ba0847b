package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"seriatim/internal/testkafka"
)

// tableOf shows the speeds of the outcomes as a table in Markdown.
func tableOf(outcomes []outcome) string {
	cells := [][]string{{"row", "records/s", "against", "ratio", "95 % of medians", "bar", ""}}
	for _, o := range outcomes {
		rate := func(results []result) string { return fmt.Sprintf("%.0f", medianOf(results, result.rate)) }
		ratio, between := spread(o.ratios(), 3)
		bar, verdict := "-", "-"
		if o.bar > 0 {
			bar, verdict = fmt.Sprintf("≥ %.2f", o.bar), judge(o.ratios(), o.bar, 0)
		}
		cells = append(cells, []string{o.name, rate(o.as), rate(o.bs), ratio, between, bar, verdict})
	}
	return markdown(cells)
}

// costsOf shows what a record costs on both sides of an outcome, as such a table.
func costsOf(outcomes []outcome) string {
	cells := [][]string{{"row, a record", "µs CPU", "against", "ratio", "95 % of medians", "bar", "", "µs CPU of the broker", "against", "allocations", "against", "bar", "", "bytes allocated", "against"}}
	for _, o := range outcomes {
		line := []string{o.name, fmt.Sprintf("%.2f", medianOf(o.as, result.cpu)), "-", "-", "-", "-", "-"}
		if o.b != nil {
			line[2] = fmt.Sprintf("%.2f", medianOf(o.bs, result.cpu))
			line[3], line[4] = spread(o.costs(), 2)
		}
		if o.mostCPU > 0 {
			line[5], line[6] = fmt.Sprintf("≤ %.2f", o.mostCPU), judge(o.costs(), 0, o.mostCPU)
		}
		both := func(format string, of func(result) float64) {
			for _, results := range [][]result{o.as, o.bs} {
				cell := "-"
				if v := medianOf(results, of); v > 0 {
					cell = fmt.Sprintf(format, v)
				}
				line = append(line, cell)
			}
		}
		both("%.2f", result.broker)
		both("%.2f", result.allocs)
		bar, verdict := "-", "-"
		if o.mostAllocs > 0 {
			bar, verdict = fmt.Sprintf("≤ %.0f", o.mostAllocs), judge(o.allocs(), 0, o.mostAllocs)
		}
		line = append(line, bar, verdict)
		both("%.0f", result.bytes)
		cells = append(cells, line)
	}
	return markdown(cells)
}

// spread is the median of sorted values, and the interval that holds it.
func spread(sorted []float64, digits int) (middle, between string) {
	low, high := interval(sorted)
	return fmt.Sprintf("%.*f", digits, median(sorted)), fmt.Sprintf("%.*f-%.*f of %d", digits, low, digits, high, len(sorted))
}

// judge says whether sorted values keep a bar, the least or the most that they may be (0 is
// none): by their median, or at least within the interval that holds it.
func judge(sorted []float64, least, most float64) string {
	m := median(sorted)
	switch low, high := interval(sorted); {
	case (least == 0 || m >= least) && (most == 0 || m <= most):
		return "PASS"
	case (least == 0 || high >= least) && (most == 0 || low <= most):
		return "OPEN"
	}
	return missed
}

const missed = "MISS"

func footnotes(outcomes []outcome) string {
	var worst float64
	skipped := 0
	for _, o := range outcomes {
		worst = max(worst, o.foreign)
		skipped += o.skipped
	}
	return fmt.Sprintf("Other programs used up to %s of the machine during a pair; %d pairs were repeated because they used more than %s.\n"+
		"With less than six pairs the interval is that of all of them. %s\n", percent(worst), skipped, percent(most), verdicts)
}

// verdicts explains what judge says.
const verdicts = "PASS: the median keeps the bar; OPEN: only the interval reaches it; MISS: all of it lies beyond."

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
	line("Command", "`%s`", strings.TrimSpace("cd bench && go run . "+typed(os.Args[1:])))
	line("Commit", "%s", commit(ctx))
	line("Machine", "%d x %s, %s, %s/%s %s", runtime.NumCPU(), field("/proc/cpuinfo", "model name"), field("/proc/meminfo", "MemTotal"),
		runtime.GOOS, runtime.GOARCH, first("/proc/sys/kernel/osrelease"))
	line("Versions", "Go %s, franz-go %s, Kafka %s, one node on the same machine; kfake %s", strings.TrimPrefix(runtime.Version(), "go"),
		version("github.com/twmb/franz-go"), testkafka.Version, version("github.com/twmb/franz-go/pkg/kfake"))
	return text.String()
}

// typed is how the arguments are typed in a shell.
func typed(args []string) string {
	quoted := slices.Clone(args)
	for i, arg := range args {
		if strings.ContainsAny(arg, " ^$|()[]*?&;<>") {
			quoted[i] = "'" + arg + "'"
		}
	}
	return strings.Join(quoted, " ")
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
