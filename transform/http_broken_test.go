package transform_test

import (
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
			_, err := processor.Call(t.Context(), connect(t, server.URL, transform.HTTPOptions{}), input())
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

// raw runs a worker that is given each connection, numbered from 1.
func raw(t *testing.T, answer func(conn net.Conn, n int)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	transform.Accept(t, listener, answer)
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
		"no status": {func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 042 Odd\r\nContent-Length: 0\r\n\r\n")
			_, _ = io.Copy(io.Discard, c) // until it is closed
		}, "answered 42"},
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
			if name == "another protocol" || name == "no status" {
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
			t.Parallel()
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
			_, err := processor.Call(t.Context(), connect(t, server.URL, transform.HTTPOptions{Timeout: time.Second}), input())
			if f := failure(t, err); f.Kind != processor.Retry || !strings.Contains(err.Error(), "no complete reply within 1s (transform.http.timeout)") {
				t.Errorf("got %v: %v, want retry and the timeout named", f.Kind, err)
			}
		})
	}
}
