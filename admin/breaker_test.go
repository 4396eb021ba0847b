package admin

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"seriatim/processor"
)

func TestCloseBreaker(t *testing.T) {
	for name, test := range map[string]struct {
		body, reason string
		err          error
		code         int
		detail       string
	}{
		"closes":           {body: `{"pipeline": "orders", "reason": "why"}`, reason: "why", code: 200},
		"not open":         {body: `{"pipeline": "orders", "reason": "why"}`, reason: "why", err: processor.ErrBreakerClosed, code: 409, detail: "not open here"},
		"hangs":            {body: `{"pipeline": "orders", "reason": "why"}`, reason: "why", err: context.DeadlineExceeded, code: 504, detail: "does not answer"},
		"no reason":        {body: `{"pipeline": "orders"}`, err: errors.New("needs a reason"), code: 422, detail: "needs a reason"},
		"unknown pipeline": {body: `{"pipeline": "other", "reason": "why"}`, code: 404, detail: "no pipeline"},
		"unknown field":    {body: `{"pipeline": "orders", "force": true}`, code: 400, detail: "force"},
		"not JSON":         {body: `close it`, code: 400, detail: "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			p := says(orders())
			asked := "nobody"
			p.CloseBreaker = func(_ context.Context, reason string) error {
				asked = reason
				return test.err
			}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/breaker", strings.NewReader(test.body))
			r.Host = "127.0.0.1:8080"
			w := httptest.NewRecorder()
			New(Options{Metrics: NewMetrics("v", "r"), Pipelines: []Pipeline{p}}).Handler("127.0.0.1").ServeHTTP(w, r)
			if w.Code != test.code || !strings.Contains(w.Body.String(), test.detail) {
				t.Errorf("got %d %s, want %d with %q", w.Code, w.Body, test.code, test.detail)
			}
			if reached := test.code != 400 && test.code != 404; reached && asked != test.reason || !reached && asked != "nobody" {
				t.Errorf("the pipeline was asked with the reason %q", asked)
			}
		})
	}
}
