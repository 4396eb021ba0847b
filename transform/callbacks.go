package transform

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"seriatim/internal/seeded"
	"seriatim/processor"
)

const (
	// maxExtend bounds the body of a request for more time.
	maxExtend = 1 << 10
	// longestExtend is the most that anybody may ask for at once; the term bounds it anyway.
	longestExtend = 24 * time.Hour

	attemptURLHeader = "Seriatim-Attempt-Url"
	noteHeader       = "Seriatim-Note"
)

// Callbacks take what workers say about attempts that run: that they need more time, and
// how far they have come. Each request to a worker has an address of its own under the
// URL, which nobody can guess; it is good for as long as the request runs. Make one with
// [NewCallbacks], give it to [HTTP] and serve its Handler.
type Callbacks struct {
	base string // without a slash at the end

	mu   sync.Mutex
	open map[string]*callback // by token
}

// A callback is a request that a worker may say something about.
type callback struct {
	term *term

	mu   sync.Mutex
	ins  []processor.Input // the record, or those of the batch
	over bool
}

// NewCallbacks returns callbacks at a URL that workers reach the handler by: http or
// https, without query and user. What stands before it must take its path away.
func NewCallbacks(base string) (*Callbacks, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("url: must be an http:// or https:// address without user and query")
	}
	return &Callbacks{base: strings.TrimSuffix(base, "/"), open: make(map[string]*callback)}, nil
}

// begin opens an address for a request about these records, whose time is the term. Call
// end when the request is over; after that nothing that comes there changes anything.
//
// Without callbacks there is no address.
func (c *Callbacks) begin(t *term, ins ...processor.Input) (address string, end func()) {
	if c == nil {
		return "", func() {}
	}
	token := rand.Text() // 130 bits
	b := &callback{term: t, ins: ins}
	c.mu.Lock()
	c.open[token] = b
	c.mu.Unlock()
	return c.base + "/attempts/" + token, func() {
		if seeded.Bug("callback-outlives-its-attempt") {
			return
		}
		c.mu.Lock()
		delete(c.open, token)
		c.mu.Unlock()
		b.mu.Lock()
		b.over = true
		b.mu.Unlock()
	}
}

// find returns what a request is about; nil if its token is unknown or no good any more.
func (c *Callbacks) find(r *http.Request) *callback {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open[r.PathValue("token")]
}

// extend gives the request more time.
func (b *callback) extend(by time.Duration) (left time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return 0, false
	}
	return b.term.extend(by)
}

// note notes something about the records. It reports whether the request still runs.
func (b *callback) note(text string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return false
	}
	for _, in := range b.ins {
		in.SetNote(text)
	}
	return true
}

// Handler serves POST /attempts/{token}/extend and PUT /attempts/{token}/note.
func (c *Callbacks) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /attempts/{token}/extend", c.serveExtend)
	mux.HandleFunc("PUT /attempts/{token}/note", c.serveNote)
	return mux
}

func (c *Callbacks) serveExtend(w http.ResponseWriter, r *http.Request) {
	b := c.find(r)
	if b == nil {
		gone(w)
		return
	}
	body, ok := readBody(w, r, maxExtend)
	if !ok {
		return
	}
	by, err := extension(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	left, ok := b.extend(by)
	if !ok {
		gone(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, "{\"deadline_ms\":%d}\n", left.Milliseconds())
}

var errExtension = errors.New(`the body must be empty or {"ms": N}, with N more than 0`)

// extension reads for how much time a body asks; 0 is as much as at first.
func extension(body []byte) (time.Duration, error) {
	if len(body) == 0 {
		return 0, nil
	}
	if !json.Valid(body) {
		return 0, errExtension
	}
	var asked struct {
		MS *float64 `json:"ms"`
	}
	if err := decodeAnswer(body, &asked); err != nil || asked.MS != nil && *asked.MS < 1 {
		return 0, errExtension
	}
	if asked.MS == nil {
		return 0, nil
	}
	return milliseconds(*asked.MS), nil
}

// milliseconds is a time that a worker asks for, as far as it makes sense.
func milliseconds(n float64) time.Duration {
	return time.Duration(min(n, float64(longestExtend.Milliseconds()))) * time.Millisecond
}

func (c *Callbacks) serveNote(w http.ResponseWriter, r *http.Request) {
	b := c.find(r)
	if b == nil {
		gone(w)
		return
	}
	body, ok := readBody(w, r, processor.MaxNote)
	switch {
	case !ok:
	case !utf8.Valid(body):
		http.Error(w, "a note must be text in UTF-8", http.StatusBadRequest)
	case !b.note(string(body)):
		gone(w)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// readBody reads a body of up to limit bytes, or answers why not.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) (body []byte, ok bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		http.Error(w, fmt.Sprintf("the body has more than %d bytes", limit), http.StatusRequestEntityTooLarge)
	case err != nil:
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
	}
	return body, err == nil
}

func gone(w http.ResponseWriter) {
	http.Error(w, "no attempt runs at this address: it is over, or never was", http.StatusConflict)
}
