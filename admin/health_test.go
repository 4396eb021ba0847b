package admin

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"seriatim/processor"
)

func TestReadiness(t *testing.T) {
	healthy := says(orders())
	with := func(change func(*processor.Status)) Pipeline {
		s := orders()
		s.Pipeline = "billing"
		change(&s)
		return says(s)
	}
	tests := map[string]struct {
		pipelines []Pipeline
		code      int
		verbose   string
	}{
		"all well": {
			[]Pipeline{healthy},
			http.StatusOK,
			"[+] pipeline orders: running, 2 partitions assigned\nready\n",
		},
		"a spare instance has nothing to do": {
			[]Pipeline{with(func(s *processor.Status) { s.Partitions = nil })},
			http.StatusOK,
			"[+] pipeline billing: running, 0 partitions assigned\nready\n",
		},
		"not joined yet": {
			[]Pipeline{healthy, with(func(s *processor.Status) { s.State, s.Partitions = "starting", nil })},
			http.StatusServiceUnavailable,
			"[+] pipeline orders: running, 2 partitions assigned\n" +
				"[-] pipeline billing: starting: waits for its first assignment from group seriatim.orders\n" +
				"not ready: 1 of 2 checks failed\n",
		},
		"draining": {
			[]Pipeline{with(func(s *processor.Status) { s.State = "draining" })},
			http.StatusServiceUnavailable,
			"[-] pipeline billing: draining: it finishes what it holds and leaves group seriatim.orders\n" +
				"not ready: 1 of 1 checks failed\n",
		},
		"ended": {
			[]Pipeline{with(func(s *processor.Status) { s.State = "stopped" })},
			http.StatusServiceUnavailable,
			"[-] pipeline billing: stopped\nnot ready: 1 of 1 checks failed\n",
		},
		"problems": {
			[]Pipeline{with(func(s *processor.Status) {
				s.Problems = []processor.Problem{
					{Scope: "output topic bills", Reason: "does not exist", Since: time.Date(1999, 12, 31, 23, 41, 0, 0, time.UTC)},
					{Scope: "broker 1", Reason: "connection refused"},
				}
			})},
			http.StatusServiceUnavailable,
			"[+] pipeline billing: running, 2 partitions assigned\n" +
				"[-] pipeline billing: output topic bills: does not exist (since 1999-12-31 23:41:00 UTC, 19m0s)\n" +
				"[-] pipeline billing: broker 1: connection refused\n" +
				"not ready: 2 of 3 checks failed\n",
		},
		"a stopped partition is named once": {
			[]Pipeline{with(func(s *processor.Status) {
				s.Problems = []processor.Problem{{Scope: "orders.in/0", Reason: "stopped at offset 41: bad value"}}
				s.Partitions[0].Stopped = "bad value"
				s.Partitions[1].Stopped = "bad key"
			})},
			http.StatusServiceUnavailable,
			"[+] pipeline billing: running, 2 partitions assigned\n" +
				"[-] pipeline billing: orders.in/0: stopped at offset 41: bad value\n" +
				"[-] pipeline billing: orders.in/1: stopped: bad key\n" +
				"not ready: 2 of 3 checks failed\n",
		},
		"a reason cannot forge a line or drive a terminal": {
			[]Pipeline{with(func(s *processor.Status) {
				s.Problems = []processor.Problem{{Scope: "orders.in/0", Reason: "500\n[+] all well\x1b[2J"}}
			})},
			http.StatusServiceUnavailable,
			"[+] pipeline billing: running, 2 partitions assigned\n" +
				"[-] pipeline billing: orders.in/0: 500 [+] all well [2J\n" +
				"not ready: 1 of 2 checks failed\n",
		},
		"hanging": {
			[]Pipeline{stuck()},
			http.StatusServiceUnavailable,
			"[-] pipeline stuck: does not answer within 1s: it hangs; restart this process (SIGQUIT ends it and prints where it hangs)\n" +
				"not ready: 1 of 1 checks failed\n",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // its clock starts at midnight, 2000-01-01 UTC
				w := get(t, "/readyz?verbose", test.pipelines...)
				if w.Code != test.code || w.Body.String() != test.verbose {
					t.Errorf("/readyz?verbose: got %d\n%s\nwant %d\n%s", w.Code, w.Body, test.code, test.verbose)
				}
				brief := "ready\n"
				if test.code != http.StatusOK {
					brief = "not ready\n"
				}
				if w := get(t, "/readyz", test.pipelines...); w.Code != test.code || w.Body.String() != brief {
					t.Errorf("/readyz: got %d %q, want %d %q", w.Code, w.Body, test.code, brief)
				}
			})
		})
	}
}

func TestLivenessIsAboutTheLoopsAlone(t *testing.T) {
	troubled := orders()
	troubled.State = "starting"
	troubled.Problems = []processor.Problem{{Scope: "cluster", Reason: "no broker can be reached"}}
	tests := map[string]struct {
		pipelines []Pipeline
		code      int
		body      string
	}{
		"no broker":           {[]Pipeline{says(troubled)}, http.StatusOK, "ok\n"},
		"one of several hang": {[]Pipeline{says(orders()), stuck()}, http.StatusServiceUnavailable, "does not answer: stuck\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := get(t, "/livez", test.pipelines...)
				if w.Code != test.code || w.Body.String() != test.body {
					t.Errorf("got %d %q, want %d %q", w.Code, w.Body, test.code, test.body)
				}
			})
		})
	}
}
