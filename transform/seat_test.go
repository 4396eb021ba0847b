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
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

func answered(r *http.Request) *http.Response {
	return &http.Response{StatusCode: http.StatusOK, Request: r, Header: http.Header{}, ContentLength: 1, Body: io.NopCloser(strings.NewReader("v"))}
}

func stubbed(t *testing.T, answer answerer) *Client {
	t.Helper()
	client, err := HTTP(HTTPOptions{URLs: []string{"http://worker.invalid/"}})
	if err != nil {
		t.Fatal(err)
	}
	client.transport = answer
	return client
}

func numbered(offset int64) processor.Input {
	return processor.Input{
		Record:   &kgo.Record{Topic: "in", Offset: offset, Key: []byte("key"), Value: fmt.Appendf(nil, "value %d", offset)},
		Pipeline: "orders", Attempt: 1,
	}
}

// A request is left alone while the transport may write it, though its reply is here: the
// attempts that follow have one of their own.
func TestSeatOfARequestThatIsStillWritten(t *testing.T) {
	var sent []*http.Request
	client := stubbed(t, func(r *http.Request) (*http.Response, error) {
		trace := httptrace.ContextClientTrace(r.Context())
		trace.GotConn(httptrace.GotConnInfo{})
		if len(sent)%2 == 1 { // of the others nothing is said
			trace.WroteRequest(httptrace.WroteRequestInfo{})
		}
		sent = append(sent, r)
		return answered(r), nil
	})
	for offset := range int64(20) {
		if _, err := processor.Call(t.Context(), client, numbered(offset)); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i < len(sent); i += 2 {
		body, err := io.ReadAll(sent[i].Body)
		if offset, want := sent[i].Header.Get("Seriatim-Offset"), fmt.Sprint(i); offset != want || string(body) != "value "+want || err != nil {
			t.Errorf("the request for offset %s, which is still written, is now for %s and has the body %q, error %v", want, offset, body, err)
		}
	}
}

// A worker that answers before it has read the request does not disturb the next ones. The
// race detector looks on.
func TestHTTPReplyBeforeTheRequest(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	Accept(t, listener, func(conn net.Conn, _ int) {
		in := bufio.NewReader(conn)
		if _, err := in.Peek(1); err == nil {
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nv")
			_, _ = io.Copy(io.Discard, in)
		}
	})
	client, err := HTTP(HTTPOptions{URLs: []string{"http://" + listener.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for i := range int64(100) {
				in := numbered(i)
				in.Value = bytes.Repeat([]byte{byte(i)}, 256<<10)
				if out, err := processor.Call(t.Context(), client, in); err == nil && len(out) != 1 {
					t.Errorf("there are %d outputs, want one", len(out))
				}
			}
		})
	}
	callers.Wait()
}

// The end of a context ends the attempts that were given it, and none that comes after.
func TestSeatOfAnEndedContext(t *testing.T) {
	client := stubbed(t, func(r *http.Request) (*http.Response, error) {
		if r.Header.Get("Seriatim-Attempt") == "1" {
			return answered(r), r.Context().Err()
		}
		<-r.Context().Done()
		return nil, r.Context().Err()
	})
	cause := errors.New("revoked")
	for range 100 {
		ctx, cancel := context.WithCancelCause(t.Context())
		if _, err := processor.Call(ctx, client, numbered(1)); err != nil {
			t.Fatalf("an attempt with a context that lives: %v", err)
		}
		in := numbered(2)
		in.Attempt = 2
		ended := make(chan error, 1)
		go func() {
			_, err := processor.Call(ctx, client, in)
			ended <- err
		}()
		cancel(cause)
		if err := <-ended; !errors.Is(err, cause) {
			t.Fatalf("an attempt whose context has ended: %v, want %v", err, cause)
		}
	}
}

// An attempt that is answered as its time ends leaves nothing behind that could end the next
// one.
func TestSeatAtTheEndOfItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var client *Client
		client = stubbed(t, func(r *http.Request) (*http.Response, error) {
			if r.Header.Get("Seriatim-Attempt") == "1" {
				<-time.After(client.timeout)
			} else if r.Context().Err() != nil {
				t.Errorf("an attempt begins with a context that has ended: %v", context.Cause(r.Context()))
			}
			return answered(r), nil
		})
		for range 200 {
			_, _ = processor.Call(t.Context(), client, numbered(1)) // in time, or not
			in := numbered(2)
			in.Attempt = 2
			if _, err := processor.Call(t.Context(), client, in); err != nil {
				t.Errorf("the next attempt: %v", err)
			}
		}
	})
}

// Headers that are used again show nothing of the records before, whatever names they have.
func TestHeadersUsedAgain(t *testing.T) {
	var used fields
	headers := func(f *fields, in processor.Input) http.Header {
		f.names, f.ends, f.text = f.names[:0], f.ends[:0], f.text[:0]
		f.ofRecord(in, nil, time.UnixMilli(0), "", "")
		return f.header()
	}
	with := func(in processor.Input, headers ...kgo.RecordHeader) processor.Input {
		in.Headers = headers
		return in
	}
	trace := kgo.RecordHeader{Key: "traceparent", Value: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")}
	a, b := kgo.RecordHeader{Key: "a", Value: []byte("1")}, kgo.RecordHeader{Key: "b", Value: []byte("2")}
	c := kgo.RecordHeader{Key: "a", Value: []byte("3")}
	twice := with(numbered(3), trace, a, b, a)
	for i, in := range []processor.Input{
		with(numbered(1), trace), with(numbered(2), trace), with(numbered(3), trace, a), with(numbered(4), trace, b),
		twice, twice, with(numbered(6), trace, b), with(numbered(7), trace, a, a), with(numbered(8), trace, a, c), with(numbered(9), trace),
	} {
		want := headers(new(fields), in)
		if got := headers(&used, in); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("record %d has the headers %v, want %v", i, got, want)
		}
	}
}
