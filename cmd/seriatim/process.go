package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"

	"seriatim/admin"
	"seriatim/config"
	"seriatim/processor"
	"seriatim/transform"
)

// A process runs the pipelines of one configuration and serves their state.
type process struct {
	log       *slog.Logger
	pipelines []pipeline
	admin     *admin.Server
	listeners []listener
}

type pipeline struct {
	name string
	*processor.Pipeline
	end func() // what its transform holds: connections, processes
}

type listener struct {
	net.Listener
	of      string // admin, or callbacks
	handler http.Handler
}

// newProcess builds everything that cfg asks for and listens, but asks no broker
// and runs nothing yet. An error about a setting is an exitError.
func newProcess(cfg config.Config, log *slog.Logger) (*process, error) {
	version, revision := buildVersion()
	metrics := admin.NewMetrics(version, revision)
	p := &process{log: log}
	if err := p.addPipelines(cfg, metrics); err != nil {
		p.close()
		return nil, err
	}
	p.admin = admin.New(admin.Options{Metrics: metrics, Pipelines: p.shown(), Logger: log})
	if err := p.listen(cfg.Admin); err != nil {
		p.close()
		return nil, err
	}
	names := make([]string, len(p.pipelines))
	for i := range p.pipelines {
		names[i] = p.pipelines[i].name
	}
	log.Info("seriatim starts", "version", version, "instance", cfg.Instance, "pipelines", strings.Join(names, ","),
		"brokers", strings.Join(cfg.Kafka.Brokers, ","), "admin", p.addresses())
	return p, nil
}

// addPipelines adds the pipelines, and listens where their workers call back.
func (p *process) addPipelines(cfg config.Config, metrics *admin.Metrics) error {
	brokers := kafkaOptions(cfg.Kafka)
	brokers.Logger = p.log.With("component", "kafka")
	brokers.Metrics = metrics.Registry
	client, err := brokers.Client()
	if err != nil {
		return &exitError{exitConfig, fmt.Errorf("kafka.%w", err)}
	}
	for _, c := range cfg.Pipelines {
		callbacks, err := p.listenToWorkers(c)
		if err != nil {
			return fmt.Errorf("pipeline %s: callbacks.%w", c.Name, err)
		}
		asked, err := transformOf(c, callbacks, p.log.With("pipeline", c.Name))
		if err != nil {
			return &exitError{exitConfig, fmt.Errorf("pipeline %s: transform: %w", c.Name, err)}
		}
		opts := processorOptions(c)
		opts.Instance = cfg.Instance
		opts.Client = client
		opts.Logger = p.log
		opts.Hooks = metrics.Hooks(c.Name)
		built, err := processor.New(opts, asked)
		if err != nil {
			return &exitError{exitConfig, fmt.Errorf("pipeline %s: %w", c.Name, err)}
		}
		end := func() {}
		if t, ok := asked.(interface{ Close() }); ok {
			end = t.Close
		}
		p.pipelines = append(p.pipelines, pipeline{c.Name, built, end})
	}
	return nil
}

func (p *process) shown() []admin.Pipeline {
	shown := make([]admin.Pipeline, len(p.pipelines))
	for i, pl := range p.pipelines {
		shown[i] = admin.Pipeline{Name: pl.name, Status: pl.Status, Decide: pl.Decide, CloseBreaker: pl.CloseBreaker}
	}
	return shown
}

// listen opens the listeners that are wanted.
func (p *process) listen(c config.Admin) error {
	host, _, _ := net.SplitHostPort(c.Listen) // "none" has no host, and needs none
	for _, l := range []struct {
		setting, address string
		handler          http.Handler
	}{
		{"admin.listen", c.Listen, p.admin.Handler(host)},
		{"admin.probes_listen", c.ProbesListen, p.admin.Probes()},
	} {
		if l.address == config.None {
			continue
		}
		opened, err := listen(l.address)
		if err != nil {
			return fmt.Errorf("%s: %w", l.setting, err)
		}
		p.listeners = append(p.listeners, listener{opened, "admin", l.handler})
	}
	return nil
}

// listenToWorkers opens the listener of a pipeline's callbacks; nil if it has none.
func (p *process) listenToWorkers(c config.Pipeline) (*transform.Callbacks, error) {
	if c.Callbacks.Listen == config.None {
		return nil, nil //nolint:nilnil // there are none
	}
	opened, err := listen(c.Callbacks.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	url := cmp.Or(c.Callbacks.URL, "http://"+opened.Addr().String())
	callbacks, err := transform.NewCallbacks(url)
	if err != nil {
		_ = opened.Close()
		return nil, &exitError{exitConfig, err}
	}
	p.listeners = append(p.listeners, listener{opened, "callbacks", callbacks.Handler()})
	p.log.Info("workers may call back", "pipeline", c.Name, "listen", opened.Addr().String(), "url", url)
	return callbacks, nil
}

// listen opens a listener; the error names the address.
func listen(address string) (net.Listener, error) {
	opened, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w: end the process that has the port, or give another one here", err)
	}
	return opened, err
}

// addresses names where the state is served.
func (p *process) addresses() string {
	var addresses []string
	for _, l := range p.listeners {
		if l.of == "admin" {
			addresses = append(addresses, l.Addr().String())
		}
	}
	return cmp.Or(strings.Join(addresses, ","), config.None)
}

// close closes the listeners of a process that does not run.
func (p *process) close() {
	for _, l := range p.listeners {
		_ = l.Close()
	}
}

// run runs the pipelines until ctx ends, a signal comes or one of them ends, and
// drains them then. The state is served to the end. The error is an exitError
// whose reason is logged.
func (p *process) run(ctx context.Context, signals <-chan os.Signal) error {
	running, drain := context.WithCancel(ctx)
	defer drain()
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()

	ended := make(chan error, len(p.pipelines)+len(p.listeners))
	var pipelines, servers sync.WaitGroup
	for _, pl := range p.pipelines {
		pipelines.Go(func() {
			err := pl.Run(running)
			pl.end()
			if err != nil {
				ended <- fmt.Errorf("pipeline %s: %w", pl.name, err)
			}
		})
	}
	for _, l := range p.listeners {
		servers.Go(func() {
			if err := p.admin.Serve(serving, l.Listener, l.handler); err != nil {
				ended <- fmt.Errorf("%s: %w", l.of, err)
			}
		})
	}
	drained := make(chan struct{})
	go func() {
		pipelines.Wait()
		stopServing()
		servers.Wait()
		close(drained)
	}()

	code := 0
	failed := func(err error) {
		if p.log.Error("the process ends", "reason", err); code == 0 {
			code = exitCode(err)
		}
		drain()
	}
	for {
		select {
		case err := <-ended:
			failed(err)
		case s := <-signals:
			if running.Err() != nil {
				p.log.Error("a second signal ends the process at once; what is unfinished is done again after a restart", "signal", s.String())
				return &exitError{code: exitFailed}
			}
			p.log.Info("drains: finishes what is being transformed; a second signal ends at once", "signal", s.String())
			drain()
		case <-drained:
			for len(ended) > 0 {
				failed(<-ended)
			}
			if code != 0 {
				return &exitError{code: code}
			}
			p.log.Info("everything is drained")
			return nil
		}
	}
}

// exitCode is what the process ends with when a part of it ended with err.
func exitCode(err error) int {
	var fenced *processor.FencedError
	if errors.Is(err, processor.ErrDrainDeadline) || errors.As(err, &fenced) {
		return exitDrain
	}
	return exitFailed
}

// newLogger returns a logger as the settings want it.
func newLogger(c config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // the configuration allows only names that it knows
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
