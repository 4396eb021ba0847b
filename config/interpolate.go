package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// maxFile limits what is read of one file, in bytes.
const maxFile = 4 << 20

// source is where the world outside the YAML text is asked.
type source struct {
	lookup func(string) (string, bool)       // of the environment
	read   func(path string) ([]byte, error) // of files
}

var variableForm = regexp.MustCompile(`(?s)^([A-Za-z_][A-Za-z0-9_]*)(?:(:-|:\?)(.*))?$`)

// expand replaces each ${…} in s by what it stands for, once: what comes out is
// not looked at again. $${ stands for ${ itself. Whether a file was read tells
// that the result may be a secret.
func (src source) expand(s string) (result string, fromFile bool, err error) {
	var b strings.Builder
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			b.WriteString(s)
			return b.String(), fromFile, nil
		}
		if i > 0 && s[i-1] == '$' {
			b.WriteString(s[:i-1] + "${")
			s = s[i+2:]
			continue
		}
		b.WriteString(s[:i])
		expr, rest, closed := strings.Cut(s[i+2:], "}")
		if !closed {
			return "", false, errors.New("${ without }; write $${ for a literal ${")
		}
		value, err := src.variable(expr)
		if err != nil {
			return "", false, err
		}
		fromFile = fromFile || strings.HasPrefix(expr, "file:")
		b.WriteString(value)
		s = rest
	}
}

// variable returns what ${expr} stands for.
func (src source) variable(expr string) (string, error) {
	if path, ok := strings.CutPrefix(expr, "file:"); ok {
		if !filepath.IsAbs(path) {
			return "", fmt.Errorf("${%s}: the path must be absolute", expr)
		}
		content, err := src.read(path)
		if err != nil {
			return "", fmt.Errorf("${%s}: %w", expr, plainError(err))
		}
		// Editors and echo end files with a newline that is no part of the value.
		return strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r"), nil
	}
	m := variableForm.FindStringSubmatch(expr)
	if m == nil {
		// Not shown: it may be a part of a password.
		return "", errors.New("has a ${…} that is not understood; write ${VAR}, ${VAR:-default}, ${VAR:?message} or ${file:/path}, and $${ for a literal ${")
	}
	if strings.Contains(m[3], "${") {
		return "", fmt.Errorf("${%s%s…} has another ${ in it; one expression stands for one value", m[1], m[2])
	}
	name, op, arg := m[1], m[2], m[3]
	value, ok := src.lookup(name)
	switch {
	case op == ":-" && value == "":
		return arg, nil
	case op == ":?" && value == "":
		if arg == "" {
			arg = "it must be set"
		}
		return "", fmt.Errorf("environment variable %s: %s", name, arg)
	case !ok:
		return "", fmt.Errorf("environment variable %s is not set; set it or write ${%s:-default}", name, name)
	}
	return value, nil
}

// readFile reads a file that is not too large to be meant.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(content) > maxFile {
		err = fmt.Errorf("larger than %s", formatSize(maxFile))
	}
	return content, err
}

// plainError is err without the operation and path that os puts before it.
func plainError(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
