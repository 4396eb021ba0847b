package transform

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

// three returns endpoints a, b and c whose random numbers are those given, over
// and over, and what they log.
func three(limit int, numbers ...int) (*endpoints, *strings.Builder) {
	urls := make([]*url.URL, 3)
	for i := range urls {
		urls[i] = &url.URL{Scheme: "http", Host: string(rune('a' + i))}
	}
	var log strings.Builder
	s := newEndpoints(urls, limit, slog.New(slog.NewTextHandler(&log, nil)))
	i := 0
	s.random = func(n int) int {
		i++
		return numbers[(i-1)%len(numbers)] % n
	}
	return s, &log
}

func (s *endpoints) mustTake(t *testing.T, what errand) lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	l, err := s.take(ctx, what)
	if err != nil {
		t.Fatalf("no endpoint has room: %v", err)
	}
	return l
}

// reaches returns the endpoints that an errand may lead to now, if those that
// have room are all idle.
func (s *endpoints) reaches(what errand) string {
	random := s.random
	defer func() { s.random = random }()
	for _, e := range s.all {
		if load := e.inFlight; load < s.limit {
			e.inFlight = 0
			defer func() { e.inFlight = load }()
		}
	}
	found := map[string]bool{}
	for first := range len(s.all) {
		for second := range len(s.all) {
			draws := []int{first, second}
			s.random = func(n int) int {
				draw := draws[0] % n
				draws = draws[1:]
				return draw
			}
			if e := s.pick(what, time.Now()); e != nil {
				found[e.url.Host] = true
			}
		}
	}
	names := ""
	for _, e := range s.all {
		if found[e.url.Host] {
			names += e.url.Host
		}
	}
	return names
}

func (s *endpoints) end(t *testing.T, e *endpoint, err error) {
	t.Helper()
	var others []*endpoint
	for _, other := range s.all {
		if other != e {
			others = append(others, other)
		}
	}
	s.give(s.mustTake(t, errand{tried: others}), err)
}

var (
	errRetry      = &processor.Failure{Kind: processor.Retry, Err: errors.New("busy")}
	errReject     = &processor.Failure{Kind: processor.Reject, Err: errors.New("never")}
	errDeployment = &processor.Failure{Kind: processor.Deployment, Err: errors.New("refused")}
)

func TestLessLoadedOfTwo(t *testing.T) {
	for _, test := range []struct {
		load   [3]int
		draws  []int // the first of three, and how far behind it the second is
		chosen string
	}{
		{[3]int{0, 0, 0}, []int{0, 0}, "a"},
		{[3]int{0, 0, 0}, []int{1, 0}, "b"},
		{[3]int{0, 0, 0}, []int{2, 0}, "c"},
		{[3]int{0, 0, 0}, []int{2, 1}, "c"},
		{[3]int{2, 1, 0}, []int{0, 0}, "b"}, // of a and b: c was not drawn
		{[3]int{2, 1, 0}, []int{0, 1}, "c"},
		{[3]int{0, 1, 2}, []int{1, 0}, "b"},
		{[3]int{0, 1, 2}, []int{2, 1}, "b"},
		{[3]int{9, 1, 2}, []int{0, 0}, "b"}, // a is full: of b and c
		{[3]int{9, 3, 2}, []int{0, 0}, "c"},
		{[3]int{9, 3, 9}, []int{1, 1}, "b"},
	} {
		s, _ := three(9, test.draws...)
		for i, e := range s.all {
			e.inFlight = test.load[i]
		}
		if l := s.mustTake(t, errand{}); l.url.Host != test.chosen {
			t.Errorf("load %v, drawn %v: got %s, want %s", test.load, test.draws, l.url.Host, test.chosen)
		}
	}
}

func TestRetryGoesElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := three(9, 0)
		a, b, c := s.all[0], s.all[1], s.all[2]
		must := func(when string, what errand, want string) {
			t.Helper()
			if got := s.reaches(what); got != want {
				t.Errorf("%s: got %q, want %q", when, got, want)
			}
		}
		must("first attempt", errand{}, "abc")
		must("failed at a", errand{avoid: a}, "bc")
		must("tried b, failed at a", errand{avoid: a, tried: []*endpoint{b}}, "c")
		must("tried b and c, failed at a", errand{avoid: a, tried: []*endpoint{b, c}}, "a")
		b.inFlight, c.inFlight = 9, 9
		must("failed at a, others are full", errand{avoid: a}, "")
		b.inFlight, c.inFlight = 0, 0
		s.end(t, b, errDeployment)
		must("failed at a, b is ejected", errand{avoid: a}, "c")
		s.end(t, c, errDeployment)
		must("failed at a, others are ejected", errand{avoid: a}, "a")
		s.end(t, a, errDeployment)
		must("all are ejected", errand{}, "abc")
		must("all are ejected, failed at a and tried b", errand{avoid: a, tried: []*endpoint{b}}, "ac")
		if got := failedAt(fmt.Errorf("attempt 2: %w", a.fail(processor.Retry, "busy"))); got != a {
			t.Errorf("the failure of an attempt leads to %v, want a", got)
		}
		if got := failedAt(errors.New("another")); got != nil {
			t.Errorf("any other error leads to %v, want nowhere", got)
		}
	})
}

func TestEjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := three(9, 0)
		a := s.all[0]
		must := func(when, want string) {
			t.Helper()
			if got := s.reaches(errand{}); got != want {
				t.Errorf("%s: attempts go to %q, want %q", when, got, want)
			}
		}
		for range ejectAfter - 1 {
			s.end(t, a, errRetry)
		}
		s.end(t, a, context.Canceled)
		must("4 failures in a row", "abc")
		for range ejectAfter - 1 {
			s.end(t, a, errReject)
			s.end(t, a, errRetry)
		}
		s.end(t, a, nil)
		must("failures between answers", "abc")

		early := []lease{s.mustTake(t, errand{tried: s.all[1:]}), s.mustTake(t, errand{tried: s.all[1:]}), s.mustTake(t, errand{tried: s.all[1:]})}
		for range ejectAfter {
			must("up to 5 failures", "abc")
			s.end(t, a, errRetry)
		}
		must("5 failures in a row", "bc")
		s.give(early[0], nil)
		s.give(early[1], errDeployment)
		must("replies to what was sent before", "bc")

		const ms = time.Millisecond
		for _, wait := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
			time.Sleep(wait*time.Second - ms) //nolint:forbidigo // virtual
			must("just before the probe", "bc")
			time.Sleep(ms) //nolint:forbidigo // virtual
			must("when it is due", "abc")
			probe := s.mustTake(t, errand{tried: s.all[1:]})
			must("while it is probed", "bc")
			s.give(probe, errRetry)
		}
		s.give(early[2], nil)
		must("a reply from long ago", "bc")
		time.Sleep(lastEjection) //nolint:forbidigo // virtual
		probe := s.mustTake(t, errand{tried: s.all[1:]})
		s.give(probe, context.Canceled)
		must("the probe was given up", "abc")
		probe = s.mustTake(t, errand{tried: s.all[1:]})
		s.give(probe, errReject)
		must("the probe was answered", "abc")
		s.end(t, a, errRetry)
		must("a failure after the return", "abc")

		s.end(t, a, errDeployment)
		must("unreachable", "bc")
		if got, want := log.String(), []string{
			"level=WARN msg=\"a worker is ejected", "url=http://a wait=1s err=busy", "level=INFO msg=\"a worker is back", "url=http://a\n",
			"level=WARN", "wait=1s err=refused",
		}; !inOrder(got, want) || strings.Count(got, "\n") != 3 {
			t.Errorf("got log\n%s\nwant %q", got, want)
		}
	})
}

func inOrder(text string, parts []string) bool {
	for _, part := range parts {
		_, after, found := strings.Cut(text, part)
		if !found {
			return false
		}
		text = after
	}
	return true
}

func TestAllEjected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := three(9, 0)
		for _, e := range s.all {
			s.end(t, e, errDeployment)
		}
		for range 100 { // use is no probe, and does not put off the next one
			s.end(t, s.all[0], errRetry)
		}
		time.Sleep(firstEjection) //nolint:forbidigo // virtual
		if !s.all[0].usable(time.Now()) {
			t.Error("a is not due for a probe, a second after it was ejected")
		}
		if s.end(t, s.all[0], nil); s.all[0].ejections != 0 {
			t.Error("a is still ejected, a second after the first failure and answering")
		}
		s.end(t, s.all[0], errDeployment)
		s.end(t, s.all[1], errDeployment)
		s.end(t, s.all[2], errDeployment)
		if s.end(t, s.all[1], nil); s.reaches(errand{}) != "b" {
			t.Errorf("attempts go to %q, want b, which answered although it is ejected", s.reaches(errand{}))
		}
	})
}

// A second attempt beside one that went on to another endpoint knows where that is now.
func TestHedgeOfAnAttemptThatWentOn(t *testing.T) {
	client, err := HTTP(HTTPOptions{URLs: []string{"http://a", "http://b", "http://c"}})
	if err != nil {
		t.Fatal(err)
	}
	s := client.endpoints
	s.random = func(int) int { return 0 }
	s.all[2].inFlight = 5
	in := processor.Input{Record: new(kgo.Record), Asked: new(atomic.Value)}
	var asked []string
	var attempt func(*seat, *endpoint, string) error
	attempt = func(sits *seat, e *endpoint, _ string) error {
		_ = sits.fields()
		switch asked = append(asked, e.name); len(asked) {
		case 1:
			return errDeployment
		case 2:
			return client.call(t.Context(), in, attempt) // while this one runs
		default:
			return nil
		}
	}
	if err := client.call(t.Context(), in, attempt); err != nil {
		t.Fatal(err)
	}
	if want := []string{"http://a", "http://b", "http://c"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

func TestOneEndpointIsNeverEjected(t *testing.T) {
	var log strings.Builder
	s := newEndpoints([]*url.URL{{Scheme: "http", Host: "a"}}, 2, slog.New(slog.NewTextHandler(&log, nil)))
	for range 10 {
		s.end(t, s.all[0], errDeployment)
	}
	for range 2 {
		s.mustTake(t, errand{avoid: s.all[0]})
	}
	if log.Len() > 0 {
		t.Errorf("got log\n%s", log.String())
	}
}

func TestWaitingForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := three(1, 0)
		leases := []lease{s.mustTake(t, errand{}), s.mustTake(t, errand{}), s.mustTake(t, errand{})}
		slices.SortFunc(leases, func(x, y lease) int { return strings.Compare(x.name, y.name) })
		if got := leases[0].name + leases[1].name + leases[2].name; got != "http://ahttp://bhttp://c" {
			t.Fatalf("three attempts with room for one at each are at %s", got)
		}
		type taken struct {
			who int
			lease
		}
		got := make(chan taken, 3)
		errs := make(chan error, 1)
		wait := func(ctx context.Context, who int, what errand) {
			go func() {
				l, err := s.take(ctx, what)
				if err != nil {
					errs <- err
					return
				}
				got <- taken{who, l}
			}()
			synctest.Wait()
		}
		cause := errors.New("revoked")
		ctx, cancel := context.WithCancelCause(t.Context())
		wait(ctx, 0, errand{})
		wait(t.Context(), 1, errand{avoid: s.all[0]})
		wait(t.Context(), 2, errand{})
		cancel(cause)
		if err := <-errs; !errors.Is(err, cause) {
			t.Errorf("who gives up gets error %v, want the cause", err)
		}
		s.give(leases[0], nil) // a: not for 1, which failed there
		if first := <-got; first.who != 2 || first.url.Host != "a" {
			t.Errorf("room at a went to attempt %d at %s, want 2", first.who, first.url.Host)
		}
		s.give(leases[2], nil)
		if second := <-got; second.who != 1 || second.url.Host != "c" {
			t.Errorf("room at c went to attempt %d at %s, want 1", second.who, second.url.Host)
		}
		if len(s.waiting) > 0 {
			t.Errorf("%d are left waiting", len(s.waiting))
		}
	})
}

// TestRoomIsNotLost has room come just when who waits for it gives up.
func TestRoomIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newEndpoints([]*url.URL{{Scheme: "http", Host: "a"}}, 1, slog.New(slog.DiscardHandler))
		for range 200 {
			l := s.mustTake(t, errand{})
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				if l, err := s.take(ctx, errand{}); err == nil {
					s.give(l, nil)
				}
			}()
			synctest.Wait()
			cancel()
			s.give(l, nil)
			synctest.Wait()
			if n := s.all[0].inFlight; n != 0 {
				t.Fatalf("%d attempts are in flight for ever", n)
			}
		}
	})
}

// TestEndpointsAtRandom takes and gives from many goroutines: no endpoint has ever
// more than its limit, nobody waits for ever, and nothing is left over.
func TestEndpointsAtRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		const limit, workers, rounds = 3, 20, 200
		s, _ := three(limit, 0)
		s.random, s.log = rand.IntN, slog.New(slog.DiscardHandler)
		var running [3]int
		var mu sync.Mutex
		count := func(e *endpoint, n int) {
			mu.Lock()
			defer mu.Unlock()
			i := slices.Index(s.all, e)
			if running[i] += n; running[i] > limit {
				t.Errorf("%d attempts at once at %s, want %d at most", running[i], e.name, limit)
			}
		}
		var all sync.WaitGroup
		for w := range workers {
			random := rand.New(rand.NewPCG(seed, uint64(w)))
			all.Go(func() {
				for range rounds {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(2000)+1)*time.Millisecond)
					l, err := s.take(ctx, errand{avoid: s.all[random.IntN(3)], tried: s.all[:random.IntN(3)]})
					if err == nil {
						count(l.endpoint, 1)
						time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond) //nolint:forbidigo // virtual
						count(l.endpoint, -1)
						s.give(l, []error{nil, nil, errRetry, errReject, errDeployment, context.Canceled}[random.IntN(6)])
					}
					cancel()
				}
			})
		}
		all.Wait()
		for _, e := range s.all {
			if e.inFlight != 0 || e.probing || len(s.waiting) > 0 {
				t.Errorf("in the end %s has %d attempts, is probed: %v, and %d wait", e.name, e.inFlight, e.probing, len(s.waiting))
			}
		}
	})
}
