// Package kafka turns connection settings into client options, and offers an
// embedded stand-in for a broker.
package kafka

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"github.com/twmb/franz-go/plugin/kprom"
	"github.com/twmb/franz-go/plugin/kslog"

	"seriatim/internal/certs"
)

// Options say how a cluster is reached.
type Options struct {
	Brokers  []string // host:port; at least one
	ClientID string   // empty leaves the library's own
	TLS      TLS
	SASL     SASL

	// Logger receives what the clients log: warnings and errors, or everything
	// once it is enabled for debug. Nil discards.
	Logger *slog.Logger
	// Metrics receives the clients' internals as seriatim_kafka_*, summed over
	// all clients made from the options. Nil measures nothing.
	Metrics prometheus.Registerer
}

// TLS secures connections. At least TLS 1.2 is spoken.
type TLS struct {
	Enabled bool
	// CAFile holds the PEM certificates that brokers are checked against; empty
	// means those of the system.
	CAFile string
	// CertFile and KeyFile are the client's own certificate in PEM; both or
	// neither. They are read again for every connection, so that a renewed
	// certificate needs no restart.
	CertFile, KeyFile string
	// ServerName is what broker certificates must be made out to; empty means
	// the host that is dialled.
	ServerName string
}

// SASL says who we are.
type SASL struct {
	Mechanism          string // none (or empty), plain, scram-sha-256, scram-sha-512
	Username, Password string
}

// dialTimeout is how long one attempt to connect may take, TLS included.
const dialTimeout = 10 * time.Second

// Client returns what every client of the cluster needs. Any number of clients
// may be made from the result, also at once. With Metrics set, Client is called
// once for each registerer.
//
// An error names the setting or the file that is wrong; brokers are not asked.
func (o Options) Client() ([]kgo.Opt, error) {
	if len(o.Brokers) == 0 {
		return nil, errors.New("brokers: at least one is required")
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(o.Brokers...),
		kgo.DialTimeout(dialTimeout),
	}
	if o.ClientID != "" {
		opts = append(opts, kgo.ClientID(o.ClientID))
	}
	if o.TLS.Enabled {
		files := certs.Files{CAFile: o.TLS.CAFile, CertFile: o.TLS.CertFile, KeyFile: o.TLS.KeyFile, ServerName: o.TLS.ServerName}
		config, err := files.Config()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(config))
	}
	login, err := o.SASL.option()
	if err != nil {
		return nil, err
	}
	if login != nil {
		opts = append(opts, login)
	}
	if o.Logger != nil {
		opts = append(opts, kgo.WithLogger(clientLogger{kslog.New(o.Logger), new(sync.Map)}))
	}
	if o.Metrics != nil {
		opts = append(opts, kgo.WithHooks(&clientMetrics{
			Metrics: kprom.NewMetrics("seriatim_kafka", kprom.Registerer(totalsOnly{o.Metrics})),
		}))
	}
	return opts, nil
}

// option returns nil if no login is wanted.
func (s SASL) option() (kgo.Opt, error) {
	scramAuth := scram.Auth{User: s.Username, Pass: s.Password}
	var mechanism sasl.Mechanism
	switch s.Mechanism {
	case "", "none":
		return nil, nil
	case "plain":
		mechanism = plain.Auth{User: s.Username, Pass: s.Password}.AsMechanism()
	case "scram-sha-256":
		mechanism = scramAuth.AsSha256Mechanism()
	case "scram-sha-512":
		mechanism = scramAuth.AsSha512Mechanism()
	default:
		return nil, fmt.Errorf("sasl.mechanism: %q is none of none, plain, scram-sha-256, scram-sha-512", s.Mechanism)
	}
	if s.Username == "" {
		return nil, fmt.Errorf("sasl.username: is required with %s", s.Mechanism)
	}
	if s.Password == "" {
		return nil, fmt.Errorf("sasl.password: is required with %s", s.Mechanism)
	}
	return kgo.SASL(mechanism), nil
}

// clientLogger logs warnings and errors only, and each of them once in a while,
// until its logger is enabled for debug: at info the clients tell of every metadata
// request, and during an outage of every attempt to connect.
type clientLogger struct {
	*kslog.Logger
	told *sync.Map // message: when it was logged last
}

// repeatAfter is how long a message that was logged is not logged again.
const repeatAfter = time.Minute

// Log logs what has not been logged lately.
func (l clientLogger) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	if l.Level() < kgo.LogLevelDebug {
		now := time.Now()
		if last, ok := l.told.Load(msg); ok && now.Sub(last.(time.Time)) < repeatAfter {
			return
		}
		l.told.Store(msg, now)
	}
	l.Logger.Log(level, msg, keyvals...)
}

func (l clientLogger) Level() kgo.LogLevel {
	level := l.Logger.Level()
	if level == kgo.LogLevelInfo {
		return kgo.LogLevelWarn
	}
	return level
}

// clientMetrics is shared by all clients made from one Options. The library
// would register its metrics for each client anew, which a registerer refuses.
type clientMetrics struct {
	*kprom.Metrics
	once sync.Once
}

// OnNewClient registers the metrics with the first client.
func (m *clientMetrics) OnNewClient(client *kgo.Client) {
	m.once.Do(func() { m.Metrics.OnNewClient(client) })
}

// OnClientClosed keeps the metrics: other clients still use them.
func (m *clientMetrics) OnClientClosed(*kgo.Client) {}

// totalsOnly leaves out the four gauges that would tell of the first client
// alone: they are the only collectors that are a single metric.
type totalsOnly struct{ prometheus.Registerer }

func (r totalsOnly) MustRegister(collectors ...prometheus.Collector) {
	for _, c := range collectors {
		if _, single := c.(prometheus.Metric); !single {
			r.Registerer.MustRegister(c)
		}
	}
}
