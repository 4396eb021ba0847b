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

func TestHeldList(t *testing.T) {
	says := func(name string, err error, held ...processor.HeldRecord) admin.Pipeline {
		return admin.Pipeline{Name: name, Status: func(context.Context) (processor.Status, error) {
			return processor.Status{Partitions: []processor.PartitionStatus{{Topic: "in", Held: held}}}, err
		}}
	}
	record := processor.HeldRecord{Offset: 41, Attempts: 5, LastError: "503"}
	hangs := says("bills", context.DeadlineExceeded)
	const (
		row     = "orders/in/0/41"
		unknown = "what bills holds is not known"
	)
	for name, test := range map[string]struct {
		pipelines []admin.Pipeline
		args      string
		code      int
		has, not  string // of the output
	}{
		"none":              {[]admin.Pipeline{says("orders", nil)}, "list", 0, "no record is held", unknown},
		"one":               {[]admin.Pipeline{says("orders", nil, record)}, "list", 0, row, "no record is held"},
		"hangs":             {[]admin.Pipeline{hangs}, "list", exitFailed, unknown, "no record is held"},
		"one, another":      {[]admin.Pipeline{hangs, says("orders", nil, record)}, "list", exitFailed, row, "no record is held"},
		"one, another too":  {[]admin.Pipeline{hangs, says("orders", nil, record)}, "list", exitFailed, unknown, "no record is held"},
		"JSON":              {[]admin.Pipeline{hangs}, "list --json", exitFailed, `"unresponsive": [`, "no record is held"},
		"shown":             {[]admin.Pipeline{hangs, says("orders", nil, record)}, "show " + row, 0, `"offset": 41`, unknown},
		"not to be shown":   {[]admin.Pipeline{hangs}, "show bills/in/0/1", exitFailed, unknown, "is not held"},
		"nothing like that": {[]admin.Pipeline{says("orders", nil)}, "show orders/in/0/1", exitFailed, "is not held by this instance", unknown},
	} {
		t.Run(name, func(t *testing.T) {
			instance := httptest.NewServer(admin.New(admin.Options{Metrics: admin.NewMetrics("v", "r"), Pipelines: test.pipelines}).Handler("127.0.0.1"))
			defer instance.Close()
			var output bytes.Buffer
			args := append([]string{"held"}, strings.Fields(test.args)...)
			code := execute(t.Context(), append(args, "--admin", instance.URL), &output, &output)
			if code != test.code || !strings.Contains(output.String(), test.has) || strings.Contains(output.String(), test.not) {
				t.Errorf("exit code %d, want %d; want %q and not %q in:\n%s", code, test.code, test.has, test.not, &output)
			}
		})
	}
}
