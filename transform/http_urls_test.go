package transform_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"seriatim/processor"
	"seriatim/transform"
)

// unreachable returns an address where nobody listens.
func unreachable(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	return "http://" + listener.Addr().String()
}

// TestHTTPAnotherURL has one address that is of no use: it costs no attempt, and
// after the first record no further request.
func TestHTTPAnotherURL(t *testing.T) {
	good := serve(t, reply(200, "", "value"))
	var asked atomic.Int64
	counting := func(handler http.HandlerFunc) string {
		return serve(t, func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			handler(w, r)
		}).URL
	}
	for name, bad := range map[string]string{
		"unreachable":  unreachable(t),
		"wrong path":   counting(reply(404, "", "")),
		"unauthorized": counting(reply(401, "", "")),
		"redirects":    counting(reply(302, "Location: http://example.com", "")),
	} {
		t.Run(name, func(t *testing.T) {
			asked.Store(0)
			began := time.Now()
			client := connectAll(t, transform.HTTPOptions{URLs: []string{bad, good.URL}})
			for range 50 {
				out, err := processor.Call(t.Context(), client, input())
				if err != nil || len(out) != 1 || string(out[0].Value) != "value" {
					t.Fatalf("got %q and error %v, want the value from the other address", show(out), err)
				}
			}
			took := time.Since(began)
			if n := asked.Load(); n > 1+int64(took/time.Second) { // a probe at the most a second
				t.Errorf("the address was asked %d times within %v, want once: it is ejected", n, took)
			}
		})
	}
}

func TestHTTPNoURLIsAnyGood(t *testing.T) {
	wrong := serve(t, reply(404, "", ""))
	for name, test := range map[string]struct {
		urls   []string
		unsent bool
	}{
		"none reached": {[]string{unreachable(t), unreachable(t), unreachable(t)}, true},
		"one reached":  {[]string{unreachable(t), wrong.URL, unreachable(t)}, false},
	} {
		_, err := processor.Call(t.Context(), connectAll(t, transform.HTTPOptions{URLs: test.urls}), input())
		f := failure(t, err)
		if f.Kind != processor.Deployment || f.Unsent != test.unsent || !strings.Contains(err.Error(), "; 2 more of transform.http.urls failed before") {
			t.Errorf("%s: got %v (unsent: %v): %v, want deployment (unsent: %v) after all three", name, f.Kind, f.Unsent, err, test.unsent)
		}
	}
}

// TestHTTPAnotherURLInTime has an address that is silent at the TLS handshake.
func TestHTTPAnotherURLInTime(t *testing.T) {
	silent := strings.Replace(raw(t, func(conn net.Conn, _ int) { _, _ = io.Copy(io.Discard, conn) }), "http:", "https:", 1)
	good := serve(t, reply(200, "", "value"))
	client := connectAll(t, transform.HTTPOptions{URLs: []string{silent, good.URL}, Timeout: 4 * time.Second})
	for range 20 {
		if _, err := processor.Call(t.Context(), client, input()); err != nil {
			t.Fatalf("got error %v, want the reply of the other address within the time of the attempt", err)
		}
	}
}

// TestHTTPRetryAtAnotherURL has each attempt leave the address where the one before
// failed, as long as neither has failed so often that it is ejected.
func TestHTTPRetryAtAnotherURL(t *testing.T) {
	handler := func(who string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Seriatim-Error", who)
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}
	client := connectAll(t, transform.HTTPOptions{URLs: []string{serve(t, handler("one")).URL, serve(t, handler("two")).URL}})
	in := input()
	last := ""
	for in.Attempt = 1; in.Attempt < 10; in.Attempt++ {
		_, err := processor.Call(t.Context(), client, in)
		_ = failure(t, err)
		if in.Last = err; err.Error() == last {
			t.Fatalf("attempt %d failed as the one before: %v", in.Attempt, err)
		}
		last = err.Error()
	}
}

// TestHTTPMaxInFlight counts attempts at each of two addresses.
func TestHTTPMaxInFlight(t *testing.T) {
	const limit, calls = 2, 12
	var running [2]atomic.Int64
	full := make(chan struct{}, calls)
	release := make(chan struct{})
	handler := func(i int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if n := running[i].Add(1); n > limit {
				t.Errorf("%d attempts at once at one address, want %d", n, limit)
			}
			full <- struct{}{}
			<-release
			running[i].Add(-1)
			w.WriteHeader(http.StatusNoContent)
		}
	}
	client := connectAll(t, transform.HTTPOptions{
		URLs: []string{serve(t, handler(0)).URL, serve(t, handler(1)).URL}, MaxInFlight: limit,
	})
	var all sync.WaitGroup
	for range calls {
		all.Go(func() {
			if _, err := processor.Call(t.Context(), client, input()); err != nil {
				t.Error(err)
			}
		})
	}
	for range 2 * limit {
		<-full
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := processor.Call(ctx, client, input()); err == nil {
		t.Error("got a reply, want none: all addresses are full and the attempt was given up")
	}
	close(release)
	all.Wait()
}

// TestHTTPConnectionsOfSeveralURLs has two paths on one host share what may be
// open to it.
func TestHTTPConnectionsOfSeveralURLs(t *testing.T) {
	const workers = 4
	release := make(chan struct{})
	var running atomic.Int64
	url, opened, _ := counted(t, func(w http.ResponseWriter, _ *http.Request) {
		if running.Add(1) == 2*workers {
			close(release)
		}
		<-release
		w.WriteHeader(http.StatusNoContent)
	})
	client := connectAll(t, transform.HTTPOptions{URLs: []string{url + "/a", url + "/b"}, Connections: workers})
	var all sync.WaitGroup
	for range 2 * workers {
		all.Go(func() {
			if _, err := processor.Call(t.Context(), client, input()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := opened.Load(); n != 2*workers {
		t.Errorf("%d connections were opened for %d attempts at once", n, 2*workers)
	}
}

// A second attempt beside one that runs asks another worker.
func TestHTTPHedgeAsksAnotherURL(t *testing.T) {
	asked := make(chan string)
	hang := func(name string) string {
		return serve(t, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // else the server does not see that the client has gone
			asked <- name
			<-r.Context().Done()
		}).URL
	}
	client := connectAll(t, transform.HTTPOptions{URLs: []string{hang("one"), hang("two")}})
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		in := input()
		in.Asked = new(atomic.Value)
		var done sync.WaitGroup
		attempt := func() string {
			done.Go(func() { _, _ = processor.Call(ctx, client, in) })
			return <-asked
		}
		if first, second := attempt(), attempt(); first == second {
			t.Fatalf("both attempts went to %q", first)
		}
		cancel()
		done.Wait()
	}
}
