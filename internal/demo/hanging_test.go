package demo

import (
	"bytes"
	"regexp"
	"testing"
	"time"
)

// TestHanging shows the scene with workers in Node.
func TestHanging(t *testing.T) {
	t.Parallel()
	var out, log bytes.Buffer
	wrong, err := Hanging(t.Context(), startBroker(t), Options{Screen: NewScreen(&out, &log), Length: 6 * time.Second})
	if err != nil || wrong {
		t.Errorf("wrong is %v (%v), want neither", wrong, err)
	}
	verdict := `(?m)^[1-9]\d* records twice, 0 out of order, 0 lost; latency p99 [\d.]+ s with hedging, [\d.]+ s without, for \d+ % more calls$`
	if !regexp.MustCompile(verdict).Match(out.Bytes()) {
		t.Errorf("no line matches %s:\n%s", verdict, &out)
	}
	if log.Len() > 0 {
		t.Errorf("it logs:\n%s", &log)
	}
}

func TestHangingTellsWhatIsOutOfOrder(t *testing.T) {
	t.Parallel()
	broker := startBroker(t)
	r := record(2, 1000) // all that come after it are late
	r.Topic, r.Partition = "hanging.without", 2
	plant(t, broker, r)
	var out, log bytes.Buffer
	wrong, err := Hanging(t.Context(), broker, Options{Screen: NewScreen(&out, &log), Length: 2 * time.Second})
	if err != nil || !wrong || !regexp.MustCompile(`(?m)^\d+ records twice, [1-9]\d* out of order`).Match(out.Bytes()) {
		t.Errorf("wrong is %v (%v), want true, and the verdict to tell it:\n%s", wrong, err, &out)
	}
}

func TestHangingNeedsNode(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	var out, log bytes.Buffer
	wrong, err := Hanging(t.Context(), startBroker(t), Options{Screen: NewScreen(&out, &log), Length: time.Hour})
	if err != nil || wrong || !regexp.MustCompile(`^Two workers, one of which hangs: left out, because it needs Node: .*not found`).Match(out.Bytes()) {
		t.Errorf("wrong is %v (%v), want neither, and to be told why there is nothing to see:\n%s", wrong, err, &out)
	}
}
