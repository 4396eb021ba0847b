package integration

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// TestStormOfRefusals has a worker that takes no record before its third attempt, and
// asks to be left alone for a year: it is asked again after retry.max, nothing is lost
// and all stays in order.
func TestStormOfRefusals(t *testing.T) {
	t.Parallel()
	const partitions, perPartition = 3, 100
	var refused atomic.Int64
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value, err := io.ReadAll(r.Body)
		w.Header().Set("Retry-After", "31536000")
		switch attempt := r.Header.Get("Seriatim-Attempt"); {
		case err != nil:
			return
		case attempt == "1":
			w.WriteHeader(http.StatusTooManyRequests)
		case attempt == "2":
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			_, _ = w.Write(value) // the attempt may have been given up
			return
		}
		refused.Add(1)
	})
	one, two := httptest.NewServer(handler), httptest.NewServer(handler)
	t.Cleanup(one.Close)
	t.Cleanup(two.Close)

	in := newInput(t, partitions)
	out := newTopic(t, ".out", partitions)
	in.produce(t, perPartition)
	name := unique(t, "")
	i := start(t, process(pipeline(name, in.topic, out).with(settings{
		"retry":     settings{"attempts": 3, "initial": "50ms", "max": "500ms"},
		"transform": settings{"http": settings{"urls": []string{one.URL, two.URL}}},
	})))
	awaitCaughtUp(t, patience, group(name), in.topic)
	i.awaitReady(t)
	i.drain(t)
	compareExact(t, in.topic, out)
	if n := refused.Load(); n != 2*partitions*perPartition {
		t.Errorf("%d attempts were refused, want two of each record", n)
	}
}
