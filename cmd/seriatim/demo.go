package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "See it work; needs no Kafka",
		RunE:  func(*cobra.Command, []string) error { return errors.New("demo is not built yet") },
	}
}
