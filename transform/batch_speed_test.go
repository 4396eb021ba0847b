package transform

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

// BenchmarkBatch is what a batch of a thousand costs on our side, for each record.
func BenchmarkBatch(b *testing.B) {
	const size = 1000
	ins := make([]processor.Input, size)
	var reply []byte
	for i := range ins {
		value := fmt.Appendf(nil, `{"id": %d, "customer": "somebody", "amount": "12.50", "currency": "EUR", "at": "2026-01-31"}`, i)
		ins[i] = processor.Input{
			Record:   &kgo.Record{Topic: "orders.in", Partition: 3, Offset: int64(i), Timestamp: time.UnixMilli(1700000000123), Key: []byte("key"), Value: value},
			Pipeline: "orders", TopicID: [16]byte{1, 2, 3}, Attempt: 1,
		}
		text, err := json.Marshal(string(value))
		if err != nil {
			b.Fatal(err)
		}
		reply = fmt.Appendf(reply, `{"id":%d,"outputs":[{"value":%s}]}`+"\n", i+1, text)
	}
	client, err := HTTP(HTTPOptions{URLs: []string{"http://worker.invalid/"}})
	if err != nil {
		b.Fatal(err)
	}
	client.transport = answerer(func(r *http.Request) (*http.Response, error) {
		_, err := io.Copy(io.Discard, r.Body)
		return &http.Response{StatusCode: http.StatusOK, ContentLength: int64(len(reply)), Body: io.NopCloser(bytes.NewReader(reply)), Header: http.Header{}}, err
	})
	b.ReportAllocs()
	for b.Loop() {
		if r := processor.CallBatch(b.Context(), client, ins); r[0].Err != nil || len(r[size-1].Outputs) != 1 {
			b.Fatal(r[0].Err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/size, "ns/record")
}
