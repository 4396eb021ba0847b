package processor

import (
	"context"
	"testing"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A chunk of records takes a few allocations, and not one for each of them; and what is passed on
// is not copied.
func TestChunkCostsFewAllocationsAndNoCopies(t *testing.T) {
	pass := TransformFunc(func(_ context.Context, in Input, out *Outputs) error {
		out.Add(in.Value)
		return nil
	})
	for name, provenance := range map[string]bool{"plain": false, "with provenance": true} {
		t.Run(name, func(t *testing.T) {
			opts := &Options{Name: "test", Output: Output{Provenance: provenance}}
			records := make([]kgo.Record, maxChunk)
			for i := range records {
				records[i].Key, records[i].Value, records[i].Offset = []byte("key"), make([]byte, 100), int64(i)
			}
			c := &chunk{tenure: &tenure{output: "out", provenance: "in/0/"}, ctx: t.Context(), notes: new(notes)}
			c.attempts = make([]attempt, maxChunk)
			allocations := testing.AllocsPerRun(100, func() {
				for i := range c.attempts {
					c.attempts[i] = attempt{record: &records[i], number: 1}
				}
				c.run(pass, opts)
			})
			if allocations > maxChunk/8 {
				t.Errorf("%d records take %v allocations", maxChunk, allocations)
			}
			for i := range c.attempts {
				a := &c.attempts[i]
				if !a.ran {
					continue // the machine was too slow for the whole of it
				}
				in, out := a.record, &a.outputs.record
				if unsafe.SliceData(out.Value) != unsafe.SliceData(in.Value) || unsafe.SliceData(out.Key) != unsafe.SliceData(in.Key) {
					t.Fatalf("record %d was copied", i)
				}
			}
		})
	}
}
