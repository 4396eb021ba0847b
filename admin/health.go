package admin

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"seriatim/processor"
)

// livez answers 200 if every pipeline tells its status within a second. The
// brokers have no part in it: an outage of the cluster must not restart us.
func (s *Server) livez(w http.ResponseWriter, r *http.Request) {
	var hung []string
	for _, a := range ask(r.Context(), s.pipelines) {
		if a.err != nil {
			hung = append(hung, a.name)
		}
	}
	plainText(w)
	if len(hung) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "does not answer: %s\n", strings.Join(hung, ", "))
		return
	}
	fmt.Fprintln(w, "ok")
}

// readyz answers 200 if every pipeline has joined its group, is not ending, and
// has no problem.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	s.ready(w, r, r.URL.Query().Has("verbose"))
}

// readyzBrief is readyz without the details, for those who may not see them.
func (s *Server) readyzBrief(w http.ResponseWriter, r *http.Request) { s.ready(w, r, false) }

func (s *Server) ready(w http.ResponseWriter, r *http.Request, verbose bool) {
	var checks []check
	for _, a := range ask(r.Context(), s.pipelines) {
		checks = append(checks, checksOf(&a, time.Now())...)
	}
	failed := 0
	for _, c := range checks {
		if !c.passed {
			failed++
		}
	}
	plainText(w)
	if failed > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if verbose {
		for _, c := range checks {
			fmt.Fprintln(w, c)
		}
	}
	switch {
	case failed == 0:
		fmt.Fprintln(w, "ready")
	case verbose:
		fmt.Fprintf(w, "not ready: %d of %d checks failed\n", failed, len(checks))
	default:
		fmt.Fprintln(w, "not ready")
	}
}

// A check is one line of /readyz?verbose.
type check struct {
	passed bool
	text   string
}

// String returns the check on one line, whatever the text holds.
func (c check) String() string {
	mark := "[-] "
	if c.passed {
		mark = "[+] "
	}
	return mark + strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, c.text)
}

// checksOf says in words how a pipeline is: one line for its state, one for each
// problem.
func checksOf(a *answer, now time.Time) []check {
	if a.err != nil {
		return []check{{text: fmt.Sprintf("pipeline %s: does not answer within %v: it hangs; restart this process (SIGQUIT ends it and prints where it hangs)", a.name, answerTimeout)}}
	}
	checks := []check{stateCheck(a.name, &a.status)}
	for _, p := range problemsOf(&a.status) {
		text := fmt.Sprintf("pipeline %s: %s: %s", a.name, p.Scope, p.Reason)
		if !p.Since.IsZero() {
			text += fmt.Sprintf(" (since %s, %v)", p.Since.UTC().Format("2006-01-02 15:04:05 UTC"), now.Sub(p.Since).Round(time.Second))
		}
		checks = append(checks, check{text: text})
	}
	return checks
}

func stateCheck(name string, s *processor.Status) check {
	switch s.State {
	case "running":
		return check{true, fmt.Sprintf("pipeline %s: running, %s assigned", name, count(len(s.Partitions), "partition"))}
	case "starting":
		return check{false, fmt.Sprintf("pipeline %s: starting: waits for its first assignment from group %s", name, s.Group)}
	case "draining":
		return check{false, fmt.Sprintf("pipeline %s: draining: it finishes what it holds and leaves group %s", name, s.Group)}
	default:
		return check{false, fmt.Sprintf("pipeline %s: %s", name, s.State)}
	}
}

// problemsOf returns the problems, and the stopped partitions that none of them
// is about: each is a reason why records wait.
func problemsOf(s *processor.Status) []processor.Problem {
	problems := slices.Clip(s.Problems)
	named := make(map[string]bool)
	for _, p := range problems {
		named[p.Scope] = true
	}
	for _, p := range s.Partitions {
		if scope := fmt.Sprintf("%s/%d", p.Topic, p.Partition); p.Stopped != "" && !named[scope] {
			problems = append(problems, processor.Problem{Scope: scope, Reason: "stopped: " + p.Stopped})
		}
	}
	return problems
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func plainText(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
}
