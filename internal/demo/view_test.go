package demo

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
)

var update = flag.Bool("update", false, "write the golden files")

// someFrame is a moment at which everything that can be shown is there.
func someFrame() frame {
	var rising, level []int64
	for i := range int64(60) {
		rising = append(rising, i*5)
		level = append(level, 8+i%5)
	}
	return frame{
		title: "One at a time against Seriatim",
		clock: "25s of 30s",
		sides: []side{
			{"one at a time", false, 295, rates{15200 * time.Millisecond, 19400 * time.Millisecond, 5.1}, 0},
			{"Seriatim", true, 12, rates{930 * time.Millisecond, 2410 * time.Millisecond, 16.04}, 2},
			{"yours", true, -1, rates{-1, -1, 0}, -1},
		},
		charts: []chart{{"one at a time", false, rising}, {"Seriatim", true, level}},
		heads: []head{
			{name: "north", offset: 97, age: 420 * time.Millisecond, attempt: 1, doing: "being transformed"},
			{name: "east", offset: 91, age: 1900 * time.Millisecond, attempt: 2, doing: "waits for a retry", behind: 5},
			{name: "south", idle: true},
			{name: "west", offset: 5, age: 3 * time.Minute, attempt: 5, stopped: true, behind: 1234},
		},
		notes: []string{"demo.in/3: stopped: attempts are exhausted: the worker answered 500"},
		footer: []string{
			"Both get the same input. A third client reads what comes out and counts what is out of order.",
			"Look in with any Kafka client: 127.0.0.1:34917.",
		},
	}
}

func TestViewIsLaidOutForItsTerminal(t *testing.T) {
	text.EnableColors()
	for name, v := range map[string]view{
		"40x30":       {width: 40, height: 30},
		"80x24":       {width: 80, height: 24},
		"80x40":       {width: 80, height: 40},
		"120x40":      {width: 120, height: 40},
		"80x40-color": {width: 80, height: 40, color: true},
		"80x40-ascii": {width: 80, height: 40, ascii: true},
	} {
		t.Run(name, func(t *testing.T) {
			got := strings.Join(v.render(someFrame()), "\n") + "\n"
			golden := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s\n(go test ./internal/demo -update writes what it is now)", got, want)
			}
		})
	}
}

func TestViewFitsAnyTerminal(t *testing.T) {
	text.EnableColors()
	for width := 1; width <= 130; width++ {
		for _, height := range []int{1, 2, 5, 12, 24, 60} {
			for _, color := range []bool{false, true} {
				lines := view{width: width, height: height, color: color}.render(someFrame())
				if len(lines) > height {
					t.Fatalf("%dx%d: %d lines", width, height, len(lines))
				}
				for _, line := range lines {
					if n := text.StringWidthWithoutEscSequences(line); n > width {
						t.Fatalf("%dx%d: a line of %d: %q", width, height, n, line)
					}
					if !color && strings.ContainsRune(line, '\x1b') {
						t.Fatalf("%dx%d: a colour without colours: %q", width, height, line)
					}
				}
			}
		}
	}
}

func TestViewAsciiIsASCII(t *testing.T) {
	for _, line := range (view{width: 80, height: 60, ascii: true}).render(someFrame()) {
		for _, c := range line {
			if c > 127 {
				t.Errorf("%q has %q", line, c)
			}
		}
	}
}

func TestLineOfAFrame(t *testing.T) {
	got := view{}.line(someFrame())
	want := "25s of 30s | one at a time: 295 waiting, latency p50 15 s p99 19 s, 5.1/s, 0 out of order" +
		" | Seriatim: 12 waiting, latency p50 0.9 s p99 2.4 s, 16.0/s, 2 out of order" +
		" | yours: - waiting, latency p50 - p99 -, 0.0/s" +
		" | demo.in/3: stopped: attempts are exhausted: the worker answered 500"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-1: "-", 0: "0 ms", 12345 * time.Microsecond: "12 ms", 100 * time.Millisecond: "0.1 s", 849 * time.Millisecond: "0.8 s", 9949 * time.Millisecond: "9.9 s", 9950 * time.Millisecond: "10 s",
		119 * time.Second: "119 s", 2 * time.Minute: "2m0s",
	} {
		if got := seconds(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func TestChartOfSeveralLines(t *testing.T) {
	got := view{}.chart([]int64{0, 1, 8, 9, 24}, 24, 3)
	want := []string{"    █", "   ▁█", "▁▁███"}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
