package processor

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Options are the settings of one [Pipeline]. A zero duration, count or size
// means the default named beside it.
type Options struct {
	Name     string // [a-z0-9-]+
	Instance string // unique among the instances of the group

	// Client holds what every client needs to reach the cluster: brokers, TLS,
	// SASL, client id, hooks.
	Client []kgo.Opt
	Logger *slog.Logger // nil discards
	Hooks  Hooks

	Source Source
	Output Output

	Workers             int // attempts in flight, or calls with a batch; 64
	WorkersPerPartition int // most of these of one partition; 0 is adaptive
	Window              Window
	Batch               Batch
	Retry               Retries
	Hedge               Hedges
	// MaxAge exhausts records that are older, by their timestamp, when an attempt at them
	// would be dispatched; 0 is no limit. A person may still have them attempted.
	MaxAge          time.Duration
	OnExhausted     OnExhausted
	DeadLetterTopic string  // given if OnExhausted is DeadLetter, perhaps if it is Hold, else not
	Breaker         Breaker // of DeadLetter only
	// StateTopic is a compacted topic in which the attempts at records, holds and decisions
	// outlive a crash and a rebalance. Empty: they are in memory only.
	StateTopic string
	// ReplyLog also stores results that wait behind the head of their partition, so that
	// they are emitted after a crash without another call. It needs StateTopic.
	ReplyLog     bool
	Commit       Commit
	DrainTimeout time.Duration // 10s

	// ExactlyOnce emits outputs and commits frontiers in transactions, so that
	// readers of committed records see every output once. It needs Instance, and
	// Kafka 4.0 unless AllowOldBrokers accepts what KAFKA-17754 may do.
	ExactlyOnce     bool
	AllowOldBrokers bool
}

// Source says what a pipeline reads.
type Source struct {
	// Topics are the input topics by name. Exactly one of Topics and Regex is set.
	Topics []string
	// Regex matches whole names of input topics. A topic that is the output of
	// another one is never read.
	Regex *regexp.Regexp
	Group string
	// ServerSide uses the consumer group protocol of KIP-848 instead of the
	// classic one. It needs Kafka 4.0, see [GroupProtocolError].
	ServerSide       bool
	SessionTimeout   time.Duration // classic only; 45s
	RebalanceTimeout time.Duration // 60s
	// Static makes Instance the group.instance.id (KIP-345).
	Static bool
	// Start is where a group without any commit for a topic begins.
	Start Start
	// OnDataLoss says what to do when the log does not have what comes next.
	OnDataLoss OnDataLoss
	// ReadUncommitted also reads records of open and aborted transactions.
	ReadUncommitted bool
}

// Start is a place in a log: its end, a time, or (the zero Start) its beginning.
type Start struct {
	End  bool
	Time time.Time
}

func (s Start) earliest() bool { return !s.End && s.Time.IsZero() }

// Output says where results go.
type Output struct {
	// Topic is the output topic. {topic} stands for the name of the input topic,
	// {1} to {9} for the groups of Source.Regex.
	Topic string
	// ByKey spreads outputs by a hash of their key (the default partitioner of
	// Java clients) instead of keeping the partition of the source. Outputs with a
	// null key stay with the source partition, modulo the partitions there are.
	ByKey bool
	// Provenance adds the headers seriatim.source and seriatim.output.
	Provenance bool
}

// Window limits what is admitted and not yet settled.
type Window struct {
	Records int   // of one partition; 16384, or 64 × Workers if that is more
	Bytes   int64 // of the pipeline, inputs and outputs plus 256 a record; 128 MiB
}

// Retries says how failed attempts are repeated: with full jitter between 0 and
// Initial doubled with each attempt, never more than Max.
type Retries struct {
	Attempts   int           // 5
	Initial    time.Duration // 200ms
	Max        time.Duration // 10s
	MaxElapsed time.Duration // since the first attempt; 0 is no limit
	// Budget is the most retries that fail, as a share of the first attempts; 0.2. Ten a
	// second are allowed in any case. Those beyond it wait.
	Budget float64
}

// Commit says when offsets are committed.
type Commit struct {
	Interval time.Duration // the tick, at least 100ms; 5s
	Records  int           // settled records that trigger a commit between ticks; 10000
	// Transaction is how long a transaction of ExactlyOnce lasts, unless a window
	// fills up before; 100ms.
	Transaction time.Duration
}

var pipelineName = regexp.MustCompile(`^[a-z0-9-]+$`)

// withDefaults returns o with its zero values filled in, or all that is wrong
// with it.
func (o Options) withDefaults() (Options, error) {
	def(&o.Workers, 64)
	def(&o.Window.Records, max(16384, 64*o.Workers))
	def(&o.Window.Bytes, 128<<20)
	def(&o.Batch.Bytes, 8<<20)
	def(&o.Retry.Attempts, 5)
	def(&o.Retry.Budget, 0.2)
	def(&o.Hedge.Budget, 0.05)
	def(&o.Retry.Initial, 200*time.Millisecond)
	def(&o.Retry.Max, 10*time.Second)
	def(&o.Breaker.Over, time.Minute)
	def(&o.Commit.Interval, 5*time.Second)
	def(&o.Commit.Records, 10000)
	def(&o.Commit.Transaction, 100*time.Millisecond)
	def(&o.DrainTimeout, 10*time.Second)
	def(&o.Source.SessionTimeout, 45*time.Second)
	def(&o.Source.RebalanceTimeout, time.Minute)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}

	var errs []error
	bad := func(cond bool, format string, args ...any) {
		if cond {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(!pipelineName.MatchString(o.Name), "Name %q: must match %v", o.Name, pipelineName)
	bad(o.Source.Group == "", "Source.Group: is required")
	bad((len(o.Source.Topics) > 0) == (o.Source.Regex != nil), "Source: exactly one of Topics and Regex must be set")
	bad(o.Source.Static && o.Instance == "", "Source.Static: needs Instance")
	bad(o.ExactlyOnce && o.Instance == "", "ExactlyOnce: needs Instance")
	bad(o.Commit.Transaction < time.Millisecond || o.Commit.Transaction > transactionTimeout/3,
		"Commit.Transaction: %v is not between 1ms and %v", o.Commit.Transaction, transactionTimeout/3)
	bad(o.Output.Topic == "", "Output.Topic: is required")
	bad(o.Workers < 1, "Workers: %d is less than 1", o.Workers)
	bad(o.WorkersPerPartition < 0, "WorkersPerPartition: %d is negative", o.WorkersPerPartition)
	bad(o.Window.Records < 1, "Window.Records: %d is less than 1", o.Window.Records)
	bad(o.Window.Bytes < 1, "Window.Bytes: %d is less than 1", o.Window.Bytes)
	bad(o.Batch.Records < 0 || o.Batch.Records > MaxBatch, "Batch.Records: %d is not between 0 and %d", o.Batch.Records, MaxBatch)
	bad(o.Batch.Wait < 0 || o.Batch.Bytes < 1, "Batch: Wait %v or Bytes %d is out of range", o.Batch.Wait, o.Batch.Bytes)
	bad(o.Batch.Records > 0 && o.Hedge.on(), "Hedge: is not possible with Batch")
	bad(o.Retry.Attempts < 1, "Retry.Attempts: %d is less than 1", o.Retry.Attempts)
	bad(o.Retry.Max < o.Retry.Initial, "Retry.Max: %v is less than Retry.Initial (%v)", o.Retry.Max, o.Retry.Initial)
	bad(o.MaxAge < 0, "MaxAge: %v is negative", o.MaxAge)
	bad(o.Retry.Budget < 0, "Retry.Budget: %v is negative", o.Retry.Budget)
	bad(o.Hedge.After < 0 || o.Hedge.Quantile < 0 || o.Hedge.Quantile >= 1, "Hedge: After %v or Quantile %v is out of range", o.Hedge.After, o.Hedge.Quantile)
	bad(o.Hedge.After > 0 && o.Hedge.Quantile > 0, "Hedge: After and Quantile exclude each other")
	bad(o.Hedge.Budget < 0 || o.Hedge.Budget > 1, "Hedge.Budget: %v is not between 0 and 1", o.Hedge.Budget)
	bad(o.Commit.Interval < 100*time.Millisecond, "Commit.Interval: %v is less than 100ms", o.Commit.Interval)
	bad(o.Commit.Records < 1, "Commit.Records: %d is less than 1", o.Commit.Records)
	bad(o.OnExhausted == DeadLetter && o.DeadLetterTopic == "", "DeadLetterTopic: is required by OnExhausted DeadLetter")
	bad(o.OnExhausted != DeadLetter && o.OnExhausted != Hold && o.DeadLetterTopic != "", "DeadLetterTopic: belongs to OnExhausted DeadLetter or Hold")
	bad(o.Breaker.Ratio < 0 || o.Breaker.Ratio >= 1 || o.Breaker.Over < 0, "Breaker: Ratio %v or Over %v is out of range", o.Breaker.Ratio, o.Breaker.Over)
	bad(o.Breaker.Ratio > 0 && o.OnExhausted != DeadLetter, "Breaker: belongs to OnExhausted DeadLetter")
	bad(slices.Contains(o.Source.Topics, o.DeadLetterTopic), "DeadLetterTopic: %s is also an input topic", o.DeadLetterTopic)
	bad(o.ReplyLog && o.StateTopic == "", "ReplyLog: needs StateTopic")
	bad(o.StateTopic != "" && (slices.Contains(o.Source.Topics, o.StateTopic) || o.StateTopic == o.DeadLetterTopic || o.StateTopic == o.Output.Topic),
		"StateTopic: %s is also an input, output or dead-letter topic", o.StateTopic)
	for _, topic := range o.Source.Topics {
		out := outputTopic(o.Output.Topic, topic, nil)
		bad(slices.Contains(o.Source.Topics, out), "Output.Topic: %s is also an input topic", out)
		bad(out == o.StateTopic, "StateTopic: %s is also an output topic", out)
		bad(out == o.DeadLetterTopic, "DeadLetterTopic: %s is also an output topic", out)
	}
	if o.Source.Regex != nil { // whole names only
		o.Source.Regex = regexp.MustCompile("^(?:" + o.Source.Regex.String() + ")$")
	}
	return o, errors.Join(errs...)
}

// excluded are expressions for the topics that are written under a name known
// beforehand: a regular expression never reads them.
func (o *Options) excluded() []string {
	var names []string
	if !strings.Contains(o.Output.Topic, "{") {
		names = append(names, "^"+regexp.QuoteMeta(o.Output.Topic)+"$")
	}
	for _, topic := range []string{o.DeadLetterTopic, o.StateTopic} {
		if topic != "" {
			names = append(names, "^"+regexp.QuoteMeta(topic)+"$")
		}
	}
	return names
}

func def[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}
