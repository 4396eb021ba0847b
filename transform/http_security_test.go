package transform_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"seriatim/internal/testcerts"
	"seriatim/processor"
	"seriatim/transform"
)

// secure runs a worker with TLS that answers who its client is. Without mutual it
// asks for no certificate.
func secure(t *testing.T, pair tls.Certificate, mutual *testcerts.Authority) string {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := "anybody"
		if len(r.TLS.PeerCertificates) > 0 {
			who = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		_, _ = io.WriteString(w, r.Proto+" "+who)
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	if mutual != nil {
		server.TLS.ClientAuth, server.TLS.ClientCAs = tls.RequireAndVerifyClientCert, mutual.Pool()
	}
	server.Config.ErrorLog = log.New(t.Output(), "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

func TestHTTPTLS(t *testing.T) {
	ours, theirs := testcerts.New(t), testcerts.New(t)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	testcerts.WritePair(t, ours.Issue(t, 2, "seriatim"), certFile, keyFile)
	strangerCert, strangerKey := filepath.Join(dir, "stranger.pem"), filepath.Join(dir, "stranger.key")
	testcerts.WritePair(t, theirs.Issue(t, 2, "stranger"), strangerCert, strangerKey)
	plain := secure(t, ours.Issue(t, 3, "127.0.0.1"), nil)
	mutual := secure(t, ours.Issue(t, 4, "127.0.0.1"), ours)
	named := secure(t, ours.Issue(t, 5, "worker.test"), nil)
	ca := ours.File(t)

	for name, test := range map[string]struct {
		url  string
		tls  transform.TLS
		want string // value
		err  string // of a deployment
	}{
		"own authority":            {plain, transform.TLS{CAFile: ca}, "HTTP/1.1 anybody", ""},
		"the system's authorities": {plain, transform.TLS{}, "", "certificate signed by unknown authority"},
		"another authority":        {plain, transform.TLS{CAFile: theirs.File(t)}, "", "certificate signed by unknown authority"},
		"another name":             {named, transform.TLS{CAFile: ca}, "", "127.0.0.1"},
		"another name, expected":   {named, transform.TLS{CAFile: ca, ServerName: "worker.test"}, "HTTP/1.1 anybody", ""},
		"client certificate":       {mutual, transform.TLS{CAFile: ca, CertFile: certFile, KeyFile: keyFile}, "HTTP/1.1 seriatim", ""},
		"no client certificate":    {mutual, transform.TLS{CAFile: ca}, "", "certificate required; check transform.http.tls"},
		"a stranger's certificate": {mutual, transform.TLS{CAFile: ca, CertFile: strangerCert, KeyFile: strangerKey}, "", "check transform.http.tls"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := processor.Call(t.Context(), connect(t, test.url, transform.HTTPOptions{TLS: test.tls}), input())
			switch {
			case test.err == "" && (err != nil || string(out[0].Value) != test.want):
				t.Errorf("got %q and error %v, want %q", show(out), err, test.want)
			case test.err != "":
				if f := failure(t, err); f.Kind != processor.Deployment || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got %v: %v, want deployment: … %s", f.Kind, err, test.err)
				}
			}
		})
	}
}

// TestHTTPTLSFilesAreReadAgain renews both authorities.
func TestHTTPTLSFilesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	files := transform.TLS{CAFile: filepath.Join(dir, "ca.pem"), CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	renew := func() (url string) {
		authority := testcerts.New(t)
		content, err := os.ReadFile(authority.File(t))
		if err != nil {
			t.Fatal(err)
		}
		write(t, files.CAFile, string(content))
		testcerts.WritePair(t, authority.Issue(t, 2, "seriatim"), files.CertFile, files.KeyFile)
		return secure(t, authority.Issue(t, 3, "127.0.0.1"), authority)
	}
	// One worker is of the old authority, one of the new; the client is made once.
	before := renew()
	content := read3(t, files)
	after := renew()
	client := connectAll(t, transform.HTTPOptions{URLs: []string{before}, TLS: files})
	if _, err := processor.Call(t.Context(), client, input()); err == nil {
		t.Fatal("the old worker was believed with the new authority")
	}
	for i, name := range []string{files.CAFile, files.CertFile, files.KeyFile} {
		write(t, name, content[i])
	}
	if out, err := processor.Call(t.Context(), client, input()); err != nil || string(out[0].Value) != "HTTP/1.1 seriatim" {
		t.Errorf("got %q and error %v once the files are the old ones, want the old worker's answer", show(out), err)
	}
	if _, err := processor.Call(t.Context(), connect(t, after, transform.HTTPOptions{TLS: files}), input()); err == nil {
		t.Error("the new worker was believed with the old authority")
	}
}

func read3(t *testing.T, files transform.TLS) (content [3]string) {
	t.Helper()
	for i, name := range []string{files.CAFile, files.CertFile, files.KeyFile} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		content[i] = string(text)
	}
	return content
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestHTTPCredentials(t *testing.T) {
	var got http.Header
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		if r.URL.Path == "/" {
			http.Redirect(w, r, "/transform", http.StatusTemporaryRedirect)
		}
	})
	file := filepath.Join(t.TempDir(), "secret")
	write(t, file, "secret: of é\n")
	for name, test := range map[string]struct {
		opts transform.HTTPOptions
		want string
	}{
		"none":   {transform.HTTPOptions{}, ""},
		"bearer": {transform.HTTPOptions{BearerTokenFile: file}, "Bearer secret: of é"},
		"basic":  {transform.HTTPOptions{BasicAuth: transform.BasicAuth{Username: "ann", PasswordFile: file}}, "Basic " + base64.StdEncoding.EncodeToString([]byte("ann:secret: of é"))},
		"static": {transform.HTTPOptions{Headers: map[string]string{"authorization": "Token x"}}, "Token x"},
	} {
		if _, err := processor.Call(t.Context(), connect(t, server.URL, test.opts), input()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if value := strings.Join(got["Authorization"], "|"); value != test.want {
			t.Errorf("%s: got Authorization %q, want %q", name, value, test.want)
		}
	}

	// What is wrong with the file later pauses the pipeline, and is not shown.
	client := connect(t, server.URL, transform.HTTPOptions{BearerTokenFile: file})
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		_, err := processor.Call(t.Context(), client, input())
		if err != nil {
			f, ok := err.(*processor.Failure) //nolint:errorlint // what it is
			if !ok || f.Kind != processor.Deployment || !f.Unsent || !strings.HasPrefix(err.Error(), "transform.http.bearer_token_file: open "+file) {
				t.Errorf("got error %v, want a deployment that names setting and file", err)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody missed the file for 10 s")
		}
		pause(t, 50*time.Millisecond)
	}
}

// pause waits between two looks.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

func TestHTTPHeaders(t *testing.T) {
	var got http.Header
	server := serve(t, func(_ http.ResponseWriter, r *http.Request) { got = r.Header })
	client := connect(t, server.URL, transform.HTTPOptions{Headers: map[string]string{
		"x-tenant": " a b ", "X-Empty": "", "content-type": "application/json", "User-Agent": "orders",
	}})
	if _, err := processor.Call(t.Context(), client, input()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"X-Tenant": "a b", "X-Empty": "", "Content-Type": "application/json", "User-Agent": "orders"} {
		if values := got[name]; len(values) != 1 || values[0] != want {
			t.Errorf("%s: got %q, want %q", name, values, want)
		}
	}
}

// proxied asks for everything at a proxy, which the environment names for as long
// as the process lives: net/http reads it once.
var proxied = sync.OnceValue(func() *httptest.Server {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect {
			http.Error(w, "not there", http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, "by proxy: "+r.URL.String())
	}))
	_ = os.Setenv("HTTP_PROXY", proxy.URL)
	_ = os.Setenv("HTTPS_PROXY", proxy.URL)
	return proxy
})

func TestHTTPProxyFromEnvironment(t *testing.T) {
	proxied()
	// Reserved for documentation: nobody answers there.
	opts := transform.HTTPOptions{ProxyFromEnvironment: true, Timeout: 10 * time.Second}
	out, err := processor.Call(t.Context(), connect(t, "http://192.0.2.1:9/transform", opts), input())
	if err != nil || string(out[0].Value) != "by proxy: http://192.0.2.1:9/transform" {
		t.Errorf("got %q and error %v, want the proxy's answer", show(out), err)
	}
	_, err = processor.Call(t.Context(), connect(t, "https://192.0.2.1:9/transform", opts), input())
	if f := failure(t, err); f.Kind != processor.Deployment || !f.Unsent || !strings.Contains(err.Error(), "answered 403 Forbidden") {
		t.Errorf("got %v: %v, want deployment and what the proxy answered", f.Kind, err)
	}
	opts.ProxyFromEnvironment, opts.Timeout = false, 100*time.Millisecond
	if _, err := processor.Call(t.Context(), connect(t, "http://192.0.2.1:9/transform", opts), input()); err == nil {
		t.Error("the proxy was asked, although nobody allowed it")
	}
}

func TestHTTPAllowLinkLocal(t *testing.T) {
	client := connect(t, "http://169.254.169.254/", transform.HTTPOptions{AllowLinkLocal: true, Timeout: 100 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := processor.Call(ctx, client, input()); err != nil && strings.Contains(err.Error(), "is a link-local") {
		t.Errorf("got error %v, want none that refuses the address", err)
	}
}

func TestHTTPSecurityOptions(t *testing.T) {
	dir := t.TempDir()
	secret, empty, lines := filepath.Join(dir, "secret"), filepath.Join(dir, "empty"), filepath.Join(dir, "lines")
	write(t, secret, "canary")
	write(t, empty, "\n")
	write(t, lines, "canary\ncanary\n")
	headers := func(name, value string) transform.HTTPOptions {
		return transform.HTTPOptions{Headers: map[string]string{name: value}}
	}
	for name, test := range map[string]struct {
		opts transform.HTTPOptions
		want string
	}{
		"no token":            {transform.HTTPOptions{BearerTokenFile: filepath.Join(dir, "none")}, "bearer_token_file: open "},
		"empty token":         {transform.HTTPOptions{BearerTokenFile: empty}, "bearer_token_file: " + empty + " is empty"},
		"two lines":           {transform.HTTPOptions{BearerTokenFile: lines}, "bearer_token_file: " + lines + " has a control character or more than one line"},
		"no user":             {transform.HTTPOptions{BasicAuth: transform.BasicAuth{PasswordFile: secret}}, "basic_auth: needs username and password_file"},
		"no password":         {transform.HTTPOptions{BasicAuth: transform.BasicAuth{Username: "ann"}}, "basic_auth: needs username and password_file"},
		"both":                {transform.HTTPOptions{BearerTokenFile: secret, BasicAuth: transform.BasicAuth{Username: "ann", PasswordFile: secret}}, "bearer_token_file: excludes basic_auth"},
		"and a header":        {transform.HTTPOptions{BearerTokenFile: secret, Headers: map[string]string{"Authorization": "canary"}}, "headers: Authorization excludes"},
		"no authority":        {transform.HTTPOptions{TLS: transform.TLS{CAFile: secret}}, "tls.ca_file: " + secret + " holds no certificate"},
		"a certificate alone": {transform.HTTPOptions{TLS: transform.TLS{CertFile: secret}}, "tls.key_file: is required"},
		"a name with a space": {headers("X Y", "canary"), `headers: "X Y" is no name`},
		"no name":             {headers("", "canary"), `headers: "" is no name`},
		"a line break":        {headers("X", "canary\r\nEvil: 1"), "headers: the value of X has a control character"},
		"of the contract":     {headers("seriatim-offset", "canary"), "headers: Seriatim-Offset is set by the program alone"},
		"of the connection":   {headers("content-length", "canary"), "headers: Content-Length is set by the program alone"},
		"twice":               {transform.HTTPOptions{Headers: map[string]string{"x-a": "canary", "X-A": "canary"}}, "headers: X-A is given twice"},
		"HTTP/2 by proxy":     {transform.HTTPOptions{HTTP2: true, ProxyFromEnvironment: true}, "http2: excludes proxy_from_environment"},
		"rate":                {transform.HTTPOptions{Rate: -1}, "rate: -1 is no number"},
	} {
		test.opts.URLs = []string{"http://127.0.0.1:1"}
		_, err := transform.HTTP(test.opts)
		if err == nil || !strings.HasPrefix(err.Error(), test.want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: got error %v, want %s …, and no secret", name, err, test.want)
		}
	}
}
