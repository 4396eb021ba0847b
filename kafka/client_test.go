package kafka_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"seriatim/internal/testcerts"
	"seriatim/kafka"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// broker starts a broker for the test and returns its address.
func broker(t *testing.T, opts ...kfake.Opt) string {
	t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster.ListenAddrs()[0]
}

// connect makes a client of the options that is closed after the test.
func connect(t *testing.T, o kafka.Options) *kgo.Client {
	t.Helper()
	opts, err := o.Client()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// ping asks the broker something that it answers only after login.
func ping(t *testing.T, client *kgo.Client) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return client.Ping(ctx)
}

func TestTLS(t *testing.T) {
	ca, other := testcerts.New(t), testcerts.New(t)
	loopback, named := ca.Issue(t, 2, "127.0.0.1"), ca.Issue(t, 3, "broker.test")
	tests := map[string]struct {
		server *tls.Config
		client kafka.TLS
		want   string // part of the error; empty if it works
	}{
		"a broker that the authority vouches for": {
			server: &tls.Config{Certificates: []tls.Certificate{loopback}},
			client: kafka.TLS{CAFile: ca.File(t)},
		},
		"TLS 1.2": {
			server: &tls.Config{Certificates: []tls.Certificate{loopback}, MaxVersion: tls.VersionTLS12},
			client: kafka.TLS{CAFile: ca.File(t)},
		},
		"nothing older than TLS 1.2": {
			server: &tls.Config{Certificates: []tls.Certificate{loopback}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
			client: kafka.TLS{CAFile: ca.File(t)},
			want:   "protocol version",
		},
		"a broker of another authority": {
			server: &tls.Config{Certificates: []tls.Certificate{other.Issue(t, 4, "127.0.0.1")}},
			client: kafka.TLS{CAFile: ca.File(t)},
			want:   "certificate signed by unknown authority",
		},
		"the system's authorities do not know the broker": {
			server: &tls.Config{Certificates: []tls.Certificate{loopback}},
			want:   "certificate signed by unknown authority",
		},
		"a broker with another name": {
			server: &tls.Config{Certificates: []tls.Certificate{named}},
			client: kafka.TLS{CAFile: ca.File(t)},
			want:   "cannot validate certificate for 127.0.0.1",
		},
		"the name that the settings expect": {
			server: &tls.Config{Certificates: []tls.Certificate{named}},
			client: kafka.TLS{CAFile: ca.File(t), ServerName: "broker.test"},
		},
		"not the name that the settings expect": {
			server: &tls.Config{Certificates: []tls.Certificate{loopback}},
			client: kafka.TLS{CAFile: ca.File(t), ServerName: "broker.test"},
			want:   "wanted to match broker.test",
		},
		"a broker that wants a certificate of the client": {
			server: &tls.Config{
				Certificates: []tls.Certificate{loopback}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
			},
			client: kafka.TLS{CAFile: ca.File(t)},
			want:   "certificate required",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.client.Enabled = true
			err := ping(t, connect(t, kafka.Options{
				Brokers: []string{broker(t, kfake.TLS(test.server))},
				TLS:     test.client,
			}))
			check(t, err, test.want)
		})
	}
}

// check compares an error with a part of its text; empty means none.
func check(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("got %v, want no error", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("got %v, want an error with %q", err, want)
	}
}

func TestClientCertificateIsReadForEachConnection(t *testing.T) {
	ca := testcerts.New(t)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key")
	testcerts.WritePair(t, ca.Issue(t, 10, "client"), certFile, keyFile)

	var mu sync.Mutex
	var seen int64 // the serial number of the last certificate
	address := broker(t, kfake.TLS(&tls.Config{
		Certificates: []tls.Certificate{ca.Issue(t, 2, "127.0.0.1")},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    ca.Pool(),
		VerifyPeerCertificate: func(_ [][]byte, chains [][]*x509.Certificate) error {
			mu.Lock()
			defer mu.Unlock()
			seen = chains[0][0].SerialNumber.Int64()
			return nil
		},
	}))
	opts, err := kafka.Options{
		Brokers: []string{address},
		TLS:     kafka.TLS{Enabled: true, CAFile: ca.File(t), CertFile: certFile, KeyFile: keyFile},
	}.Client()
	if err != nil {
		t.Fatal(err)
	}
	dial := func() (serial int64, err error) {
		client, err := kgo.NewClient(opts...)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		err = ping(t, client)
		mu.Lock()
		defer mu.Unlock()
		return seen, err
	}

	if serial, err := dial(); err != nil || serial != 10 {
		t.Fatalf("the first certificate: got serial %d and %v, want 10", serial, err)
	}
	testcerts.WritePair(t, ca.Issue(t, 11, "client"), certFile, keyFile)
	if serial, err := dial(); err != nil || serial != 11 {
		t.Errorf("the renewed certificate: got serial %d and %v, want 11", serial, err)
	}
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	_, err = dial()
	check(t, err, "tls.cert_file "+certFile)
}

func TestLogin(t *testing.T) {
	address := broker(t, kfake.EnableSASL(),
		kfake.Superuser("PLAIN", "ann", "one"),
		kfake.Superuser("SCRAM-SHA-256", "bob", "two"),
		kfake.Superuser("SCRAM-SHA-512", "eve", "three"))
	tests := map[string]struct {
		sasl   kafka.SASL
		refuse bool
	}{
		"plain":                 {sasl: kafka.SASL{Mechanism: "plain", Username: "ann", Password: "one"}},
		"plain, wrong password": {sasl: kafka.SASL{Mechanism: "plain", Username: "ann", Password: "two"}, refuse: true},
		"scram-sha-256":         {sasl: kafka.SASL{Mechanism: "scram-sha-256", Username: "bob", Password: "two"}},
		"scram-sha-256, wrong":  {sasl: kafka.SASL{Mechanism: "scram-sha-256", Username: "bob", Password: "one"}, refuse: true},
		"scram-sha-512":         {sasl: kafka.SASL{Mechanism: "scram-sha-512", Username: "eve", Password: "three"}},
		"scram-sha-512, wrong":  {sasl: kafka.SASL{Mechanism: "scram-sha-512", Username: "eve", Password: "one"}, refuse: true},
		"a user of another way": {sasl: kafka.SASL{Mechanism: "scram-sha-512", Username: "bob", Password: "two"}, refuse: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := ping(t, connect(t, kafka.Options{Brokers: []string{address}, SASL: test.sasl}))
			if refused := err != nil; refused != test.refuse {
				t.Errorf("got %v, want it refused: %v", err, test.refuse)
			}
		})
	}
}

// TestRefusedLoginIsReadable has the broker answer as Apache Kafka does; kfake
// alone would only close the connection.
func TestRefusedLoginIsReadable(t *testing.T) {
	const why = "Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-512"
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "eve", "three"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cluster.ControlKey(kmsg.SASLAuthenticate.Int16(), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		answer := request.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		answer.ErrorCode, answer.ErrorMessage = kerr.SaslAuthenticationFailed.Code, kmsg.StringPtr(why)
		return answer, nil, true
	})
	err = ping(t, connect(t, kafka.Options{
		Brokers: cluster.ListenAddrs(),
		SASL:    kafka.SASL{Mechanism: "scram-sha-512", Username: "eve", Password: "secret"},
	}))
	if !errors.Is(err, kerr.SaslAuthenticationFailed) || !strings.Contains(err.Error(), why) {
		t.Errorf("got %v, want %v with the broker's words", err, kerr.SaslAuthenticationFailed)
	}
	if err != nil && strings.Contains(err.Error(), "secret") {
		t.Errorf("the password is in the error: %v", err)
	}
}

func TestLoginOverTLS(t *testing.T) {
	ca := testcerts.New(t)
	address := broker(t,
		kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "bob", "two"),
		kfake.TLS(&tls.Config{Certificates: []tls.Certificate{ca.Issue(t, 2, "127.0.0.1")}}))
	err := ping(t, connect(t, kafka.Options{
		Brokers: []string{address},
		TLS:     kafka.TLS{Enabled: true, CAFile: ca.File(t)},
		SASL:    kafka.SASL{Mechanism: "scram-sha-512", Username: "bob", Password: "two"},
	}))
	check(t, err, "")
}

func TestOptionsAreChecked(t *testing.T) {
	ca := testcerts.New(t)
	dir := t.TempDir()
	certFile, keyFile, otherKey, text := filepath.Join(dir, "cert"), filepath.Join(dir, "key"), filepath.Join(dir, "other"), filepath.Join(dir, "text")
	testcerts.WritePair(t, ca.Issue(t, 2, "client"), filepath.Join(dir, "unused"), otherKey)
	testcerts.WritePair(t, ca.Issue(t, 3, "client"), certFile, keyFile)
	if err := os.WriteFile(text, []byte("not a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing.pem")

	tests := map[string]struct {
		tls  kafka.TLS
		sasl kafka.SASL
		want string
	}{
		"no authority":          {tls: kafka.TLS{CAFile: missing}, want: "tls.ca_file: open " + missing},
		"no PEM":                {tls: kafka.TLS{CAFile: text}, want: "tls.ca_file: " + text + " holds no certificate"},
		"no certificate":        {tls: kafka.TLS{CertFile: missing, KeyFile: keyFile}, want: "tls.cert_file " + missing},
		"no key":                {tls: kafka.TLS{CertFile: certFile, KeyFile: missing}, want: "tls.key_file " + missing},
		"the key of another":    {tls: kafka.TLS{CertFile: certFile, KeyFile: otherKey}, want: "private key does not match"},
		"a key alone":           {tls: kafka.TLS{KeyFile: keyFile}, want: "tls.cert_file: is required with tls.key_file"},
		"a certificate alone":   {tls: kafka.TLS{CertFile: certFile}, want: "tls.key_file: is required with tls.cert_file"},
		"an unknown mechanism":  {sasl: kafka.SASL{Mechanism: "kerberos", Username: "ann"}, want: `sasl.mechanism: "kerberos" is none of`},
		"no user":               {sasl: kafka.SASL{Mechanism: "plain", Password: "one"}, want: "sasl.username: is required with plain"},
		"no password":           {sasl: kafka.SASL{Mechanism: "plain", Username: "ann"}, want: "sasl.password: is required with plain"},
		"a login without one":   {sasl: kafka.SASL{Mechanism: "none"}},
		"everything in its way": {tls: kafka.TLS{CAFile: ca.File(t), CertFile: certFile, KeyFile: keyFile}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.tls.Enabled = true
			_, err := kafka.Options{Brokers: []string{"127.0.0.1:1"}, TLS: test.tls, SASL: test.sasl}.Client()
			check(t, err, test.want)
		})
	}
	t.Run("no brokers", func(t *testing.T) {
		_, err := kafka.Options{}.Client()
		check(t, err, "brokers: at least one is required")
	})
	t.Run("TLS that is off reads no files", func(t *testing.T) {
		_, err := kafka.Options{Brokers: []string{"127.0.0.1:1"}, TLS: kafka.TLS{CAFile: missing}}.Client()
		check(t, err, "")
	})
}

func TestMetricsAreSummedOverClients(t *testing.T) {
	address := broker(t)
	registry := prometheus.NewRegistry()
	opts, err := kafka.Options{Brokers: []string{address}, Metrics: registry}.Client()
	if err != nil {
		t.Fatal(err)
	}
	var before float64
	for i := range 3 {
		client, err := kgo.NewClient(opts...)
		if err != nil {
			t.Fatal(err)
		}
		err = ping(t, client)
		client.Close() // what it counted stays
		if err != nil {
			t.Fatal(err)
		}
		total := sum(t, registry, "seriatim_kafka_connects_total")
		if total <= before {
			t.Errorf("after client %d: %v connections were counted, want more than the %v before", i, total, before)
		}
		before = total
	}
}

// sum adds up what a counter says under all labels, and complains of metrics that
// would tell of one client alone, or that docs/http.md says nothing about.
func sum(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	doc, err := os.ReadFile("../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var total float64
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "seriatim_kafka_") || strings.Contains(family.GetName(), "buffered") {
			t.Errorf("got the metric %s", family.GetName())
		}
		if !strings.Contains(string(doc), "`"+strings.TrimPrefix(family.GetName(), "seriatim_")) {
			t.Errorf("docs/http.md does not tell about %s", family.GetName())
		}
		if family.GetName() == name {
			for _, m := range family.GetMetric() {
				total += m.GetCounter().GetValue()
			}
		}
	}
	return total
}

func TestClientsLogWarningsUnlessDebugging(t *testing.T) {
	tests := map[slog.Level]kgo.LogLevel{
		slog.LevelDebug: kgo.LogLevelDebug,
		slog.LevelInfo:  kgo.LogLevelWarn,
		slog.LevelWarn:  kgo.LogLevelWarn,
		slog.LevelError: kgo.LogLevelError,
	}
	for level, want := range tests {
		t.Run(level.String(), func(t *testing.T) {
			var out bytes.Buffer
			client := connect(t, kafka.Options{
				Brokers: []string{"127.0.0.1:1"},
				Logger:  slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level})),
			})
			logger := client.OptValue(kgo.WithLogger).(kgo.Logger)
			if got := logger.Level(); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
			client.Close()
			logger.Log(kgo.LogLevelError, "it broke", "broker", 7)
			if text := out.String(); !strings.Contains(text, `level=ERROR msg="it broke" broker=7`) {
				t.Errorf("got %q", text)
			}
		})
	}
}

func TestClientIsNamed(t *testing.T) {
	client := connect(t, kafka.Options{Brokers: []string{"127.0.0.1:1"}, ClientID: "orders"})
	if got := client.OptValue(kgo.ClientID); got != "orders" {
		t.Errorf("got %v, want orders", got)
	}
}
