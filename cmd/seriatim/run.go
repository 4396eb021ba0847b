package main

import (
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/cobra"

	"seriatim/config"
)

func runCommand() *cobra.Command {
	var paths []string
	cmd := &cobra.Command{
		Use:   "run -c FILE...",
		Short: "Run the pipelines",
		Long: `Run the pipelines of the configuration until SIGTERM or SIGINT. Then finish what
is being transformed, emit it, commit and leave the group, within drain_timeout.
A second signal ends the process at once.

Unless GOMEMLIMIT is set in the environment, the garbage collector aims at the
sum of window.bytes and 100 MiB for each pipeline, or at nine tenths of the
container's memory if that is less. Far from it GOGC is 400, unless that is set.

Exit codes:
  0   drained
  1   failed: the log says why
  2   wrong usage of this command
  75  the drain deadline passed with work left, or another process uses our
      instance name; what is unfinished is done again by whoever goes on
  78  the configuration is wrong`,
		Args: filesByFlag,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(paths, os.LookupEnv)
			if err != nil {
				return err
			}
			signals, stop := stopSignals()
			defer stop()
			logger := newLogger(cfg.Log, cmd.ErrOrStderr())
			p, err := newProcess(cfg, logger)
			if err != nil {
				return err
			}
			limitMemory(cfg.Pipelines, memlimit.FromCgroup, logger)
			// The HTTP client writes there what a broken worker sends: maybe values.
			log.SetOutput(io.Discard)
			return p.run(cmd.Context(), signals)
		},
	}
	configFlag(cmd, &paths)
	return cmd
}

// stopSignals returns the signals that ask the process to end, until stop is
// called. There is room for two: the second one means at once.
func stopSignals() (signals <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 2)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM)
	return c, func() { signal.Stop(c) }
}
