package admin

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

// says is a pipeline whose status is always s.
func says(s processor.Status) Pipeline {
	return Pipeline{Name: s.Pipeline, Status: func(context.Context) (processor.Status, error) { return s, nil }}
}

// stuck is a pipeline that never tells its status.
func stuck() Pipeline {
	return Pipeline{Name: "stuck", Status: func(ctx context.Context) (processor.Status, error) {
		<-ctx.Done()
		return processor.Status{}, context.Cause(ctx)
	}}
}

// orders is the status of a pipeline with a busy partition, and one about which
// nothing is known yet.
func orders() processor.Status {
	return processor.Status{
		Pipeline: "orders",
		Group:    "seriatim.orders",
		State:    "running",
		Partitions: []processor.PartitionStatus{
			{
				Topic: "orders.in", Partition: 0,
				WindowRecords: 3, WindowLimitRecords: 16384, WindowBytes: 900, SpilledRecords: 2,
				Head: &processor.HeadStatus{
					Offset: 41, Timestamp: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Age: 1500 * time.Millisecond,
					Attempt: 2, Running: true, LastError: "503 Service Unavailable", Behind: 2,
				},
				Held: []processor.HeldRecord{{
					Offset: 41, Timestamp: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Since: time.Date(2026, 1, 2, 3, 5, 0, 0, time.UTC),
					Key: []byte("k"), Value: []byte{0xff, 0}, Headers: []kgo.RecordHeader{{Key: "h"}},
					Attempts: 5, Reason: "failed 5 times", LastError: "503 Service Unavailable",
				}},
				NextOffset: 41, CommittedOffset: 40, EndOffset: 50, LagRecords: 9,
				LagTime: 2 * time.Second, CommitAge: 250 * time.Millisecond,
				Paused:  true,
				Emitted: 45, Settled: 41, Filtered: 4,
				GapOffsets: map[string]uint64{"absent": 6},
				Dropped:    2, DeadLetters: map[string]uint64{"reject": 3},
			},
			{
				Topic: "orders.in", Partition: 1, WindowLimitRecords: 16384,
				NextOffset: -1, CommittedOffset: -1, EndOffset: -1,
			},
		},
		Workers: 64, WorkersBusy: 3,
		WindowBytes: 900, WindowLimitBytes: 128 << 20,
		Attempts: map[string]uint64{"ok": 40, "retry": 2},
		Hedges:   1, RetriesWaiting: 5, BreakerOpen: true,
		Commits:      map[string]uint64{"ok": 7, "error": 0},
		Transactions: map[string]uint64{"committed": 8, "aborted": 1},
		StateWrites:  map[string]uint64{"attempts": 5},
		StateIgnored: map[string]uint64{"torn": 1},
		Replies:      map[string]uint64{"reused": 3},
		Rebalances:   2,
		LimitedBy:    map[string]float64{"input": 0.25, "workers": 0.75},
	}
}

// get asks a handler of a new server of the given pipelines, over loopback.
func get(t *testing.T, path string, pipelines ...Pipeline) *httptest.ResponseRecorder {
	t.Helper()
	server := New(Options{Metrics: NewMetrics("v1.2.3", "abc"), Pipelines: pipelines})
	return serve(t, server.Handler("127.0.0.1"), "127.0.0.1:8080", path)
}

func serve(t *testing.T, h http.Handler, host, path string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
	r.Host = host
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}
