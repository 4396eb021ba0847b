package transform

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"seriatim/processor"
)

// HTTPOptions are the settings of [HTTP].
type HTTPOptions struct {
	// URLs are the addresses of the worker, http or https, at least one. Each may
	// hold a user and a password.
	URLs []string
	// Timeout is for one attempt, from connecting to the last byte of the reply;
	// 10s if zero.
	Timeout time.Duration
	// Connections is how many are kept and the most there are to one address, each
	// busy with one attempt: as many as the pipeline has workers; 64 if zero.
	Connections int
	// MaxInFlight is the most attempts at once at one address, where others wait for
	// room: Connections if zero or more than that.
	MaxInFlight int
	// Logger is told of addresses that are ejected and that are back; nobody is if
	// nil.
	Logger *slog.Logger
}

const (
	// idleTimeout closes a connection before the worker does (Node and uvicorn
	// wait 5 s), so that no request meets a connection that is just being closed.
	idleTimeout = 4 * time.Second
	// maxDial is the most that connecting may take; never more than half of
	// Timeout, so that a worker out of reach is told from a slow one, and a quarter
	// if there is another address to ask then.
	maxDial = 5 * time.Second
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
	endpoints *endpoints
	timeout   time.Duration
	http      *http.Client
}

// HTTP returns a transform that asks a worker by the contract in
// docs/workers.md. It makes no connection yet. The error names every option that
// is wrong.
//
// It speaks HTTP/1.1, without proxy and compression, follows redirects (307 and
// 308) within the host only, and refuses link-local and cloud metadata
// addresses. An attempt is sent once: it is sent again by itself only if nothing
// of it had been written to a connection that turned out to be closed, or if the
// deployment behind one address is wrong and there is another.
//
// Of several addresses each attempt goes to the less loaded of two chosen at
// random, and not to where the attempt before failed.
func HTTP(opts HTTPOptions) (*Client, error) {
	return newClient(opts, &tls.Config{MinVersion: tls.VersionTLS12})
}

func newClient(opts HTTPOptions, config *tls.Config) (*Client, error) {
	if opts.Timeout == 0 {
		opts.Timeout = 10 * time.Second
	}
	if opts.Connections == 0 {
		opts.Connections = 64
	}
	var errs []error
	if opts.Timeout < 0 {
		errs = append(errs, fmt.Errorf("timeout: %v is negative", opts.Timeout))
	}
	if opts.Connections < 0 {
		errs = append(errs, fmt.Errorf("connections: %d is negative", opts.Connections))
	}
	if opts.MaxInFlight < 0 {
		errs = append(errs, fmt.Errorf("max_in_flight: %d is negative", opts.MaxInFlight))
	}
	urls, err := workerURLs(opts.URLs)
	if errs = append(errs, err); errors.Join(errs...) != nil {
		return nil, errors.Join(errs...)
	}
	if opts.MaxInFlight == 0 {
		opts.MaxInFlight = opts.Connections
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}

	patience := opts.Timeout / 2
	if len(urls) > 1 {
		patience = opts.Timeout / 4
	}
	plain, secure := dialers(min(maxDial, patience), config)
	limit := min(opts.MaxInFlight, opts.Connections)
	connections := limit * mostOnOneHost(urls)
	return &Client{
		endpoints: newEndpoints(urls, limit, opts.Logger),
		timeout:   opts.Timeout,
		http: &http.Client{
			CheckRedirect: redirect,
			Transport: &http.Transport{
				DialContext:            plain,
				DialTLSContext:         secure,
				MaxConnsPerHost:        connections,
				MaxIdleConnsPerHost:    connections,
				IdleConnTimeout:        idleTimeout,
				MaxResponseHeaderBytes: maxHeaders,
				DisableCompression:     true,
			},
		},
	}, nil
}

func workerURLs(addresses []string) ([]*url.URL, error) {
	if len(addresses) == 0 {
		return nil, errors.New("urls: there must be at least one")
	}
	urls := make([]*url.URL, len(addresses))
	var errs []error
	for i, address := range addresses {
		u, err := workerURL(address)
		if err != nil {
			errs = append(errs, fmt.Errorf("urls[%d]: %w", i, err))
		}
		urls[i] = u
	}
	return urls, errors.Join(errs...)
}

func workerURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil: // its text would show a password
		return nil, errors.New("the address of the worker is no URL; write http://host:port/path")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("the address of the worker must begin with http:// or https://, not %q", u.Scheme)
	case u.Hostname() == "":
		return nil, errors.New("the address of the worker has no host")
	}
	return u, nil
}

// mostOnOneHost returns how many of the addresses share one host, and so its
// connections, at most.
func mostOnOneHost(urls []*url.URL) int {
	hosts, most := make(map[string]int), 0
	for _, u := range urls {
		hosts[u.Host]++
		most = max(most, hosts[u.Host])
	}
	return most
}

// Close closes the connections that wait for the next attempt. Call it when no
// attempt runs any more; a later one would connect anew.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// redirect allows those that send the same request to another path.
func redirect(req *http.Request, via []*http.Request) error {
	from := via[0].URL
	downgrade := from.Scheme == "https" && req.URL.Scheme != "https"
	if req.Method != http.MethodPost || req.URL.Host != from.Host || downgrade || len(via) > maxRedirects {
		return http.ErrUseLastResponse
	}
	return nil
}

// Transform makes one attempt. While the deployment behind an address is wrong it
// goes to the next, as long as half of the time is left: nobody has done anything
// with the record yet.
func (c *Client) Transform(parent context.Context, in processor.Input, out *processor.Outputs) error {
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
	if in.Asked != nil {
		in.Asked.Store(at.endpoint)
	}
	began := time.Now() // waiting for room takes nothing from the time
	ctx, cancel := context.WithTimeoutCause(parent, c.timeout, errTimeout)
	defer cancel()
	unsent := true
	for {
		err = c.ask(ctx, at.endpoint, in, out)
		c.endpoints.give(at, err)
		var f *processor.Failure
		if !errors.As(err, &f) || f.Kind != processor.Deployment {
			return err
		}
		unsent = unsent && f.Unsent
		if what.tried = append(what.tried, at.endpoint); len(what.tried) < len(c.endpoints.all) && time.Since(began) < c.timeout/2 {
			if at, err = c.endpoints.take(ctx, what); err == nil {
				continue
			}
		}
		f.Unsent = unsent
		if others := len(what.tried) - 1; others > 0 {
			f.Err = fmt.Errorf("%w; %d more of transform.http.urls failed before", f.Err, others)
		}
		return f
	}
}

var errTimeout = errors.New("transform.http.timeout")

// ask sends a record to one endpoint and reads the reply.
func (c *Client) ask(ctx context.Context, e *endpoint, in processor.Input, out *processor.Outputs) error {
	resp, err := c.http.Do(e.request(ctx, in))
	if err == nil {
		err = e.reply(resp, in, out)
		if resp.ContentLength != 0 && resp.ContentLength <= maxDrain {
			_, _ = io.CopyN(io.Discard, resp.Body, maxDrain)
		}
		_ = resp.Body.Close()
	}
	var failure *processor.Failure
	if err == nil || errors.As(err, &failure) {
		return err
	}
	switch cause := context.Cause(ctx); {
	case cause == nil:
		return e.broken(err)
	case errors.Is(cause, errTimeout):
		return e.fail(processor.Retry, "no complete reply within %v (transform.http.timeout)", c.timeout)
	default:
		return cause
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
	case errors.As(err, &op):
		return e.fail(processor.Retry, "the connection broke: %w", op)
	default:
		return e.fail(processor.Retry, "closed the connection, or its reply is malformed or has more than %d KiB of headers", maxHeaders>>10)
	}
}

// request is the attempt as it is sent.
func (e *endpoint) request(ctx context.Context, in processor.Input) *http.Request {
	req := &http.Request{
		Method: http.MethodPost,
		URL:    e.url,
		Header: requestHeader(ctx, in),
		Body:   http.NoBody,
		// For redirects, and for connections that were closed before a byte was written.
		GetBody:       func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(in.Value)), nil },
		ContentLength: int64(len(in.Value)),
	}
	if len(in.Value) > 0 {
		req.Body, _ = req.GetBody()
	}
	return req.WithContext(ctx)
}

func requestHeader(ctx context.Context, in processor.Input) http.Header {
	var names [32]string
	var ends [32]int
	f := fields{names: names[:0], ends: ends[:0], text: make([]byte, 0, 512)}

	f.add("User-Agent", "seriatim")
	f.add("Content-Type", "application/octet-stream")
	// In small letters, because net/http sends a request with an Idempotency-Key
	// again when a connection that was used before breaks. A record that kills its
	// worker would kill one behind each idle connection, all in one attempt.
	key := in.IdempotencyKey()
	f.add("idempotency-key", `"`+key+`"`)
	f.add("Seriatim-Pipeline", in.Pipeline)
	f.text = appendValue(f.text, []byte(in.Topic))
	f.end("Seriatim-Topic")
	f.number("Seriatim-Partition", int64(in.Partition))
	f.number("Seriatim-Offset", in.Offset)
	f.number("Seriatim-Timestamp", in.Timestamp.UnixMilli())
	f.number("Seriatim-Attempt", int64(in.Attempt))
	if deadline, ok := ctx.Deadline(); ok {
		f.number("Seriatim-Deadline-Ms", deadline.UnixMilli())
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
	return f.header()
}

func (f *fields) number(name string, n int64) {
	f.text = strconv.AppendInt(f.text, n, 10)
	f.end(name)
}

// appendTrace appends the traceparent (W3C Trace Context) of the record, or a
// new one if it has none that is valid: all attempts at a record are in one
// trace, each with a span id of its own. It says "sampled", without which most
// tracing libraries would drop the worker's own spans.
func appendTrace(dst []byte, in processor.Input, idempotencyKey string) []byte {
	for i := len(in.Headers) - 1; i >= 0; i-- {
		if h := in.Headers[i]; strings.EqualFold(h.Key, "traceparent") && validTrace(h.Value) {
			return append(dst, h.Value...)
		}
	}
	trace := sha256.Sum256([]byte(idempotencyKey))
	return fmt.Appendf(dst, "00-%x-%016x-01", trace[:16], rand.Uint64()|1) // all zero is not allowed
}

var traceparent = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

func validTrace(value []byte) bool {
	return traceparent.Match(value) && len(bytes.Trim(value[3:35], "0")) > 0 && len(bytes.Trim(value[36:52], "0")) > 0
}
