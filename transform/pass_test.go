package transform_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
	"seriatim/transform"
)

// same says whether two byte slices are equal, null and empty being different.
func same(a, b []byte) bool { return (a == nil) == (b == nil) && string(a) == string(b) }

func sameHeaders(a, b []kgo.RecordHeader) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Key != b[i].Key || !same(a[i].Value, b[i].Value) {
			return false
		}
	}
	return true
}

func TestPassKeepsTheRecord(t *testing.T) {
	tests := map[string]*kgo.Record{
		"all set": {Key: []byte("k"), Value: []byte("v"), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("1")}, {Key: "h"}, {Key: "", Value: []byte{}}}},
		"null":    {},
		"empty":   {Key: []byte{}, Value: []byte{}, Headers: []kgo.RecordHeader{}},
	}
	for name, in := range tests {
		t.Run(name, func(t *testing.T) {
			in.Timestamp = time.UnixMilli(1700000000123)
			for _, tr := range []processor.Transform{transform.Pass(), transform.Simulate(transform.SimulateOptions{Latency: 1, FailureRate: 1e-300})} {
				got, err := processor.Call(t.Context(), tr, processor.Input{Record: in, Attempt: 1})
				if err != nil || len(got) != 1 {
					t.Fatalf("got %d outputs and error %v, want 1", len(got), err)
				}
				out := got[0]
				if !same(out.Key, in.Key) || !same(out.Value, in.Value) || !sameHeaders(out.Headers, in.Headers) || !out.Timestamp.Equal(in.Timestamp) {
					t.Errorf("got %q=%q %q %v, want what went in: %q=%q %q %v",
						out.Key, out.Value, out.Headers, out.Timestamp, in.Key, in.Value, in.Headers, in.Timestamp)
				}
			}
		})
	}
}

func BenchmarkPass(b *testing.B) {
	benchmark(b, transform.Pass())
}

// benchmark measures one attempt, with what processor.Call costs.
func benchmark(b *testing.B, tr processor.Transform) {
	b.ReportAllocs()
	in := processor.Input{Record: &kgo.Record{Topic: "orders.in", Key: []byte("key"), Value: make([]byte, 1024)}, Pipeline: "orders", Attempt: 1}
	for b.Loop() {
		if _, err := processor.Call(b.Context(), tr, in); err != nil {
			b.Fatal(err)
		}
		in.Offset++
	}
}
