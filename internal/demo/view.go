package demo

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// A view lays out frames for a terminal.
type view struct {
	width, height int // in characters; no line is longer, no frame is higher
	color         bool
	ascii         bool // for terminals that show nothing else
}

// maxWidth is how wide a frame becomes at the most: beyond it eyes lose the line.
const maxWidth = 100

var (
	strong = text.Colors{text.Bold}
	faint  = text.Colors{text.Faint}
	good   = text.Colors{text.FgGreen}
	bad    = text.Colors{text.FgRed}
	warn   = text.Colors{text.FgYellow}
)

func (v view) paint(c text.Colors, s string) string {
	if !v.color || s == "" {
		return s
	}
	return c.Sprint(s)
}

// render returns the lines of a frame.
func (v view) render(f frame) []string {
	v.width = min(v.width, maxWidth)
	blocks := [][]string{v.headline(f), v.sides(f.sides), v.charts(f.charts), v.heads(f.heads), v.notes(f.notes)}
	var lines []string
	for _, block := range blocks {
		if len(block) == 0 {
			continue
		}
		if len(lines) > 0 {
			lines = append(lines, "")
		}
		lines = append(lines, block...)
	}
	// With little room the footer gives way to the rest, its first parts first.
	for rest := f.footer; len(rest) > 0; rest = rest[1:] {
		footer := v.footer(rest)
		if len(lines)+1+len(footer) <= v.height {
			lines = append(append(lines, ""), footer...)
			break
		}
	}
	lines = lines[:min(len(lines), v.height)]
	for i := range lines {
		lines[i] = v.clip(lines[i])
	}
	return lines
}

// clip cuts what is too long for the terminal; wrapped lines would push others
// out of it.
func (v view) clip(line string) string {
	return text.Trim(strings.TrimRight(line, " "), v.width)
}

func (v view) headline(f frame) []string {
	room := v.width - text.StringWidth(f.clock) - 2
	if text.StringWidth(f.title) > room {
		return []string{v.paint(strong, f.title), f.clock}
	}
	return []string{v.paint(strong, text.Pad(f.title, room+2, ' ')) + f.clock}
}

// A column of a table is left out below a width of the terminal.
type column struct {
	title string
	from  int
	right bool
}

// table lays out rows under those columns for which there is room.
func (v view) table(columns []column, rows [][]string) []string {
	t := table.NewWriter()
	t.SetStyle(table.Style{
		Box:     table.BoxStyle{PaddingRight: "  "},
		Format:  table.FormatOptions{Header: text.FormatDefault},
		Options: table.OptionsNoBordersAndSeparators,
	})
	pick := func(cells []string) table.Row {
		var row table.Row
		for i, c := range columns {
			if v.width >= c.from {
				row = append(row, cells[i])
			}
		}
		return row
	}
	titles := make([]string, len(columns))
	var configs []table.ColumnConfig
	for i, c := range columns {
		titles[i] = v.paint(faint, c.title)
		if v.width < c.from {
			continue
		}
		config := table.ColumnConfig{Number: len(configs) + 1, Align: text.AlignLeft, AlignHeader: text.AlignLeft}
		if c.right {
			config.Align, config.AlignHeader = text.AlignRight, text.AlignRight
		}
		configs = append(configs, config)
	}
	t.SetColumnConfigs(configs)
	t.AppendHeader(pick(titles))
	for _, cells := range rows {
		t.AppendRow(pick(cells))
	}
	return strings.Split(t.Render(), "\n")
}

func (v view) sides(sides []side) []string {
	if len(sides) == 0 {
		return nil
	}
	p50, disorder := "latency p50", "out of order"
	if v.width < 60 {
		p50, disorder = "p50", "disorder"
	}
	columns := []column{
		{"", 0, false},
		{"waiting", 0, true},
		{p50, 0, true},
		{"p99", 50, true},
		{"throughput", 70, true},
		{disorder, 0, true},
	}
	rows := make([][]string, len(sides))
	for i, s := range sides {
		c := bad
		if s.good {
			c = good
		}
		disorder := v.paint(good, "0")
		switch {
		case s.outOfOrder < 0:
			disorder = "-"
		case s.outOfOrder > 0:
			disorder = v.paint(bad, fmt.Sprint(s.outOfOrder))
		}
		rows[i] = []string{
			v.paint(strong, s.name), v.paint(c, number(s.waiting)), v.paint(c, seconds(s.p50)),
			seconds(s.p99), perSecond(s.perSecond), disorder,
		}
	}
	return v.table(columns, rows)
}

// Bars of one line, from lowest to highest; what is 0 shows the lowest.
const (
	bars      = "▁▂▃▄▅▆▇█"
	asciiBars = "_.-=+*#@"
)

// charts draws all charts to one scale, one below the other.
func (v view) charts(charts []chart) []string {
	if len(charts) == 0 {
		return nil
	}
	names, highest := 0, int64(1)
	for _, c := range charts {
		names = max(names, text.StringWidth(c.name))
		highest = max(highest, slices.Max(append(c.values, 0)))
	}
	// High bars where there is room for them.
	rows := 1
	if v.height >= 30 && !v.ascii {
		rows = 3
	}
	lines := []string{v.paint(faint, "waiting, over time")}
	for _, c := range charts {
		tint := bad
		if c.good {
			tint = good
		}
		name := c.name
		for _, bar := range v.chart(fit(c.values, v.width-names-2), highest, rows) {
			lines = append(lines, text.Pad(name, names+2, ' ')+v.paint(tint, bar))
			name = ""
		}
	}
	return lines
}

// chart draws bars of several lines.
func (v view) chart(values []int64, highest int64, rows int) []string {
	levels := []rune(bars)
	if v.ascii {
		levels = []rune(asciiBars)
	}
	lines := make([]string, rows)
	for row := range rows {
		below := (rows - 1 - row) * len(levels) // of the levels that lines further down show
		var line strings.Builder
		for _, value := range values {
			level := int(max(0, value)*int64(rows*len(levels)-1)/highest) + 1 - below
			if level <= 0 {
				line.WriteByte(' ')
				continue
			}
			line.WriteRune(levels[min(level, len(levels))-1])
		}
		lines[row] = line.String()
	}
	return lines
}

// fit returns n values at the most: neighbours become one, the largest of them.
func fit(values []int64, n int) []int64 {
	if n <= 0 {
		return nil
	}
	if len(values) <= n {
		return values
	}
	fitted := make([]int64, n)
	for i := range fitted {
		fitted[i] = slices.Max(values[i*len(values)/n : (i+1)*len(values)/n])
	}
	return fitted
}

// maxBehind is how long a bar of finished records may become.
const maxBehind = 16

func (v view) heads(heads []head) []string {
	if len(heads) == 0 {
		return nil
	}
	columns := []column{
		{"head of line", 0, false},
		{"offset", 0, true},
		{"age", 0, true},
		{"attempt", 50, true},
		{"now", 60, false},
		{"behind", 0, true},
	}
	if v.width >= 70 {
		columns[5] = column{"finished behind it", 0, false}
	}
	rows := make([][]string, len(heads))
	for i, h := range heads {
		rows[i] = v.head(h)
	}
	return v.table(columns, rows)
}

func (v view) head(h head) []string {
	doing := h.doing
	switch {
	case h.stopped:
		doing = v.paint(bad, "stopped") // the notes say why
	case h.idle:
		doing = v.paint(faint, "nothing waits")
	case h.attempt > 1:
		doing = v.paint(warn, doing)
	}
	if h.idle {
		return []string{h.name, "-", "-", "-", doing, ""}
	}
	behind := fmt.Sprint(h.behind)
	if v.width >= 70 && h.behind > 0 {
		block := "▒"
		if v.ascii {
			block = "#"
		}
		behind += " " + strings.Repeat(block, min(h.behind, maxBehind))
	}
	return []string{h.name, fmt.Sprint(h.offset), seconds(h.age), fmt.Sprint(h.attempt), doing, behind}
}

func (v view) notes(notes []string) []string {
	var lines []string
	for _, n := range notes {
		for _, line := range v.wrap("! " + n) {
			lines = append(lines, v.paint(warn, line))
		}
	}
	return lines
}

func (v view) footer(footer []string) []string {
	var lines []string
	for _, line := range footer {
		for _, part := range v.wrap(line) {
			lines = append(lines, v.paint(faint, part))
		}
	}
	return lines
}

// wrap breaks a sentence into lines.
func (v view) wrap(s string) []string {
	return strings.Split(text.WrapSoft(s, max(1, v.width)), "\n")
}

// line sums up a frame in one line, for outputs that are no terminal.
func (v view) line(f frame) string {
	parts := []string{f.clock}
	for _, s := range f.sides {
		part := fmt.Sprintf("%s: %s waiting, latency p50 %s p99 %s, %s", s.name, number(s.waiting), seconds(s.p50), seconds(s.p99), perSecond(s.perSecond))
		switch {
		case s.outOfOrder > 0:
			part += ", " + v.paint(bad, fmt.Sprintf("%d out of order", s.outOfOrder))
		case s.outOfOrder == 0:
			part += ", 0 out of order"
		}
		parts = append(parts, part)
	}
	for _, n := range f.notes {
		parts = append(parts, v.paint(warn, n))
	}
	return strings.Join(parts, " | ")
}
