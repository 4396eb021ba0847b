package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"seriatim/config"
)

func validateCommand() *cobra.Command {
	var paths []string
	cmd := &cobra.Command{
		Use:   "validate -c FILE...",
		Short: "Check configuration files; every problem is printed with its place",
		Args:  filesByFlag,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(paths, os.LookupEnv)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "ok: %d %s\n", len(cfg.Pipelines), plural(len(cfg.Pipelines), "pipeline"))
			return err
		},
	}
	configFlag(cmd, &paths)
	return cmd
}

// configFlag adds the required flag -c to cmd.
func configFlag(cmd *cobra.Command, paths *[]string) {
	cmd.Flags().StringArrayVarP(paths, "config", "c", nil, "configuration `file`, or a directory of them (repeatable)")
	_ = cmd.MarkFlagRequired("config")
}

// filesByFlag are the arguments of a command with the flag -c: none.
func filesByFlag(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q: a configuration file is given with -c: %s -c %s", args[0], cmd.CommandPath(), args[0])
	}
	return nil
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}
