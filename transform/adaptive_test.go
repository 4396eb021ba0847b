package transform

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

// A worker does 8 records at once in 10 ms; those beyond wait for their turn. With 64
// attempts at it each would take 80 ms. The limit that is found keeps it busy with far
// fewer of them.
func TestAdaptiveLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers, capacity, takes = 64, 8, 10 * time.Millisecond
		client, err := HTTP(HTTPOptions{URLs: []string{"http://a"}, Adaptive: true, Connections: callers, Timeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		var inFlight, most, done atomic.Int64
		places := make(chan struct{}, capacity)
		client.transport = answerer(func(*http.Request) (*http.Response, error) {
			if n := inFlight.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer inFlight.Add(-1)
			places <- struct{}{}
			<-time.After(takes)
			<-places
			done.Add(1)
			return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody}, nil
		})
		stop := make(chan struct{})
		var running sync.WaitGroup
		for range callers {
			running.Go(func() {
				in := processor.Input{Record: &kgo.Record{Topic: "in"}, Attempt: 1}
				for {
					select {
					case <-stop:
						return
					default:
					}
					if _, err := processor.Call(t.Context(), client, in); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		<-time.After(2 * time.Minute)
		before := done.Load()
		var sum, looks int64
		most.Store(0)
		for range 200 {
			<-time.After(100 * time.Millisecond)
			sum += inFlight.Load()
			looks++
		}
		rate := float64(done.Load()-before) / 20
		close(stop)
		running.Wait()
		full := capacity / takes.Seconds()
		if mean := sum / looks; mean < capacity/2 || mean > callers/2 {
			t.Errorf("%d attempts were in flight, want about %d", mean, capacity)
		}
		if rate < 0.75*full || most.Load() == callers {
			t.Errorf("%.0f attempts a second of %.0f, with up to %d at once", rate, full, most.Load())
		}
	})
}
