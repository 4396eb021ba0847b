package transform

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"seriatim/processor"
)

const (
	// idleTimeout closes a connection before the worker does (Node and uvicorn
	// wait 5 s), so that no request meets a connection that is just being closed.
	idleTimeout = 4 * time.Second
	// maxDial is the most that connecting may take; never more than half of
	// Timeout, so that a worker out of reach is told from a slow one, and a quarter
	// if there is another address to ask then.
	maxDial = 5 * time.Second
	// A connection of HTTP/2 with attempts on it that has been silent for pingAfter is
	// asked for a sign of life, and closed if there is none for pingTimeout: that is
	// long, because a worker may not answer while it computes.
	pingAfter   = 5 * time.Second
	pingTimeout = 10 * time.Second
	// maxHeaders bounds the headers of a reply: 16 times what servers usually
	// take in a request, and 16 MiB for 64 workers.
	maxHeaders = 256 << 10
	// maxRedirects is how often one attempt is sent on to another path.
	maxRedirects = 3
	// maxDrain is how much of a body that is not wanted is read so that the
	// connection can be used again: less work than a new one.
	maxDrain = 64 << 10
)

// A Client asks a worker over HTTP: one POST for each attempt. Make one with
// [HTTP].
type Client struct {
	endpoints   *endpoints
	timeout     time.Duration
	transport   http.RoundTripper
	headers     []header // of every request, beside those of the record
	credentials *credentials
	pace        *rate.Limiter // nil: none
	callbacks   *Callbacks    // nil: none
	seats       sync.Pool
}

// Close closes the connections that wait for the next attempt. Call it when no
// attempt runs any more; a later one would connect anew.
func (c *Client) Close() { (&http.Client{Transport: c.transport}).CloseIdleConnections() }

// send sends a request, and again where the worker redirects it within its host.
// http.Client does the same, and copies all headers of every request for the case.
func (c *Client) send(req *http.Request) (*http.Response, error) {
	from := req.URL
	for redirects := 0; ; redirects++ {
		resp, err := c.transport.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		to := redirected(req.URL, resp)
		if to == nil || to.Host != from.Host || from.Scheme == "https" && to.Scheme != "https" || redirects == maxRedirects {
			return resp, nil
		}
		_, _ = io.CopyN(io.Discard, resp.Body, maxDrain)
		_ = resp.Body.Close()
		req = req.WithContext(req.Context())
		req.URL = to
		if req.ContentLength > 0 {
			req.Body, _ = req.GetBody()
		}
	}
}

// redirected returns where a reply wants the same request to go; nil if nowhere.
func redirected(from *url.URL, resp *http.Response) *url.URL {
	if resp.StatusCode != http.StatusTemporaryRedirect && resp.StatusCode != http.StatusPermanentRedirect {
		return nil
	}
	to, err := from.Parse(resp.Header.Get("Location"))
	if err != nil || resp.Header.Get("Location") == "" {
		return nil
	}
	return to
}

// Transform makes one attempt.
func (c *Client) Transform(ctx context.Context, in processor.Input, out *processor.Outputs) error {
	return c.call(ctx, in, func(s *seat, e *endpoint, authorization string) error {
		var address string
		if c.callbacks != nil {
			var end func()
			address, end = c.callbacks.begin(&s.term, in)
			defer end()
		}
		s.fields().ofRecord(in, c.headers, s.term.end(), address, authorization)
		return c.ask(s, e, in.Value, func(resp *http.Response) error { return e.reply(resp, in, out) })
	})
}

// call has one endpoint asked. While the deployment behind it is wrong it goes on to the
// next, as long as half of the time is left: nobody has done anything with the record
// yet. in is the record, or the first of a batch.
func (c *Client) call(parent context.Context, in processor.Input, ask func(s *seat, e *endpoint, authorization string) error) error {
	if err := c.wait(parent); err != nil {
		return err
	}
	authorization, err := c.authorization()
	if err != nil {
		return err
	}
	what := errand{avoid: failedAt(in.Last)}
	if in.Asked != nil {
		if e, ok := in.Asked.Load().(*endpoint); ok {
			what.avoid = e // it has the record now
		}
	}
	at, err := c.endpoints.take(parent, what)
	if err != nil {
		return err
	}
	s, answered := c.sit(parent, at.since), false // waiting for room takes nothing from the time
	defer func() { c.stand(s, answered) }()
	unsent := true
	for {
		if in.Asked != nil {
			in.Asked.Store(at.endpoint)
		}
		err = ask(s, at.endpoint, cmp.Or(authorization, at.authorization))
		c.endpoints.give(at, err)
		if err == nil {
			answered = true
			return nil
		}
		f := failureIn(err)
		if f == nil || f.Kind != processor.Deployment {
			return err
		}
		unsent = unsent && f.Unsent
		if what.tried = append(what.tried, at.endpoint); len(what.tried) < len(c.endpoints.all) && time.Since(s.term.began) < c.timeout/2 {
			if c.wait(s.ctx) == nil {
				if at, err = c.endpoints.take(s.ctx, what); err == nil {
					continue
				}
			}
		}
		f.Unsent = unsent
		if others := len(what.tried) - 1; others > 0 {
			f.Err = fmt.Errorf("%w; %d more of transform.http.urls failed before", f.Err, others)
		}
		return f
	}
}

// A timeoutError is the end of the time for an attempt.
type timeoutError struct {
	what, setting string
	usual, took   time.Duration
}

func (e *timeoutError) Error() string {
	text := fmt.Sprintf("%s within %v (%s)", e.what, e.usual, e.setting)
	if extended := e.took.Round(time.Second); extended > e.usual {
		text += fmt.Sprintf(", nor within the %v that the worker asked for", extended)
	}
	return text
}

// wait waits for the turn of one request. The error is never nil before that,
// which would filter the record.
func (c *Client) wait(ctx context.Context) error {
	if c.pace == nil {
		return context.Cause(ctx)
	}
	err := c.pace.Wait(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// authorization returns the header's value; empty if none is wanted.
func (c *Client) authorization() (string, error) {
	if c.credentials == nil {
		return "", nil
	}
	value, err := c.credentials.authorization(time.Now())
	if err != nil {
		return "", &processor.Failure{Kind: processor.Deployment, Unsent: true, Err: fmt.Errorf("transform.http.%w", err)}
	}
	return value, nil
}

// ask sends a request with the headers that the seat has collected to one endpoint, and
// has the reply read.
func (c *Client) ask(s *seat, e *endpoint, body []byte, read func(*http.Response) error) error {
	resp, err := c.send(s.request(e, body))
	if err == nil {
		err = read(resp)
		drain(resp)
		_ = resp.Body.Close()
	}
	if err == nil {
		return nil
	}
	if failureIn(err) != nil {
		return err
	}
	var late *timeoutError
	switch cause := context.Cause(s.ctx); {
	case cause == nil:
		return e.broken(err)
	case errors.As(cause, &late):
		return e.fail(processor.Retry, "%w", late)
	default:
		return cause
	}
}

// drain reads what is left of a small body.
func drain(resp *http.Response) {
	if resp.ContentLength == 0 || resp.ContentLength > maxDrain {
		return
	}
	if _, err := resp.Body.Read(make([]byte, 1)); err == nil { // mostly there is nothing left
		_, _ = io.CopyN(io.Discard, resp.Body, maxDrain)
	}
}

// broken says what is wrong with a connection. The library's own words are not
// for everybody: those about a malformed reply quote it.
func (e *endpoint) broken(err error) error {
	var unconnected *connectError
	var op *net.OpError
	switch {
	case errors.As(err, &unconnected):
		// The record has not been sent: that the worker is down says nothing about
		// it, and must not use up its attempts.
		f := e.fail(processor.Deployment, "is out of reach: %w", unconnected.err)
		f.Unsent = true
		return f
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return e.fail(processor.Retry, "closed the connection before its reply was complete")
	case notHTTP2(err):
		return e.fail(processor.Deployment, "%w", errNoHTTP2)
	case errors.As(err, &op) && op.Op == "remote error":
		// What TLS 1.3 does not tell before: that it wants another certificate of us.
		return e.fail(processor.Deployment, "ended the TLS connection: %w; check transform.http.tls", op)
	case errors.As(err, &op):
		return e.fail(processor.Retry, "the connection broke: %w", op)
	default:
		return e.fail(processor.Retry, "closed the connection, or its reply is malformed or has more than %d KiB of headers", maxHeaders>>10)
	}
}

// notHTTP2 says whether err, which net/http has no name for, tells of an answer in
// HTTP/1.1 to the first bytes of HTTP/2, or of a connection that was closed for
// that before the request was written.
func notHTTP2(err error) bool {
	text := err.Error()
	return strings.Contains(text, "looked like an HTTP/1.1 header") || strings.HasSuffix(text, "http2: client conn could not be established")
}

// ofRecord collects the headers of a call for one record.
func (f *fields) ofRecord(in processor.Input, others []header, deadline time.Time, address, authorization string) {
	for _, h := range others {
		f.add(h.name, h.value)
	}
	if authorization != "" {
		f.add("Authorization", authorization)
	}
	// In small letters, because net/http sends a request with an Idempotency-Key
	// again when a connection that was used before breaks. A record that kills its
	// worker would kill one behind each idle connection, all in one attempt.
	f.text = append(f.text, '"')
	from := len(f.text)
	f.text = in.AppendIdempotencyKey(f.text)
	key := f.text[from:]
	f.text = append(f.text, '"')
	f.end("idempotency-key")
	f.source(in, deadline, address)
	f.number("Seriatim-Offset", in.Offset)
	f.number("Seriatim-Timestamp", in.Timestamp.UnixMilli())
	f.number("Seriatim-Attempt", int64(in.Attempt))
	if in.Note != "" {
		f.text = appendValue(f.text, []byte(in.Note))
		f.end(noteHeader)
	}
	f.text = appendTrace(f.text, in, key)
	f.end("Traceparent")
	if in.Key != nil {
		f.text = appendValue(f.text, in.Key)
		f.end(keyHeader)
	}
	if in.Value == nil {
		f.add(valueHeader, "null")
	}
	for i := range in.Headers {
		h := &in.Headers[i]
		if h.Value == nil {
			f.add(headerName(nullHeaderPrefix, h.Key), "null")
			continue
		}
		f.text = appendValue(f.text, h.Value)
		f.end(headerName(headerPrefix, h.Key))
	}
}

// source adds what all records of a batch have in common.
func (f *fields) source(in processor.Input, deadline time.Time, address string) {
	f.add("Seriatim-Pipeline", in.Pipeline)
	f.text = appendValue(f.text, []byte(in.Topic))
	f.end("Seriatim-Topic")
	f.number("Seriatim-Partition", int64(in.Partition))
	f.number("Seriatim-Deadline-Ms", deadline.UnixMilli())
	if address != "" {
		f.add(attemptURLHeader, address)
	}
}

func (f *fields) number(name string, n int64) {
	f.text = strconv.AppendInt(f.text, n, 10)
	f.end(name)
}

// appendTrace appends the traceparent (W3C Trace Context) of the record, or a
// new one if it has none that is valid: all attempts at a record are in one
// trace, each with a span id of its own. It says "sampled", without which most
// tracing libraries would drop the worker's own spans.
func appendTrace(dst []byte, in processor.Input, idempotencyKey []byte) []byte {
	for i := len(in.Headers) - 1; i >= 0; i-- {
		if h := in.Headers[i]; strings.EqualFold(h.Key, "traceparent") && validTrace(h.Value) {
			return append(dst, h.Value...)
		}
	}
	trace := sha256.Sum256(idempotencyKey)
	var span [8]byte
	binary.BigEndian.PutUint64(span[:], rand.Uint64()|1) // all zero is not allowed
	dst = hex.AppendEncode(append(dst, "00-"...), trace[:16])
	dst = hex.AppendEncode(append(dst, '-'), span[:])
	return append(dst, "-01"...)
}

var traceparent = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

func validTrace(value []byte) bool {
	return traceparent.Match(value) && len(bytes.Trim(value[3:35], "0")) > 0 && len(bytes.Trim(value[36:52], "0")) > 0
}
