package processor_test

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Outputs are refused again and again, one at a time and for a while, while others are
// ready: none overtakes those that were refused, whoever else writes to the partition.
func TestRefusedOutputsAreNotOvertaken(t *testing.T) {
	const records = 5000
	for _, test := range []struct {
		what   string
		topics []string // of the input
		byKey  bool
	}{
		{"alone", []string{"in"}, false},
		{"with another source", []string{"in", "in2"}, false},
		{"by key", []string{"in", "in2"}, true},
	} {
		t.Run(test.what, func(t *testing.T) {
			const partitions = 2
			seed := rand.Uint64()
			t.Log("seed", seed)
			rng := rand.New(rand.NewPCG(seed, seed))
			b := newBed(t, partitions, nil, kfake.SeedTopics(partitions, "in2"))
			for _, topic := range test.topics {
				for p := range int32(partitions) {
					b.produce(topic, p, 0, records)
				}
			}
			var refusals, burst int
			b.cluster.Fault(kfake.Fault{
				Keys: []kmsg.Key{kmsg.Produce}, Topic: "out", Err: kerr.TopicAuthorizationFailed, Count: -1,
				When: func(kmsg.Request) bool {
					switch {
					case burst > 0:
						burst--
					case rng.IntN(8) > 0:
						return false
					case rng.IntN(8) == 0:
						burst = rng.IntN(4)
					}
					refusals++
					return refusals < 60
				},
			})
			opts := b.options()
			opts.Source.Topics = test.topics
			opts.Output.ByKey = test.byKey
			opts.Window.Records = 128 // so that there are many requests
			r := b.run(opts, jittered(2*time.Millisecond))
			b.eventually("all records are settled", func() bool {
				var settled uint64
				for _, p := range b.status(r).Partitions {
					settled += p.Settled
				}
				return settled == uint64(len(test.topics)*partitions*records)
			})
			b.stop(r)
			if refusals < 20 {
				t.Errorf("%d requests were refused, want 20 at least", refusals)
			}
			count := 0
			for p := range int32(partitions) {
				last := make(map[string]int64) // by source
				for _, out := range b.records("out", p) {
					count++
					source := string(out.Headers[0].Value)
					partition, offset, _ := cutLast(source, "/")
					n, err := strconv.ParseInt(offset, 10, 64)
					if before, ok := last[partition]; err != nil || ok && n <= before {
						t.Fatalf("partition %d has %s after offset %d", p, source, before)
					}
					last[partition] = n
				}
			}
			if want := len(test.topics) * partitions * records; count != want {
				t.Errorf("there are %d outputs, want %d", count, want)
			}
		})
	}
}

// cutLast cuts s around the last sep.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
