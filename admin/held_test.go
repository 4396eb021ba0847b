package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"seriatim/processor"
)

func post(t *testing.T, body string, header http.Header, pipelines ...Pipeline) *httptest.ResponseRecorder {
	t.Helper()
	server := New(Options{Metrics: NewMetrics("v1.2.3", "abc"), Pipelines: pipelines})
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/held", strings.NewReader(body))
	r.Host = "127.0.0.1:8080"
	for name, values := range header {
		r.Header[name] = values
	}
	w := httptest.NewRecorder()
	server.Handler("127.0.0.1").ServeHTTP(w, r)
	return w
}

func TestHeldRecordsAsJSON(t *testing.T) {
	w := get(t, "/api/v1/held", says(orders()))
	want := `{
  "held": [
    {
      "pipeline": "orders",
      "topic": "orders.in",
      "partition": 0,
      "offset": 41,
      "timestamp": "2026-01-02T03:04:05Z",
      "since": "2026-01-02T03:05:00Z",
      "attempts": 5,
      "reason": "failed 5 times",
      "last_error": "503 Service Unavailable",
      "key": "k",
      "value": {
        "base64": "/wA="
      },
      "headers": [
        {
          "name": "h",
          "value": null
        }
      ]
    }
  ],
  "unresponsive": []
}
`
	if got := w.Body.String(); w.Code != http.StatusOK || got != want {
		t.Errorf("got %d\n%s\nwant\n%s", w.Code, got, want)
	}
}

func TestPipelineThatHangsIsUnresponsiveAmongHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := get(t, "/api/v1/held", stuck(), says(orders()))
		var got Held
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if len(got.Held) != 1 || !slices.Equal(got.Unresponsive, []string{"stuck"}) {
			t.Errorf("got %+v, want the record of orders, and stuck unresponsive", got)
		}
	})
}

func TestDecisions(t *testing.T) {
	const about = `"pipeline": "orders", "topic": "orders.in", "partition": 3, "offset": 41, "reason": "why"`
	for name, test := range map[string]struct {
		body   string
		err    error // of the pipeline
		code   int
		want   processor.Decision
		detail string
	}{
		"retry": {
			body: `{` + about + `, "decision": "retry", "attempts": 3}`, code: 200,
			want: processor.Decision{Verdict: processor.RetryIt, Attempts: 3},
		},
		"skip":        {body: `{` + about + `, "decision": "skip"}`, code: 200, want: processor.Decision{Verdict: processor.SkipIt}},
		"dead letter": {body: `{` + about + `, "decision": "dead_letter"}`, code: 200, want: processor.Decision{Verdict: processor.DeadLetterIt}},
		"text": {
			body: `{` + about + `, "decision": "replace_value", "value": "new"}`, code: 200,
			want: processor.Decision{Verdict: processor.ReplaceValue, Value: []byte("new")},
		},
		"bytes": {
			body: `{` + about + `, "decision": "replace_output", "value": {"base64": "/wA="}}`, code: 200,
			want: processor.Decision{Verdict: processor.ReplaceOutput, Value: []byte{0xff, 0}},
		},
		"empty": {
			body: `{` + about + `, "decision": "replace_output", "value": ""}`, code: 200,
			want: processor.Decision{Verdict: processor.ReplaceOutput, Value: []byte{}},
		},
		"null": {
			body: `{` + about + `, "decision": "replace_output", "value": null}`, code: 200,
			want: processor.Decision{Verdict: processor.ReplaceOutput},
		},
		"several outputs": {
			body: `{` + about + `, "decision": "replace_outputs", "outputs": ["a", null, "", {"base64": "/wA="}]}`, code: 200,
			want: processor.Decision{Verdict: processor.ReplaceOutputs, Outputs: [][]byte{[]byte("a"), nil, {}, {0xff, 0}}},
		},
		"no value":         {body: `{` + about + `, "decision": "replace_value"}`, code: 400, detail: "value: must be"},
		"number":           {body: `{` + about + `, "decision": "replace_value", "value": 7}`, code: 400, detail: "value: must be"},
		"unknown decision": {body: `{` + about + `, "decision": "forget"}`, code: 400, detail: "possible are retry, skip"},
		"unknown field":    {body: `{` + about + `, "decision": "skip", "user": "me"}`, code: 400, detail: "user"},
		"no partition":     {body: `{"pipeline": "orders", "topic": "orders.in", "offset": 41, "reason": "why", "decision": "skip"}`, code: 400, detail: "partition and offset"},
		"no offset":        {body: `{"pipeline": "orders", "topic": "orders.in", "partition": 3, "reason": "why", "decision": "skip"}`, code: 400, detail: "partition and offset"},
		"not JSON":         {body: `skip it`, code: 400, detail: "cannot be read"},
		"unknown pipeline": {body: `{"pipeline": "other", "decision": "skip"}`, code: 404, detail: `"other"`},
		"not held":         {body: `{` + about + `, "decision": "skip"}`, err: processor.ErrNotHeld, code: 409, detail: "orders.in/3 at offset 41"},
		"hangs":            {body: `{` + about + `, "decision": "skip"}`, err: context.DeadlineExceeded, code: 504, detail: "not known what became"},
		"no topic":         {body: `{` + about + `, "decision": "dead_letter"}`, err: errors.New("there is no dead_letter.topic"), code: 422, detail: "dead_letter.topic"},
	} {
		t.Run(name, func(t *testing.T) {
			p := says(orders())
			var got *processor.Decision
			p.Decide = func(_ context.Context, d processor.Decision) error {
				got = &d
				return test.err
			}
			w := post(t, test.body, nil, p)
			if w.Code != test.code {
				t.Fatalf("got %d %s, want %d", w.Code, w.Body, test.code)
			}
			if test.code != http.StatusOK {
				var problem struct{ Detail string }
				if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil || !strings.Contains(problem.Detail, test.detail) || w.Header().Get("Content-Type") != "application/problem+json" {
					t.Errorf("got %s %s, want a problem about %q", w.Header().Get("Content-Type"), w.Body, test.detail)
				}
				return
			}
			test.want.Topic, test.want.Partition, test.want.Offset, test.want.Reason = "orders.in", 3, 41, "why"
			if got == nil || !reflect.DeepEqual(*got, test.want) {
				t.Errorf("decided %+v, want %+v", got, test.want)
			}
		})
	}
}

// A page of another site must not decide anything.
func TestOtherSitesDecideNothing(t *testing.T) {
	p := says(orders())
	p.Decide = func(context.Context, processor.Decision) error {
		t.Error("another site has decided")
		return nil
	}
	w := post(t, `{"pipeline": "orders", "decision": "skip"}`, http.Header{"Sec-Fetch-Site": {"cross-site"}, "Origin": {"https://example.com"}}, p)
	if w.Code != http.StatusForbidden {
		t.Errorf("got %d, want 403", w.Code)
	}
	if w := serve(t, New(Options{Metrics: NewMetrics("v", "r"), Pipelines: []Pipeline{p}}).Probes(), "127.0.0.1:8081", "/api/v1/held"); w.Code != http.StatusNotFound {
		t.Errorf("the listener of the probes answers %d, want 404", w.Code)
	}
}
