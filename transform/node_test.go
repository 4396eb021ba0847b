package transform_test

import (
	"bufio"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
	"seriatim/transform"
)

// startNode runs the worker of examples/node and returns its address. With the
// test it is ended by SIGTERM, which it must obey.
func startNode(t *testing.T) string {
	t.Helper()
	node := exec.CommandContext(t.Context(), "node", "../examples/node/worker.mjs")
	node.Env = append(os.Environ(), "PORT=0")
	node.Stderr = t.Output()
	stdout, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	node.Cancel = func() error { return node.Process.Signal(syscall.SIGTERM) }
	node.WaitDelay = 10 * time.Second
	if err := node.Start(); err != nil {
		t.Fatalf("%v; the tests need Node 20", err)
	}
	t.Cleanup(func() { // t.Context has just ended
		_ = node.Wait()
		if code := node.ProcessState.ExitCode(); code != 0 {
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

func TestNodeWorker(t *testing.T) {
	client := connect(t, startNode(t), transform.HTTPOptions{})
	call := func(offset int64, value []byte, headers ...kgo.RecordHeader) ([]*kgo.Record, error) {
		in := input()
		in.Offset, in.Value, in.Headers = offset, value, headers
		return processor.Call(t.Context(), client, in)
	}
	traced := kgo.RecordHeader{Key: "X-Tracé", Value: []byte("a b\x00")}
	outputs := map[string]struct {
		value   []byte
		headers []kgo.RecordHeader
		want    []string
	}{
		"value":     {[]byte(`{"id":"é"}`), []kgo.RecordHeader{traced}, []string{`key: {"id":"é","receipt":1} X-Tracé=` + "a b\x00" + ` content-type=application/json`}},
		"tombstone": {nil, []kgo.RecordHeader{traced}, []string{"key: <null> X-Tracé=a b\x00"}},
		"several":   {[]byte(`[{"id":1},{"id":2}]`), []kgo.RecordHeader{{Key: "n"}}, []string{`key: {"id":1} n=<null>`, `key: {"id":2} n=<null>`}},
		"none":      {[]byte(`{}`), []kgo.RecordHeader{traced, {Key: "Test", Value: []byte("yes")}}, []string{}},
	}
	for name, test := range outputs {
		got, err := call(1, test.value, test.headers...)
		if shown := show(got); err != nil || !reflect.DeepEqual(shown, test.want) {
			t.Errorf("%s: got %q and error %v, want %q", name, shown, err, test.want)
		}
	}

	failures := map[string]struct {
		value string
		kind  processor.Kind
		after time.Duration
		want  string
	}{
		"reject": {"", processor.Reject, 0, `422 Unprocessable Entity: this record can never work: "the value of key is no JSON object or array"`},
		"retry":  {`{"account":"busy"}`, processor.Retry, time.Second, `503 Service Unavailable: "the bank is busy"`},
	}
	for name, test := range failures {
		_, err := call(2, []byte(test.value))
		if f := failure(t, err); f.Kind != test.kind || f.After != test.after || !strings.HasSuffix(err.Error(), test.want) {
			t.Errorf("%s: got %v after %v: %v, want %v after %v: … %s", name, f.Kind, f.After, err, test.kind, test.after, test.want)
		}
	}

	// The side effect of a record happens once, however often the record comes.
	first, _ := call(3, []byte(`{}`))
	again, _ := call(3, []byte(`{}`))
	other, _ := call(4, []byte(`{}`))
	if len(first) != 1 || len(other) != 1 || !reflect.DeepEqual(show(first), show(again)) || reflect.DeepEqual(show(first), show(other)) {
		t.Errorf("got %q, %q for the same record again and %q for another", show(first), show(again), show(other))
	}
}
