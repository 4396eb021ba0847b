package processor_test

import (
	"regexp"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"seriatim/processor"
)

// A regular expression that matches everything reads neither the output nor the
// dead letters, and what a template makes of one topic is not read as another.
func TestAnExpressionReadsNoOutputs(t *testing.T) {
	for name, test := range map[string]struct {
		output  string
		outputs []string
	}{
		"one name":   {"all", []string{"all"}},
		"a template": {"copy.{topic}", []string{"copy.in", "copy.more"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, 1, nil, kfake.SeedTopics(1, append(test.outputs, "more", "dead", "copy.out")...))
			opts := b.options()
			opts.Source.Topics, opts.Source.Regex = nil, regexp.MustCompile(".*")
			opts.Output.Topic = test.output
			opts.OnExhausted, opts.DeadLetterTopic = processor.DeadLetter, "dead"
			b.produce("in", 0, 0, 10)
			b.produce("more", 0, 0, 10)
			r := b.run(opts, processor.TransformFunc(passOn))
			b.eventually("all outputs are there", func() bool {
				total := 0
				for _, topic := range test.outputs {
					total += int(b.end(topic, 0))
				}
				return total >= 20
			})
			b.eventually("what is read goes on", func() bool {
				for _, p := range b.status(r).Partitions {
					if (p.Topic == "in" || p.Topic == "more") && p.LagRecords != 0 {
						return false
					}
				}
				return true
			})
			b.stop(r)
			total := 0
			for _, topic := range test.outputs {
				total += len(b.values(topic, 0))
			}
			if total != 20 {
				t.Errorf("%d outputs, want 20: outputs were read again", total)
			}
		})
	}
}
