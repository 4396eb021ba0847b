package admin

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"seriatim/processor"
)

func TestOnlyOwnHostNamesAreServed(t *testing.T) {
	tests := map[string]struct {
		listen, host string
		code         int
	}{
		"loopback":                        {"127.0.0.1", "127.0.0.1:8080", http.StatusOK},
		"loopback without a port":         {"127.0.0.1", "127.0.0.1", http.StatusOK},
		"loopback v6":                     {"127.0.0.1", "[::1]:8080", http.StatusOK},
		"loopback v6 without a port":      {"127.0.0.1", "[::1]", http.StatusOK},
		"localhost":                       {"127.0.0.1", "LocalHost:8080", http.StatusOK},
		"the name it listens on":          {"admin.internal", "admin.internal:8080", http.StatusOK},
		"a name pointed here":             {"127.0.0.1", "attacker.example:8080", http.StatusMisdirectedRequest},
		"a name that begins like ours":    {"127.0.0.1", "localhost.attacker.example", http.StatusMisdirectedRequest},
		"a name that looks like a number": {"127.0.0.1", "127.0.0.1.attacker.example:8080", http.StatusMisdirectedRequest},
		"another address":                 {"127.0.0.1", "192.0.2.1:8080", http.StatusMisdirectedRequest},
		"an unspecified address":          {"", "0.0.0.0:8080", http.StatusMisdirectedRequest},
		"no host":                         {"", "", http.StatusMisdirectedRequest},
		"markup":                          {"127.0.0.1", "<script>alert(1)</script>", http.StatusMisdirectedRequest},
	}
	server := New(Options{Metrics: NewMetrics("", ""), Pipelines: []Pipeline{says(orders())}})
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"/", "/metrics", "/livez", "/readyz", "/api/v1/pipelines"} {
				w := serve(t, server.Handler(test.listen), test.host, path)
				if w.Code != test.code {
					t.Errorf("%s: got %d, want %d: %s", path, w.Code, test.code, w.Body)
				}
				if got := w.Header().Get("X-Content-Type-Options"); got != "nosniff" {
					t.Errorf("%s: X-Content-Type-Options: got %q, want nosniff", path, got)
				}
				if test.code != http.StatusOK && strings.Contains(w.Body.String(), "orders") {
					t.Errorf("%s: a refusal tells about pipelines: %s", path, w.Body)
				}
			}
		})
	}
}

func TestRequestsFromOtherSitesCannotChangeAnything(t *testing.T) {
	server := New(Options{Metrics: NewMetrics("", "")})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1/api/v1/pipelines", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	address := start(t, server, server.Handler("127.0.0.1"))
	r.URL.Host = address
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("got %s, want 403", response.Status)
	}
}

func TestProbesTellNoDetails(t *testing.T) {
	status := orders()
	status.Problems = []processor.Problem{{Scope: "broker 1", Reason: "connection refused"}}
	server := New(Options{Metrics: NewMetrics("", ""), Pipelines: []Pipeline{says(status)}})
	for path, want := range map[string]struct {
		code int
		body string
	}{
		"/livez":            {http.StatusOK, "ok\n"},
		"/readyz":           {http.StatusServiceUnavailable, "not ready\n"},
		"/readyz?verbose":   {http.StatusServiceUnavailable, "not ready\n"},
		"/api/v1/pipelines": {http.StatusNotFound, "404 page not found\n"},
		"/":                 {http.StatusNotFound, "404 page not found\n"},
	} {
		// A kubelet calls the pod by its address, Prometheus by any name.
		if w := serve(t, server.Probes(), "10.0.0.7:9090", path); w.Code != want.code || w.Body.String() != want.body {
			t.Errorf("%s: got %d %q, want %d %q", path, w.Code, w.Body, want.code, want.body)
		}
	}
	if w := serve(t, server.Probes(), "10.0.0.7:9090", "/metrics"); w.Code != http.StatusOK {
		t.Errorf("/metrics: got %d, want 200", w.Code)
	}
}

func TestIndexLinksTheRest(t *testing.T) {
	body := get(t, "/").Body.String()
	for _, path := range []string{"readyz?verbose", "api/v1/pipelines", "api/v1/held", "metrics", "livez"} {
		if !strings.Contains(body, `href="`+path+`"`) {
			t.Errorf("no link to %s", path)
		}
		if w := get(t, "/"+path); w.Code != http.StatusOK {
			t.Errorf("/%s: got %d, want 200", path, w.Code)
		}
	}
}

// start serves h on loopback for the length of the test and returns the address.
func start(t *testing.T, server *Server, h http.Handler) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, l, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: got %v, want nil", err)
		}
	})
	return l.Addr().String()
}

func TestLongHeadersAreRefused(t *testing.T) {
	server := New(Options{Metrics: NewMetrics("", "")})
	address := start(t, server, server.Probes())
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET /livez HTTP/1.1\r\nHost: localhost\r\nX: %s\r\n\r\n", strings.Repeat("x", 32<<10)); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(line, "431") {
		t.Errorf("got %q, %v; want 431", line, err)
	}
}

func TestServeLetsRunningRequestsFinish(t *testing.T) {
	entered, finish := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-finish
		_, _ = io.WriteString(w, "done")
	})
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served, body := make(chan error, 1), make(chan string, 1)
	go func() { served <- New(Options{Metrics: NewMetrics("", "")}).Serve(ctx, l, h) }()
	go func() {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+l.Addr().String(), http.NoBody)
		if err != nil {
			body <- err.Error()
			return
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			body <- err.Error()
			return
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		body <- fmt.Sprint(string(text), err)
	}()
	<-entered
	cancel()
	close(finish)
	if got, want := <-body, "done<nil>"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
}

func TestServeEndsAlthoughARequestHangs(t *testing.T) {
	entered := make(chan struct{})
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	})
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- New(Options{Metrics: NewMetrics("", "")}).Serve(ctx, l, h) }()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	began := time.Now()
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
	if took := time.Since(began); took > 5*shutdownTimeout {
		t.Errorf("it took %v to end, want about %v", took, shutdownTimeout)
	}
}

func TestServeTellsWhyItCannotGoOn(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	err = New(Options{Metrics: NewMetrics("", "")}).Serve(t.Context(), l, http.NotFoundHandler())
	if err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("got %v, want an error that names %v", err, l.Addr())
	}
}
