package processor

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

func validOptions() Options {
	return Options{Name: "orders", Source: Source{Topics: []string{"in"}, Group: "g"}, Output: Output{Topic: "out"}}
}

func TestOptionsHaveDefaults(t *testing.T) {
	o, err := validOptions().withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if o.Workers != 64 || o.Window != (Window{16384, 128 << 20}) || o.DrainTimeout != 10*time.Second || o.Logger == nil ||
		o.Retry != (Retries{Attempts: 5, Initial: 200 * time.Millisecond, Max: 10 * time.Second, Budget: 0.2}) ||
		o.Commit != (Commit{Interval: 5 * time.Second, Records: 10000, Transaction: 100 * time.Millisecond}) ||
		o.Source.SessionTimeout != 45*time.Second || o.Source.RebalanceTimeout != time.Minute {
		t.Errorf("the defaults are %+v", o)
	}
	many := validOptions()
	many.Workers = 1000
	if o, err = many.withDefaults(); err != nil || o.Window.Records != 64_000 {
		t.Errorf("the window of 1000 workers is %d, %v; want 64 times as many", o.Window.Records, err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, test := range []struct {
		want  string // part of the message; empty if nothing is wrong
		spoil func(o *Options)
	}{
		{"", func(*Options) {}},
		{"Name", func(o *Options) { o.Name = "" }},
		{"Name", func(o *Options) { o.Name = "Orders" }},
		{"Name", func(o *Options) { o.Name = "a b" }},
		{"", func(o *Options) { o.Name = "a-1" }},
		{"Source.Group", func(o *Options) { o.Source.Group = "" }},
		{"exactly one of Topics and Regex", func(o *Options) { o.Source.Topics = nil }},
		{"exactly one of Topics and Regex", func(o *Options) { o.Source.Regex = regexp.MustCompile("x") }},
		{"", func(o *Options) { o.Source.Topics, o.Source.Regex = nil, regexp.MustCompile("x") }},
		{"Source.Static", func(o *Options) { o.Source.Static = true }},
		{"", func(o *Options) { o.Source.Static, o.Instance = true, "one" }},
		{"ExactlyOnce", func(o *Options) { o.ExactlyOnce = true }},
		{"", func(o *Options) { o.ExactlyOnce, o.Instance = true, "one" }},
		{"Output.Topic", func(o *Options) { o.Output.Topic = "" }},
		{"Output.Topic: in is also an input topic", func(o *Options) { o.Output.Topic = "in" }},
		{"Output.Topic: in is also an input topic", func(o *Options) { o.Output.Topic = "{topic}" }},
		{"Output.Topic: b is also an input topic", func(o *Options) { o.Source.Topics, o.Output.Topic = []string{"a", "b"}, "b" }},
		{"", func(o *Options) { o.Output.Topic = "{topic}.out" }},
		{"Workers", func(o *Options) { o.Workers = -1 }},
		{"WorkersPerPartition", func(o *Options) { o.WorkersPerPartition = -1 }},
		{"Window.Records", func(o *Options) { o.Window.Records = -1 }},
		{"Window.Bytes", func(o *Options) { o.Window.Bytes = -1 }},
		{"Retry.Attempts", func(o *Options) { o.Retry.Attempts = -1 }},
		{"Retry.Max", func(o *Options) { o.Retry.Initial, o.Retry.Max = 2*time.Second, time.Second }},
		{"Retry.Max", func(o *Options) { o.Retry.Initial = time.Minute }},
		{"Commit.Interval", func(o *Options) { o.Commit.Interval = 99 * time.Millisecond }},
		{"", func(o *Options) { o.Commit.Interval = 100 * time.Millisecond }},
		{"Commit.Records", func(o *Options) { o.Commit.Records = -1 }},
		{"Commit.Transaction", func(o *Options) { o.Commit.Transaction = time.Microsecond }},
		{"Commit.Transaction", func(o *Options) { o.Commit.Transaction = 6 * time.Second }},
		{"DeadLetterTopic", func(o *Options) { o.OnExhausted = DeadLetter }},
		{"DeadLetterTopic", func(o *Options) { o.OnExhausted, o.DeadLetterTopic = Stop, "dead" }},
		{"DeadLetterTopic: in is also an input topic", func(o *Options) { o.OnExhausted, o.DeadLetterTopic = DeadLetter, "in" }},
		{"DeadLetterTopic: out is also an output topic", func(o *Options) { o.OnExhausted, o.DeadLetterTopic = DeadLetter, "out" }},
		{"", func(o *Options) { o.OnExhausted, o.DeadLetterTopic = DeadLetter, "dead" }},
		{"", func(o *Options) { o.DeadLetterTopic = "dead" }}, // a person may decide for it
	} {
		o := validOptions()
		test.spoil(&o)
		_, err := New(o, nil)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("refused: %v", err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("the error is %v, want one with %q", err, test.want)
		}
	}
	if _, err := New(Options{Workers: -1}, nil); err == nil || strings.Count(err.Error(), "\n") < 3 {
		t.Errorf("several mistakes give the error %v, want all of them", err)
	}
}
