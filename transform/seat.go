package transform

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// A seat holds what an attempt over HTTP needs beside its record: a context, its end, and
// the request. One attempt takes it after the other, because to make all that anew costs
// a third of what net/http takes for the request.
//
// Nobody else may have a hand in a seat that is taken again. The transport may: it still
// writes a request when the reply comes before its time, or when the attempt is given up.
type seat struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	unlink func() bool // from the parent of the attempt
	own    bool        // somebody traces this attempt, and no other
	term   term
	letter *letter
	// unwritten counts the connections that the transport has chosen for a request, and
	// is not done writing to.
	unwritten atomic.Int32
}

// A letter is a request, and the memory of its headers and its body.
type letter struct {
	*http.Request

	fields fields
	value  []byte
	reader bytes.Reader
	body   io.ReadCloser // the reader, so that net/http knows it and writes it along with the headers
}

// newSeat makes a seat whose context has the values of another one.
func newSeat(values context.Context, timeout time.Duration) *seat {
	s := &seat{term: term{usual: timeout}}
	var end context.CancelCauseFunc
	s.ctx, end = context.WithCancelCause(httptrace.WithClientTrace(context.WithoutCancel(values), &httptrace.ClientTrace{
		GotConn:      func(httptrace.GotConnInfo) { s.unwritten.Add(1) },
		WroteRequest: func(httptrace.WroteRequestInfo) { s.unwritten.Add(-1) },
	}))
	s.cancel = end
	s.term.expired = func() {
		end(&timeoutError{"no complete reply", "transform.http.timeout", timeout, time.Since(s.term.began)})
	}
	return s
}

// sit returns a seat for one attempt, whose time has begun. Its context ends with the
// parent, and when the time is over. Give it back by stand.
func (c *Client) sit(parent context.Context, began time.Time) *seat {
	var s *seat
	if httptrace.ContextClientTrace(parent) != nil {
		s = newSeat(parent, c.timeout)
		s.own = true
	} else if s, _ = c.seats.Get().(*seat); s == nil {
		s = newSeat(context.Background(), c.timeout)
	}
	s.unlink = context.AfterFunc(parent, func() { s.cancel(context.Cause(parent)) })
	s.term.begin(began)
	return s
}

// stand gives back a seat. Where the attempt was not answered nobody takes it again.
func (c *Client) stand(s *seat, answered bool) {
	inTime := s.term.stop()
	if s.unlink() && inTime && answered && !s.own && s.ctx.Err() == nil && s.unwritten.Load() == 0 {
		s.letter.value = nil
		s.letter.reader.Reset(nil)
		c.seats.Put(s)
	} else {
		s.cancel(nil)
	}
}

// fields are where the headers of the next request are collected.
func (s *seat) fields() *fields {
	if s.letter == nil || s.unwritten.Load() != 0 {
		s.letter = newLetter(s.ctx)
	}
	f := &s.letter.fields
	f.names, f.ends, f.text = f.names[:0], f.ends[:0], f.text[:0]
	return f
}

func newLetter(ctx context.Context) *letter {
	l := new(letter)
	l.body = io.NopCloser(&l.reader)
	req := &http.Request{
		Method: http.MethodPost,
		// For redirects, and for connections that were closed before a byte was written.
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(l.value)), nil },
	}
	l.Request = req.WithContext(ctx)
	return l
}

// request is the call as it is sent, with the headers that were collected.
func (s *seat) request(e *endpoint, body []byte) *http.Request {
	l := s.letter
	l.URL, l.Header = e.url, l.fields.header()
	l.Body, l.ContentLength, l.value = http.NoBody, int64(len(body)), body
	if len(body) > 0 {
		l.reader.Reset(body)
		l.Body = l.body
	}
	return l.Request
}
