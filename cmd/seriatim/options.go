package main

import (
	"log/slog"

	"seriatim/config"
	"seriatim/kafka"
	"seriatim/processor"
	"seriatim/transform"
)

// Settings become the options of one package here, and nowhere else.

// kafkaOptions leaves out logger and metrics, which are no settings.
func kafkaOptions(c config.Kafka) kafka.Options {
	return kafka.Options{
		Brokers:  c.Brokers,
		ClientID: c.ClientID,
		TLS: kafka.TLS{
			Enabled:    c.TLS.Enabled,
			CAFile:     c.TLS.CAFile,
			CertFile:   c.TLS.CertFile,
			KeyFile:    c.TLS.KeyFile,
			ServerName: c.TLS.ServerName,
		},
		SASL: kafka.SASL{
			Mechanism: c.SASL.Mechanism,
			Username:  c.SASL.Username,
			Password:  c.SASL.Password.Reveal(),
		},
	}
}

// processorOptions leaves out client, logger and hooks, which are no settings,
// and the instance, which is one of the process.
func processorOptions(c config.Pipeline) processor.Options {
	var deadLetter string
	var breaker processor.Breaker
	if c.DeadLetter != nil {
		deadLetter = c.DeadLetter.Topic
		if c.DeadLetter.Breaker != nil {
			breaker = processor.Breaker(*c.DeadLetter.Breaker)
		}
	}
	var batch processor.Batch
	if c.Batch != nil {
		batch = processor.Batch(*c.Batch)
	}
	var state config.State
	if c.State != nil {
		state = *c.State
	}
	return processor.Options{
		Name: c.Name,
		Source: processor.Source{
			Topics:           c.Input.Topics,
			Regex:            c.Input.TopicsRegex,
			Group:            c.Input.Group,
			ServerSide:       c.Input.GroupProtocol == "consumer",
			SessionTimeout:   c.Input.SessionTimeout,
			RebalanceTimeout: c.Input.RebalanceTimeout,
			Static:           c.Input.StaticMembership,
			Start:            processor.Start(c.Input.Start),
			OnDataLoss:       onDataLoss[c.Input.OnDataLoss],
			ReadUncommitted:  c.Input.Isolation == "read_uncommitted",
		},
		Output: processor.Output{
			Topic:      c.Output.Topic,
			ByKey:      c.Output.Partition == "key",
			Provenance: c.Output.Provenance,
		},
		Workers:             c.Workers,
		WorkersPerPartition: c.WorkersPerPartition,
		Window:              processor.Window(c.Window),
		Batch:               batch,
		Retry:               processor.Retries(c.Retry),
		Hedge: processor.Hedges{
			After:    c.Hedge.After.Time,
			Quantile: c.Hedge.After.Quantile,
			All:      !c.Hedge.HeadOnly,
			Budget:   c.Hedge.Budget,
		},
		MaxAge:          c.MaxAge,
		OnExhausted:     onExhausted[c.OnExhausted],
		DeadLetterTopic: deadLetter,
		Breaker:         breaker,
		StateTopic:      state.Topic,
		ReplyLog:        state.ReplyLog,
		Commit:          processor.Commit(c.Commit),
		ExactlyOnce:     c.Delivery == "exactly_once",
		AllowOldBrokers: c.AllowOldBrokers,
		DrainTimeout:    c.DrainTimeout,
	}
}

var onDataLoss = map[string]processor.OnDataLoss{
	"stop": processor.LossStop, "earliest": processor.LossEarliest, "latest": processor.LossLatest,
}

var onExhausted = map[string]processor.OnExhausted{
	"stop": processor.Stop, "hold": processor.Hold, "dead_letter": processor.DeadLetter, "drop": processor.Drop,
}

// simulateOptions are all settings.
func simulateOptions(c config.Simulate) transform.SimulateOptions {
	return transform.SimulateOptions(c)
}

// httpOptions has a connection for each worker. It leaves out the logger and the
// callbacks, which are no settings of this section.
func httpOptions(c config.HTTP, workers int) transform.HTTPOptions {
	headers := make(map[string]string, len(c.Headers))
	for name, value := range c.Headers {
		headers[name] = value.Reveal()
	}
	var basic transform.BasicAuth
	if c.BasicAuth != nil {
		basic = transform.BasicAuth(*c.BasicAuth)
	}
	return transform.HTTPOptions{
		URLs:                 c.URLs,
		Timeout:              c.Timeout,
		Connections:          workers,
		MaxInFlight:          max(c.MaxInFlight, 0),
		Adaptive:             c.MaxInFlight == config.Adaptive,
		Rate:                 c.Rate,
		HTTP2:                c.HTTP2,
		Headers:              headers,
		BearerTokenFile:      c.BearerTokenFile,
		BasicAuth:            basic,
		TLS:                  transform.TLS(c.TLS),
		ProxyFromEnvironment: c.ProxyFromEnvironment,
		AllowLinkLocal:       c.AllowLinkLocal,
	}
}

// execOptions leaves out the logger, which is no setting.
func execOptions(c config.Exec) transform.ExecOptions {
	return transform.ExecOptions{Command: c.Command, Processes: c.Processes, InFlight: c.InFlight, Timeout: c.Timeout, Memory: c.Memory, CPU: c.CPU, LengthPrefixed: c.Codec == "length_prefixed", Env: c.Env}
}

// transformOf returns the transform that the settings choose. callbacks are nil if the
// pipeline has none.
func transformOf(c config.Pipeline, callbacks *transform.Callbacks, log *slog.Logger) (processor.Transform, error) {
	switch t := c.Transform; {
	case t.HTTP != nil:
		opts := httpOptions(*t.HTTP, c.Workers)
		opts.Callbacks = callbacks
		opts.Logger = log
		return transform.HTTP(opts)
	case t.Exec != nil:
		opts := execOptions(*t.Exec)
		opts.Logger = log
		return transform.Exec(opts)
	case t.JQ != "":
		return transform.JQ(transform.JQOptions{Program: t.JQ})
	case t.Simulate != nil:
		return transform.Simulate(simulateOptions(*t.Simulate)), nil
	default:
		return transform.Pass(), nil
	}
}
