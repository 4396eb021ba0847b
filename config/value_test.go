package config

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestDurations(t *testing.T) {
	const none, long = "is not a duration", "is too long a duration"
	tests := []struct {
		in   string
		want time.Duration
		err  string
	}{
		{"0s", 0, ""},
		{"10s", 10 * time.Second, ""},
		{"250ms", 250 * time.Millisecond, ""},
		{"1.5h", 90 * time.Minute, ""},
		{"1h30m", 90 * time.Minute, ""},
		{"5us", 5 * time.Microsecond, ""},
		{"5ns", 5, ""},
		{"1d", 24 * time.Hour, ""},
		{"2w1d", 15 * 24 * time.Hour, ""},
		{"0.5d", 12 * time.Hour, ""},
		{"292y", 0, none},
		{"0", 0, none},
		{"10", 0, none},
		{"1.5", 0, none},
		{"", 0, none},
		{"s", 0, none},
		{".5s", 0, none},
		{"1.s", 0, none},
		{"1 s", 0, none},
		{"-1s", 0, none},
		{"+1s", 0, none},
		{"1S", 0, none},
		{"1e3s", 0, none},
		{"1s ", 0, none},
		{"1µs", 0, none},
		{"106751d", 106751 * 24 * time.Hour, ""},
		{"106752d", 0, long},
		{"15250w2d", 0, long},
		{"99999999999999999999s", 0, long},
	}
	for _, test := range tests {
		got, err := parseDuration(test.in)
		if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.HasPrefix(err.Error(), test.err) {
			t.Errorf("%q: got %v, %v, want %v, %q", test.in, got, err, test.want, test.err)
		}
		if err == nil {
			if again, err := parseDuration(formatDuration(got)); again != got || err != nil {
				t.Errorf("%v is written %q, which is read %v, %v", got, formatDuration(got), again, err)
			}
		}
	}
	for d, want := range map[time.Duration]string{0: "0s", time.Minute: "1m", time.Hour: "1h", 10 * time.Minute: "10m", 90 * time.Second: "1m30s", 24 * time.Hour: "24h", 10 * time.Hour: "10h", 1500 * time.Nanosecond: "1.5us"} {
		if got := formatDuration(d); got != want {
			t.Errorf("%d is written %q, want %q", d, got, want)
		}
	}
}

func TestSizes(t *testing.T) {
	const none, large = "is not a size", "is too large"
	tests := []struct {
		in   string
		want int64
		err  string
	}{
		{"0B", 0, ""},
		{"512B", 512, ""},
		{"1kB", 1000, ""},
		{"1KB", 1000, ""},
		{"1KiB", 1024, ""},
		{"128MiB", 128 << 20, ""},
		{"1.5GiB", 3 << 29, ""},
		{"2MB", 2_000_000, ""},
		{"1GB", 1_000_000_000, ""},
		{"1TiB", 1 << 40, ""},
		{"1TB", 1_000_000_000_000, ""},
		{"128", 0, none},
		{"", 0, none},
		{"MiB", 0, none},
		{"1M", 0, none},
		{"1mb", 0, none},
		{"1 MiB", 0, none},
		{"-1B", 0, none},
		{".5MiB", 0, none},
		{"1e3B", 0, none},
		{"99999999TiB", 0, large},
		{strings.Repeat("9", 400) + "B", 0, large},
	}
	for _, test := range tests {
		got, err := parseSize(test.in)
		if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.HasPrefix(err.Error(), test.err) {
			t.Errorf("%q: got %v, %v, want %v, %q", test.in, got, err, test.want, test.err)
		}
		if err == nil {
			if again, err := parseSize(formatSize(got)); again != got || err != nil {
				t.Errorf("%v is written %q, which is read %v, %v", got, formatSize(got), again, err)
			}
		}
	}
	for n, want := range map[int64]string{0: "0B", 1: "1B", 1000: "1000B", 1024: "1KiB", 128 << 20: "128MiB", 1 << 40: "1TiB", math.MaxInt64: "9223372036854775807B"} {
		if got := formatSize(n); got != want {
			t.Errorf("%d is written %q, want %q", n, got, want)
		}
	}
}

func TestStarts(t *testing.T) {
	const none = "is neither earliest, latest nor a time"
	tests := []struct {
		in   string
		want Start
		err  string
	}{
		{"earliest", Start{}, ""},
		{"latest", Start{End: true}, ""},
		{"2026-01-31T12:00:00Z", Start{Time: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)}, ""},
		{"2026-01-31T12:00:00.25+02:00", Start{Time: time.Date(2026, 1, 31, 10, 0, 0, 250e6, time.UTC)}, ""},
		{"Latest", Start{}, none},
		{"", Start{}, none},
		{"2026-01-31", Start{}, none},
		{"2026-01-31 12:00:00Z", Start{}, none},
		{"2026-01-31T12:00:00", Start{}, none},
		{"2026-01-31T12:00:00,5Z", Start{}, none},
		{"2026-02-30T12:00:00Z", Start{}, none},
		{"1970-01-01T00:00:00Z", Start{}, "is before 1970"},
	}
	for _, test := range tests {
		got, err := parseStart(test.in)
		if got.End != test.want.End || !got.Time.Equal(test.want.Time) || (err == nil) != (test.err == "") || err != nil && !strings.HasPrefix(err.Error(), test.err) {
			t.Errorf("%q: got %v, %v, want %v, %q", test.in, got, err, test.want, test.err)
		}
		if err == nil {
			if again, err := parseStart(got.String()); again.End != got.End || !again.Time.Equal(got.Time) || err != nil {
				t.Errorf("%q is written %q, which is read %v, %v", test.in, got, again, err)
			}
		}
	}
}

func TestRegexesMatchWholeNames(t *testing.T) {
	tests := []struct {
		expr      string
		yes, no   []string
		printedAs string
	}{
		{`in\.(.+)`, []string{"in.a"}, []string{"xin.a", "in."}, `in\.(.+)`},
		{`a|b`, []string{"a", "b"}, []string{"ab", "ac", "cb"}, `a|b`},
		{`^a$`, []string{"a"}, []string{"ab"}, `^a$`},
		{`(?i)a`, []string{"A"}, []string{"AB"}, `(?i)a`},
	}
	for _, test := range tests {
		cfg, err := loadText("pipelines: [{name: a, input: {topics_regex: '" + test.expr + "', start: earliest}, transform: {pass: {}}, output: {topic: out}}]\n")
		if err != nil {
			t.Errorf("%s: %v", test.expr, err)
			continue
		}
		expr := cfg.Pipelines[0].Input.TopicsRegex
		for _, name := range test.yes {
			if !expr.MatchString(name) {
				t.Errorf("%s does not match %s", test.expr, name)
			}
		}
		for _, name := range test.no {
			if expr.MatchString(name) {
				t.Errorf("%s matches %s", test.expr, name)
			}
		}
		if printed := string(cfg.YAML()); !strings.Contains(printed, "topics_regex: "+test.printedAs+"\n") {
			t.Errorf("%s is printed otherwise:\n%s", test.expr, printed)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	candidates := []string{"workers", "workers_per_partition", "window", "log", "key"}
	for written, want := range map[string]string{
		"worker": "workers", "wrokers": "workers", "Workers": "workers", "worker_per_partition": "workers_per_partition",
		"widow": "window", "lgo": "log", "logs": "log", "l": "", "xyz": "", "": "", "kex": "key", "kxx": "",
		strings.Repeat("workers", 100): "",
	} {
		if got := nearest(written, candidates); got != want {
			t.Errorf("%q: got %q, want %q", written, got, want)
		}
	}
}
