package processor

import (
	"fmt"
	"testing"

	"seriatim/resequence"
)

// A note costs the same however many attempts of a batch note something, and there is
// one of each.
func BenchmarkNotes(b *testing.B) {
	for _, attempts := range []int{100, MaxBatch} {
		b.Run(fmt.Sprint(attempts), func(b *testing.B) {
			for b.Loop() {
				n := &notes{wake: make(chan struct{}, 1)}
				for _, text := range []string{"stage 1", "stage 2"} {
					for i := range attempts {
						n.set(place{seq: resequence.Seq(i)}, text)
					}
				}
				if len(n.latest) != attempts {
					b.Fatalf("%d attempts have %d notes", attempts, len(n.latest))
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(2*attempts*b.N), "ns/note")
		})
	}
}
