package jq

import (
	"strings"
	"testing"
)

func TestProgramsThatCompile(t *testing.T) {
	for _, program := range []string{
		".", " . ", ".a\n| .b # a remark\n", "empty", "$ENV", "env", "now", "[., $key, $headers, $timestamp, $topic, $partition, $offset]",
	} {
		if _, err := Compile(program); err != nil {
			t.Errorf("%q: %v", program, err)
		}
	}
}

func TestProgramsThatDoNotCompile(t *testing.T) {
	for program, want := range map[string]string{
		"":                         "is an empty program",
		" \n":                      "is an empty program",
		".a |":                     "line 1, column 5: unexpected EOF",
		".a\n| \"é\" & .b":         "line 2, column 7: unexpected token \"&\"",
		"} .":                      "line 1, column 1: unexpected token \"}\"",
		`.a + "x`:                  "line 1, column 8: unterminated string literal",
		"frobnicate":               "function not defined: frobnicate/0",
		"$secret":                  "variable not defined: $secret",
		"input":                    "input(s)/0 is not allowed",
		"[inputs]":                 "input(s)/0 is not allowed",
		"input_filename":           "function not defined",
		`import "a" as a; a::b`:    `cannot load module: "a"`,
		`include "/etc/passwd"; .`: `cannot load module: "/etc/passwd"`,
		`import "a" as $a; $a`:     `cannot load module: "a"`,
		"debug":                    "function not defined: debug/0",
	} {
		_, err := Compile(program)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", program, err, want)
		}
	}
}
