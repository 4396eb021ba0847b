package transform_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
	"seriatim/transform"
)

// connect returns a client for a worker, closed with the test.
func connect(t testing.TB, url string, opts transform.HTTPOptions) *transform.Client {
	t.Helper()
	opts.URLs = []string{url}
	return connectAll(t, opts)
}

// connectAll is connect with the addresses of opts.
func connectAll(t testing.TB, opts transform.HTTPOptions) *transform.Client {
	t.Helper()
	if opts.Timeout == 0 { // a busy machine fails no attempt
		opts.Timeout = time.Minute
	}
	client, err := transform.HTTP(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// serve runs a worker until the end of the test.
func serve(t testing.TB, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server
}

// input is a record as most tests send it. Its value must never be told.
func input() processor.Input {
	return processor.Input{
		Record: &kgo.Record{
			Topic: "orders.in", Partition: 3, Offset: 42, Timestamp: time.UnixMilli(1700000000123),
			Key: []byte("key"), Value: []byte("secret value"),
			Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("2")}, {Key: "a", Value: []byte("3")}},
		},
		Pipeline: "orders",
		TopicID:  [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
		Attempt:  2,
	}
}

// failure returns how an attempt failed, which must be with a kind and an error
// that names the worker and not the value.
func failure(t testing.TB, err error) *processor.Failure {
	t.Helper()
	var f *processor.Failure
	if !errors.As(err, &f) {
		t.Fatalf("got error %v, want a failure with a kind", err)
	}
	if !strings.HasPrefix(err.Error(), "worker http") || strings.Contains(err.Error(), "secret") {
		t.Errorf("got error %q, want one that names the worker and tells nothing of the record", err)
	}
	return f
}

func TestHTTPRequest(t *testing.T) {
	made := regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-01$`)
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	tests := map[string]struct {
		change func(*processor.Input)
		want   map[string][]string // nil is absent
		body   string
	}{
		"all that is always there": {
			want: map[string][]string{
				"Idempotency-Key":    {`"orders/AQIDBAUGBwgJCgsMDQ4PEA/3/42"`},
				"Seriatim-Pipeline":  {"orders"},
				"Seriatim-Topic":     {"orders.in"},
				"Seriatim-Partition": {"3"},
				"Seriatim-Offset":    {"42"},
				"Seriatim-Timestamp": {"1700000000123"},
				"Seriatim-Attempt":   {"2"},
				"Seriatim-Key":       {"key"},
				"Seriatim-Value":     nil,
				"Seriatim-H-A":       {"1", "3"},
				"Seriatim-H-B":       {"2"},
				"Content-Type":       {"application/octet-stream"},
				"Content-Length":     {"12"},
				"User-Agent":         {"seriatim"},
				"Accept-Encoding":    nil,
				"Authorization":      nil,
			},
			body: "secret value",
		},
		"no topic id": {
			change: func(in *processor.Input) { in.TopicID = [16]byte{} },
			want:   map[string][]string{"Idempotency-Key": {`"orders/orders.in/3/42"`}},
			body:   "secret value",
		},
		"null key and value": {
			change: func(in *processor.Input) { in.Key, in.Value = nil, nil },
			want:   map[string][]string{"Seriatim-Key": nil, "Seriatim-Value": {"null"}, "Content-Length": {"0"}},
		},
		"empty key and value": {
			change: func(in *processor.Input) { in.Key, in.Value = []byte{}, []byte{} },
			want:   map[string][]string{"Seriatim-Key": {""}, "Seriatim-Value": nil, "Content-Length": {"0"}},
		},
		"bytes that are not text": {
			change: func(in *processor.Input) {
				in.Key, in.Value = []byte("a b%\x00\xff"), []byte("\x00\xff\r\n")
				in.Headers = []kgo.RecordHeader{{Key: "X-é", Value: []byte("1\r\nX-Evil: 2")}, {Key: "", Value: []byte{}}}
			},
			want: map[string][]string{
				"Seriatim-Key": {"a%20b%25%00%FF"}, "Seriatim-H-%58-%c3%a9": {"1%0D%0AX-Evil:%202"}, "Seriatim-H-": {""}, "X-Evil": nil,
			},
			body: "\x00\xff\r\n",
		},
		"null headers": {
			change: func(in *processor.Input) {
				in.Headers = []kgo.RecordHeader{{Key: "a"}, {Key: "a", Value: []byte("1")}, {Key: "a"}, {Key: "drop", Value: []byte("a")}}
			},
			want: map[string][]string{
				"Seriatim-Hn-A": {"null", "null"}, "Seriatim-H-A": {"1"}, "Seriatim-H-Drop": nil, "Seriatim-H-%64rop": {"a"},
			},
			body: "secret value",
		},
		"traceparent of the record": {
			change: func(in *processor.Input) {
				in.Headers = []kgo.RecordHeader{{Key: "traceparent", Value: []byte(trace)}}
			},
			want: map[string][]string{"Traceparent": {trace}, "Seriatim-H-Traceparent": {trace}},
			body: "secret value",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var header http.Header
			var method, target, body string
			server := serve(t, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				header, method, target, body = r.Header.Clone(), r.Method, r.RequestURI, string(b)
				header.Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
				w.WriteHeader(http.StatusNoContent)
			})
			in := input()
			if test.change != nil {
				test.change(&in)
			}
			before := time.Now()
			if _, err := processor.Call(t.Context(), connect(t, server.URL+"/a/b?c=d", transform.HTTPOptions{Timeout: time.Minute}), in); err != nil {
				t.Fatal(err)
			}
			if method != http.MethodPost || target != "/a/b?c=d" || body != test.body {
				t.Errorf("got %s %s with body %q, want POST /a/b?c=d with %q", method, target, body, test.body)
			}
			for name, want := range test.want {
				// The way net/http keeps names with escapes is not the canonical one.
				var got []string
				for key, values := range header {
					if strings.EqualFold(key, name) {
						got = values
					}
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
			deadline, _ := strconv.ParseInt(header.Get("Seriatim-Deadline-Ms"), 10, 64)
			if left := time.UnixMilli(deadline).Sub(before); left < time.Minute-time.Millisecond || left > time.Minute+time.Since(before) {
				t.Errorf("the deadline is in %v, want in a minute", left)
			}
			if got := header.Get("Traceparent"); !made.MatchString(got) {
				t.Errorf("got traceparent %q, want one by W3C Trace Context", got)
			}
		})
	}
}

func TestHTTPTraceOfARecord(t *testing.T) {
	var seen []string
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Get("Traceparent"))
		w.WriteHeader(http.StatusNoContent)
	})
	client := connect(t, server.URL, transform.HTTPOptions{})
	send := func(offset int64, attempt int, header string) {
		in := input()
		in.Offset, in.Attempt = offset, attempt
		in.Headers = []kgo.RecordHeader{{Key: "traceparent", Value: []byte(header)}}
		if _, err := processor.Call(t.Context(), client, in); err != nil {
			t.Fatal(err)
		}
	}
	send(1, 1, "")
	send(1, 2, "")
	send(2, 1, "")
	if seen[0][:35] != seen[1][:35] || seen[0][36:] == seen[1][36:] || seen[0][:35] == seen[2][:35] {
		t.Errorf("got %q, want one trace for two attempts at a record, in a span each, and another trace for the next record", seen)
	}
	for _, bad := range []string{
		"x\r\nX-Evil: 1", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
		"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	} {
		if send(1, 1, bad); seen[len(seen)-1][:35] != seen[0][:35] {
			t.Errorf("got traceparent %q for a record with %q, want a new one", seen[len(seen)-1], bad)
		}
	}
}

func TestHTTPUserOfTheAddress(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); !ok || user != "me" || password != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	address := strings.Replace(server.URL, "http://", "http://me:secret@", 1) + "/path?token=secret"
	_, err := processor.Call(t.Context(), connect(t, address, transform.HTTPOptions{}), input())
	if got, want := failure(t, err).Error(), "worker "+server.URL+"/path: answered 503 Service Unavailable"; got != want {
		t.Errorf("got %q, want %q: the user let in, and no secret told", got, want)
	}
}

// show writes outputs as "key: value name=value …", the part after the value
// being headers, and null as <null>.
func show(records []*kgo.Record) []string {
	text := func(b []byte) string {
		if b == nil {
			return "<null>"
		}
		return string(b)
	}
	shown := []string{}
	for _, r := range records {
		s := text(r.Key) + ": " + text(r.Value)
		for _, h := range r.Headers {
			s += " " + h.Key + "=" + text(h.Value)
		}
		shown = append(shown, s)
	}
	return shown
}

// reply answers with the lines of head ("name: value"), a Content-Length and the
// body.
func reply(status int, head, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		start(w, r, status, head+"\nContent-Length: "+strconv.Itoa(len(body)))
		_, _ = io.WriteString(w, body)
	}
}

// chunks is reply without a Content-Length.
func chunks(status int, head, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		start(w, r, status, head)
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, body)
	}
}

func start(w http.ResponseWriter, r *http.Request, status int, head string) {
	_, _ = io.Copy(io.Discard, r.Body)
	for line := range strings.Lines(strings.TrimSpace(head)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		w.Header()[name] = append(w.Header()[name], strings.TrimSpace(value))
	}
	w.WriteHeader(status)
}

func TestHTTPOutputs(t *testing.T) {
	const (
		lines   = "Content-Type: application/x-ndjson\n"
		outputs = "Content-Type: application/vnd.seriatim.outputs+json\n"
	)
	tests := map[string]struct {
		status     int
		head, body string
		want       []string
	}{
		"200":                           {200, "", "new", []string{"key: new a=1 b=2 a=3"}},
		"201":                           {201, "", "new", []string{"key: new a=1 b=2 a=3"}},
		"empty value":                   {200, "", "", []string{"key:  a=1 b=2 a=3"}},
		"null value":                    {200, "Seriatim-Value: null", "", []string{"key: <null> a=1 b=2 a=3"}},
		"any bytes":                     {200, "Content-Type: text/html", "\x00\xff\r\n", []string{"key: \x00\xff\r\n a=1 b=2 a=3"}},
		"204":                           {204, "", "", []string{}},
		"204 with what filters nothing": {204, "Seriatim-Key: new\nSeriatim-H-a: 2", "", []string{}},

		"new key":               {200, "Seriatim-Key: n%C3%A9w", "v", []string{"néw: v a=1 b=2 a=3"}},
		"empty key":             {200, "Seriatim-Key:", "v", []string{": v a=1 b=2 a=3"}},
		"null key":              {200, "Seriatim-Key-Null: true", "v", []string{"<null>: v a=1 b=2 a=3"}},
		"small letters":         {200, "seriatim-key: k\nseriatim-h-c: 1", "v", []string{"k: v a=1 b=2 a=3 c=1"}},
		"a header replaces all": {200, "Seriatim-H-a: 9", "v", []string{"key: v a=9 b=2"}},
		"repeats keep order":    {200, "Seriatim-H-a: 9\nSeriatim-H-a: 8\nSeriatim-H-a: 7", "v", []string{"key: v a=9 a=8 a=7 b=2"}},
		"repeats in one line":   {200, "Seriatim-H-a: 9, 8,7,", "v", []string{"key: v a=9 a=8,7, b=2"}},
		"new headers by name":   {200, "Seriatim-H-z: 1\nSeriatim-H-c: 2\nSeriatim-H-%41: 3", "v", []string{"key: v a=1 b=2 a=3 A=3 c=2 z=1"}},
		"escaped name":          {200, "Seriatim-H-%41%2f%C3%a9: %20", "v", []string{"key: v a=1 b=2 a=3 A/é= "}},
		"capitals mean small":   {200, "Seriatim-H-B: 9", "v", []string{"key: v a=1 b=9 a=3"}},
		"empty header":          {200, "Seriatim-H-b:", "v", []string{"key: v a=1 b= a=3"}},
		"null header":           {200, "Seriatim-Hn-b: null", "v", []string{"key: v a=1 b=<null> a=3"}},
		"values, then nulls":    {200, "Seriatim-Hn-b:\nSeriatim-H-b: 1", "v", []string{"key: v a=1 b=1 b=<null> a=3"}},
		"dropped header":        {200, "Seriatim-H-Drop: a", "v", []string{"key: v b=2"}},
		"dropped headers":       {200, "Seriatim-H-Drop: a, c\nSeriatim-H-Drop: b", "v", []string{"key: v"}},
		"dropped and set":       {200, "Seriatim-H-Drop: a\nSeriatim-H-a: 9", "v", []string{"key: v a=9 b=2"}},
		"a header called drop":  {200, "Seriatim-H-%64rop: a", "v", []string{"key: v a=1 b=2 a=3 drop=a"}},

		"lines":                     {200, lines, "{}\n[1]\n", []string{"key: {} a=1 b=2 a=3", "key: [1] a=1 b=2 a=3"}},
		"lines, blank and CRLF":     {200, lines, "\r\n1\r\n\n \t\n2\n\n3 ", []string{"key: 1 a=1 b=2 a=3", "key: 2 a=1 b=2 a=3", "key: 3  a=1 b=2 a=3"}},
		"lines, key and headers":    {201, lines + "Seriatim-Key: k\nSeriatim-H-Drop: a", "1\n2", []string{"k: 1 b=2", "k: 2 b=2"}},
		"lines, none":               {200, lines, "", []string{}},
		"lines, parameters":         {200, "Content-Type: Application/X-NDJSON ; charset=utf-8", "1\n2", []string{"key: 1 a=1 b=2 a=3", "key: 2 a=1 b=2 a=3"}},
		"null value of lines":       {200, lines + "Seriatim-Value: null", "", []string{"key: <null> a=1 b=2 a=3"}},
		"a list by another name":    {200, "Content-Type: application/json", "[1]\n[2]", []string{"key: [1]\n[2] a=1 b=2 a=3"}},
		"outputs, none":             {200, outputs, " [ ] ", []string{}},
		"outputs, values":           {200, outputs, `[{"value":"é\u0000"},{"value":""},{"value":null},{"value":{"base64":"AP8="}},{"value":{"base64":""}}]`, []string{"key: é\x00 a=1 b=2 a=3", "key:  a=1 b=2 a=3", "key: <null> a=1 b=2 a=3", "key: \x00\xff a=1 b=2 a=3", "key:  a=1 b=2 a=3"}},
		"outputs, keys":             {200, outputs, `[{"key":"k","value":"v"},{"key":null,"value":"v"},{"key":"","value":"v"},{"key":{"base64":"/w=="},"value":"v"}]`, []string{"k: v a=1 b=2 a=3", "<null>: v a=1 b=2 a=3", ": v a=1 b=2 a=3", "\xff: v a=1 b=2 a=3"}},
		"outputs, headers":          {200, outputs, `[{"value":"v","headers":{"a":["7",null,{"base64":"/w=="}],"b":[],"C d":"1","c":null}},{"value":"v"}]`, []string{"key: v a=7 a=<null> a=\xff C d=1 c=<null>", "key: v a=1 b=2 a=3"}},
		"outputs, over the reply's": {200, outputs + "Seriatim-Key: k\nSeriatim-H-b: 9\nSeriatim-H-c: 9", `[{"value":"v","headers":{"c":"8"}},{"key":"j","value":"v"}]`, []string{"k: v a=1 b=9 a=3 c=8", "j: v a=1 b=9 a=3 c=9"}},

		"outcome filter wins": {500, "Seriatim-Outcome: filter", "x", []string{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for chunked, flush := range map[bool]http.HandlerFunc{false: reply(test.status, test.head, test.body), true: chunks(test.status, test.head, test.body)} {
				in := input()
				got, err := processor.Call(t.Context(), connect(t, serve(t, flush).URL, transform.HTTPOptions{}), in)
				if err != nil {
					t.Fatalf("chunked=%v: got error %v, want outputs", chunked, err)
				}
				if shown := show(got); !reflect.DeepEqual(shown, test.want) {
					t.Errorf("chunked=%v: got %q, want %q", chunked, shown, test.want)
				}
				for _, out := range got {
					if !out.Timestamp.Equal(in.Timestamp) {
						t.Errorf("got timestamp %v, want that of the input", out.Timestamp)
					}
				}
				if now := input(); !reflect.DeepEqual(in.Headers, now.Headers) {
					t.Errorf("the input's headers became %v", in.Headers)
				}
			}
		})
	}
}

func TestHTTPFailures(t *testing.T) {
	const (
		retry, reject, deployment = processor.Retry, processor.Reject, processor.Deployment

		broken  = "its reply breaks the contract: "
		outputs = "Content-Type: application/vnd.seriatim.outputs+json\n"
		lines   = "Content-Type: application/x-ndjson\n"
	)
	type test struct {
		status     int
		head, body string
		kind       processor.Kind
		want       string // part of the error
	}
	tests := map[string]test{
		"outcome reject wins":     {200, "Seriatim-Outcome: reject", "v", reject, "answered Seriatim-Outcome: reject: this record can never work"},
		"outcome retry wins":      {404, "Seriatim-Outcome: retry", "v", retry, "answered Seriatim-Outcome: retry"},
		"unknown outcome":         {200, "Seriatim-Outcome: secret", "v", retry, broken + "Seriatim-Outcome must be filter, reject or retry"},
		"two outcomes":            {200, "Seriatim-Outcome: filter\nSeriatim-Outcome: reject", "", retry, broken + "Seriatim-Outcome is given 2 times"},
		"reason":                  {422, "Seriatim-Error: no%20amount: %C3%A9%0A", "secret", reject, `never work: "no amount: é\n"`},
		"reason that is no code":  {503, "Seriatim-Error: 100% of it", "", retry, `503 Service Unavailable: "100% of it"`},
		"long reason":             {503, "Seriatim-Error: " + strings.Repeat("x", 5000), "", retry, `"` + strings.Repeat("x", 500) + `"`},
		"values are not told":     {422, "", "secret", reject, "never work"},
		"unknown status":          {299, "", "", deployment, "answered 299: no worker answers so"},
		"later is not supported":  {202, "", "", deployment, "answered 202 Accepted: no worker answers so"},
		"found elsewhere":         {302, "Location: /", "", deployment, "only 307 and 308 within the host are followed"},
		"moved without a place":   {308, "", "", deployment, "only 307 and 308 within the host are followed"},
		"204 that is null":        {204, "Seriatim-Value: null", "", retry, broken + "204 filters the record; answer 200"},
		"value neither":           {200, "Seriatim-Value: secret", "", retry, broken + "Seriatim-Value must be null"},
		"null with a body":        {200, "Seriatim-Value: null", "secret", retry, broken + "Seriatim-Value: null has a body"},
		"two keys":                {200, "Seriatim-Key: a\nSeriatim-Key: b", "v", retry, broken + "Seriatim-Key is given 2 times"},
		"a key and none":          {200, "Seriatim-Key: a\nSeriatim-Key-Null: true", "v", retry, broken + "Seriatim-Key and Seriatim-Key-Null exclude each other"},
		"key null neither":        {200, "Seriatim-Key-Null: secret", "v", retry, broken + "Seriatim-Key-Null must be true"},
		"bad escape in a key":     {200, "Seriatim-Key: secret%2", "v", retry, broken + "Seriatim-Key has a % that no two hexadecimal digits follow"},
		"space in a key":          {200, "Seriatim-Key: a secret", "v", retry, broken + "Seriatim-Key has a byte that is not visible ASCII; write it as %XX"},
		"bad escape in a header":  {200, "Seriatim-H-x: %secret", "v", retry, broken + `"Seriatim-H-X" has a %`},
		"not ASCII in a header":   {200, "Seriatim-H-x: \xe9", "v", retry, broken + `"Seriatim-H-X" has a byte`},
		"bad escape in a name":    {200, "Seriatim-H-a%4: 1", "v", retry, broken + `"Seriatim-H-A%4" has a %`},
		"bad byte in a name":      {200, "Seriatim-H-a!: 1", "v", retry, broken + `"Seriatim-H-A!" has a byte in the name`},
		"drop by capitals":        {200, "Seriatim-H-Drop: A", "v", retry, broken + `"Seriatim-H-Drop" has a byte in the name`},
		"compressed":              {200, "Content-Encoding: gzip", "v", retry, broken + "its body has a Content-Encoding"},
		"outputs that are none":   {200, outputs, "secret", retry, broken + "its body is not a JSON array"},
		"outputs of an object":    {200, outputs, `{"value":"secret"}`, retry, broken + "its body is not a JSON array"},
		"outputs, nothing":        {200, outputs, "", retry, broken + "its body is not a JSON array"},
		"outputs, cut":            {200, outputs, `[{"value":"secret"},`, retry, broken + "output 1 is not a JSON object"},
		"outputs, not closed":     {200, outputs, `[{"value":"secret"}`, retry, broken + "its body is not a whole JSON array"},
		"outputs, twice":          {200, outputs, `[][]`, retry, broken + "its body is more than one JSON array"},
		"outputs, more":           {200, outputs, `[] secret`, retry, broken + "its body is more than one JSON array"},
		"outputs, no object":      {200, outputs, `[1]`, retry, broken + "output 0 is not a JSON object"},
		"outputs, a null one":     {200, outputs, `[null]`, retry, broken + `output 0: has no "value"`},
		"outputs, unknown key":    {200, outputs, `[{"value":"v","secret":1}]`, retry, broken + "output 0 is not a JSON object of"},
		"outputs, no value":       {200, outputs, `[{"key":"secret"}]`, retry, broken + `output 0: has no "value"; the null value is null`},
		"outputs, JSON value":     {200, outputs, `[{"value":{"secret":1}}]`, retry, broken + `output 0: "value" must be a string, null, or`},
		"outputs, number":         {200, outputs, `[{"value":"v"},{"value":1}]`, retry, broken + `output 1: "value" must be a string`},
		"outputs, null base64":    {200, outputs, `[{"value":{"base64":null}}]`, retry, broken + `output 0: "value" must be a string`},
		"outputs, bad base64":     {200, outputs, `[{"key":{"base64":"secret!"},"value":""}]`, retry, broken + `output 0: "key" is not base64`},
		"outputs, bad header":     {200, outputs, `[{"value":"","headers":{"x":["1",true]}}]`, retry, broken + `output 0: "headers": "x" must be a string`},
		"outputs, headers list":   {200, outputs, `[{"value":"","headers":["secret"]}]`, retry, broken + "output 0 is not a JSON object of"},
		"outputs, not UTF-8":      {200, outputs, "[{\"value\":\"secret\xff\"}]", retry, broken + "its JSON is not UTF-8"},
		"outputs, too many":       {200, outputs, "[" + strings.Repeat(`{"value":""},`, 10000) + `{"value":""}]`, reject, "its reply has more than 10000 outputs"},
		"lines, too many":         {200, lines, strings.Repeat("1\n", 10001), reject, "its reply has more than 10000 outputs"},
		"value too large":         {200, "", strings.Repeat("x", 1<<20+1), reject, "1048576"},
		"lines too large":         {200, lines, strings.Repeat("x", 4<<20+1), reject, "4194304"},
		"more than many headers":  {200, "Seriatim-H-x: " + strings.Repeat("x", 1<<20), "", retry, "its reply is malformed or has more than 256 KiB of headers"},
		"nobody is let in":        {401, "", "", deployment, "transform.http.bearer_token_file"},
		"retry of a reply we cut": {429, "", strings.Repeat("x", 1<<20), retry, "answered 429 Too Many Requests"},
	}
	for kind, statuses := range map[processor.Kind][]int{
		reject:     {400, 410, 413, 415, 422, 431},
		retry:      {408, 409, 425, 429, 500, 502, 503, 504, 505, 507, 599},
		deployment: {401, 403, 404, 405, 501, 205, 206, 300, 301, 303, 304, 307, 402, 406, 411, 412, 414, 418, 421, 426, 451, 600, 999},
	} {
		for _, status := range statuses {
			tests[strconv.Itoa(status)] = test{status, "", "", kind, fmt.Sprintf("answered %d", status)}
		}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for chunked, handler := range map[bool]http.HandlerFunc{false: reply(test.status, test.head, test.body), true: chunks(test.status, test.head, test.body)} {
				out, err := processor.Call(t.Context(), connect(t, serve(t, handler).URL, transform.HTTPOptions{}), input())
				f := failure(t, err)
				if f.Kind != test.kind || !strings.Contains(err.Error(), test.want) || len(out) > 0 {
					t.Errorf("chunked=%v: got %d outputs, %v: %v, want none, %v: … %s", chunked, len(out), f.Kind, err, test.kind, test.want)
				}
			}
		})
	}
}

func TestHTTPLargestReplies(t *testing.T) {
	for name, test := range map[string]struct {
		head, body string
		outputs    int
	}{
		"value": {"", strings.Repeat("x", 1<<20), 1},
		"lines": {"Content-Type: application/x-ndjson", strings.Repeat(strings.Repeat("x", 4<<20/10000-1)+"\n", 10000), 10000},
	} {
		for chunked, handler := range map[bool]http.HandlerFunc{false: reply(200, test.head, test.body), true: chunks(200, test.head, test.body)} {
			out, err := processor.Call(t.Context(), connect(t, serve(t, handler).URL, transform.HTTPOptions{}), input())
			if err != nil || len(out) != test.outputs {
				t.Errorf("%s, chunked=%v: got %d outputs and error %v, want %d", name, chunked, len(out), err, test.outputs)
			}
		}
	}
}

func TestHTTPRetryAfter(t *testing.T) {
	tests := map[string]struct {
		status   int
		head     string
		min, max time.Duration
	}{
		"seconds":              {429, "Retry-After: 7", 7 * time.Second, 7 * time.Second},
		"with an outcome":      {200, "Retry-After: 7\nSeriatim-Outcome: retry", 7 * time.Second, 7 * time.Second},
		"none":                 {503, "", 0, 0},
		"negative":             {503, "Retry-After: -7", 0, 0},
		"not readable":         {503, "Retry-After: soon", 0, 0},
		"for ever":             {503, "Retry-After: 99999999999999999999999", 24 * time.Hour, 24 * time.Hour},
		"a date":               {503, "Retry-After: " + time.Now().Add(time.Minute).UTC().Format(http.TimeFormat), 50 * time.Second, time.Minute},
		"a date that has gone": {503, "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT", 0, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := processor.Call(t.Context(), connect(t, serve(t, reply(test.status, test.head, "")).URL, transform.HTTPOptions{}), input())
			if f := failure(t, err); f.Kind != processor.Retry || f.After < test.min || f.After > test.max {
				t.Errorf("got %v after %v, want retry after %v to %v", f.Kind, f.After, test.min, test.max)
			}
		})
	}
}
