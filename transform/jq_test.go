package transform_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
	"seriatim/transform"
)

func program(t testing.TB, text string, timeout time.Duration) processor.Transform {
	t.Helper()
	jq, err := transform.JQ(transform.JQOptions{Program: text, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	return jq
}

// fails returns how a program fails, and checks that it tells nothing of the record.
func fails(t testing.TB, err error) *processor.Failure {
	t.Helper()
	var f *processor.Failure
	if !errors.As(err, &f) {
		t.Fatalf("got error %v, want a failure with a kind", err)
	}
	if !strings.HasPrefix(err.Error(), "jq: ") || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "4711") {
		t.Errorf("got error %q, want one that names jq and tells nothing of the record", err)
	}
	return f
}

func TestJQOutputs(t *testing.T) {
	const headers = " a=1 b=2 a=3"
	tests := map[string]struct {
		program, value string
		want           []string // values; headers and key are the input's
	}{
		"identity":                 {".", ` {"b": 1, "a": [true, null]} `, []string{`{"a":[true,null],"b":1}`}},
		"one":                      {".a.b", `{"a":{"b":"x"}}`, []string{`"x"`}},
		"none":                     {"empty", `{}`, nil},
		"filter":                   {"select(.n > 1)", `{"n":1}`, nil},
		"many, in order":           {".[]", `[3,1,2]`, []string{"3", "1", "2"}},
		"null is a tombstone":      {".missing", `{}`, []string{"<null>"}},
		"null among others":        {".[]", `[1,null,"null"]`, []string{"1", "<null>", `"null"`}},
		"the text null":            {".", "null", []string{"<null>"}},
		"an empty string":          {".", `""`, []string{`""`}},
		"a long integer":           {".", `123456789012345678901234567890`, []string{"123456789012345678901234567890"}},
		"an id beyond 2^53":        {".id + 1", `{"id":9007199254740993}`, []string{"9007199254740994"}},
		"a long fraction":          {".a", `{"a":0.1000000000000000000001}`, []string{"0.1000000000000000000001"}},
		"big integers":             {". * .", `99999999999`, []string{"9999999999800000000001"}},
		"not a number":             {"nan", "{}", []string{"null"}},
		"characters":               {".", `"<é\u2028\u0000>"`, []string{"\"<é\u2028\\u0000>\""}},
		"the environment is empty": {"$ENV, env", "1", []string{"{}", "{}"}},
		"the place of the record":  {"[$topic, $partition, $offset, $timestamp]", "1", []string{`["orders.in",3,42,1700000000123]`}},
		"the key":                  {"$key", "1", []string{`"key"`}},
		"headers":                  {"$headers, $headers.a[1], $headers.missing", "1", []string{`{"a":["1","3"],"b":"2"}`, `"3"`, "<null>"}},
		"halt is an end":           {"1, halt, 2", "1", []string{"1"}},
		"what is caught":           {`try error("x") catch .`, "1", []string{`"x"`}},
		"recursion":                {"def f: if . < 100000 then . + 1 | f else . end; f", "0", []string{"100000"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in := input()
			in.Value = []byte(test.value)
			out, err := processor.Call(t.Context(), program(t, test.program, time.Minute), in)
			if err != nil {
				t.Fatal(err)
			}
			want := []string{}
			for _, value := range test.want {
				want = append(want, "key: "+value+headers)
			}
			if got := show(out); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestJQSeesBytesAndNulls(t *testing.T) {
	in := input()
	in.Key, in.Value = []byte{0xff}, nil
	in.Headers = []kgo.RecordHeader{{Key: "x"}, {Key: "y", Value: []byte{0, 0xff}}, {Key: "x", Value: []byte("1")}, {Key: "x"}, {Key: "\xff", Value: []byte{}}}
	out, err := processor.Call(t.Context(), program(t, "[., $key, $headers]", 0), in)
	if err != nil {
		t.Fatal(err)
	}
	want := `[null,{"base64":"/w=="},{"x":[null,"1",null],"y":{"base64":"AP8="},"` + "\uFFFD" + `":""}]`
	if got := string(out[0].Value); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	in.Key = nil
	if out, err = processor.Call(t.Context(), program(t, "$key", 0), in); err != nil || out[0].Value != nil {
		t.Errorf("a null key is %v, %v, want null", out, err)
	}
}

func TestJQRejects(t *testing.T) {
	tests := map[string]struct{ program, value, says string }{
		"no JSON":                {".", "secret", "the record is not JSON"},
		"nothing":                {".", "", "is not JSON"},
		"a half":                 {".", `{"secret":`, "is not JSON"},
		"two documents":          {".", `{} {}`, "more follows"},
		"not UTF-8":              {".", "\"\xff\"", "it is not UTF-8"},
		"depth":                  {".", strings.Repeat("[", 20000) + strings.Repeat("]", 20000), "is not JSON"},
		"a wrong type":           {".a.b", `{"a":"secret"}`, "expected an object but got: string"},
		"another":                {".a + 1", `{"a":{"secret":1}}`, "cannot add: object"},
		"a number that is wrong": {".[] | keys", `[4711]`, "keys cannot be applied to: number"},
		"JSON inside":            {"fromjson", `"secret"`, "fromjson cannot be applied to"},
		"a bad index":            {".[. | length - 4712] = 1", `[]`, "does not get on with the record: setpath"},
		"an own error":           {`error("no customer")`, "{}", `the program rejects the record: "no customer"`},
		"one that is no text":    {`error({code: 1})`, "{}", `"{\"code\":1}"`},
		"one with line breaks":   {`error("a\nb")`, "{}", `"a\nb"`},
		"halt_error":             {`"x" | halt_error`, "{}", `rejects the record: "x"`},
		"halt_error of null":     {`if .id then . else .id | halt_error end`, "{}", `rejects the record: "null"`},
		"error of null":          {`error(null)`, "{}", `rejects the record: "null"`},
		"late":                   {`1, error("late")`, "{}", `"late"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in := input()
			in.Value = []byte(test.value)
			_, err := processor.Call(t.Context(), program(t, test.program, time.Minute), in)
			if f := fails(t, err); f.Kind != processor.Reject || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v %q, want a reject that says %q", f.Kind, err, test.says)
			}
		})
	}
}

// TestJQBounds: whatever a program does, it ends in an outcome.
func TestJQBounds(t *testing.T) {
	tests := map[string]struct {
		program string
		kind    processor.Kind
		says    string
	}{
		"a loop":               {"def f: f; f", processor.Retry, "had not ended after 100ms"},
		"a loop without end":   {"last(repeat(1))", processor.Retry, "had not ended"},
		"a growing array":      {"[repeat(1)]", processor.Retry, "had not ended"},
		"a deep recursion":     {"def f: 1 + f; f", processor.Retry, "had not ended"},
		"outputs without end":  {"repeat(1)", processor.Reject, "more than 10000 outputs"},
		"tombstones":           {"repeat(null)", processor.Reject, "more than 10000 outputs"},
		"one that is too long": {`"x" * 5000000`, processor.Reject, "more than 4194304 bytes"},
		"many that are":        {`repeat("x" * 100000)`, processor.Reject, "more than 4194304 bytes"},
		"a string of 2 GB":     {`"x" * 3000000000`, processor.Reject, "repeat string result too large"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in := input()
			in.Value = []byte("{}")
			timeout := time.Minute
			if test.kind == processor.Retry {
				timeout = 100 * time.Millisecond
			}
			_, err := processor.Call(t.Context(), program(t, test.program, timeout), in)
			if f := fails(t, err); f.Kind != test.kind || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v %q, want %v that says %q", f.Kind, err, test.kind, test.says)
			}
		})
	}
}

func TestJQEndsWithItsContext(t *testing.T) {
	lost := errors.New("the partition is lost")
	ctx, cancel := context.WithCancelCause(t.Context())
	jq := program(t, "def f: f; f", time.Hour)
	in := input()
	in.Value = []byte("1")
	var attempts sync.WaitGroup
	errs := make(chan error, 100) // far more than there are CPUs: some of them wait
	for range cap(errs) {
		attempts.Go(func() {
			_, err := processor.Call(ctx, jq, in)
			errs <- err
		})
	}
	cancel(lost)
	attempts.Wait()
	for range cap(errs) {
		if err := <-errs; !errors.Is(err, lost) {
			t.Fatalf("got %v, want the cause %v", err, lost)
		}
	}
}

// TestJQRunsInParallel: one program serves all workers.
func TestJQRunsInParallel(t *testing.T) {
	jq := program(t, ".n, $offset, ([range(100)] | add)", time.Minute)
	var attempts sync.WaitGroup
	for n := range 64 {
		attempts.Go(func() {
			in := input()
			record := *in.Record
			in.Record = &record
			in.Offset, in.Value = int64(n), fmt.Appendf(nil, `{"n":%d}`, n)
			out, err := processor.Call(t.Context(), jq, in)
			if err != nil {
				t.Error(err)
				return
			}
			if got, want := fmt.Sprintf("%s %s %s", out[0].Value, out[1].Value, out[2].Value), fmt.Sprintf("%d %d 4950", n, n); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
	attempts.Wait()
}

// TestJQTakesTheMachineInTurns: programs that loop get their time one after the
// other, so that time says something about the program.
func TestJQTakesTheMachineInTurns(t *testing.T) {
	const timeout, rounds = 100 * time.Millisecond, 4
	jq := program(t, "def f: f; f", timeout)
	began := time.Now()
	var attempts sync.WaitGroup
	for range rounds * runtime.GOMAXPROCS(0) {
		attempts.Go(func() {
			in := input()
			in.Value = []byte("1")
			_, err := processor.Call(t.Context(), jq, in)
			if f := fails(t, err); f.Kind != processor.Retry {
				t.Errorf("got %v, want a retry", err)
			}
		})
	}
	attempts.Wait()
	if took := time.Since(began); took < rounds*timeout {
		t.Errorf("took %v, want %v at least", took, rounds*timeout)
	}
}

func TestJQOptions(t *testing.T) {
	for says, opts := range map[string]transform.JQOptions{
		"jq: is an empty program":           {},
		"jq: is no jq program: line 1":      {Program: ".a |"},
		"timeout: -1s is negative":          {Program: ".", Timeout: -time.Second},
		"jq: is no jq program: input(s)/0 ": {Program: "input"},
	} {
		if _, err := transform.JQ(opts); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
	}
}
