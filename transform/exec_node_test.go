package transform_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
	"seriatim/transform"
)

// TestExecNode has the example worker transform records.
func TestExecNode(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("%v; the tests need Node 20", err)
	}
	p, _ := pool(t, "", transform.ExecOptions{Command: []string{node, "../examples/node/stdio.mjs"}, Timeout: time.Minute})
	call := func(offset int64, value []byte, headers ...kgo.RecordHeader) ([]*kgo.Record, error) {
		in := input()
		in.Offset, in.Value, in.Headers = offset, value, headers
		return processor.Call(t.Context(), p, in)
	}
	const receipt = `"receipt":1` // the same record gets the same one
	odd := kgo.RecordHeader{Key: "X-Tracé", Value: []byte("a b\x00\xff")}
	for name, test := range map[string]struct {
		value   []byte
		headers []kgo.RecordHeader
		want    []string
	}{
		"value":       {[]byte(`{"id":"é"}`), []kgo.RecordHeader{odd}, []string{`key: {"id":"é",` + receipt + `} X-Tracé=` + "a b\x00\xff" + ` content-type=application/json`}},
		"line breaks": {[]byte("{\r\n\t\"id\": \"\u2028\u2029\"}"), nil, []string{"key: {\"id\":\"\u2028\u2029\"," + receipt + `} content-type=application/json`}},
		"tombstone":   {nil, []kgo.RecordHeader{odd}, []string{"key: <null> X-Tracé=a b\x00\xff"}},
		"several":     {[]byte(`[{"id":1},{"id":2}]`), []kgo.RecordHeader{{Key: "n"}}, []string{`key: {"id":1} n=<null>`, `key: {"id":2} n=<null>`}},
		"none":        {[]byte(`{}`), []kgo.RecordHeader{odd, {Key: "Test", Value: []byte("yes")}}, []string{}},
	} {
		got, err := call(1, test.value, test.headers...)
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
		"reject": {"", processor.Reject, 0, `this record can never work: "the value of key is no JSON object or array"`},
		"retry":  {`{"account":"busy"}`, processor.Retry, time.Second, `answered retry: "the bank is busy"`},
	} {
		_, err := call(2, []byte(test.value))
		if f := execFailure(t, err); f.Kind != test.kind || f.After != test.after || !strings.HasSuffix(err.Error(), test.says) {
			t.Errorf("%s: got %v after %v: %v, want %v after %v: … %s", name, f.Kind, f.After, err, test.kind, test.after, test.says)
		}
	}
}
