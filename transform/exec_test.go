package transform_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
	"seriatim/transform"
)

// execFailure returns how an attempt failed, and checks that its error names the
// worker.
func execFailure(t testing.TB, err error) *processor.Failure {
	t.Helper()
	var f *processor.Failure
	if !errors.As(err, &f) {
		t.Fatalf("got error %v, want a failure with a kind", err)
	}
	if !strings.HasPrefix(err.Error(), "worker ") {
		t.Errorf("got error %q, want one that names the worker", err)
	}
	return f
}

func TestExecRequest(t *testing.T) {
	p, _ := pool(t, "", transform.ExecOptions{Processes: 1})
	line := func(change func(*processor.Input)) (fields map[string]any) {
		t.Helper()
		in := input()
		in.Value = []byte("line")
		change(&in)
		before := time.Now()
		out, err := processor.Call(t.Context(), p, in)
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(string(out[0].Value), "\r\u2028\u2029\x00") {
			t.Errorf("%q has what may end a line, or a text", out[0].Value)
		}
		if err := json.Unmarshal(out[0].Value, &fields); err != nil {
			t.Fatalf("%s: %v", out[0].Value, err)
		}
		deadline, _ := fields["deadline_ms"].(float64)
		if left := time.UnixMilli(int64(deadline)).Sub(before); left < 50*time.Second || left > 70*time.Second {
			t.Errorf("the deadline is in %v, want in a minute", left)
		}
		if trace, _ := fields["traceparent"].(string); len(trace) != 55 {
			t.Errorf("the traceparent is %q", trace)
		}
		delete(fields, "deadline_ms")
		delete(fields, "traceparent")
		return fields
	}
	got := line(func(*processor.Input) {})
	want := map[string]any{
		"id": 1., "pipeline": "orders", "topic": "orders.in", "partition": 3., "offset": 42., "timestamp": 1700000000123.,
		"key": "key", "value": "line", "headers": map[string]any{"a": []any{"1", "3"}, "b": "2"}, "attempt": 2.,
		"idempotency_key": "orders/AQIDBAUGBwgJCgsMDQ4PEA/3/42",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	got = line(func(in *processor.Input) {
		in.Key = nil
		in.Value = []byte("line \x00\x1f\"\\\n\r\t\u2028é😀</script>")
		in.Headers = []kgo.RecordHeader{{Key: "b\"\xff", Value: []byte{0xff}}, {Key: "a"}, {Key: ""}, {Key: "a", Value: []byte{}}}
	})
	wantHeaders := map[string]any{"b\"\uFFFD": map[string]any{"base64": "/w=="}, "a": []any{nil, ""}, "": nil}
	if got["key"] != nil || got["value"] != "line \x00\x1f\"\\\n\r\t\u2028é😀</script>" || !reflect.DeepEqual(got["headers"], wantHeaders) {
		t.Errorf("got key %v, value %q, headers %v, want null, the value of the record, and %v", got["key"], got["value"], got["headers"], wantHeaders)
	}
}

func TestExecNullsAndBytes(t *testing.T) {
	p, _ := pool(t, "", transform.ExecOptions{})
	for _, value := range [][]byte{nil, {}, {0xff, 0, '\n'}, []byte("text")} {
		in := input()
		in.Value = value
		out, err := processor.Call(t.Context(), p, in)
		if err != nil || len(out) != 1 || !slices.Equal(out[0].Value, value) || (out[0].Value == nil) != (value == nil) {
			t.Errorf("%q, null %v: got %q, %v, want the same", value, value == nil, show(out), err)
		}
	}
}

func TestExecAnswers(t *testing.T) {
	const id = `{"id":ID,`
	outputs := map[string]struct {
		line string
		want []string
	}{
		"one":              {id + `"outputs":[{"value":"v"}]}`, []string{"key: v a=1 b=2 a=3"}},
		"none":             {id + `"outputs":[]}`, []string{}},
		"many":             {id + `"outputs":[{"value":"1"},{"value":null},{"value":{"base64":"/wA="}}]}`, []string{"key: 1 a=1 b=2 a=3", "key: <null> a=1 b=2 a=3", "key: \xff\x00 a=1 b=2 a=3"}},
		"key and headers":  {id + `"outputs":[{"key":null,"value":"v","headers":{"a":[],"b":"9","c":["1",null]}}]}`, []string{"<null>: v b=9 c=1 c=<null>"}},
		"id at the end":    {`{"outputs":[{"value":"v"}],"id":ID}`, []string{"key: v a=1 b=2 a=3"}},
		"blanks":           {` { "id" : ID , "outputs" : [ ] } `, []string{}},
		"a carriage":       {id + `"outputs":[]}` + "\r", []string{}},
		"a null for error": {id + `"outputs":[],"error":null}`, []string{}},
	}
	p, _ := pool(t, "", transform.ExecOptions{Processes: 1})
	call := func(line string) ([]*kgo.Record, error) {
		in := input()
		in.Value = []byte("say " + line)
		return processor.Call(t.Context(), p, in)
	}
	for name, test := range outputs {
		if out, err := call(test.line); err != nil || !slices.Equal(show(out), test.want) {
			t.Errorf("%s: got %q, %v, want %q", name, show(out), err, test.want)
		}
	}

	const broken = "breaks the contract"
	failures := map[string]struct {
		line  string
		kind  processor.Kind
		after time.Duration
		says  string
	}{
		"reject":           {id + `"error":"no such customer","kind":"reject"}`, processor.Reject, 0, `this record can never work: "no such customer"`},
		"retry":            {id + `"error":"busy","kind":"retry"}`, processor.Retry, 0, `answered retry: "busy"`},
		"retry, no kind":   {id + `"error":"a\nb"}`, processor.Retry, 0, `"a\nb"`},
		"later":            {id + `"error":"busy","after_ms":1500}`, processor.Retry, 1500 * time.Millisecond, "busy"},
		"a long error":     {id + `"error":"` + strings.Repeat("x", 5000) + `"}`, processor.Retry, 0, strings.Repeat("x", 500) + `"`},
		"another kind":     {id + `"error":"","kind":"deployment"}`, processor.Retry, 0, broken},
		"neither":          {id + `"value":"v"}`, processor.Retry, 0, broken},
		"nothing":          {`{"id":ID}`, processor.Retry, 0, `one of "outputs" and "error"`},
		"both":             {id + `"outputs":[],"error":""}`, processor.Retry, 0, broken},
		"kind of outputs":  {id + `"outputs":[],"kind":"retry"}`, processor.Retry, 0, broken},
		"no array":         {id + `"outputs":{"value":"v"}}`, processor.Retry, 0, `"outputs" is not an array`},
		"no value":         {id + `"outputs":[{"key":"k"}]}`, processor.Retry, 0, `has no "value"`},
		"a number":         {id + `"outputs":[{"value":1}]}`, processor.Retry, 0, "JSON goes into a string"},
		"a misspelt name":  {id + `"outputs":[{"value":"v","header":{}}]}`, processor.Retry, 0, broken},
		"not base64":       {id + `"outputs":[{"value":{"base64":"%"}}]}`, processor.Retry, 0, "is not base64"},
		"half a line":      {id + `"outputs":[`, processor.Retry, 0, broken},
		"two in one":       {id + `"outputs":[]} {"id":ID,"outputs":[]}`, processor.Retry, 0, broken},
		"a control":        {id + "\"outputs\":[{\"value\":\"\t\"}]}", processor.Retry, 0, broken},
		"a negative wait":  {id + `"error":"","after_ms":-1}`, processor.Retry, 0, broken},
		"too many outputs": {"", processor.Reject, 0, "more than 10000 outputs"},
		"too long":         {"", processor.Reject, 0, "bytes; have it answer with less"},
	}
	for name, test := range failures {
		in := input()
		in.Value = []byte("say " + test.line)
		switch name {
		case "too many outputs":
			in.Value = []byte("many")
		case "too long":
			in.Value = []byte("long")
		}
		_, err := processor.Call(t.Context(), p, in)
		if f := execFailure(t, err); f.Kind != test.kind || f.After != test.after || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got %v after %v: %.300q, want %v after %v that says %q", name, f.Kind, f.After, err, test.kind, test.after, test.says)
		}
	}
	if pid := askPid(t, p, "pid"); !alive(pid) {
		t.Errorf("process %d does not run", pid)
	}
}

func TestExecAnswersInAnyOrder(t *testing.T) {
	const n = 20
	p, log := pool(t, "", transform.ExecOptions{Processes: 1, InFlight: n + 1})
	var attempts sync.WaitGroup
	for i := range n {
		attempts.Go(func() {
			value := fmt.Sprint("wait ", i)
			if got, err := ask(t.Context(), p, int64(i), value); got != value {
				t.Errorf("got %q, %v, want %q", got, err, value)
			}
		})
	}
	// The worker does not tell that it has all of them: ask until it had.
	done := make(chan struct{})
	go func() { attempts.Wait(); close(done) }()
	await(t, "all answers", func() bool {
		mustAsk(t, p, "last")
		select {
		case <-done:
			return true
		default:
			return false
		}
	})
	if got := strings.Count(log.String(), "is ready"); got != 1 {
		t.Errorf("%d processes were started, want 1", got)
	}
}

// TestExecHedges: a second attempt beside the first asks another process.
func TestExecHedges(t *testing.T) {
	p, _ := pool(t, "", transform.ExecOptions{Processes: 2, InFlight: 2})
	// both returns who answered two attempts at a record.
	both := func() (pids [2]string) {
		asked, in := new(atomic.Value), input()
		in.Value, in.Asked = []byte("pid"), asked
		for i := range pids {
			out, err := processor.Call(t.Context(), p, in)
			if err != nil {
				t.Fatal(err)
			}
			pids[i] = string(out[0].Value)
		}
		return pids
	}
	await(t, "both processes to be ready", func() bool {
		pids := both()
		return pids[0] != pids[1]
	})
	for range 20 {
		if pids := both(); pids[0] == pids[1] {
			t.Fatalf("process %s got both attempts", pids[0])
		}
	}
}

// TestExecPlaces: no process has more records than it may, and all are used.
func TestExecPlaces(t *testing.T) {
	p, _ := pool(t, "", transform.ExecOptions{Processes: 2, InFlight: 2})
	ctx, cancel := context.WithCancel(t.Context())
	var held sync.WaitGroup
	for i := range 4 {
		held.Go(func() { _, _ = ask(ctx, p, int64(i), "hang") })
	}
	await(t, "both processes to be full", func() bool {
		short, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer stop()
		_, err := ask(short, p, 5, "pid")
		return errors.Is(err, context.DeadlineExceeded)
	})
	cancel()
	held.Wait()
}

func TestExecEndsWithItsContext(t *testing.T) {
	p, log := pool(t, "", transform.ExecOptions{Processes: 1})
	pid := askPid(t, p, "pid")
	lost := errors.New("the partition is lost")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { cancel(lost) })
	if _, err := ask(ctx, p, 1, "hang"); !errors.Is(err, lost) {
		t.Errorf("got %v, want the cause %v", err, lost)
	}
	if again := askPid(t, p, "pid"); again != pid {
		t.Errorf("the process was replaced, because nobody waited for its answer:\n%s", log)
	}
}

// An attempt that is given up before its process was told of it leaves no place taken,
// which nobody would ever answer.
func TestExecGivenUpBeforeItIsSent(t *testing.T) {
	p, _ := pool(t, "", transform.ExecOptions{Processes: 1, InFlight: 4})
	_ = mustAsk(t, p, "hello")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	short, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	for i := range 50 {
		if _, err := ask(ctx, p, int64(i), "hello"); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if _, err := ask(short, p, 1000, "hello"); err != nil {
			t.Fatalf("after %d that were given up: got error %v, want a place and an answer", i+1, err)
		}
	}
}

func TestExecEnvironment(t *testing.T) {
	t.Setenv("SERIATIM_TEST_PASSWORD", "secret")
	t.Setenv("SERIATIM_TEST_URL", "db:1")
	t.Setenv("TZ", "UTC")
	p, _ := pool(t, "", transform.ExecOptions{Env: []string{"SERIATIM_TEST_URL", "SERIATIM_TEST_UNSET"}})
	got := strings.Split(mustAsk(t, p, "environment"), "\n")
	for _, want := range []string{"SERIATIM_TEST_URL=db:1", "TZ=UTC", "PATH=" + os.Getenv("PATH")} {
		if !slices.Contains(got, want) {
			t.Errorf("got %q, want %s in it", got, want)
		}
	}
	for _, variable := range got {
		if name, _, _ := strings.Cut(variable, "="); !slices.Contains([]string{"PATH", "HOME", "LANG", "TMPDIR", "TZ", "SERIATIM_TEST_URL"}, name) {
			t.Errorf("the worker sees %s", variable)
		}
	}
}

func TestExecOptionsAreChecked(t *testing.T) {
	_, err := transform.Exec(transform.ExecOptions{Processes: -1, InFlight: -2, Timeout: -3, Memory: -4})
	if want := "command: names no program\nprocesses: -1 is negative\nin_flight: -2 is negative\ntimeout: -3ns is negative\nmemory: -4 is negative"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	p, _ := pool(t, "", transform.ExecOptions{})
	p.Close()
	p.Close()
	if _, err := ask(t.Context(), p, 1, "pid"); execFailure(t, err).Kind != processor.Retry {
		t.Errorf("after Close: %v, want a retry", err)
	}
}

// TestExecDoesNotGetReady: whatever keeps the processes from it is the
// deployment's fault, and told; the record was not sent.
func TestExecDoesNotGetReady(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "worker")
	for name, test := range map[string]struct {
		mode    string
		command []string
		says    []string
	}{
		"no such program":    {command: []string{missing}, says: []string{"cannot be started", "no such file"}},
		"it ends at once":    {mode: "exit", says: []string{"exit status 4", `"Error: no password for \x1b[31mthe database" "code: 'NO_PASSWORD'"`}},
		"another first line": {mode: "greet wrongly", says: []string{`its first line is not {"seriatim":1}, but "listening on port 9000": print`}},
		"it ends then":       {command: []string{"true"}, says: []string{"it ended by itself"}},
	} {
		t.Run(name, func(t *testing.T) {
			p, log := pool(t, test.mode, transform.ExecOptions{Command: test.command})
			for range 3 {
				_, err := ask(t.Context(), p, 1, "secret")
				f := execFailure(t, err)
				if f.Kind != processor.Deployment || !f.Unsent {
					t.Errorf("got %v, unsent %v: %v, want a deployment that was not sent", f.Kind, f.Unsent, err)
				}
				for _, says := range test.says {
					if !strings.Contains(err.Error(), says) || !strings.Contains(log.String(), "does not get ready") {
						t.Errorf("got %q, want one that says %q, here and in the log", err, says)
					}
				}
			}
		})
	}

	// It heals by itself.
	p, _ := pool(t, "", transform.ExecOptions{Command: []string{missing, asWorker, ""}})
	if _, err := ask(t.Context(), p, 1, "pid"); execFailure(t, err).Kind != processor.Deployment {
		t.Errorf("got %v, want a deployment", err)
	}
	if err := os.Symlink(os.Args[0], missing); err != nil {
		t.Fatal(err)
	}
	await(t, "an answer", func() bool {
		_, err := ask(t.Context(), p, 1, "pid")
		return err == nil
	})
}
