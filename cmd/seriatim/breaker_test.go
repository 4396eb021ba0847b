package main

import (
	"bytes"
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	"seriatim/admin"
	"seriatim/processor"
)

func TestBreakerClose(t *testing.T) {
	var asked string
	open := true
	instance := httptest.NewServer(admin.New(admin.Options{Metrics: admin.NewMetrics("v", "r"), Pipelines: []admin.Pipeline{{
		Name:   "orders",
		Status: func(context.Context) (processor.Status, error) { return processor.Status{}, nil },
		CloseBreaker: func(_ context.Context, reason string) error {
			if asked = reason; !open {
				return processor.ErrBreakerClosed
			}
			open = false
			return nil
		},
	}}}).Handler("127.0.0.1"))
	defer instance.Close()
	for _, test := range []struct {
		args   []string
		code   int
		output string
	}{
		{[]string{"orders"}, exitUsage, `"reason" not set`},
		{[]string{"orders", "--reason", "the worker is mended"}, 0, "orders: goes on"},
		{[]string{"orders", "--reason", "again"}, exitFailed, "the breaker of orders is not open here"},
		{[]string{"bills", "--reason", "again"}, exitFailed, `there is no pipeline "bills"`},
	} {
		var output bytes.Buffer
		code := execute(t.Context(), append([]string{"breaker", "close", "--admin", instance.URL}, test.args...), &output, &output)
		if code != test.code || !strings.Contains(output.String(), test.output) {
			t.Errorf("%q: exit code %d, want %d; %q is not in:\n%s", test.args, code, test.code, test.output, &output)
		}
		if test.code == 0 && asked != "the worker is mended" {
			t.Errorf("the instance was told %q", asked)
		}
	}
}
