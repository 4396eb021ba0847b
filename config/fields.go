package config

import (
	"regexp"
	"slices"
)

// kind is what a value is in the file.
type kind uint8

const (
	object   kind = iota // the struct field is a struct, or a pointer to one that is nil unless given
	list                 // a slice
	table                // a map with keys of the user's own
	text                 // string
	secret               // Secret
	integer              // int, int64
	number               // float64
	boolean              // bool
	duration             // time.Duration
	size                 // int64, bytes
	pattern              // *regexp.Regexp
	start                // Start
	program              // string, in the jq language
	percent              // float64, a share of 1
	delay                // Delay
)

// A field describes one key: what the loader accepts, what the schema and the
// documentation say, and what stands in its place when it is not given.
type field struct {
	key  string
	kind kind
	doc  string // sentences for the documentation and the schema

	required bool
	def      string // as text; for a list its only item; none for a table
	defDoc   string // a default in words, where it is derived from others

	// unbuilt marks a key of a feature that does not exist yet; unbuiltValues are
	// such values. The loader knows them to say so; for the schema they are wrong.
	unbuilt       bool
	unbuiltValues []string

	enum     []string
	form     *regexp.Regexp // of a text, and of the keys of a table; in the common subset of Go and JSON Schema
	formDoc  string         // what form demands, in words
	min, max string         // in the notation of the kind; empty is no limit
	word     string         // of an integer, which it may be instead: it is stored as -1

	fields []*field // of an object
	oneOf  []string // exactly one of these keys of an object is given

	item     *field // of a list or table
	minItems int
	repeats  bool // an item may be listed twice
}

// child returns the field with that key, or nil.
func (f *field) child(key string) *field {
	for _, c := range f.fields {
		if c.key == key {
			return c
		}
	}
	return nil
}

// mayBeEmpty reports whether {} is a value of an object.
func (f *field) mayBeEmpty() bool {
	return f.kind == object && f.oneOf == nil && !slices.ContainsFunc(f.fields, func(c *field) bool { return c.required })
}

const (
	topicChars = `[A-Za-z0-9._-]`
	nameDoc    = "1 to 249 letters, digits and . _ -"
	hostChars  = `[^\s,/:@\[\]]`
	portNumber = `([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])`
)

var (
	topicForm    = regexp.MustCompile(`^` + topicChars + `{1,249}$`)
	templateForm = regexp.MustCompile(`^(` + topicChars + `|\{topic\}|\{[1-9]\}){1,249}$`)
	nameForm     = regexp.MustCompile(`^[a-z0-9-]{1,100}$`)
	envNameForm  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	fullForm     = regexp.MustCompile(`^.+$`)
	brokerForm   = regexp.MustCompile(`^(\[[0-9A-Fa-f:.]+\]|` + hostChars + `+):` + portNumber + `$`)
	listenForm   = regexp.MustCompile(`^(none|(\[[0-9A-Fa-f:.]+\]|` + hostChars + `*):(0|` + portNumber + `))$`)
	tokenForm    = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$") // RFC 9110
	userForm     = regexp.MustCompile(`^[^:]+$`)                       // RFC 7617
	// Without user and password: what is printed and logged would show them.
	callbackForm = regexp.MustCompile(`^(https?://[^\s/?#@]+(/[A-Za-z0-9._~/-]*)?)?$`)
	urlForm      = regexp.MustCompile(`^https?://[^\s/?#@]+([/?#][!-~]*)?$`)
)

// root describes a whole file.
var root = &field{kind: object, fields: []*field{
	{key: "kafka", kind: object, doc: "How to reach the cluster.", fields: kafkaFields},
	{key: "admin", kind: object, doc: "Where state and metrics are served.", fields: []*field{
		{key: "listen", kind: text, def: "127.0.0.1:8080", form: listenForm, formDoc: "host:port, or none", doc: "Loopback address of metrics and health with all details; `none` turns it off."},
		{key: "web_config_file", kind: text, unbuilt: true, doc: "TLS and users of the listener."},
		{key: "probes_listen", kind: text, def: "none", form: listenForm, formDoc: "host:port, or none", doc: "Address, of any interface, for `/livez`, `/readyz` without details and `/metrics`, without authentication."},
	}},
	{key: "log", kind: object, doc: "What is logged to standard error, and how.", fields: []*field{
		{key: "level", kind: text, def: "info", enum: []string{"debug", "info", "warn", "error"}, doc: "The least level that is logged."},
		{key: "format", kind: text, def: "text", enum: []string{"text", "json"}, doc: "One line of key=value pairs, or of JSON, for each event."},
	}},
	{key: "instance", kind: text, defDoc: "`${HOSTNAME}`, else the host name", form: topicForm, formDoc: nameDoc, doc: "Name of this process, unique among those that share a group; needed when two run on one host, where each also needs addresses of its own in `admin` and `callbacks`."},
	{key: "pipelines", kind: list, minItems: 1, doc: "The pipelines of this process.", item: &field{kind: object, fields: pipelineFields}},
}}

var kafkaFields = []*field{
	{key: "brokers", kind: list, def: "127.0.0.1:9092", minItems: 1, doc: "Brokers to ask for the rest of the cluster.", item: &field{kind: text, form: brokerForm, formDoc: "host:port, like kafka-1:9092"}},
	{key: "client_id", kind: text, def: "seriatim", form: fullForm, formDoc: "at least one character", doc: "Name of the client in the brokers' logs, metrics and quotas."},
	{key: "tls", kind: object, doc: "Encryption of the connections to the brokers.", fields: []*field{
		{key: "enabled", kind: boolean, def: "false", doc: "Use TLS."},
		{key: "ca_file", kind: text, doc: "PEM file of the authorities to trust instead of the system's."},
		{key: "cert_file", kind: text, doc: "PEM file of the client certificate; needs `key_file`."},
		{key: "key_file", kind: text, doc: "PEM file of its private key; needs `cert_file`."},
		{key: "server_name", kind: text, doc: "Name that the brokers' certificates must bear, if not the one in `brokers`."},
	}},
	{key: "sasl", kind: object, doc: "How to log in to the brokers.", fields: []*field{
		{key: "mechanism", kind: text, def: "none", enum: []string{"none", "plain", "scram-sha-256", "scram-sha-512"}, unbuiltValues: []string{"oauthbearer", "aws-msk-iam"}, doc: "How to prove who we are."},
		{key: "username", kind: text, doc: "User name."},
		{key: "password", kind: secret, doc: "Password; keep it out of the file with `${VAR}` or `${file:/path}`."},
	}},
}

// byBroker is the group_protocol in which the broker alone sets the session
// timeout.
const byBroker = "consumer"

var sessionTimeout = &field{key: "session_timeout", kind: duration, def: "45s", min: "1s", max: "30m", doc: "Classic only: partitions of a killed instance move after this time."}

var pipelineFields = []*field{
	{key: "name", kind: text, required: true, form: nameForm, formDoc: "1 to 100 of a-z 0-9 -", doc: "Name in logs, metrics and idempotency keys; unique in the configuration."},
	{key: "input", kind: object, required: true, oneOf: []string{"topics", "topics_regex"}, doc: "What is read. Exactly one of `topics` and `topics_regex` is given.", fields: []*field{
		{key: "topics", kind: list, minItems: 1, doc: "Input topics by name.", item: &field{kind: text, form: topicForm, formDoc: nameDoc}},
		{key: "topics_regex", kind: pattern, doc: "Regular expression (RE2) that must match the whole name of an input topic. It leaves out a fixed `output.topic`, `dead_letter.topic` and `state.topic`; any other topic that turns out to be an output of the same pipeline stops, with that reason."},
		{key: "group", kind: text, defDoc: "`seriatim.<name>`", form: fullForm, formDoc: "at least one character", doc: "Consumer group."},
		{key: "group_protocol", kind: text, def: "classic", enum: []string{"classic", byBroker}, doc: "`consumer` is the protocol of KIP-848, in which the broker alone sets the session timeout; it needs Kafka 4.0."},
		sessionTimeout,
		{key: "rebalance_timeout", kind: duration, def: "60s", min: "1s", max: "1h", doc: "How long a rebalance waits for members to hand over their partitions."},
		{key: "static_membership", kind: boolean, def: "false", doc: "Use `instance` as group.instance.id, so that a restart within the session timeout moves no partitions."},
		{key: "start", kind: start, required: true, doc: "Where a group without any commit for a topic begins: `earliest`, `latest` or an RFC 3339 time."},
		{key: "on_data_loss", kind: text, def: "stop", enum: []string{"stop", "earliest", "latest"}, doc: "What to do when the log does not have the offset that comes next: retention was faster, the committed offset is beyond the end, or the log was truncated after an unclean election. What is missing is logged and counted in any case. `stop`: the partition stops and the reason names the missing offsets; others go on. `earliest`: it goes on at the beginning of the log, after a truncation where the logs part. `latest`: at the end."},
		{key: "isolation", kind: text, def: "read_committed", enum: []string{"read_committed", "read_uncommitted"}, doc: "Whether records of open and aborted transactions are read."},
	}},
	{key: "order", kind: text, def: "partition", enum: []string{"partition"}, unbuiltValues: []string{"key", "none", "sequence"}, doc: "What stays in order: the records of each source partition."},
	{key: "workers", kind: integer, def: "64", min: "1", max: "100000", doc: "Attempts in flight in this process; calls with a `batch`."},
	{key: "workers_per_partition", kind: integer, def: "0", min: "0", max: "100000", doc: "Most attempts in flight of one partition. 0 is adaptive: every free worker, unless the attempts of this partition run far longer than those of the others."},
	{key: "window", kind: object, doc: "Limits of what is admitted and not yet settled.", fields: []*field{
		{key: "records", kind: integer, defDoc: "16384, or 64 × `workers` if that is more", min: "1", max: "16777216", doc: "Records of one partition. Keep it many times `workers`, or finished records waiting for a slow one leave workers idle."},
		{key: "bytes", kind: size, def: "128MiB", min: "64KiB", max: "1TiB", doc: "Bytes of the whole pipeline: keys, values and headers of inputs and outputs, and 256 B a record."},
	}},
	{key: "transform", kind: object, required: true, oneOf: []string{"http", "exec", "jq", "pass", "simulate"}, doc: "What becomes of a record. Exactly one is given.", fields: []*field{
		{key: "http", kind: object, doc: "Ask a worker over HTTP.", fields: []*field{
			{key: "urls", kind: list, required: true, minItems: 1, doc: "Addresses of the worker; each record is posted to one of them.", item: &field{kind: text, form: urlForm, formDoc: "an http:// or https:// address without user and password"}},
			{key: "timeout", kind: duration, def: "10s", min: "1ms", max: "1h", doc: "Time for one attempt."},
			{key: "max_in_flight", kind: integer, def: "0", min: "0", max: "100000", word: "adaptive", doc: "Most attempts in flight at one address; others wait for room, each holding one of the `workers`. 0 is no limit but `workers`. `adaptive` finds it: fewer where more attempts only take longer, more where they don't."},
			{key: "rate", kind: number, def: "0", min: "0", max: "1000000", doc: "Most requests a second to all addresses together; those that wait hold one of the `workers`. 0 is no limit."},
			{key: "http2", kind: boolean, def: "false", doc: "Speak HTTP/2 and nothing else: with `https://` as TLS agrees on it, with `http://` from the first byte (h2c). Attempts share connections, and a dead one is noticed by pings."},
			{key: "headers", kind: table, form: tokenForm, formDoc: "the name of an HTTP header", doc: "Request headers of your own, by name. Those that the [contract](workers.md) or the connection needs are refused; `Content-Type` (not with `batch`) and `User-Agent` may be replaced. Values are never shown.", item: &field{kind: secret}},
			{key: "bearer_token_file", kind: text, doc: "File with the token to send as `Authorization: Bearer`. It may change at any time."},
			{key: "basic_auth", kind: object, doc: "User and password to send as `Authorization: Basic`; not with `bearer_token_file`.", fields: []*field{
				{key: "username", kind: text, required: true, form: userForm, formDoc: "at least one character, and no colon", doc: "User name."},
				{key: "password_file", kind: text, required: true, form: fullForm, formDoc: "at least one character", doc: "File with the password. It may change at any time."},
			}},
			{key: "tls", kind: object, doc: "Files in PEM for `https://` addresses, read again for every connection.", fields: []*field{
				{key: "ca_file", kind: text, doc: "Authorities to trust instead of the system's."},
				{key: "cert_file", kind: text, doc: "Client certificate; needs `key_file`."},
				{key: "key_file", kind: text, doc: "Its private key; needs `cert_file`."},
				{key: "server_name", kind: text, doc: "Name that the worker's certificate must bear, if not the host in `urls`."},
			}},
			{key: "proxy_from_environment", kind: boolean, def: "false", doc: "Go through the proxies that `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` name; not with `http2`."},
			{key: "allow_link_local", kind: boolean, def: "false", doc: "Accept workers at link-local and cloud metadata addresses."},
		}},
		{key: "exec", kind: object, doc: "Ask processes that Seriatim starts, over their standard input and output.", fields: []*field{
			{key: "command", kind: list, required: true, minItems: 1, repeats: true, doc: "The program and its arguments; no shell reads it. Secrets don't belong here: everybody on the machine sees it.", item: &field{kind: text, form: fullForm, formDoc: "at least one character"}},
			{key: "processes", kind: integer, def: "2", min: "1", max: "1000", doc: "Processes at a time."},
			{key: "in_flight", kind: integer, def: "32", min: "1", max: "100000", doc: "Records that each of them has at a time."},
			{key: "timeout", kind: duration, def: "10s", min: "1ms", max: "1h", doc: "Time for one attempt, from handing the record over."},
			{key: "memory", kind: size, def: "0B", max: "1TiB", doc: "Most memory (resident) of a process and what it has started in its group; one that takes more is replaced. 0B is no limit; any other needs Linux."},
			{key: "cpu", kind: duration, def: "0s", max: "365d", doc: "Most CPU time that a process and what it has started in its group may take in all. One that has had it gets no more records, and is replaced when it is done with those it has, or has taken a quarter more. 0s is no limit; any other needs Linux."},
			{key: "codec", kind: text, def: "json_lines", enum: []string{"json_lines", "length_prefixed"}, doc: "How JSON objects travel: one a line, or each with its length before it (4 bytes, the most significant first)."},
			{key: "env", kind: list, doc: "Names of environment variables that the processes get beside `PATH`, `HOME`, `LANG`, `TMPDIR` and `TZ`, and no others.", item: &field{kind: text, form: envNameForm, formDoc: "the name of a variable: letters, digits and _"}},
		}},
		{key: "jq", kind: program, doc: "A program in the jq language that makes the outputs: of the value, which must be JSON, and of `$key`, `$headers`, `$timestamp`, `$topic`, `$partition`, `$offset`."},
		{key: "pass", kind: object, doc: "Pass records on as they are: `pass: {}`."},
		{key: "simulate", kind: object, doc: "Take a log-normal time and pass the record on: for demos, tests and load trials.", fields: []*field{
			{key: "latency", kind: duration, def: "750ms", min: "0s", max: "1h", doc: "Mean time of an attempt."},
			{key: "sigma", kind: number, def: "0.5", min: "0", max: "5", doc: "Standard deviation of the logarithm of the time; 0 makes it constant."},
			{key: "failure_rate", kind: number, def: "0", min: "0", max: "1", doc: "Share of attempts that fail."},
			{key: "seed", kind: integer, def: "1", min: "0", max: "9007199254740991", doc: "Seed of times and failures."},
		}},
	}},
	{key: "batch", kind: object, doc: "Several records in one call: consecutive ones of one partition, for workers that answer [batches](workers.md#batches). Without it each record has a call of its own; `batch: {}` takes the values below. Not with `hedge`.", fields: []*field{
		{key: "records", kind: integer, def: "1000", min: "1", max: "10000", doc: "Most records of a batch."},
		{key: "wait", kind: duration, def: "1s", min: "0s", max: "30s", doc: "How long a record waits for a batch to become full; waiting holds no worker. 0s takes what is there."},
		{key: "bytes", kind: size, def: "8MiB", min: "1KiB", max: "1GiB", doc: "Keys, values and headers of a batch, unless one record alone has more."},
	}},
	{key: "retry", kind: object, doc: "How failed attempts are repeated, with full jitter. Waiting holds no worker.", fields: []*field{
		{key: "attempts", kind: integer, def: "5", min: "1", max: "1000000", doc: "Attempts at a record, the first included."},
		{key: "initial", kind: duration, def: "200ms", min: "1ms", max: "1h", doc: "Longest wait before the second attempt; doubled with each further one."},
		{key: "max", kind: duration, def: "10s", min: "1ms", max: "1d", doc: "Longest wait between two attempts."},
		{key: "max_elapsed", kind: duration, def: "0s", doc: "No further attempt after this time since the first; 0s is no limit."},
		{key: "budget", kind: percent, def: "20%", min: "0.1%", max: "1000%", doc: "Most retries that fail again, as a share of the first attempts, so that workers which are down do not get several times the load. Those beyond it wait; their attempts count as ever. Ten a second are allowed in any case."},
	}},
	{key: "hedge", kind: object, doc: "A second attempt beside one that runs for long. The first answer wins, the other attempt is cancelled. Both have the same idempotency key and the same number. If the second runs for long too, it gets a third one, up to `retry.attempts` at once.", fields: []*field{
		{key: "after", kind: delay, def: "0s", doc: "When, since the attempt was dispatched: a duration, or `p95`: after as long as 95 % of the last 512 attempts that succeeded took (`p1` to `p99`), and never before there were 64. 0s is never."},
		{key: "head_only", kind: boolean, def: "true", doc: "Only for the record that its partition waits for. One that comes to the head with an older attempt gets its second one at once."},
		{key: "budget", kind: percent, def: "5%", min: "0.1%", max: "100%", doc: "Most second attempts, as a share of the first ones: what is slow because it is overloaded does not get twice the load. One in ten seconds is allowed in any case."},
	}},
	{key: "max_age", kind: duration, def: "0s", doc: "A record that is older than this, by its timestamp, when it is to be attempted is exhausted instead, the first time as well as later: `on_exhausted` decides. 0s is no limit."},
	{key: "on_exhausted", kind: text, def: "hold", enum: []string{"hold", "dead_letter", "drop", "stop"}, doc: "What to do when the attempts are used up, a worker rejects the record, it is older than `max_age`, or its topic does not take an output (`max.message.bytes`, before compression; a null key where it is compacted). `hold`: the partition waits at the record until a person decides: `seriatim held`; others go on. `dead_letter`: the record goes to `dead_letter.topic`, in its turn; one that is too large for it is held. `drop`: it is logged and counted. `stop`: the partition stops, with the reason shown, until a restart or a reassignment tries again."},
	{key: "dead_letter", kind: object, doc: "Where exhausted records go. Needed if `on_exhausted` is `dead_letter`; with `hold` it is where a person may send them.", fields: []*field{
		{key: "topic", kind: text, required: true, form: topicForm, formDoc: nameDoc, doc: "Topic that takes the record untouched, with headers (KIP-1191) that say where it came from and what went wrong."},
		{key: "breaker", kind: object, doc: "When there are too many dead letters: the pipeline pauses and says so, instead of moving its input to the topic because a worker is broken. Records that are exhausted from then on are held; one record at a time is tried, after 5 s, then twice as long up to `over`. When as many in a row are answered as there should be for each bad one (1 / `ratio`, at least 10, at most 100), those held go to the topic and the pipeline goes on. It takes 10 dead letters at least; those of `max_age` don't count. Only if `on_exhausted` is `dead_letter`.", fields: []*field{
			{key: "ratio", kind: percent, def: "5%", min: "0.1%", max: "99%", doc: "Most dead letters, as a share of the records that are completed."},
			{key: "over", kind: duration, def: "1m", min: "1s", max: "1d", doc: "The time in which they are counted."},
		}},
	}},
	{key: "output", kind: object, required: true, doc: "Where results go.", fields: []*field{
		{key: "topic", kind: text, required: true, form: templateForm, formDoc: "a topic name, which may hold {topic} and {1} to {9}", doc: "Output topic. `{topic}` is the name of the input topic, `{1}` the first group of `topics_regex`."},
		{key: "partition", kind: text, def: "source", enum: []string{"source", "key"}, doc: "The partition of the source, or one by a hash of the key as Java clients do it. With `source`, an output topic that has fewer partitions than its input is refused at start: the process ends with the command that adds them. Where an input grows later, the partitions without a counterpart wait and keep the instance from being ready; the others go on."},
		{key: "provenance", kind: boolean, def: "true", doc: "Add the headers `seriatim.source` (topic/partition/offset) and, for several outputs of one record, `seriatim.output`."},
	}},
	{key: "delivery", kind: text, def: "at_least_once", enum: []string{"at_least_once", "exactly_once"}, doc: "What a crash may do: repeat outputs, or nothing that readers of committed records see. `exactly_once` puts outputs, dead letters and offsets into transactions and needs Kafka 4.0."},
	{key: "allow_old_brokers", kind: boolean, def: "false", doc: "Accept `exactly_once` on clusters whose transactions do not fence each other, where KAFKA-17754 may lose or double records."},
	{key: "commit", kind: object, doc: "When offsets are committed.", fields: []*field{
		{key: "interval", kind: duration, def: "5s", min: "100ms", max: "1h", doc: "Every assigned partition is committed once in this time, whether it moved or not."},
		{key: "records", kind: integer, def: "10000", min: "1", max: "1000000000", doc: "Settled records that trigger a commit before the interval is over, at most once a second."},
		{key: "transaction", kind: duration, def: "100ms", min: "1ms", max: "5s", doc: "Length of a transaction of `exactly_once`, unless a window fills up before. Readers of committed records wait for its end."},
	}},
	{key: "drain_timeout", kind: duration, def: "10s", min: "100ms", max: "1h", doc: "Time to finish what runs when the process ends or a partition is taken away; at most half of `input.rebalance_timeout`. Give whoever ends the process (systemd, Kubernetes) 5 s more."},
	{key: "state", kind: object, doc: "Where attempts, holds and decisions outlive a crash and a rebalance. Without it they are in memory only. See [state.md](state.md).", fields: []*field{
		{key: "topic", kind: text, required: true, form: topicForm, formDoc: nameDoc, doc: "A compacted topic; several pipelines may share it."},
		{key: "reply_log", kind: boolean, def: "false", doc: "Also store results that wait for a slow record before them, so that after a crash or a rebalance they are emitted without another call of the worker."},
	}},
	{key: "callbacks", kind: object, doc: "Where workers of `transform.http` may ask for more time and leave notes while they work: see [workers.md](workers.md#while-it-works).", fields: []*field{
		{key: "listen", kind: text, def: "none", form: listenForm, formDoc: "host:port, or none", doc: "Address of a listener of its own that serves the addresses of attempts and nothing else, of any interface. Each has a token that nobody can guess; there is no other authentication, and no TLS. `none`: workers get no such address."},
		{key: "url", kind: text, form: callbackForm, formDoc: "an http:// or https:// address without user and query", doc: "How workers reach the listener, if not by `http://` and `listen`. A proxy in between must take the path of this URL away."},
	}},
}
