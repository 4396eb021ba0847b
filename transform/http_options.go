package transform

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"seriatim/internal/certs"
	"seriatim/internal/contract"
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
	// Adaptive finds that limit for each address by itself, up to Connections: it goes
	// down while more attempts only take longer, and up while they do not. Not with MaxInFlight.
	Adaptive bool
	// Rate is the most requests a second to all addresses together; no limit if
	// zero. One that has to wait loses nothing of its Timeout.
	Rate float64
	// Headers are sent with every request. They may replace User-Agent and
	// Content-Type, and nothing else that the contract knows.
	Headers map[string]string
	// BearerTokenFile and BasicAuth are two ways to say who we are, at most one of
	// which is given. The files are read again within a second of a change.
	BearerTokenFile string
	BasicAuth       BasicAuth
	// TLS is for addresses with https.
	TLS TLS
	// HTTP2 speaks HTTP/2 and nothing else: with https as TLS agrees on it, with http
	// from the first byte (h2c). Attempts share connections then.
	HTTP2 bool
	// ProxyFromEnvironment asks HTTP_PROXY, HTTPS_PROXY and NO_PROXY for the way; not
	// with HTTP2.
	ProxyFromEnvironment bool
	// AllowLinkLocal lets a worker have a link-local or cloud metadata address.
	AllowLinkLocal bool
	// Callbacks take what workers say while they work; nil if they cannot.
	Callbacks *Callbacks
	// Logger is told of addresses that are ejected and that are back; nobody is if
	// nil.
	Logger *slog.Logger
}

// BasicAuth is a user and the file with the password. Line breaks at the end of the
// file do not count.
type BasicAuth struct{ Username, PasswordFile string }

// TLS are PEM files, read again for each connection, all of which may be empty.
type TLS struct {
	CAFile            string // authorities to trust instead of the system's
	CertFile, KeyFile string // of ours: both or neither
	ServerName        string // that the worker's certificate must bear, if not the host of the address
}

// HTTP returns a transform that asks a worker by the contract in
// docs/workers.md. It makes no connection yet. The error names every option that
// is wrong.
//
// It speaks HTTP/1.1 unless told otherwise, without compression; it follows redirects (307 and 308) within the host only, and refuses
// link-local and cloud metadata addresses. An attempt is sent once: it is sent again by itself only if nothing
// of it had been written to a connection that turned out to be closed, or if the
// deployment behind one address is wrong and there is another.
//
// Of several addresses each attempt goes to the less loaded of two chosen at
// random, and not to where the attempt before failed.
func HTTP(opts HTTPOptions) (*Client, error) {
	if opts.Timeout == 0 {
		opts.Timeout = 10 * time.Second
	}
	if opts.Connections == 0 {
		opts.Connections = 64
	}
	if opts.Adaptive && opts.MaxInFlight > 0 {
		return nil, errors.New("max_in_flight: is a number, or adaptive")
	}
	if opts.MaxInFlight == 0 {
		opts.MaxInFlight = opts.Connections
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Client{timeout: opts.Timeout, callbacks: opts.Callbacks}
	urls, errURLs := workerURLs(opts.URLs)
	var errHeaders, errCredentials error
	c.headers, errHeaders = staticHeaders(opts)
	c.credentials, errCredentials = credentialsOf(opts)
	files := certs.Files(opts.TLS)
	_, errTLS := files.Config()
	if err := errors.Join(opts.check(), errURLs, errHeaders, errCredentials, errTLS); err != nil {
		return nil, err
	}
	if opts.Rate > 0 {
		c.pace = rate.NewLimiter(rate.Limit(opts.Rate), 1)
	}
	limit := min(opts.MaxInFlight, opts.Connections)
	c.endpoints = newEndpoints(urls, limit, opts.Logger)
	if !slices.ContainsFunc(c.headers, func(h header) bool { return h.name == "Authorization" }) {
		for i, u := range urls {
			c.endpoints.all[i].authorization = userOf(u)
		}
	}
	if opts.Adaptive {
		c.endpoints.adapt()
	}
	transport := transportOf(opts, files, len(urls), limit*mostOnOneHost(urls))
	c.transport = transport
	if !opts.HTTP2 && !opts.ProxyFromEnvironment {
		c.transport = newDirect(transport)
	}
	return c, nil
}

// check looks at what is neither an address nor a header nor a file.
func (opts HTTPOptions) check() error {
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
	if opts.HTTP2 && opts.ProxyFromEnvironment {
		errs = append(errs, errors.New("http2: excludes proxy_from_environment"))
	}
	if opts.Rate < 0 || math.IsNaN(opts.Rate) {
		errs = append(errs, fmt.Errorf("rate: %v is no number of requests a second", opts.Rate))
	}
	return errors.Join(errs...)
}

// transportOf returns what makes so many connections to each host.
func transportOf(opts HTTPOptions, files certs.Files, urls, connections int) *http.Transport {
	patience := opts.Timeout / 2
	if urls > 1 {
		patience = opts.Timeout / 4
	}
	patience = min(maxDial, patience)
	plain, secure := dialers(patience, files, opts.HTTP2, opts.AllowLinkLocal)
	t := &http.Transport{
		DialContext:            plain,
		DialTLSContext:         secure,
		MaxConnsPerHost:        connections,
		MaxIdleConnsPerHost:    connections,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaders,
		DisableCompression:     true,
	}
	if opts.HTTP2 {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetHTTP2(true)
		t.Protocols.SetUnencryptedHTTP2(true)
		t.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout}
		t.MaxConnsPerHost = 0 // one does, unless the worker allows it few attempts at a time
	}
	if opts.ProxyFromEnvironment {
		t.Proxy = http.ProxyFromEnvironment
		// Behind a proxy the handshake is not the dialer's.
		t.TLSClientConfig, _ = files.Config() // it was fine a moment ago
		t.TLSHandshakeTimeout = patience
		t.OnProxyConnectResponse = func(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			return &connectError{fmt.Errorf("the proxy %s answered %s", proxy.Host, resp.Status)}
		}
	}
	return t
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

// A header is one of every request.
type header struct{ name, value string }

var token = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$") // RFC 9110

// staticHeaders returns the headers that the options want, sorted by name. Errors do
// not show values, which may be secrets.
func staticHeaders(opts HTTPOptions) ([]header, error) {
	all := map[string]string{"User-Agent": "seriatim", "Content-Type": "application/octet-stream"}
	given := make(map[string]bool)
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(opts.Headers)) {
		name, value := http.CanonicalHeaderKey(key), opts.Headers[key]
		switch {
		case !token.MatchString(key):
			errs = append(errs, fmt.Errorf("headers: %.100q is no name of a header", key))
		case contract.Reserved(key):
			errs = append(errs, fmt.Errorf("headers: %s is set by the program alone", name))
		case name == "Authorization" && (opts.BearerTokenFile != "" || opts.BasicAuth != BasicAuth{}):
			errs = append(errs, errors.New("headers: Authorization excludes bearer_token_file and basic_auth"))
		case given[name]:
			errs = append(errs, fmt.Errorf("headers: %s is given twice", name))
		case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
			errs = append(errs, fmt.Errorf("headers: the value of %s has a control character", name))
		}
		given[name] = true
		all[name] = strings.TrimSpace(value)
	}
	headers := make([]header, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		headers = append(headers, header{name, all[name]})
	}
	return headers, errors.Join(errs...)
}
