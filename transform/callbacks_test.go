package transform

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

// A term ends in its time, may be extended up to ten times that, and not once it is over.
func TestTerm(t *testing.T) {
	const usual = 10 * time.Second
	type extension struct {
		after, by time.Duration
		left      time.Duration
		ok        bool
	}
	for what, test := range map[string]struct {
		extensions []extension
		ends       time.Duration // since the beginning
	}{
		"not extended":           {nil, usual},
		"by what is usual":       {[]extension{{9 * time.Second, 0, usual, true}}, 19 * time.Second},
		"by less than there is":  {[]extension{{time.Second, time.Second, 9 * time.Second, true}}, usual},
		"again and again":        {[]extension{{9 * time.Second, 0, usual, true}, {9 * time.Second, 0, usual, true}}, 28 * time.Second},
		"by far too much":        {[]extension{{time.Second, 20 * time.Hour, 99 * time.Second, true}}, 100 * time.Second},
		"at its longest":         {[]extension{{time.Second, time.Hour, 99 * time.Second, true}, {98 * time.Second, 0, time.Second, true}}, 100 * time.Second},
		"when it is over":        {[]extension{{usual, 0, 0, false}}, usual},
		"long after it was over": {[]extension{{time.Hour, time.Hour, 0, false}}, usual},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var ended atomic.Int64
				term := newTerm(usual, func() { ended.Add(int64(time.Since(began))) })
				for i, e := range test.extensions {
					<-time.After(e.after)
					synctest.Wait()
					if left, ok := term.extend(e.by); left != e.left || ok != e.ok {
						t.Errorf("extension %d: %v left, %v; want %v, %v", i, left, ok, e.left, e.ok)
					}
				}
				<-time.After(3 * time.Hour)
				if got := time.Duration(ended.Load()); got != test.ends {
					t.Errorf("it ended after %v, want once, after %v", got, test.ends)
				}
			})
		})
	}
}

// An attempt that was answered is not extended, and does not expire.
func TestStoppedTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		term := newTerm(time.Second, func() { t.Error("it expired") })
		term.stop()
		if left, ok := term.extend(time.Hour); ok {
			t.Errorf("it was extended to %v", left)
		}
		<-time.After(time.Hour)
	})
}

// The addresses of attempts answer what they should, and do nothing that they should not.
func TestCallbacks(t *testing.T) {
	const usual = 10 * time.Second
	note := strings.Repeat("é", 512)
	for what, test := range map[string]struct {
		method, path, body string // path behind that of the attempt
		status             int
		left               time.Duration // after it
	}{
		"more time":              {http.MethodPost, "/extend", "", http.StatusOK, usual},
		"more time, as said":     {http.MethodPost, "/extend", `{"ms":30000}`, http.StatusOK, 30 * time.Second},
		"an empty object":        {http.MethodPost, "/extend", `{}`, http.StatusOK, usual},
		"as long as possible":    {http.MethodPost, "/extend", `{"ms":1e300}`, http.StatusOK, 10 * usual},
		"no time":                {http.MethodPost, "/extend", `{"ms":0}`, http.StatusBadRequest, usual},
		"less time":              {http.MethodPost, "/extend", `{"ms":-1}`, http.StatusBadRequest, usual},
		"words":                  {http.MethodPost, "/extend", `{"ms":"30s"}`, http.StatusBadRequest, usual},
		"another field":          {http.MethodPost, "/extend", `{"seconds":30}`, http.StatusBadRequest, usual},
		"no JSON":                {http.MethodPost, "/extend", `ms=30000`, http.StatusBadRequest, usual},
		"two objects":            {http.MethodPost, "/extend", `{"ms":30000}{}`, http.StatusBadRequest, usual},
		"too long for a time":    {http.MethodPost, "/extend", `{"ms":30000` + strings.Repeat(" ", 1100) + "}", http.StatusRequestEntityTooLarge, usual},
		"a note":                 {http.MethodPut, "/note", note, http.StatusNoContent, usual},
		"no note":                {http.MethodPut, "/note", "", http.StatusNoContent, usual},
		"too long for a note":    {http.MethodPut, "/note", note + "x", http.StatusRequestEntityTooLarge, usual},
		"bytes that are no text": {http.MethodPut, "/note", "\xff", http.StatusBadRequest, usual},
		"another method":         {http.MethodGet, "/note", "", http.StatusMethodNotAllowed, usual},
		"another path":           {http.MethodPost, "/stop", "", http.StatusNotFound, usual},
		"an unknown token":       {http.MethodPost, "x/extend", `{"ms":30000}`, http.StatusConflict, usual},
		"nothing behind":         {http.MethodPost, "", "", http.StatusNotFound, usual},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, err := NewCallbacks("http://workers.example/below/")
				if err != nil {
					t.Fatal(err)
				}
				term := newTerm(usual, func() {})
				defer term.stop()
				address, end := c.begin(term)
				path, ok := strings.CutPrefix(address, "http://workers.example/below")
				if !ok || len(path) < len("/attempts/")+26 {
					t.Fatalf("the address is %s", address)
				}
				resp := serve(c, test.method, path+test.path, test.body)
				if resp.StatusCode != test.status {
					t.Errorf("the answer is %s, want %d", resp.Status, test.status)
				}
				if left := time.Until(term.end()); left != test.left {
					t.Errorf("%v are left, want %v", left, test.left)
				}
				if test.status == http.StatusOK {
					var told struct {
						DeadlineMS int64 `json:"deadline_ms"`
					}
					if err := json.NewDecoder(resp.Body).Decode(&told); err != nil || told.DeadlineMS != test.left.Milliseconds() {
						t.Errorf("it says %d ms (%v), want %v", told.DeadlineMS, err, test.left)
					}
				}
				end()
				ends := term.end()
				if resp := serve(c, test.method, path+test.path, test.body); test.status < 300 && resp.StatusCode != http.StatusConflict {
					t.Errorf("when the attempt is over the answer is %s, want 409", resp.Status)
				}
				if !term.end().Equal(ends) {
					t.Error("it was extended when it was over")
				}
			})
		})
	}
}

func serve(c *Callbacks, method, path, body string) *http.Response {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	w := httptest.NewRecorder()
	c.Handler().ServeHTTP(w, httptest.NewRequest(method, path, reader))
	return w.Result()
}

// A worker that asks for more time while it works is not given up; one that stops asking
// is. Addresses of attempts that are over are no good.
func TestWorkerAsksForMoreTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 10 * time.Second
		callbacks, err := NewCallbacks("http://seriatim")
		if err != nil {
			t.Fatal(err)
		}
		client, err := HTTP(HTTPOptions{URLs: []string{"http://worker"}, Timeout: timeout, Callbacks: callbacks})
		if err != nil {
			t.Fatal(err)
		}
		var address string
		callBack := func(method, path string, want int) {
			t.Helper()
			resp := serve(callbacks, method, strings.TrimPrefix(address, "http://seriatim")+path, "")
			if resp.StatusCode != want {
				t.Errorf("%s: got %d, want %d", path, resp.StatusCode, want)
			}
		}
		client.transport = answerer(func(r *http.Request) (*http.Response, error) {
			address = r.Header.Get("Seriatim-Attempt-Url")
			if got, want := r.Header.Get("Seriatim-Deadline-Ms"), strconv.FormatInt(time.Now().Add(timeout).UnixMilli(), 10); got != want {
				t.Errorf("the deadline is %s at first, want %s", got, want)
			}
			value, _ := io.ReadAll(r.Body)
			for range value {
				<-time.After(timeout / 2)
				callBack(http.MethodPost, "/extend", http.StatusOK)
			}
			if string(value) == "!!!" {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return &http.Response{StatusCode: http.StatusOK, ContentLength: 4, Body: io.NopCloser(strings.NewReader("done"))}, nil
		})
		if got, err := attempt(t.Context(), client, "......"); err != nil || got != "done" {
			t.Errorf("a worker that works for %v: got %q and error %v", 3*timeout, got, err)
		}
		callBack(http.MethodPost, "/extend", http.StatusConflict)
		callBack(http.MethodPut, "/note", http.StatusConflict)
		began := time.Now()
		_, err = attempt(t.Context(), client, "!!!")
		var f *processor.Failure
		if !errors.As(err, &f) || f.Kind != processor.Retry || !strings.Contains(err.Error(), "no complete reply within 10s (transform.http.timeout), nor within the 25s") {
			t.Errorf("a worker that stops asking: got error %v", err)
		}
		if took := time.Since(began); took != 5*timeout/2 {
			t.Errorf("it was given up after %v, want %v", took, 5*timeout/2)
		}
	})
}

// The note of an earlier attempt arrives encoded as keys are; without one there is no
// header, and without callbacks no address.
func TestNoteReachesTheWorker(t *testing.T) {
	client, err := HTTP(HTTPOptions{URLs: []string{"http://worker"}})
	if err != nil {
		t.Fatal(err)
	}
	for note, want := range map[string][]string{
		"": nil, "salary service called": {"salary%20service%20called"}, "10 % für\nAnna": {"10%20%25%20f%C3%BCr%0AAnna"},
	} {
		client.transport = answerer(func(r *http.Request) (*http.Response, error) {
			if got := r.Header["Seriatim-Note"]; !slices.Equal(got, want) {
				t.Errorf("the note is %q, want %q", got, want)
			}
			if got := r.Header["Seriatim-Attempt-Url"]; got != nil {
				t.Errorf("the address is %q, want none", got)
			}
			return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody}, nil
		})
		if _, err := processor.Call(t.Context(), client, processor.Input{Record: &kgo.Record{Topic: "in"}, Attempt: 2, Note: note}); err != nil {
			t.Error(err)
		}
	}
}

// An attempt ends while its worker still sends the body of its wish: nothing changes.
func TestCallbackThatArrivesAsTheAttemptEnds(t *testing.T) {
	for path, body := range map[string]string{"/extend": `{"ms":30000}`, "/note": "a note"} {
		c, err := NewCallbacks("http://127.0.0.1:1")
		if err != nil {
			t.Fatal(err)
		}
		term := newTerm(time.Minute, func() {})
		address, end := c.begin(term)
		ends := term.end()
		method := map[string]string{"/extend": http.MethodPost, "/note": http.MethodPut}[path]
		w := httptest.NewRecorder()
		r := httptest.NewRequest(method, strings.TrimPrefix(address, "http://127.0.0.1:1")+path, io.MultiReader(strings.NewReader(body[:3]), readerFunc(func([]byte) (int, error) {
			end()
			return 0, io.EOF
		})))
		if path == "/extend" {
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader(body), readerFunc(func([]byte) (int, error) { end(); return 0, io.EOF })))
		}
		c.Handler().ServeHTTP(w, r)
		if w.Code != http.StatusConflict || !term.end().Equal(ends) {
			t.Errorf("%s: the answer is %d, and the end was moved by %v; want 409 and nothing", path, w.Code, term.end().Sub(ends))
		}
		term.stop()
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestCallbacksNeedAnAddress(t *testing.T) {
	for _, base := range []string{"", "ftp://host", "http://", "http://user@host", "http://host?x=1", "host:80", ":"} {
		if _, err := NewCallbacks(base); err == nil {
			t.Errorf("%q is taken", base)
		}
	}
}
