package transform_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"seriatim/processor"
	"seriatim/transform"
)

func TestHTTPEndsWithItsContext(t *testing.T) {
	cause := errors.New("revoked")
	ctx, cancel := context.WithCancelCause(t.Context())
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the server does not notice that we have gone
		cancel(cause)
		<-r.Context().Done()
	})
	_, err := processor.Call(ctx, connect(t, server.URL, transform.HTTPOptions{Timeout: time.Hour}), input())
	if !errors.Is(err, cause) {
		t.Errorf("got error %v, want the cause of the context's end", err)
	}
}

func TestHTTPOutOfReach(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + listener.Addr().String()
	_ = listener.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	plain := serve(t, reply(200, "", ""))
	silent := raw(t, func(conn net.Conn, _ int) { _, _ = io.Copy(io.Discard, conn) })

	https := func(url string) string { return strings.Replace(url, "http:", "https:", 1) }
	tests := map[string]struct{ url, want string }{
		"nobody listens":      {closed, "connection refused"},
		"unknown certificate": {secure.URL, "certificate"},
		"no TLS":              {https(plain.URL), "first record does not look like a TLS handshake"},
		"no TLS handshake":    {https(silent), "is out of reach"},
		"link-local":          {"http://169.254.169.254/latest/meta-data", "169.254.169.254 is a link-local or cloud metadata address"},
		"link-local as IPv6":  {"http://[::ffff:169.254.169.254]", "link-local or cloud metadata address"},
		"metadata as IPv6":    {"http://[fd00:ec2::254]", "link-local or cloud metadata address"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var opts transform.HTTPOptions
			if test.url == https(silent) {
				opts.Timeout = time.Second // half of it for connecting
			}
			_, err := processor.Call(t.Context(), connect(t, test.url, opts), input())
			if f := failure(t, err); f.Kind != processor.Deployment || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v: %v, want deployment: … %s", f.Kind, err, test.want)
			}
		})
	}
}

func TestHTTPIgnoresProxiesOfTheEnvironment(t *testing.T) {
	var asked atomic.Bool
	proxy := serve(t, func(http.ResponseWriter, *http.Request) { asked.Store(true) })
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("http_proxy", proxy.URL)
	// Reserved for documentation: nobody answers there.
	_, err := processor.Call(t.Context(), connect(t, "http://192.0.2.1:9", transform.HTTPOptions{Timeout: time.Second}), input())
	if f := failure(t, err); f.Kind != processor.Deployment || asked.Load() {
		t.Errorf("got %v: %v, and the proxy was asked: %v; want deployment, and no question", f.Kind, err, asked.Load())
	}
}

func TestHTTPRedirects(t *testing.T) {
	elsewhere := serve(t, reply(200, "", "elsewhere"))
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		status, to, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		switch status {
		case "end":
			_, _ = io.WriteString(w, r.Method+" "+string(body)+" "+r.Header.Get("Idempotency-Key")+r.Header.Get("Seriatim-Key"))
		case "loop":
			http.Redirect(w, r, "/loop", http.StatusTemporaryRedirect)
		default:
			code := map[string]int{"301": 301, "302": 302, "303": 303, "307": 307, "308": 308}[status]
			if to == "elsewhere" {
				to = elsewhere.URL
			} else {
				to = "/" + to
			}
			w.Header().Set("Location", to)
			w.WriteHeader(code)
		}
	})
	const end = `POST secret value "orders/AQIDBAUGBwgJCgsMDQ4PEA/3/42"key`
	for path, want := range map[string]string{
		"/end":                     end,
		"/307/end":                 end,
		"/308/end":                 end,
		"/307/308/307/end":         end,
		"/307/307/307/307/end":     "",
		"/loop":                    "",
		"/301/end":                 "",
		"/302/end":                 "",
		"/303/end":                 "",
		"/307/elsewhere":           "",
		"/308/307/elsewhere":       "",
		"/307/302/end":             "",
		"/307//" + "example.com/a": "",
	} {
		out, err := processor.Call(t.Context(), connect(t, server.URL+path, transform.HTTPOptions{}), input())
		if want == "" {
			if f := failure(t, err); f.Kind != processor.Deployment || !strings.Contains(err.Error(), "name the final address") {
				t.Errorf("%s: got %v: %v, want deployment and what to do", path, f.Kind, err)
			}
			continue
		}
		if err != nil || len(out) != 1 || string(out[0].Value) != want {
			t.Errorf("%s: got %q and error %v, want %q", path, show(out), err, want)
		}
	}
}

// counted runs a worker and counts the connections that were opened and that
// are open.
func counted(t *testing.T, handler http.HandlerFunc) (url string, opened, open *atomic.Int64) {
	t.Helper()
	opened, open = new(atomic.Int64), new(atomic.Int64)
	server := httptest.NewUnstartedServer(handler)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			opened.Add(1)
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	return server.URL, opened, open
}

func TestHTTPKeepsConnections(t *testing.T) {
	// Every kind of reply leaves its connection fit for the next attempt.
	replies := []http.HandlerFunc{
		reply(200, "", "v"), chunks(200, "", "v"), reply(204, "", ""), reply(422, "", strings.Repeat("x", 50<<10)), chunks(503, "", strings.Repeat("x", 50<<10)),
		reply(200, "Seriatim-Key: %", "v"), reply(404, "", "x"), reply(200, "Content-Type: application/x-ndjson", "1\n2\n"),
		chunks(200, "Content-Type: application/vnd.seriatim.outputs+json", `[{"value":1}]`), reply(302, "Location: http://example.com", "x"),
	}
	var n atomic.Int64
	url, opened, open := counted(t, func(w http.ResponseWriter, r *http.Request) {
		replies[int(n.Add(1))%len(replies)](w, r)
	})
	const workers, attempts = 8, 1000
	client := connect(t, url, transform.HTTPOptions{Connections: workers})
	var left atomic.Int64
	left.Store(attempts)
	var calls sync.WaitGroup
	for range workers {
		calls.Go(func() {
			for left.Add(-1) >= 0 {
				_, err := processor.Call(t.Context(), client, input())
				if err != nil {
					_ = failure(t, err)
				}
			}
		})
	}
	calls.Wait()
	if got := n.Load(); got != attempts {
		t.Errorf("the worker got %d requests, want %d", got, attempts)
	}
	// A kind of reply that costs its connection would cost 100 of them.
	if got := opened.Load(); got > workers {
		t.Errorf("%d connections were opened for %d attempts, %d at a time; want no more than attempts at a time", got, attempts, workers)
	}

	client.Close()
	for deadline := time.Now().Add(10 * time.Second); open.Load() > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are open after Close, want none", open.Load())
		}
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
		}
	}
}

func TestHTTPBoundsConnections(t *testing.T) {
	var running atomic.Int64
	third := make(chan struct{})
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if running.Add(1) == 3 {
			close(third)
		}
		select { // hold the connection so that a third attempt needs one of its own
		case <-third:
		case <-time.After(100 * time.Millisecond):
		}
		running.Add(-1)
		w.WriteHeader(http.StatusNoContent)
	})
	client := connect(t, server.URL, transform.HTTPOptions{Connections: 2})
	var calls sync.WaitGroup
	for range 3 {
		calls.Go(func() {
			if _, err := processor.Call(t.Context(), client, input()); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	select {
	case <-third:
		t.Error("3 attempts ran at once over at most 2 connections")
	default:
	}
}

func TestHTTPOptions(t *testing.T) {
	for name, test := range map[string]struct {
		opts transform.HTTPOptions
		want string
	}{
		"no address":             {transform.HTTPOptions{}, "urls: there must be at least one"},
		"no URL":                 {transform.HTTPOptions{URLs: []string{"http://me:secret@a:b"}}, "urls[0]: the address of the worker is no URL"},
		"another scheme":         {transform.HTTPOptions{URLs: []string{"http://a", "ftp://a"}}, `urls[1]: the address of the worker must begin with http:// or https://, not "ftp"`},
		"no host":                {transform.HTTPOptions{URLs: []string{"http:///path"}}, "urls[0]: the address of the worker has no host"},
		"adaptive, and a number": {transform.HTTPOptions{URLs: []string{"http://a"}, MaxInFlight: 5, Adaptive: true}, "max_in_flight: is a number, or adaptive"},
		"all that is wrong": {
			transform.HTTPOptions{Timeout: -1, Connections: -1, MaxInFlight: -1},
			"timeout: -1ns is negative\nconnections: -1 is negative\nmax_in_flight: -1 is negative\nurls:",
		},
	} {
		_, err := transform.HTTP(test.opts)
		if err == nil || !strings.HasPrefix(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got error %v, want %s …, and no password", name, err, test.want)
		}
	}
}
