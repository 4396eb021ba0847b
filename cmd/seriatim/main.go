// Seriatim transforms the records of Kafka topics on many workers at once and
// emits the results strictly in the order of their source offsets.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"seriatim/config"
)

// Exit codes beside 0, which means done.
const (
	exitFailed = 1
	exitUsage  = 2
	exitDrain  = 75 // the drain deadline passed with work left
	exitConfig = 78
)

// An exitError ends the process with a code of its own. A nil err prints nothing.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func main() {
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs the command that args name and returns the exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}

	var problems config.Problems
	if errors.As(err, &problems) {
		fmt.Fprintln(stderr, problems)
		return exitConfig
	}
	// Whatever a command itself returns is an exitError by now (see ranCommand);
	// the rest is cobra complaining about flags and arguments.
	exit := &exitError{code: exitUsage, err: err}
	if !errors.As(err, &exit) {
		fmt.Fprintf(stderr, "seriatim: %v\nRun \"seriatim --help\" for usage.\n", err)
		return exitUsage
	}
	if exit.err != nil {
		fmt.Fprintf(stderr, "seriatim: %v\n", exit.err)
	}
	return exit.code
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "seriatim",
		Short: "Parallel transforms of Kafka topics, with results in source order",
		Long: `Seriatim reads Kafka topics, transforms their records out of order on many
workers, and emits the results strictly in the order of their source offsets.`,
		Example: `  seriatim demo                      see it work; needs no Kafka
  seriatim validate -c seriatim.yaml
  seriatim run -c seriatim.yaml`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.AddCommand(runCommand(), demoCommand(), heldCommand(), breakerCommand(), validateCommand(), configCommand(), schemaCommand(), versionCommand())
	ranCommand(root)
	return root
}

// ranCommand makes the errors that the commands below c return exitErrors, so
// that they differ from cobra's own, which are about usage.
func ranCommand(c *cobra.Command) {
	if run := c.RunE; run != nil {
		c.RunE = func(cmd *cobra.Command, args []string) error {
			err := run(cmd, args)
			var exit *exitError
			if err == nil || errors.As(err, &exit) {
				return err
			}
			return &exitError{code: exitFailed, err: err}
		}
	}
	for _, sub := range c.Commands() {
		ranCommand(sub)
	}
}
