package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"seriatim/admin"
)

// adminTimeout bounds one request to an instance, which answers within a second.
const adminTimeout = 10 * time.Second

func heldCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "held",
		Short: "Decide about records that are held",
		Long: `With on_exhausted: hold a record whose attempts are used up, or that a worker
rejects, is held: its partition waits for it until a person decides. The commands
ask one running instance, at its admin.listen. Records of other instances are seen
at those.

A record is named PIPELINE/TOPIC/PARTITION/OFFSET, as held list prints it. Of
several decisions about one record the first one wins.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var url string
	adminFlag(cmd, &url)
	cmd.AddCommand(heldListCommand(&url), heldShowCommand(&url))
	for _, d := range []struct{ use, short, decision string }{
		{"retry", "Attempt the record again", "retry"},
		{"skip", "Settle the record without an output; it is counted as dropped", "skip"},
		{"dead-letter", "Send the record to dead_letter.topic", "dead_letter"},
		{"replace", "Give the record another value, or outputs", ""},
	} {
		cmd.AddCommand(heldDecisionCommand(&url, d.use, d.short, d.decision))
	}
	return cmd
}

// adminFlag is the address of an instance, of a command and those below.
func adminFlag(cmd *cobra.Command, url *string) {
	cmd.PersistentFlags().StringVar(url, "admin", "http://127.0.0.1:8080", "`URL` of the instance's admin.listen")
}

func heldListCommand(url *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the records that are held",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			held, err := fetchHeld(cmd.Context(), *url)
			if err != nil {
				return err
			}
			unknown := unresponsive(held)
			switch {
			case asJSON:
				return errors.Join(printJSON(cmd.OutOrStdout(), held), unknown)
			case len(held.Held) == 0 && unknown != nil:
				return unknown
			case len(held.Held) == 0:
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "no record is held")
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "RECORD\tHELD FOR\tATTEMPTS\tLAST ERROR")
			for _, h := range held.Held {
				fmt.Fprintf(w, "%s\t%v\t%d\t%s\n", nameOf(h), time.Since(h.Since).Round(time.Second), h.Attempts, oneLine(h.LastError))
			}
			return errors.Join(w.Flush(), unknown)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, values included")
	return cmd
}

func heldShowCommand(url *string) *cobra.Command {
	return &cobra.Command{
		Use:   "show RECORD",
		Short: "Show a held record with its key, value and headers, as JSON",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			held, err := fetchHeld(cmd.Context(), *url)
			if err != nil {
				return err
			}
			for _, h := range held.Held {
				if nameOf(h) == args[0] {
					return printJSON(cmd.OutOrStdout(), h)
				}
			}
			return cmp.Or(unresponsive(held), fmt.Errorf("%s is not held by this instance", args[0]))
		},
	}
}

func heldDecisionCommand(url *string, use, short, decision string) *cobra.Command {
	d := admin.Decision{Decision: decision}
	var value, output, outputs string
	var null bool
	cmd := &cobra.Command{
		Use:   use + " RECORD --reason TEXT",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := parseName(args[0], &d); err != nil {
				return &exitError{exitUsage, err}
			}
			if decision == "" {
				if err := readReplacement(cmd, &d, value, output, outputs, null); err != nil {
					return err
				}
			}
			if err := postAdmin(cmd.Context(), *url, "held", d); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", args[0], strings.ReplaceAll(d.Decision, "_", " "))
			return err
		},
	}
	cmd.Flags().StringVar(&d.Reason, "reason", "", "`why`, for the log of the instance (required)")
	_ = cmd.MarkFlagRequired("reason")
	switch use {
	case "retry":
		cmd.Flags().IntVar(&d.Attempts, "attempts", 1, "`how many` attempts it gets before it is held again")
	case "replace":
		cmd.Flags().IntVar(&d.Attempts, "attempts", 1, "with --value: `how many` attempts it gets before it is held again")
		cmd.Flags().StringVar(&value, "value", "", "`file` (- is standard input) with the value to attempt it with")
		cmd.Flags().StringVar(&output, "output", "", "`file` (- is standard input) with the value of its one output; the worker is not asked")
		cmd.Flags().StringVar(&outputs, "outputs", "", "`file` (- is standard input) with the value of one of its outputs a line; blank lines do not count")
		cmd.Flags().BoolVar(&null, "null-output", false, "its one output is a tombstone")
		cmd.MarkFlagsOneRequired("value", "output", "outputs", "null-output")
		cmd.MarkFlagsMutuallyExclusive("value", "output", "outputs", "null-output")
	}
	return cmd
}

// readReplacement fills in what replaces the record.
func readReplacement(cmd *cobra.Command, d *admin.Decision, value, output, outputs string, null bool) error {
	d.Decision = "replace_output"
	if null {
		d.Value = json.RawMessage("null")
		return nil
	}
	file := output
	switch {
	case value != "":
		d.Decision, file = "replace_value", value
	case outputs != "":
		d.Decision, file = "replace_outputs", outputs
	}
	content, err := readFile(cmd.InOrStdin(), file)
	if err != nil {
		return err
	}
	if outputs != "" {
		for line := range bytes.Lines(content) {
			if line = bytes.TrimRight(line, "\r\n"); len(bytes.TrimSpace(line)) > 0 {
				d.Outputs = append(d.Outputs, (*admin.Bytes)(&line))
			}
		}
		return nil
	}
	d.Value, err = json.Marshal(admin.Bytes(content))
	return err
}

func readFile(stdin io.Reader, file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(file)
}

func nameOf(h admin.HeldRecord) string {
	return fmt.Sprintf("%s/%s/%d/%d", h.Pipeline, h.Topic, h.Partition, h.Offset)
}

// parseName reads what nameOf writes. Neither pipelines nor topics have a slash.
func parseName(name string, d *admin.Decision) error {
	parts := strings.Split(name, "/")
	if len(parts) == 4 {
		partition, errPartition := strconv.ParseInt(parts[2], 10, 32)
		offset, errOffset := strconv.ParseInt(parts[3], 10, 64)
		if errPartition == nil && errOffset == nil {
			d.Pipeline, d.Topic, d.Partition, d.Offset = parts[0], parts[1], int32(partition), offset
			return nil
		}
	}
	return fmt.Errorf("%q is no record: write PIPELINE/TOPIC/PARTITION/OFFSET, as held list prints it", name)
}

// unresponsive is the error that what some pipelines hold is not known, or nil.
func unresponsive(held admin.Held) error {
	if len(held.Unresponsive) == 0 {
		return nil
	}
	return fmt.Errorf("what %s holds is not known, it does not answer: look at /livez, and ask again", strings.Join(held.Unresponsive, ", "))
}

func fetchHeld(ctx context.Context, url string) (admin.Held, error) {
	var held admin.Held
	err := callAdmin(ctx, http.MethodGet, url, "held", nil, &held)
	return held, err
}

// postAdmin asks an instance to do something.
func postAdmin(ctx context.Context, url, what string, request any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	return callAdmin(ctx, http.MethodPost, url, what, body, nil)
}

// callAdmin asks an instance; a refusal is the error that it tells.
func callAdmin(ctx context.Context, method, url, what string, body []byte, answer any) error {
	if !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "https://") {
		return &exitError{exitUsage, fmt.Errorf("--admin: %q is no URL: write http:// and the host:port of admin.listen, like http://127.0.0.1:8080", url)}
	}
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(url, "/")+"/api/v1/"+what, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("--admin: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("no instance answers at %s (--admin names its admin.listen): %w", url, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var problem struct {
			Detail string `json:"detail"`
		}
		if json.NewDecoder(resp.Body).Decode(&problem) == nil && problem.Detail != "" {
			return errors.New(problem.Detail)
		}
		return fmt.Errorf("%s answers %s: is it an instance of Seriatim?", url, resp.Status)
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// oneLine keeps an error text in its cell.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' ' // a worker's text must not move the cursor
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 120 {
		return string(r[:119]) + "…"
	}
	return s
}
