package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"seriatim/admin"
)

func breakerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "breaker",
		Short: "Have a pipeline go on that too many dead letters have paused",
		Long: `With dead_letter.breaker too many dead letters pause a pipeline, until enough records
in a row are answered. The commands ask one running instance, at its admin.listen:
each has a breaker of its own.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var url string
	adminFlag(cmd, &url)
	cmd.AddCommand(breakerCloseCommand(&url))
	return cmd
}

func breakerCloseCommand(url *string) *cobra.Command {
	var c admin.CloseBreaker
	cmd := &cobra.Command{
		Use:   "close PIPELINE --reason TEXT",
		Short: "Close the breaker: what it has held is dead-lettered, and the pipeline goes on",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.Pipeline = args[0]
			if err := postAdmin(cmd.Context(), *url, "breaker", c); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: goes on\n", c.Pipeline)
			return err
		},
	}
	cmd.Flags().StringVar(&c.Reason, "reason", "", "`why`, for the log of the instance (required)")
	_ = cmd.MarkFlagRequired("reason")
	return cmd
}
