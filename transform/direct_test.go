package transform

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

// worker answers on each connection, numbered from 1, and ends with the test.
func worker(t *testing.T, opts HTTPOptions, answer func(conn net.Conn, in *bufio.Reader, n int)) *Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	Accept(t, listener, func(conn net.Conn, n int) { answer(conn, bufio.NewReader(conn), n) })
	opts.URLs = []string{"http://" + listener.Addr().String()}
	client, err := HTTP(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// readRequest reads a request to its end and returns its offset; false if there is none.
func readRequest(in *bufio.Reader) (offset string, ok bool) {
	req, err := http.ReadRequest(in)
	if err != nil {
		return "", false
	}
	_, err = io.Copy(io.Discard, req.Body)
	return req.Header.Get("Seriatim-Offset"), err == nil
}

func answerWith(w io.Writer, body string) {
	fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// idling returns how many connections are idle.
func (d *direct) idling() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, conns := range d.idle {
		n += len(conns)
	}
	return n
}

// Whatever a worker does with a connection between two records, the next record is sent once,
// on another one, and gets its own answer.
func TestDirectIdleConnection(t *testing.T) {
	for name, between := range map[string]func(net.Conn){
		"is closed":                            func(conn net.Conn) { _ = conn.Close() },
		"is reset":                             func(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0); _ = conn.Close() },
		"has a reply that nobody asked for":    func(conn net.Conn) { answerWith(conn, "of somebody else") },
		"has a farewell that nobody asked for": func(conn net.Conn) { fmt.Fprint(conn, "HTTP/1.1 408 Request Timeout\r\n\r\n"); _ = conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			done := make(chan struct{})
			client := worker(t, HTTPOptions{}, func(conn net.Conn, in *bufio.Reader, n int) {
				for first := n == 1; ; first = false {
					offset, ok := readRequest(in)
					if !ok {
						return
					}
					answerWith(conn, offset)
					if first {
						<-done // the client has the reply
						between(conn)
						done <- struct{}{}
					}
				}
			})
			for offset := range int64(3) {
				out, err := processor.Call(t.Context(), client, numbered(offset))
				if want := fmt.Sprint(offset); err != nil || len(out) != 1 || string(out[0].Value) != want {
					t.Fatalf("record %d: got %v, error %v, want %q", offset, out, err, want)
				}
				if offset == 0 {
					if n := client.transport.(*direct).idling(); n != 1 {
						t.Fatalf("%d connections are idle after a reply, want 1", n)
					}
					done <- struct{}{}
					<-done
				}
			}
		})
	}
}

// What follows a reply on its connection is never taken for the next one.
func TestDirectReplyTwice(t *testing.T) {
	client := worker(t, HTTPOptions{}, func(conn net.Conn, in *bufio.Reader, _ int) {
		for {
			offset, ok := readRequest(in)
			if !ok {
				return
			}
			var both bytes.Buffer
			answerWith(&both, offset)
			answerWith(&both, "once more "+offset)
			_, _ = conn.Write(both.Bytes())
		}
	})
	for offset := range int64(100) {
		out, err := processor.Call(t.Context(), client, numbered(offset))
		if want := fmt.Sprint(offset); err != nil || len(out) != 1 || string(out[0].Value) != want {
			t.Fatalf("record %d: got %v, error %v, want %q", offset, out, err, want)
		}
	}
}

// A worker that says that its reply is shorter than it is, as if characters were bytes, makes
// no answer of what is left. The body is longer than what is read at a time.
func TestDirectReplyTooLong(t *testing.T) {
	client := worker(t, HTTPOptions{}, func(conn net.Conn, in *bufio.Reader, _ int) {
		for {
			offset, ok := readRequest(in)
			if !ok {
				return
			}
			var both bytes.Buffer
			answerWith(&both, offset+strings.Repeat(" ", 10<<10))
			answerWith(&both, "the rest of "+offset)
			_, _ = conn.Write(both.Bytes())
		}
	})
	for offset := range int64(100) {
		out, err := processor.Call(t.Context(), client, numbered(offset))
		if want := fmt.Sprint(offset); err != nil || len(out) != 1 || strings.TrimSpace(string(out[0].Value)) != want {
			t.Fatalf("record %d: got %.40v, error %v, want %q", offset, out, err, want)
		}
	}
}

// A worker that answers before it has read a large request, and reads no more, is heard.
func TestDirectReplyBeforeALargeRequest(t *testing.T) {
	read := make(chan struct{})
	client := worker(t, HTTPOptions{Timeout: time.Minute}, func(conn net.Conn, in *bufio.Reader, _ int) {
		if _, err := http.ReadRequest(in); err == nil {
			fmt.Fprint(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
			<-read
		}
	})
	in := numbered(1)
	in.Value = make([]byte, 64<<20)
	_, err := processor.Call(t.Context(), client, in)
	close(read)
	if f := failureIn(err); f == nil || f.Kind != processor.Reject {
		t.Errorf("got error %v, want reject", err)
	}
	if n := client.transport.(*direct).idling(); n != 0 {
		t.Errorf("%d connections are kept, though their request is not written; want none", n)
	}
}

// A worker that answers in the middle of a request and closes the connection, as Node does
// where headers are too large, is heard: the record is at fault, not the connection.
func TestDirectReplyToHalfARequest(t *testing.T) {
	client := worker(t, HTTPOptions{}, func(conn net.Conn, in *bufio.Reader, _ int) {
		if _, err := in.Peek(1000); err == nil {
			fmt.Fprint(conn, "HTTP/1.1 431 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}
	})
	in := numbered(1)
	in.Headers = []kgo.RecordHeader{{Key: "large", Value: make([]byte, 2<<20)}}
	for range 50 {
		_, err := processor.Call(t.Context(), client, in)
		if f := failureIn(err); f == nil || f.Kind != processor.Reject {
			t.Fatalf("got error %v, want reject", err)
		}
	}
}

// Names of hosts that are no ASCII are looked up as net/http does.
func TestDirectForeignHost(t *testing.T) {
	client, err := HTTP(HTTPOptions{URLs: []string{"http://bücher.invalid/"}})
	if err != nil {
		t.Fatal(err)
	}
	var dialled string
	client.transport.(*direct).DialContext = func(_ context.Context, _, address string) (net.Conn, error) {
		dialled = address
		return nil, errors.New("nobody is there")
	}
	_, _ = processor.Call(t.Context(), client, numbered(1))
	if want := "xn--bcher-kva.invalid:80"; dialled != want {
		t.Errorf("the worker was looked for at %q, want %q", dialled, want)
	}
}

// Requests of every size share one connection, and what is answered belongs to what was sent.
func TestDirectSizes(t *testing.T) {
	var connections atomic.Int64
	client := worker(t, HTTPOptions{Connections: 1}, func(conn net.Conn, in *bufio.Reader, n int) {
		connections.Store(int64(n))
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			body, err := io.ReadAll(req.Body)
			if err != nil {
				return
			}
			answerWith(conn, string(body))
		}
	})
	for _, size := range []int{0, 1, 4096, inlineBody - 1, inlineBody, inlineBody + 1, 100 << 10, maxValue, 10, inlineBody + 1, 0} {
		in := numbered(int64(size))
		in.Value = bytes.Repeat([]byte{byte('a' + size%26)}, size)
		out, err := processor.Call(t.Context(), client, in)
		if err != nil || len(out) != 1 || !bytes.Equal(out[0].Value, in.Value) {
			t.Errorf("%d bytes: got %d outputs, error %v, want the same bytes", size, len(out), err)
		}
	}
	// A busy machine may take longer than writeGrace to say that a request is written.
	if n := connections.Load(); n > 2 {
		t.Errorf("%d connections were used for one attempt after the other, want 1", n)
	}
}

// A request of which nothing was written is sent on another connection; any other one is not.
func TestDirectSendsAgainOnlyWhatWasNotWritten(t *testing.T) {
	var requests atomic.Int64
	client := worker(t, HTTPOptions{}, func(conn net.Conn, in *bufio.Reader, n int) {
		for {
			if _, ok := readRequest(in); !ok {
				return
			}
			if requests.Add(1); n == 2 {
				return
			}
			answerWith(conn, "v")
		}
	})
	if _, err := processor.Call(t.Context(), client, numbered(1)); err != nil {
		t.Fatal(err)
	}
	d := client.transport.(*direct)
	var c *connection
	for _, conns := range d.idle {
		c = conns[0]
	}
	_ = c.Conn.(*net.TCPConn).CloseWrite() // what is written fails now, and the worker goes
	_, err := processor.Call(t.Context(), client, numbered(2))
	if f := failureIn(err); f == nil || f.Kind != processor.Retry || !strings.Contains(err.Error(), "closed the connection") {
		t.Errorf("got error %v, want retry: the second connection was closed once the request was written", err)
	}
	if n := requests.Load(); n != 2 {
		t.Errorf("the worker got %d requests, want 2: one for each attempt", n)
	}
}

// An attempt that is given up leaves nothing behind for those that follow, and no connection.
func TestDirectGivenUp(t *testing.T) {
	const attempts = 50
	var open sync.WaitGroup
	client := worker(t, HTTPOptions{Timeout: time.Minute}, func(conn net.Conn, in *bufio.Reader, _ int) {
		open.Add(1)
		defer open.Done()
		for {
			offset, ok := readRequest(in)
			if !ok {
				return
			}
			if offset != "666" {
				answerWith(conn, offset)
			}
		}
	})
	cause := errors.New("revoked")
	for offset := range int64(attempts) {
		ctx, cancel := context.WithCancelCause(t.Context())
		if _, err := processor.Call(ctx, client, numbered(offset)); err != nil {
			t.Fatalf("record %d: %v", offset, err)
		}
		ended := make(chan error, 1)
		go func() {
			in := numbered(666)
			if offset%2 == 1 {
				in.Value = make([]byte, inlineBody+1)
			}
			_, err := processor.Call(ctx, client, in)
			ended <- err
		}()
		cancel(cause)
		if err := <-ended; !errors.Is(err, cause) {
			t.Fatalf("an attempt that is given up: %v, want %v", err, cause)
		}
	}
	client.Close()
	open.Wait() // for ever, if a connection is left
}

// An attempt that ends between its reply and its end takes its connection with it: what ends
// it may come at any time now, and must not meet the next attempt.
func TestDirectGivenUpWithItsReply(t *testing.T) {
	client := worker(t, HTTPOptions{}, func(conn net.Conn, in *bufio.Reader, _ int) {
		for {
			if _, ok := readRequest(in); !ok {
				return
			}
			answerWith(conn, "v")
		}
	})
	for _, ends := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, client.endpoints.all[0].url.String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "v" {
			t.Fatalf("got %q, error %v, want v", body, err)
		}
		want := 1
		if ends {
			cancel()
			want = 0
		}
		_ = resp.Body.Close()
		cancel()
		if n := client.transport.(*direct).idling(); n != want {
			t.Errorf("given up: %v; %d connections are kept, want %d", ends, n, want)
		}
	}
}
