package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"seriatim/config"
	"seriatim/internal/demo"
	"seriatim/kafka"
)

func demoCommand() *cobra.Command {
	var (
		length time.Duration
		keep   bool
		port   uint16
		paths  []string
	)
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See it work; needs no Kafka",
		Long: `Run one-at-a-time processing and Seriatim side by side on a broker inside this
process, and give a verdict. Then, if there is Node, show what hedging does about
a worker that hangs. It ends with exit code 1 if anything came out of order or was
lost.

With -c it runs the pipelines of your configuration on that broker instead: it
creates their topics, feeds them simple records, and ignores the kafka section.`,
		Example: `  seriatim demo
  seriatim demo --keep --port 9092     then look in with any Kafka client
  seriatim demo -c seriatim.yaml       your own pipelines, without a cluster`,
		Args: filesByFlag,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if length <= 0 {
				return &exitError{exitUsage, errors.New("--for: must be longer than 0s")}
			}
			signals, stop := stopSignals()
			defer stop()
			screen := demo.NewScreen(cmd.OutOrStdout(), cmd.ErrOrStderr())
			opts := demo.Options{Screen: screen, Length: length, Keep: keep}
			return untilSecondSignal(cmd.Context(), signals, screen, func(ctx context.Context) error {
				broker, err := kafka.StartEmbedded(int(port))
				if err != nil {
					return fmt.Errorf("--port %d: %w", port, err)
				}
				defer broker.Close()
				if len(paths) > 0 {
					return judged(demoOwn(ctx, broker, paths, opts))
				}
				wrong, err := demo.SideBySide(ctx, broker, opts)
				if err != nil || keep || ctx.Err() != nil {
					return judged(wrong, err)
				}
				screen.Reopen()
				second, err := demo.Hanging(ctx, broker, opts)
				return judged(wrong || second, err)
			})
		},
	}
	cmd.Flags().DurationVar(&length, "for", 30*time.Second, "`time` until a verdict")
	cmd.Flags().BoolVar(&keep, "keep", false, "go on after the first verdict, until Ctrl-C")
	cmd.Flags().Uint16Var(&port, "port", 0, "`port` of the broker on 127.0.0.1; 0 takes a free one")
	cmd.Flags().StringArrayVarP(&paths, "config", "c", nil, "configuration `file` or directory: run its pipelines instead (repeatable)")
	return cmd
}

// demoOwn runs the pipelines of a configuration on the broker of the demo.
func demoOwn(ctx context.Context, broker *kafka.Embedded, paths []string, opts demo.Options) (wrong bool, err error) {
	cfg, err := config.Load(paths, os.LookupEnv, "kafka")
	if err != nil {
		return false, err
	}
	cfg.Kafka.Brokers = []string{broker.Address()}
	if cfg.Log.Level != "error" {
		cfg.Log.Level = "warn" // the rest would hide what there is to see
	}
	for i := range cfg.Pipelines {
		cfg.Pipelines[i].State = nil // the broker ends with the process: there is nothing to outlive
	}
	p, err := newProcess(cfg, newLogger(cfg.Log, opts.Screen.Log()))
	if err != nil {
		return false, err
	}
	defer p.close() // for a demo that does not come to run it
	pipelines := make([]demo.OwnPipeline, len(cfg.Pipelines))
	for i, c := range cfg.Pipelines {
		pipelines[i] = demo.OwnPipeline{
			Name: c.Name, Topics: c.Input.Topics, Regex: c.Input.TopicsRegex,
			Output: c.Output.Topic, Provenance: c.Output.Provenance,
			Status: p.pipelines[i].Status,
		}
		if c.DeadLetter != nil {
			pipelines[i].DeadLetter = c.DeadLetter.Topic
		}
	}
	run := func(ctx context.Context) error { return p.run(ctx, nil) }
	return demo.Own(ctx, broker, pipelines, run, p.addresses(), opts)
}

// judged makes a wrong verdict, which the demo has told, an exit code.
func judged(wrong bool, err error) error {
	if err == nil && wrong {
		return &exitError{code: exitFailed}
	}
	return err
}

// untilSecondSignal runs a demo, whose context the first signal ends. The second
// one does not wait for it.
func untilSecondSignal(ctx context.Context, signals <-chan os.Signal, screen *demo.Screen, run func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	for {
		select {
		case err := <-ended:
			return err
		case <-signals:
			if ctx.Err() != nil {
				screen.Close()
				return &exitError{exitFailed, errors.New("ended by a second signal")}
			}
			cancel()
		}
	}
}
