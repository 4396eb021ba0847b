package transform_test

import (
	"strings"
	"testing"
	"time"

	"seriatim/processor"
	"seriatim/transform"
)

// A process that asks for more time is not given up, nor replaced; one that stops asking
// is given up.
func TestExecAsksForMoreTime(t *testing.T) {
	t.Parallel()
	p, log := pool(t, "", transform.ExecOptions{Processes: 1, InFlight: 2, Timeout: time.Second})
	if got, err := ask(t.Context(), p, 1, "extend 12"); err != nil || got != "extended" {
		t.Errorf("got %q and error %v", got, err)
	}
	began := time.Now()
	_, err := ask(t.Context(), p, 1, "extend 2 nothing")
	if f := execFailure(t, err); f.Kind != processor.Retry || !strings.Contains(err.Error(), "no answer within 1s (transform.exec.timeout)") {
		t.Errorf("got error %v", err)
	}
	if took := time.Since(began); took < 2*time.Second || took > 10*time.Second {
		t.Errorf("it was given up after %v, want two seconds", took)
	}
	if strings.Contains(log.String(), "are not answered") {
		t.Errorf("it was replaced:\n%s", log)
	}
}

// What a process says about records that it does not have moves nobody's time.
func TestExecForeignReports(t *testing.T) {
	p, log := pool(t, "", transform.ExecOptions{Processes: 1, Timeout: time.Second})
	if got, err := ask(t.Context(), p, 1, "foreign"); err != nil || got != "foreign" {
		t.Errorf("got %q and error %v", got, err)
	}
	began := time.Now()
	_, err := ask(t.Context(), p, 1, "hang")
	if f := execFailure(t, err); f.Kind != processor.Retry {
		t.Errorf("got error %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it was given up after %v, want two seconds", took)
	}
	await(t, "three reports to be counted", func() bool { return strings.Contains(log.String(), "ignored=3") })
}

// A report that breaks the contract fails its record, like an answer that does.
func TestExecBrokenReports(t *testing.T) {
	p, _ := pool(t, "", transform.ExecOptions{Processes: 1})
	for line, want := range map[string]string{
		`{"id":ID,"extend":0}`:                                 "less than 1",
		`{"id":ID,"extend":-5}`:                                "less than 1",
		`{"id":ID,"extend":"1s"}`:                              "a number of milliseconds",
		`{"id":ID,"extend":1,"note":"both"}`:                   "a number of milliseconds",
		`{"id":ID,"note":null}`:                                "a number of milliseconds",
		`{"id":ID,"note":"x","more":1}`:                        "a number of milliseconds",
		`{"id":ID,"note":"` + strings.Repeat("x", 1025) + `"}`: "more than 1024 bytes",
		`{"id":ID,"note":"x","outputs":[]}`:                    "it is not one JSON object",
	} {
		_, err := ask(t.Context(), p, 1, "say "+line)
		if f := execFailure(t, err); f.Kind != processor.Retry || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "breaks the contract") {
			t.Errorf("%.60s: got error %v, want one with %q", line, err, want)
		}
	}
	// These words in a value mean nothing.
	for _, value := range []string{`{"note":1}`, `"extend"`} {
		if got, err := ask(t.Context(), p, 1, value); err != nil || got != value {
			t.Errorf("got %q and error %v, want %q", got, err, value)
		}
	}
}
