package main

import (
	"github.com/spf13/cobra"

	"seriatim/config"
)

func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration, for editors",
		Example: `  seriatim schema > seriatim.schema.json
  # then, as the first line of the configuration:
  # yaml-language-server: $schema=seriatim.schema.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(config.Schema())
			return err
		},
	}
}
