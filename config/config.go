// Package config reads the settings of the program: YAML files with values from
// the environment, checked as a whole, so that every mistake is told at once and
// with its place.
package config

import (
	"regexp"
	"time"
)

// A Config holds the settings of one process, with defaults filled in. It is
// plain data: nothing in it changes after [Load].
//
// The tags name the keys; what a key means, allows and defaults to stands in the
// field tree, the one description that the loader, the schema, the printed
// configuration and the documentation are made from.
type Config struct {
	Kafka     Kafka      `key:"kafka"`
	Admin     Admin      `key:"admin"`
	Log       Log        `key:"log"`
	Instance  string     `key:"instance"` // unique among the instances; the host name unless given
	Pipelines []Pipeline `key:"pipelines"`
}

// Kafka says how to reach the cluster.
type Kafka struct {
	Brokers  []string `key:"brokers"` // host:port
	ClientID string   `key:"client_id"`
	TLS      TLS      `key:"tls"`
	SASL     SASL     `key:"sasl"`
}

// TLS are the settings of encrypted connections. An empty file name means that
// the file is not used.
type TLS struct {
	Enabled    bool   `key:"enabled"`
	CAFile     string `key:"ca_file"`
	CertFile   string `key:"cert_file"` // given if and only if KeyFile is
	KeyFile    string `key:"key_file"`
	ServerName string `key:"server_name"`
}

// SASL says how to log in. Mechanism is none, plain, scram-sha-256 or
// scram-sha-512; all but none have a user name and a password.
type SASL struct {
	Mechanism string `key:"mechanism"`
	Username  string `key:"username"`
	Password  Secret `key:"password"`
}

// None is the address of a server that is not wanted.
const None = "none"

// Admin says where state and metrics are served: host:port, or [None]. Listen
// is a loopback address.
type Admin struct {
	Listen       string `key:"listen"`
	ProbesListen string `key:"probes_listen"`
}

// Log says what is logged and how. Level is debug, info, warn or error; Format
// is text or json.
type Log struct {
	Level  string `key:"level"`
	Format string `key:"format"`
}

// Pipeline is one way from input topics through a transform to output topics.
type Pipeline struct {
	Name                string        `key:"name"` // [a-z0-9-]+, unique
	Input               Input         `key:"input"`
	Order               string        `key:"order"` // partition
	Workers             int           `key:"workers"`
	WorkersPerPartition int           `key:"workers_per_partition"` // 0 is adaptive
	Window              Window        `key:"window"`
	Transform           Transform     `key:"transform"`
	Batch               *Batch        `key:"batch"` // nil: a call for each record; with http and exec only, and without Hedge
	Retry               Retry         `key:"retry"`
	Hedge               Hedge         `key:"hedge"`
	MaxAge              time.Duration `key:"max_age"`      // 0 is no limit
	OnExhausted         string        `key:"on_exhausted"` // hold, dead_letter, drop or stop
	DeadLetter          *DeadLetter   `key:"dead_letter"`  // not nil if OnExhausted is dead_letter, may be if it is hold
	Output              Output        `key:"output"`
	Delivery            string        `key:"delivery"` // at_least_once or exactly_once
	AllowOldBrokers     bool          `key:"allow_old_brokers"`
	Commit              Commit        `key:"commit"`
	DrainTimeout        time.Duration `key:"drain_timeout"`
	State               *State        `key:"state"` // nil: what is remembered of records is in memory
	Callbacks           Callbacks     `key:"callbacks"`
}

// Input says what a pipeline reads: exactly one of Topics and TopicsRegex is
// set.
type Input struct {
	Topics []string `key:"topics"`
	// TopicsRegex matches whole names: it is the pattern of the file between ^(?:
	// and )$, with the groups of the file.
	TopicsRegex      *regexp.Regexp `key:"topics_regex"`
	Group            string         `key:"group"`           // seriatim.<name> unless given
	GroupProtocol    string         `key:"group_protocol"`  // classic or consumer
	SessionTimeout   time.Duration  `key:"session_timeout"` // classic only
	RebalanceTimeout time.Duration  `key:"rebalance_timeout"`
	StaticMembership bool           `key:"static_membership"`
	Start            Start          `key:"start"`
	OnDataLoss       string         `key:"on_data_loss"` // stop, earliest or latest
	Isolation        string         `key:"isolation"`    // read_committed or read_uncommitted
}

// Start is where a group without commits begins: the end of the log, a time, or
// (the zero Start) the beginning.
type Start struct {
	End  bool
	Time time.Time
}

// Window limits what is admitted and not yet settled.
type Window struct {
	Records int   `key:"records"` // of one partition
	Bytes   int64 `key:"bytes"`   // of the whole pipeline
}

// Transform says what becomes of a record: exactly one field is not nil, or not
// empty.
type Transform struct {
	HTTP     *HTTP     `key:"http"`
	Exec     *Exec     `key:"exec"`
	JQ       string    `key:"jq"` // a program that compiles
	Pass     *Pass     `key:"pass"`
	Simulate *Simulate `key:"simulate"`
}

// HTTP asks a worker for each record. URLs has at least one entry.
type HTTP struct {
	URLs        []string      `key:"urls"`
	Timeout     time.Duration `key:"timeout"`       // of one attempt
	MaxInFlight int           `key:"max_in_flight"` // attempts at one URL; 0 is no limit, [Adaptive] finds it
	Rate        float64       `key:"rate"`          // requests a second; 0 is no limit
	HTTP2       bool          `key:"http2"`         // not with ProxyFromEnvironment
	// Headers are by name, no two of which differ in capitals only.
	Headers map[string]Secret `key:"headers"`
	// At most one of BearerTokenFile and BasicAuth is given.
	BearerTokenFile      string     `key:"bearer_token_file"`
	BasicAuth            *BasicAuth `key:"basic_auth"`
	TLS                  WorkerTLS  `key:"tls"`
	ProxyFromEnvironment bool       `key:"proxy_from_environment"`
	AllowLinkLocal       bool       `key:"allow_link_local"`
}

// Adaptive is the limit that is found, and not set.
const Adaptive = -1

// BasicAuth is a user and the file with the password.
type BasicAuth struct {
	Username     string `key:"username"`
	PasswordFile string `key:"password_file"`
}

// WorkerTLS are the files for workers with https. An empty name means that the
// file is not used.
type WorkerTLS struct {
	CAFile     string `key:"ca_file"`
	CertFile   string `key:"cert_file"` // given if and only if KeyFile is
	KeyFile    string `key:"key_file"`
	ServerName string `key:"server_name"`
}

// Exec asks processes that it starts. Command has one entry at least.
type Exec struct {
	Command   []string      `key:"command"`
	Processes int           `key:"processes"`
	InFlight  int           `key:"in_flight"` // records that each has at a time
	Timeout   time.Duration `key:"timeout"`   // of one attempt
	Memory    int64         `key:"memory"`    // of one, in bytes; 0 is no limit
	CPU       time.Duration `key:"cpu"`       // of one, in all; 0 is no limit
	Codec     string        `key:"codec"`     // json_lines or length_prefixed
	Env       []string      `key:"env"`       // names of variables that they get
}

// Pass passes every record on as it is. It has no settings.
type Pass struct{}

// Simulate takes a log-normal time and passes the record on.
type Simulate struct {
	Latency     time.Duration `key:"latency"`      // mean
	Sigma       float64       `key:"sigma"`        // of the logarithm; 0 is constant
	FailureRate float64       `key:"failure_rate"` // share of attempts that fail, 0 to 1
	Seed        int64         `key:"seed"`
}

// Batch says how many records a call has.
type Batch struct {
	Records int           `key:"records"` // 1 to 10000
	Wait    time.Duration `key:"wait"`    // for a full one
	Bytes   int64         `key:"bytes"`
}

// Retry says how failed attempts are repeated.
type Retry struct {
	Attempts   int           `key:"attempts"` // all in all, at least 1
	Initial    time.Duration `key:"initial"`
	Max        time.Duration `key:"max"`         // at least Initial
	MaxElapsed time.Duration `key:"max_elapsed"` // 0 is no limit
	Budget     float64       `key:"budget"`      // failing retries, as a share of the first attempts
}

// Hedge says when an attempt that runs for long gets a second one beside it.
type Hedge struct {
	After    Delay   `key:"after"` // zero is never
	HeadOnly bool    `key:"head_only"`
	Budget   float64 `key:"budget"` // share of the first attempts
}

// Delay is a time, or a quantile (0 to 1) of the times that were seen.
type Delay struct {
	Time     time.Duration
	Quantile float64
}

// DeadLetter says where exhausted records go.
type DeadLetter struct {
	Topic   string   `key:"topic"`
	Breaker *Breaker `key:"breaker"` // nil: there is none; only if OnExhausted is dead_letter
}

// Breaker says when there are too many dead letters.
type Breaker struct {
	Ratio float64       `key:"ratio"` // of the completed records, less than 1
	Over  time.Duration `key:"over"`
}

// State says where what is remembered of records outlives a crash and a rebalance.
type State struct {
	Topic    string `key:"topic"`
	ReplyLog bool   `key:"reply_log"` // results that wait are stored too
}

// Output says where results go.
type Output struct {
	// Topic may hold {topic}, the name of the input topic, and {1} to {9}, the
	// groups of Input.TopicsRegex.
	Topic      string `key:"topic"`
	Partition  string `key:"partition"` // source or key
	Provenance bool   `key:"provenance"`
}

// Callbacks say where workers report about attempts that run: Listen is host:port or
// [None]; URL is how they reach it, http:// and Listen if empty.
type Callbacks struct {
	Listen string `key:"listen"`
	URL    string `key:"url"`
}

// Commit says when offsets are committed.
type Commit struct {
	Interval    time.Duration `key:"interval"` // at least 100ms
	Records     int           `key:"records"`
	Transaction time.Duration `key:"transaction"` // 1ms to 5s
}
