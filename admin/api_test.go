package admin

import (
	"encoding/json"
	"net/http"
	"testing"
	"testing/synctest"
)

const wantPipelines = `{
  "pipelines": [
    {
      "name": "orders",
      "group": "seriatim.orders",
      "state": "running",
      "problems": [],
      "workers": 64,
      "workers_busy": 3,
      "window_bytes": 900,
      "window_limit_bytes": 134217728,
      "attempts": {
        "ok": 40,
        "retry": 2
      },
      "retries_waiting": 5,
      "breaker_open": true,
      "hedges": 1,
      "commits": {
        "error": 0,
        "ok": 7
      },
      "transactions": {
        "aborted": 1,
        "committed": 8
      },
      "rebalances": 2,
      "limited_by": {
        "input": 0.25,
        "workers": 0.75
      },
      "partitions": [
        {
          "topic": "orders.in",
          "partition": 0,
          "window_records": 3,
          "window_limit_records": 16384,
          "window_bytes": 900,
          "spilled_records": 2,
          "head": {
            "offset": 41,
            "timestamp": "2026-01-02T03:04:05Z",
            "age_seconds": 1.5,
            "attempt": 2,
            "running": true,
            "last_error": "503 Service Unavailable",
            "behind": 2
          },
          "next_offset": 41,
          "committed_offset": 40,
          "end_offset": 50,
          "lag_records": 9,
          "lag_seconds": 2,
          "commit_age_seconds": 0.25,
          "paused": true,
          "tail_without_records": false,
          "stopped": "",
          "emitted": 45,
          "settled": 41,
          "filtered": 4,
          "dropped": 2,
          "dead_letters": {
            "reject": 3
          },
          "gap_offsets": {
            "absent": 6
          }
        },
        {
          "topic": "orders.in",
          "partition": 1,
          "window_records": 0,
          "window_limit_records": 16384,
          "window_bytes": 0,
          "spilled_records": 0,
          "head": null,
          "next_offset": null,
          "committed_offset": null,
          "end_offset": null,
          "lag_records": null,
          "lag_seconds": null,
          "commit_age_seconds": null,
          "paused": false,
          "tail_without_records": false,
          "stopped": "",
          "emitted": 0,
          "settled": 0,
          "filtered": 0,
          "dropped": 0,
          "dead_letters": {},
          "gap_offsets": {}
        }
      ]
    }
  ]
}
`

func TestPipelinesAsJSON(t *testing.T) {
	w := get(t, "/api/v1/pipelines", says(orders()))
	if got := w.Header().Get("Content-Type"); w.Code != http.StatusOK || got != "application/json" {
		t.Errorf("got %d %s, want 200 application/json", w.Code, got)
	}
	if got := w.Body.String(); got != wantPipelines {
		t.Errorf("got\n%s\nwant\n%s", got, wantPipelines)
	}
}

func TestPipelineThatHangsIsUnresponsiveInJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := get(t, "/api/v1/pipelines", stuck(), says(orders()))
		var got struct {
			Pipelines []struct{ Name, State string }
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if len(got.Pipelines) != 2 || got.Pipelines[0].Name != "stuck" || got.Pipelines[0].State != "unresponsive" || got.Pipelines[1].State != "running" {
			t.Errorf("got %+v, want stuck unresponsive and orders running", got.Pipelines)
		}
	})
}
