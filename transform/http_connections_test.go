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

func TestHTTPReplyWithoutEnd(t *testing.T) {
	var sent atomic.Int64
	flood := func(w http.ResponseWriter) {
		block := make([]byte, 64<<10)
		for {
			n, err := w.Write(block)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	}
	for name, handler := range map[string]http.HandlerFunc{
		"10 GB": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10000000000")
			flood(w)
		},
		"chunks for ever": func(w http.ResponseWriter, _ *http.Request) { flood(w) },
		"lines for ever": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-ndjson")
			flood(w)
		},
	} {
		t.Run(name, func(t *testing.T) {
			sent.Store(0)
			server := serve(t, handler)
			_, err := processor.Call(t.Context(), connect(t, server.URL, transform.HTTPOptions{Timeout: time.Minute}), input())
			if f := failure(t, err); f.Kind != processor.Reject {
				t.Errorf("got %v: %v, want reject", f.Kind, err)
			}
			server.Close() // waits for the handler, which ends when the connection is closed
			if n := sent.Load(); n > 64<<20 {
				t.Errorf("the worker could send %d bytes, want the connection closed soon after the limit", n)
			}
		})
	}
}

// raw runs a worker that is given each connection, numbered from 1, once a
// request is read from it.
func raw(t *testing.T, answer func(conn net.Conn, n int)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for n := 1; ; n++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				answer(conn, n)
			})
		}
	})
	return "http://" + listener.Addr().String()
}

// read reads one request of input() and says whether there was one.
func read(conn net.Conn) bool {
	buffer := make([]byte, 4096)
	for all := ""; !strings.HasSuffix(all, "secret value"); {
		n, err := conn.Read(buffer)
		if err != nil {
			return false
		}
		all += string(buffer[:n])
	}
	return true
}

func TestHTTPBrokenConnections(t *testing.T) {
	reset := func(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0) }
	tests := map[string]struct {
		answer func(net.Conn)
		want   string
	}{
		"closed before a reply":  {func(net.Conn) {}, "closed the connection before its reply was complete"},
		"reset before a reply":   {reset, "closed the connection before its reply was complete"},
		"closed within the head": {func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nSeri") }, "closed the connection, or"},
		"closed within the body": {func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nsecre") }, "closed the connection before its reply was complete"},
		"closed within a chunk": {func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nsecre")
		}, "closed the connection before its reply was complete"},
		"closed between chunks": {func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecret\r\n")
		}, "closed the connection before its reply was complete"},
		"no HTTP":          {func(c net.Conn) { _, _ = io.WriteString(c, "secret secret\r\n\r\n") }, "its reply is malformed"},
		"malformed header": {func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nsecret secret\r\n\r\n") }, "its reply is malformed"},
		"control character in a key": {func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nSeriatim-Key: a\x01b\r\nContent-Length: 0\r\n\r\n")
		}, "its reply is malformed"},
		"control character in a header": {func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nSeriatim-H-a: b\rEvil: c\r\nContent-Length: 0\r\n\r\n")
		}, "its reply is malformed"},
		"control character in a reason": {func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 500 No\r\nSeriatim-Error: \x1b[31mred\r\nContent-Length: 0\r\n\r\n")
		}, "its reply is malformed"},
		"another protocol": {func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: secret\r\nConnection: upgrade\r\n\r\nsecret")
		}, "answered 101"},
		"early hints, then reply": {func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
		}, "answered 500"},
		"early hints for ever": {func(c net.Conn) { _, _ = io.WriteString(c, strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 100000)) }, "its reply is malformed"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			url := raw(t, func(conn net.Conn, _ int) {
				if read(conn) {
					test.answer(conn)
				}
			})
			_, err := processor.Call(t.Context(), connect(t, url, transform.HTTPOptions{}), input())
			kind := processor.Retry
			if name == "another protocol" {
				kind = processor.Deployment
			}
			if f := failure(t, err); f.Kind != kind || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v: %v, want %v: … %s", f.Kind, err, kind, test.want)
			}
		})
	}
}

func TestHTTPIsSentOnceAnAttempt(t *testing.T) {
	// A record that kills its worker must not kill one behind each idle connection.
	var requests atomic.Int64
	url := raw(t, func(conn net.Conn, _ int) {
		for read(conn) {
			if requests.Add(1) > 4 {
				return // "crash"
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
		}
	})
	client := connect(t, url, transform.HTTPOptions{})
	var calls sync.WaitGroup
	for range 4 {
		calls.Go(func() {
			if _, err := processor.Call(t.Context(), client, input()); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	_, err := processor.Call(t.Context(), client, input())
	if f := failure(t, err); f.Kind != processor.Retry {
		t.Errorf("got %v: %v, want retry", f.Kind, err)
	}
	if n := requests.Load(); n != 5 {
		t.Errorf("the worker got %d requests for 5 attempts", n)
	}
}

func TestHTTPTimeout(t *testing.T) {
	for name, start := range map[string]string{"no reply": "", "slow body": "secre"} {
		t.Run(name, func(t *testing.T) {
			release := make(chan struct{})
			server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				if start != "" {
					w.Header().Set("Content-Length", "10")
					_, _ = io.WriteString(w, start)
					_ = http.NewResponseController(w).Flush()
				}
				<-release
			})
			t.Cleanup(func() { close(release) })
			_, err := processor.Call(t.Context(), connect(t, server.URL, transform.HTTPOptions{Timeout: 50 * time.Millisecond}), input())
			if f := failure(t, err); f.Kind != processor.Retry || !strings.Contains(err.Error(), "no complete reply within 50ms (transform.http.timeout)") {
				t.Errorf("got %v: %v, want retry and the timeout named", f.Kind, err)
			}
		})
	}
}

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

	tests := map[string]struct{ url, want string }{
		"nobody listens":      {closed, "connection refused"},
		"unknown certificate": {secure.URL, "certificate"},
		"no TLS":              {strings.Replace(plain.URL, "http:", "https:", 1), "first record does not look like a TLS handshake"},
		"no TLS handshake":    {strings.Replace(silent, "http:", "https:", 1), "is out of reach"},
		"link-local":          {"http://169.254.169.254/latest/meta-data", "169.254.169.254 is a link-local or cloud metadata address"},
		"link-local as IPv6":  {"http://[::ffff:169.254.169.254]", "link-local or cloud metadata address"},
		"metadata as IPv6":    {"http://[fd00:ec2::254]", "link-local or cloud metadata address"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := processor.Call(t.Context(), connect(t, test.url, transform.HTTPOptions{Timeout: time.Second}), input())
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
	_, err := processor.Call(t.Context(), connect(t, "http://192.0.2.1:9", transform.HTTPOptions{Timeout: 100 * time.Millisecond}), input())
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
	// net/http gives up a connection if it hears later than 50 ms after the reply
	// that the request is written: that happens on a machine with too much to do. A
	// kind of reply that costs its connection would cost 100 of them.
	if got := opened.Load(); got > 2*workers {
		t.Errorf("%d connections were opened for %d attempts, %d at a time; want about as many as attempts at a time", got, attempts, workers)
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

func BenchmarkHTTP(b *testing.B) {
	server := serve(b, reply(200, "", "value"))
	b.Run("transform", func(b *testing.B) {
		benchmark(b, connect(b, server.URL, transform.HTTPOptions{}))
	})
	// What net/http alone costs, with one header.
	b.Run("bare", func(b *testing.B) {
		b.ReportAllocs()
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		for b.Loop() {
			resp, err := client.Post(server.URL, "application/octet-stream", strings.NewReader(strings.Repeat("x", 1024)))
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	})
}

// A connection that was used before leads nowhere any more: nothing is answered on it, and
// nothing closes it. The attempt that meets it times out, and the next one has another.
func TestHTTPHalfOpenConnection(t *testing.T) {
	worker := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	proxy := newFreezer(t, worker.Listener.Addr().String())
	client := connect(t, "http://"+proxy.Addr().String(), transform.HTTPOptions{Timeout: 300 * time.Millisecond, Connections: 1})
	if _, err := processor.Call(t.Context(), client, input()); err != nil {
		t.Fatal(err)
	}
	proxy.freeze()
	_, err := processor.Call(t.Context(), client, input())
	if f := failure(t, err); f.Kind != processor.Retry || !strings.Contains(err.Error(), "no complete reply within 300ms") {
		t.Errorf("got %v: %v, want retry and the timeout named", f.Kind, err)
	}
	if _, err := processor.Call(t.Context(), client, input()); err != nil {
		t.Errorf("the next attempt: %v", err)
	}
}

// A freezer forwards connections, until those that there are are frozen: they stay open,
// and nothing comes through any more.
type freezer struct {
	net.Listener

	mu     sync.Mutex
	frozen chan struct{} // closed when the connections of now are
	conns  []net.Conn
}

func newFreezer(t *testing.T, to string) *freezer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &freezer{Listener: listener, frozen: make(chan struct{})}
	var forwarding sync.WaitGroup
	forwarding.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			f.mu.Lock()
			frozen := f.frozen
			f.conns = append(f.conns, in, out)
			f.mu.Unlock()
			forwarding.Go(func() { forward(in, out, frozen) })
			forwarding.Go(func() { forward(out, in, frozen) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		f.mu.Lock()
		for _, c := range f.conns {
			_ = c.Close()
		}
		f.mu.Unlock()
		forwarding.Wait()
	})
	return f
}

// forward copies until the connections are frozen.
func forward(from, to net.Conn, frozen <-chan struct{}) {
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		select {
		case <-frozen:
			return
		default:
		}
		if _, errWrite := to.Write(buffer[:n]); err != nil || errWrite != nil {
			return
		}
	}
}

func (f *freezer) freeze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.frozen)
	f.frozen = make(chan struct{})
}
