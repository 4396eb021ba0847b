package admin

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options are what a [Server] shows.
type Options struct {
	Metrics   *Metrics     // of one server only; required
	Pipelines []Pipeline   // in the order in which they are shown
	Logger    *slog.Logger // nil discards
}

// A Server serves the state of pipelines. It may serve several listeners at once.
type Server struct {
	metrics   http.Handler
	pipelines []Pipeline
	log       *slog.Logger
}

// New returns a server of opts and adds the metrics of the pipelines to
// Options.Metrics.
func New(opts Options) *Server {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	registry := opts.Metrics.Registry
	registry.MustRegister(collector(opts.Pipelines))
	return &Server{
		metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{
			ErrorLog:            slog.NewLogLogger(opts.Logger.Handler(), slog.LevelWarn),
			ErrorHandling:       promhttp.ContinueOnError, // one bad series must not hide the others
			MaxRequestsInFlight: 8,
			EnableOpenMetrics:   true,
		}),
		pipelines: opts.Pipelines,
		log:       opts.Logger,
	}
}

//go:embed index.html
var index []byte

// Handler returns everything there is to see, for people and programs that may
// see it. host is the host that it listens on: requests for another name are
// refused, except for names of the loopback interface, so that no web page can
// read it by pointing its own name here.
func (s *Server) Handler(host string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(index)
	})
	mux.Handle("GET /metrics", s.metrics)
	mux.HandleFunc("GET /livez", s.livez)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /api/v1/pipelines", s.listPipelines)
	mux.HandleFunc("GET /api/v1/held", s.listHeld)
	mux.HandleFunc("POST /api/v1/held", s.decide)
	mux.HandleFunc("POST /api/v1/breaker", s.closeBreaker)
	return secureHeaders(onlyHost(host, http.NewCrossOriginProtection().Handler(mux)))
}

// Probes returns what may be seen without being asked who one is: /livez,
// /readyz without details, and /metrics.
func (s *Server) Probes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metrics)
	mux.HandleFunc("GET /livez", s.livez)
	mux.HandleFunc("GET /readyz", s.readyzBrief)
	return secureHeaders(mux)
}

// onlyHost refuses requests for other hosts than host and the loopback interface.
func onlyHost(host string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := hostOf(r.Host)
		if addr, err := netip.ParseAddr(name); strings.EqualFold(name, "localhost") || err == nil && addr.IsLoopback() ||
			name != "" && strings.EqualFold(name, host) {
			next.ServeHTTP(w, r)
			return
		}
		http.Error(w, fmt.Sprintf("host %q is not served here; use localhost or the address of admin.listen", name), http.StatusMisdirectedRequest)
	})
}

// hostOf returns the host of a Host header, without port and brackets.
func hostOf(header string) string {
	if host, _, err := net.SplitHostPort(header); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(header, "["), "]")
}

func secureHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}

// shutdownTimeout bounds how long requests may still run when serving ends.
const shutdownTimeout = time.Second

// Serve answers on l with h until ctx ends; requests that run then may finish
// within a second. It closes l. It returns nil, or why it could not go on.
func (s *Server) Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve %v: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if server.Shutdown(grace) != nil {
		_ = server.Close() // those that still run have had their second
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %v: %w", l.Addr(), err)
	}
	return nil
}
