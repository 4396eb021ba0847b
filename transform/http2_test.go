package transform

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/internal/testcerts"
	"seriatim/processor"
)

// http2Worker runs a worker with HTTP/2 alone.
func http2Worker(t *testing.T, start func(*httptest.Server), handler http.HandlerFunc) (url string) {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(t.Output(), "", 0)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP2(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	start(server)
	t.Cleanup(server.Close)
	return server.URL
}

func http2Client(t *testing.T, opts HTTPOptions) *Client {
	t.Helper()
	opts.HTTP2 = true
	if opts.Timeout == 0 { // a busy machine fails no attempt
		opts.Timeout = time.Minute
	}
	client, err := HTTP(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func attempt(ctx context.Context, client *Client, value string) (string, error) {
	out, err := processor.Call(ctx, client, processor.Input{
		Record:   &kgo.Record{Topic: "in", Key: []byte("a b"), Value: []byte(value), Headers: []kgo.RecordHeader{{Key: "X-É", Value: []byte("1\r\n")}}},
		Pipeline: "p", Attempt: 1,
	})
	if err != nil || len(out) == 0 {
		return "", err
	}
	return string(out[0].Value), nil
}

func TestHTTP2(t *testing.T) {
	authority := testcerts.New(t)
	echo := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, r.Proto+" "+r.Header.Get("Idempotency-Key")+" "+r.Header.Get("Seriatim-Key")+" "+strings.Join(r.Header["Seriatim-H-%58-%c3%89"], "|")+" "+string(body))
	}
	secure := http2Worker(t, func(s *httptest.Server) {
		s.EnableHTTP2 = true
		s.TLS = &tls.Config{Certificates: []tls.Certificate{authority.Issue(t, 2, "127.0.0.1")}}
		s.StartTLS()
	}, echo)
	plain := http2Worker(t, (*httptest.Server).Start, echo)
	for _, url := range []string{secure, plain} {
		client := http2Client(t, HTTPOptions{URLs: []string{url}, TLS: TLS{CAFile: authority.File(t)}})
		got, err := attempt(t.Context(), client, "value")
		if want := `HTTP/2.0 "p/in/0/0" a%20b 1%0D%0A value`; err != nil || got != want {
			t.Errorf("%s: got %q and error %v, want %q", url, got, err, want)
		}
	}
}

// TestHTTP2SharesConnections also has many attempts at once before the first
// connection is there: each may dial then, and a dial may end after them all. So dials
// count for the attempt that began them.
func TestHTTP2SharesConnections(t *testing.T) {
	const workers = 64
	var running atomic.Int64
	all := make(chan struct{})
	var used sync.Map
	url := http2Worker(t, (*httptest.Server).Start, func(w http.ResponseWriter, r *http.Request) {
		used.Store(r.RemoteAddr, true)
		if running.Add(1) == workers {
			close(all)
		}
		<-all
		w.WriteHeader(http.StatusNoContent)
	})
	client := http2Client(t, HTTPOptions{URLs: []string{url}, Connections: workers})
	for round := range 2 {
		used.Clear()
		var dialled atomic.Int64
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{ConnectStart: func(string, string) { dialled.Add(1) }})
		var calls sync.WaitGroup
		for range workers {
			calls.Go(func() {
				if _, err := attempt(ctx, client, "v"); err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
		n := 0
		used.Range(func(any, any) bool { n++; return true })
		got := dialled.Load()
		if round == 0 && (got == 0 || got > workers) || round == 1 && (got > 0 || n > workers/8) {
			t.Errorf("round %d: %d connections were dialled and %d used for %d attempts at a time", round, got, n, workers)
		}
	}
}

func TestHTTP2Failures(t *testing.T) {
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "v") }))
	t.Cleanup(old.Close)
	authority := testcerts.New(t)
	oldSecure := httptest.NewUnstartedServer(old.Config.Handler)
	oldSecure.Config.ErrorLog = log.New(t.Output(), "", 0)
	oldSecure.TLS = &tls.Config{Certificates: []tls.Certificate{authority.Issue(t, 3, "127.0.0.1")}}
	oldSecure.StartTLS()
	t.Cleanup(oldSecure.Close)
	noALPN := silentTLS(t, authority)
	worker := func(handler http.HandlerFunc) string {
		return http2Worker(t, (*httptest.Server).Start, handler)
	}
	for name, test := range map[string]struct {
		url  string
		kind processor.Kind
		want string
	}{
		"HTTP/1.1 alone":         {old.URL, processor.Deployment, "does not speak HTTP/2; set transform.http.http2 to false"},
		"HTTP/1.1 alone, secure": {oldSecure.URL, processor.Deployment, "no application protocol"},
		"no protocol agreed on":  {noALPN, processor.Deployment, "does not speak HTTP/2; set"},
		"stream reset":           {worker(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), processor.Retry, ""},
		"reset within the body": {worker(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "secret")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}), processor.Retry, ""},
		"huge headers": {worker(func(w http.ResponseWriter, _ *http.Request) {
			for i := range 300 {
				w.Header().Set("X-"+strings.Repeat("x", i+1), strings.Repeat("x", 1024))
			}
		}), processor.Retry, ""},
		"huge body": {worker(func(w http.ResponseWriter, _ *http.Request) {
			for block := make([]byte, 64<<10); ; {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}), processor.Reject, "1048576"},
		"unavailable": {worker(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }), processor.Retry, "503"},
	} {
		t.Run(name, func(t *testing.T) {
			client := http2Client(t, HTTPOptions{URLs: []string{test.url}, TLS: TLS{CAFile: authority.File(t)}})
			_, err := attempt(t.Context(), client, "secret")
			var f *processor.Failure
			if test.url == old.URL { // it closes the connection as well, which may be seen first
				for i := 0; i < 20 && errors.As(err, &f) && f.Kind == processor.Retry; i++ {
					_, err = attempt(t.Context(), client, "secret")
				}
			}
			if !errors.As(err, &f) || f.Kind != test.kind || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got error %v, want %v: … %s", err, test.kind, test.want)
			}
		})
	}
}

// silentTLS runs a server that agrees on no protocol at the handshake.
func silentTLS(t *testing.T, authority *testcerts.Authority) (url string) {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{authority.Issue(t, 2, "127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	Accept(t, listener, func(conn net.Conn, _ int) { _, _ = io.Copy(io.Discard, conn) })
	return "https://" + listener.Addr().String()
}
