// Package jq compiles the programs of transform.jq: the configuration checks with
// it what the transform will run.
package jq

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/itchyny/gojq"
)

// Variables returns the variables of a program, in the order in which
// [gojq.Code.RunWithContext] takes their values.
func Variables() []string {
	return []string{"$key", "$headers", "$timestamp", "$topic", "$partition", "$offset"}
}

// Compile compiles a program, which sees its input and [Variables] and nothing
// else: no environment ($ENV and env are empty), no modules, no further input. The
// error says where in the program, and what, is wrong.
func Compile(program string) (*gojq.Code, error) {
	if strings.TrimSpace(program) == "" {
		return nil, errors.New("is an empty program; write . to leave the value as it is")
	}
	query, err := gojq.Parse(program)
	if err != nil {
		return nil, fmt.Errorf("is no jq program: %w", placed(program, err))
	}
	code, err := gojq.Compile(query, gojq.WithVariables(Variables()))
	if err != nil {
		return nil, fmt.Errorf("is no jq program: %w", err)
	}
	return code, nil
}

// placed adds the place to an error of the parser.
func placed(program string, err error) error {
	var syntax *gojq.ParseError
	if !errors.As(err, &syntax) {
		return err
	}
	before := program[:min(max(0, syntax.Offset-len(syntax.Token)), len(program))]
	line := 1 + strings.Count(before, "\n")
	column := 1 + utf8.RuneCountInString(before[1+strings.LastIndexByte(before, '\n'):])
	return fmt.Errorf("line %d, column %d: %w", line, column, err)
}
