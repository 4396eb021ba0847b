package transform_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
	"seriatim/transform"
)

// callBack sends a worker's wish and returns the status of the answer.
func callBack(t *testing.T, method, address, body string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0
	}
	// Not the default client: that would look for proxies, once for the whole process.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// A worker that asks for more time while it works is not given up; one that stops asking
// is. Addresses of attempts that are over are no good.
func TestWorkerAsksForMoreTime(t *testing.T) {
	const timeout = 500 * time.Millisecond
	var address atomic.Value
	worker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at := r.Header.Get("Seriatim-Attempt-Url")
		address.Store(at)
		deadline, err := strconv.ParseInt(r.Header.Get("Seriatim-Deadline-Ms"), 10, 64)
		if left := time.Until(time.UnixMilli(deadline)); err != nil || left > timeout {
			t.Errorf("%v are left at first, error %v", left, err)
		}
		value, _ := io.ReadAll(r.Body)
		for range len(value) {
			select {
			case <-time.After(timeout / 2):
			case <-r.Context().Done():
				return
			}
			if status := callBack(t, http.MethodPost, at+"/extend", ""); status != http.StatusOK {
				t.Errorf("more time: got %d, want 200", status)
			}
		}
		if string(value) == "!!!" {
			<-r.Context().Done()
			return
		}
		fmt.Fprint(w, "done")
	}))
	t.Cleanup(worker.Close)
	callbacks, asked := serveCallbacks(t)
	client, err := transform.HTTP(transform.HTTPOptions{URLs: []string{worker.URL}, Timeout: timeout, Callbacks: callbacks})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)

	in := processor.Input{Record: &kgo.Record{Topic: "in", Value: []byte("......")}, Attempt: 1}
	if out, err := processor.Call(t.Context(), client, in); err != nil || string(out[0].Value) != "done" {
		t.Errorf("a worker that works for %v: got error %v", 3*timeout, err)
	}
	for _, path := range []string{"/extend", "/note"} {
		method := map[string]string{"/extend": http.MethodPost, "/note": http.MethodPut}[path]
		if status := callBack(t, method, address.Load().(string)+path, ""); status != http.StatusConflict {
			t.Errorf("%s when it was over: got %d, want 409", path, status)
		}
	}
	in.Value = []byte("!!!")
	began := time.Now()
	_, err = processor.Call(t.Context(), client, in)
	var f *processor.Failure
	if !errors.As(err, &f) || f.Kind != processor.Retry || !strings.Contains(err.Error(), "no complete reply within 500ms (transform.http.timeout)") {
		t.Errorf("a worker that stops asking: got error %v", err)
	}
	if took := time.Since(began); took < 2*timeout || took > 10*timeout {
		t.Errorf("it was given up after %v, want %v", took, 5*timeout/2)
	}
	if n := asked.Load(); n != 6+2+3 {
		t.Errorf("%d requests arrived, want 11", n)
	}
}

// serveCallbacks serves callbacks and counts the requests.
func serveCallbacks(t *testing.T) (*transform.Callbacks, *atomic.Int64) {
	t.Helper()
	var handler http.Handler
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	callbacks, err := transform.NewCallbacks(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	handler = callbacks.Handler()
	return callbacks, &asked
}

// The note of an earlier attempt arrives encoded as keys are; without one there is no
// header, and without callbacks no address.
func TestNoteReachesTheWorker(t *testing.T) {
	for note, want := range map[string]string{"": "", "salary service called": "salary%20service%20called", "10 % für\nAnna": "10%20%25%20f%C3%BCr%0AAnna"} {
		worker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Seriatim-Note"); got != want {
				t.Errorf("the note is %q, want %q", got, want)
			}
			if got := r.Header["Seriatim-Attempt-Url"]; got != nil {
				t.Errorf("the address is %q, want none", got)
			}
			w.WriteHeader(http.StatusNoContent)
		}))
		client, err := transform.HTTP(transform.HTTPOptions{URLs: []string{worker.URL}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := processor.Call(t.Context(), client, processor.Input{Record: &kgo.Record{Topic: "in"}, Attempt: 2, Note: note}); err != nil {
			t.Error(err)
		}
		client.Close()
		worker.Close()
	}
}
