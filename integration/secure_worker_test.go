package integration

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"seriatim/internal/testcerts"
)

// TestWorkerThatKnowsWhoAsks has a worker with HTTP/2 that wants a certificate and a
// token, and another token later: the pipeline waits, says why, and goes on once the
// file has it.
func TestWorkerThatKnowsWhoAsks(t *testing.T) {
	t.Parallel()
	const partitions = 2
	authority := testcerts.New(t)
	dir := t.TempDir()
	certFile, keyFile, tokenFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "token")
	testcerts.WritePair(t, authority.Issue(t, 2, "seriatim"), certFile, keyFile)
	writeToken := func(token string) {
		t.Helper()
		if err := os.WriteFile(tokenFile+".new", []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tokenFile+".new", tokenFile); err != nil {
			t.Fatal(err)
		}
	}

	var token atomic.Value
	token.Store("canary-one")
	worker := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value, err := io.ReadAll(r.Body)
		switch {
		case err != nil:
		case r.ProtoMajor != 2 || r.TLS.PeerCertificates[0].Subject.CommonName != "seriatim" || r.Header.Get("X-Tenant") != "canary-tenant":
			w.WriteHeader(http.StatusBadRequest)
		case r.Header.Get("Authorization") != "Bearer "+token.Load().(string):
			w.WriteHeader(http.StatusUnauthorized)
		default:
			_, _ = w.Write(value) // the attempt may have been given up
		}
	}))
	worker.EnableHTTP2 = true
	worker.TLS = &tls.Config{
		Certificates: []tls.Certificate{authority.Issue(t, 3, "127.0.0.1")},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: authority.Pool(),
	}
	worker.Config.ErrorLog = log.New(io.Discard, "", 0)
	worker.StartTLS()
	t.Cleanup(worker.Close)

	in := newInput(t, partitions)
	out := newTopic(t, ".out", partitions)
	name := unique(t, "")
	writeToken("canary-one")
	i := start(t, process(pipeline(name, in.topic, out).with(settings{"transform": settings{"http": settings{
		"urls": []string{worker.URL}, "http2": true, "bearer_token_file": tokenFile, "headers": settings{"X-Tenant": "canary-tenant"},
		"tls": settings{"ca_file": authority.File(t), "cert_file": certFile, "key_file": keyFile},
	}}})))
	l := in.start(t, 100)
	i.awaitEmitted(t, name, 100)

	token.Store("canary-two")
	t.Log(i.awaitUnready(t, name, "401 Unauthorized"))
	writeToken("canary-two")
	i.awaitReady(t)
	awaitOutput(t, out, records(within(t, patience), t, out)+100)
	l.end()
	awaitCaughtUp(t, patience, group(name), in.topic)
	_, status := i.get(t, "/api/v1/pipelines")
	i.drain(t)
	compareExact(t, in.topic, out)

	printed := printConfig(t, i)
	for what, text := range map[string]string{"the log": i.logText(), "the status": status, "config print": printed} {
		if strings.Contains(text, "canary") {
			t.Errorf("%s tells a secret:\n%s", what, text)
		}
	}
	if !strings.Contains(printed, "X-Tenant: <redacted>") {
		t.Errorf("config print does not show that there is a header:\n%s", printed)
	}
}

// printConfig returns what config print makes of an instance's configuration.
func printConfig(t *testing.T, i *instance) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	text, err := exec.CommandContext(ctx, bed.binary, "config", "print", "-c", filepath.Join(bed.dir, i.name+".yaml")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return string(text)
}
