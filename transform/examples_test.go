package transform_test

import (
	"bufio"
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
	"seriatim/transform"
)

// key is the idempotency key of input with offset 1.
const key = "orders/AQIDBAUGBwgJCgsMDQ4PEA/3/1"

// TestExamples has the example workers transform records, over HTTP and over lines.
func TestExamples(t *testing.T) {
	for name, test := range map[string]struct {
		http, exec []string
		receipt    string // for key
	}{
		"node":   {[]string{"node", "../examples/node/worker.mjs"}, []string{"node", "../examples/node/stdio.mjs"}, `1`},
		"python": {[]string{"python3", "../examples/python/worker.py", "0"}, []string{"python3", "../examples/python/worker.py"}, `"` + key + `"`},
	} {
		t.Run(name+" over HTTP", func(t *testing.T) {
			t.Parallel()
			client := connect(t, startExample(t, test.http...), transform.HTTPOptions{Timeout: exampleTimeout, Callbacks: serveCallbacks(t)})
			checkExample(t, client, test.receipt)
			if name == "node" {
				checkBatch(t, client)
			}
		})
		t.Run(name+" over lines", func(t *testing.T) {
			t.Parallel()
			program, err := exec.LookPath(test.exec[0])
			if err != nil {
				t.Fatalf("%v; the tests need Node 20 and Python 3", err)
			}
			p, _ := pool(t, "", transform.ExecOptions{Command: append([]string{program}, test.exec[1:]...), Timeout: exampleTimeout})
			checkExample(t, p, test.receipt)
			if name == "node" {
				checkBatch(t, p)
			}
		})
	}
}

// exampleTimeout is less than the slow record takes.
const exampleTimeout = 10 * time.Second

func serveCallbacks(t *testing.T) *transform.Callbacks {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	callbacks, err := transform.NewCallbacks("http://" + server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = callbacks.Handler()
	server.Start()
	t.Cleanup(server.Close)
	return callbacks
}

// startExample runs a worker and returns its address. With the test it is ended by
// SIGTERM, which it must obey.
func startExample(t *testing.T, command ...string) string {
	t.Helper()
	worker := exec.CommandContext(t.Context(), command[0], command[1:]...)
	worker.Env = append(os.Environ(), "PORT=0")
	worker.Stderr = t.Output()
	stdout, err := worker.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	worker.Cancel = func() error { return worker.Process.Signal(syscall.SIGTERM) }
	worker.WaitDelay = 20 * time.Second
	if err := worker.Start(); err != nil {
		t.Fatalf("%v; the tests need Node 20 and Python 3", err)
	}
	t.Cleanup(func() { // t.Context has just ended
		_ = worker.Wait()
		if code := worker.ProcessState.ExitCode(); code != 0 {
			t.Errorf("the worker ended with status %d after SIGTERM, want 0", code)
		}
	})
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if url, ok := strings.CutPrefix(lines.Text(), "listening on "); ok {
			return url
		}
	}
	t.Fatal("the worker ended without listening")
	return ""
}

func checkExample(t *testing.T, worker processor.Transform, receipt string) {
	t.Helper()
	call := func(value []byte, headers ...kgo.RecordHeader) ([]*kgo.Record, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		in := input()
		in.Offset, in.Value, in.Headers = 1, value, headers
		return processor.Call(ctx, worker, in)
	}
	odd := kgo.RecordHeader{Key: "X-Tracé %", Value: []byte("a b\x00\xff%")}
	const shown = "X-Tracé %=a b\x00\xff%"
	many := make([]kgo.RecordHeader, 1000)
	for i := range many {
		many[i] = kgo.RecordHeader{Key: "many", Value: []byte("x")}
	}
	for name, test := range map[string]struct {
		value   []byte
		headers []kgo.RecordHeader
		want    []string
	}{
		"value":       {[]byte(`{"id":"é"}`), []kgo.RecordHeader{odd}, []string{`key: {"id":"é","receipt":` + receipt + `} ` + shown + ` content-type=application/json`}},
		"line breaks": {[]byte("{\r\n\t\"id\": \"\u2028\u2029\"}"), nil, []string{"key: {\"id\":\"\u2028\u2029\",\"receipt\":" + receipt + `} content-type=application/json`}},
		"tombstone":   {nil, []kgo.RecordHeader{odd}, []string{"key: <null> " + shown}},
		"several":     {[]byte(`[{"id":1},{"id":2}]`), []kgo.RecordHeader{{Key: "n"}}, []string{`key: {"id":1} n=<null>`, `key: {"id":2} n=<null>`}},
		"none":        {[]byte(`{}`), []kgo.RecordHeader{odd, {Key: "Test", Value: []byte("yes")}}, []string{}},
		"headers":     {[]byte(`[0]`), many, []string{"key: 0" + strings.Repeat(" many=x", len(many))}},
	} {
		got, err := call(test.value, test.headers...)
		if shown := show(got); err != nil || !slices.Equal(shown, test.want) {
			t.Errorf("%s: got %q and error %v, want %q", name, shown, err, test.want)
		}
	}
	for name, test := range map[string]struct {
		value string
		kind  processor.Kind
		after time.Duration
		says  string
	}{
		"reject": {"", processor.Reject, 0, `this record can never work: "the value is no JSON object or array"`},
		"retry":  {`{"account":"busy"}`, processor.Retry, time.Second, `"the bank is busy"`},
	} {
		in := input() // another record
		in.Value = []byte(test.value)
		_, err := processor.Call(t.Context(), worker, in)
		var f *processor.Failure
		if !errors.As(err, &f) || f.Kind != test.kind || f.After != test.after || !strings.HasSuffix(err.Error(), test.says) {
			t.Errorf("%s: got %v, want %v after %v: … %s", name, err, test.kind, test.after, test.says)
		}
	}

	in := input()
	in.Offset, in.Value, in.Note = 1000, []byte(`{"account":"slow","seconds":11}`), "é\n"
	got, err := processor.Call(t.Context(), worker, in)
	if want := `"noted":"é\n"`; err != nil || len(got) != 1 || !strings.Contains(string(got[0].Value), want) {
		t.Errorf("more time, and an earlier note: got %q and error %v, want %s", show(got), err, want)
	}

	// A side effect of a record happens once, however often the record comes.
	first, _ := call([]byte(`{}`))
	again, _ := call([]byte(`{}`))
	if len(first) != 1 || !slices.Equal(show(first), show(again)) {
		t.Errorf("got %q, %q for the same record again", show(first), show(again))
	}
}

// checkBatch has the same function of the Node package answer a batch.
func checkBatch(t *testing.T, worker processor.BatchTransform) {
	t.Helper()
	results := processor.CallBatch(t.Context(), worker, batch(`[{"id":1},{"id":2}]`, `[]`, `"x"`, `{"account":"busy"}`, `["\u0000\u2028"]`))
	wants(t, results, `"{\"id\":1}" + "{\"id\":2}"`, ``, `reject: … "the value is no JSON object or array"`, `retry: … "the bank is busy"`, `"\"\\u0000\u2028\""`)
}
