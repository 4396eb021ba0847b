package transform

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"

	"seriatim/processor"
)

const (
	// ejectAfter is how many failures in a row eject an endpoint. One record that
	// fails everywhere is less, whatever its attempts: each of them goes elsewhere.
	ejectAfter = 5
	// firstEjection is doubled each time that a probe fails, up to lastEjection.
	firstEjection = time.Second
	lastEjection  = 30 * time.Second
)

// An endpoint is one address of the worker. All but the first three fields belong
// to the lock of its set.
type endpoint struct {
	url  *url.URL
	name string // the address in errors, without user, password and query
	// authorization is the header's value for the user in the address; empty if none.
	authorization string

	limiter   limiter // nil: the limit of the set
	inFlight  int
	failures  int       // in a row
	ejections int       // in a row: 0 is not ejected
	until     time.Time // when an ejected one may be probed
	probing   bool
	epoch     int // counts ejections and returns: what began in an earlier one says nothing
}

// An endpointError is why an attempt failed at an endpoint. The next attempt at
// the record is given it, and so knows where not to go.
type endpointError struct {
	endpoint *endpoint
	err      error
}

func (e *endpointError) Error() string { return "worker " + e.endpoint.name + ": " + e.err.Error() }
func (e *endpointError) Unwrap() error { return e.err }

// fail returns how an attempt failed, beginning with the worker's address.
func (e *endpoint) fail(kind processor.Kind, format string, args ...any) *processor.Failure {
	return &processor.Failure{Kind: kind, Err: &endpointError{e, fmt.Errorf(format, args...)}}
}

// failedAt returns where the attempt failed whose error err is; nil if not known.
func failedAt(err error) *endpoint {
	var failed *endpointError
	if err == nil || !errors.As(err, &failed) {
		return nil
	}
	return failed.endpoint
}

// endpoints shares out attempts: each goes to the less loaded of two endpoints
// chosen at random. One that fails is ejected for a time and then probed by one
// attempt; if all are ejected they are used all the same.
type endpoints struct {
	all    []*endpoint
	limit  int // attempts at once at one endpoint
	log    *slog.Logger
	random func(n int) int // in [0, n)

	mu      sync.Mutex
	waiting []*waiter // for room, in order of arrival
}

// A waiter is an attempt for which there is no room.
type waiter struct {
	errand

	got chan lease // has room for it
}

// An errand is what an attempt asks of its endpoint.
type errand struct {
	avoid *endpoint   // another if there is one that is not ejected; may be nil
	tried []*endpoint // none of these
}

// A lease is the right to make one attempt at an endpoint.
type lease struct {
	*endpoint

	since    time.Time
	leasedIn int // epoch
	probe    bool
	permit   adaptivelimiter.Permit // nil without a limiter
}

func newEndpoints(urls []*url.URL, limit int, log *slog.Logger) *endpoints {
	s := &endpoints{limit: limit, log: log, random: rand.IntN}
	for _, u := range urls {
		s.all = append(s.all, &endpoint{url: u, name: (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()})
	}
	return s
}

// take waits for an endpoint with room. Give the lease back when the attempt is
// over. The error is the cause of the end of ctx.
func (s *endpoints) take(ctx context.Context, what errand) (lease, error) {
	now := time.Now()
	s.mu.Lock()
	if e := s.pick(what, now); e != nil {
		l := e.lease(now)
		s.mu.Unlock()
		return l, nil
	}
	w := &waiter{what, make(chan lease, 1)}
	s.waiting = append(s.waiting, w)
	s.mu.Unlock()
	select {
	case l := <-w.got:
		return l, nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	s.waiting = slices.DeleteFunc(s.waiting, func(other *waiter) bool { return other == w })
	s.mu.Unlock()
	select {
	case l := <-w.got:
		s.give(l, context.Cause(ctx))
	default:
	}
	return lease{}, context.Cause(ctx)
}

func (e *endpoint) lease(now time.Time) lease {
	e.inFlight++
	probe := e.ejections > 0 && !now.Before(e.until)
	e.probing = e.probing || probe
	l := lease{endpoint: e, since: now, leasedIn: e.epoch, probe: probe}
	if e.limiter != nil {
		l.permit, _ = e.limiter.TryAcquirePermit() // there is room
	}
	return l
}

// usable says whether attempts may go to e: it is not ejected, or due for a probe.
func (e *endpoint) usable(now time.Time) bool {
	return e.ejections == 0 || !e.probing && !now.Before(e.until)
}

// pick returns where an attempt goes, or nil if it has to wait: somewhere else
// than it failed before, if not, then somewhere that is not ejected, if not, then
// anywhere.
func (s *endpoints) pick(what errand, now time.Time) *endpoint {
	for level := range 3 {
		candidates, room := 0, 0
		for _, e := range s.all {
			if !e.fits(what, level, now) {
				continue
			}
			candidates++
			if e.room(s.limit) {
				room++
			}
		}
		if room > 0 {
			return s.lessLoaded(what, level, now, room)
		}
		if candidates > 0 {
			return nil
		}
	}
	return nil
}

func (e *endpoint) fits(what errand, level int, now time.Time) bool {
	return !slices.Contains(what.tried, e) && (level > 0 || e != what.avoid) && (level > 1 || e.usable(now))
}

// lessLoaded draws two of the endpoints that fit and have room, of which there
// are n.
func (s *endpoints) lessLoaded(what errand, level int, now time.Time, n int) *endpoint {
	first, second := s.random(n), -1
	if n > 1 {
		second = (first + 1 + s.random(n-1)) % n
	}
	var chosen *endpoint
	i := 0
	for _, e := range s.all {
		if !e.room(s.limit) || !e.fits(what, level, now) {
			continue
		}
		if i == first && (chosen == nil || e.inFlight <= chosen.inFlight) ||
			i == second && (chosen == nil || e.inFlight < chosen.inFlight) {
			chosen = e
		}
		i++
	}
	return chosen
}

// give takes back a lease. err is how the attempt ended: nil and a reject are
// answers, any other Failure is one of the endpoint. An error that is no Failure
// says nothing of it: the attempt was given up.
func (s *endpoints) give(l lease, err error) {
	told, answered := true, true
	var failure *processor.Failure
	if err != nil {
		failure = failureIn(err)
		told = failure != nil
		answered = told && failure.Kind == processor.Reject
	}

	s.mu.Lock()
	l.inFlight--
	l.measure(err)
	var report func()
	if l.leasedIn == l.epoch {
		l.probing = l.probing && !l.probe
		switch {
		case len(s.all) == 1 || !told:
		case answered:
			report = s.answered(l.endpoint)
		default:
			report = s.failed(l.endpoint, failure, time.Now())
		}
	}
	if len(s.waiting) > 0 {
		s.serve(time.Now())
	}
	s.mu.Unlock()
	if report != nil {
		report()
	}
}

// failureIn returns the Failure that err is; nil if it is none.
func failureIn(err error) *processor.Failure {
	var failure *processor.Failure
	errors.As(err, &failure)
	return failure
}

// answered notes that e works. It returns what to log once the lock is free.
func (s *endpoints) answered(e *endpoint) (report func()) {
	e.failures = 0
	if e.ejections == 0 {
		return nil
	}
	e.ejections, e.probing = 0, false
	e.epoch++
	return func() { s.log.Info("a worker is back: it answers again", "url", e.name) }
}

// failed notes that e failed, and ejects it if that is enough.
func (s *endpoints) failed(e *endpoint, failure *processor.Failure, now time.Time) (report func()) {
	level := slog.LevelDebug
	if e.ejections == 0 {
		e.failures++
		if failure.Kind == processor.Retry && e.failures < ejectAfter {
			return nil
		}
		level = slog.LevelWarn
	} else if now.Before(e.until) {
		return nil // it was used because all are ejected
	}
	wait := min(firstEjection<<min(e.ejections, 10), lastEjection)
	e.ejections++
	e.epoch++
	e.until, e.probing = now.Add(wait), false
	return func() {
		s.log.Log(context.Background(), level, "a worker is ejected: it gets nothing for a while, and then one record as a probe",
			"url", e.name, "wait", wait, "err", failure)
	}
}

// serve gives the room that there is to those who wait for it.
func (s *endpoints) serve(now time.Time) {
	s.waiting = slices.DeleteFunc(s.waiting, func(w *waiter) bool {
		e := s.pick(w.errand, now)
		if e != nil {
			w.got <- e.lease(now)
		}
		return e != nil
	})
}
