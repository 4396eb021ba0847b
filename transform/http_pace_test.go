package transform

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/processor"
)

type answerer func(*http.Request) (*http.Response, error)

func (f answerer) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, err := HTTP(HTTPOptions{URLs: []string{"http://a", "http://b"}, Rate: 10, Timeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		client.transport = answerer(func(r *http.Request) (*http.Response, error) {
			if left := r.Header.Get("Seriatim-Deadline-Ms"); left != strconv.FormatInt(time.Now().Add(time.Second).UnixMilli(), 10) {
				t.Errorf("the deadline of an attempt that had to wait is %s, at %d: want all of its time", left, time.Now().UnixMilli())
			}
			return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody}, nil
		})
		in := processor.Input{Record: &kgo.Record{Topic: "in"}, Attempt: 1}
		began := time.Now()
		for range 31 {
			if _, err := processor.Call(t.Context(), client, in); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < 3*time.Second-time.Millisecond || took > 3*time.Second+time.Millisecond {
			t.Errorf("31 attempts took %v, want 3s with 10 a second", took)
		}

		// An attempt that gives up waiting is not one without outputs.
		cause := errors.New("revoked")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		if _, err := processor.Call(ctx, client, in); !errors.Is(err, cause) {
			t.Errorf("given up: got error %v, want the cause", err)
		}
		short, cancelShort := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancelShort()
		if _, err := processor.Call(short, client, in); err == nil {
			t.Error("no time to wait: got no error")
		}
	})
}

// TestCredentialsAreReadAgain looks at a file that changes.
func TestCredentialsAreReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one\r\n")
	c, err := credentialsOf(HTTPOptions{BearerTokenFile: file})
	if err != nil {
		t.Fatal(err)
	}
	now := c.read
	must := func(want string) {
		t.Helper()
		if got, err := c.authorization(now); err != nil || got != want {
			t.Errorf("got %q and error %v, want %q", got, err, want)
		}
	}
	must("Bearer one")
	write("two")
	now = now.Add(readAgain - 1)
	must("Bearer one")
	now = now.Add(1)
	must("Bearer two")
	write("")
	now = now.Add(readAgain)
	if got, err := c.authorization(now); err == nil {
		t.Errorf("got %q of an empty file, want an error", got)
	}
	write("three")
	must("Bearer three")
}
