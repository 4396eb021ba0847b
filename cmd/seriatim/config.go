package main

import (
	"os"

	"github.com/spf13/cobra"

	"seriatim/config"
)

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Look at the configuration",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(configPrintCommand())
	return cmd
}

func configPrintCommand() *cobra.Command {
	var paths []string
	cmd := &cobra.Command{
		Use:   "print -c FILE...",
		Short: "Print the configuration in effect: defaults filled in, secrets redacted",
		Args:  filesByFlag,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(paths, os.LookupEnv)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(cfg.YAML())
			return err
		},
	}
	configFlag(cmd, &paths)
	return cmd
}
