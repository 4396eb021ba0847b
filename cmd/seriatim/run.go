package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the pipelines",
		RunE:  func(*cobra.Command, []string) error { return errors.New("run is not built yet") },
	}
}
