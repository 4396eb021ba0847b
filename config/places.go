package config

import (
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"
)

// A place names a setting in one file.
type place struct{ file, path string }

// An entry is a setting that was given. It is bad when a problem of it is known,
// so that nothing is said of what follows from that.
type entry struct {
	line, column int
	bad          bool
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,100}$`)

// key returns the place of a setting below p.
func (p place) key(key string) place {
	if !plainKey.MatchString(key) {
		key = quote(key)
	}
	if p.path != "" {
		key = p.path + "." + key
	}
	return place{p.file, key}
}

func (p place) index(i int) place { return place{p.file, fmt.Sprintf("%s[%d]", p.path, i)} }

// parent returns the place that p is directly below.
func (p place) parent() place {
	return place{p.file, p.path[:max(0, strings.LastIndexAny(p.path, ".["))]}
}

// position returns where the setting at p or, if it was not given, what is
// around it begins.
func (l *loader) position(p place) (line, column int) {
	for up := p; ; up = up.parent() {
		if e := l.places[up]; e != nil {
			return e.line, e.column
		}
		if up.path == "" {
			return 1, 1
		}
	}
}

// problem reports what is wrong with the setting at p, at node n or, without
// one, where the setting or what is around it was given.
func (l *loader) problem(p place, n *yaml.Node, format string, args ...any) {
	pr := Problem{File: p.file, Path: p.path, What: oneLine(fmt.Sprintf(format, args...))}
	pr.Line, pr.Column = l.position(p)
	if n != nil {
		pr.Line, pr.Column = n.Line, n.Column
	}
	l.spoil(p, pr.Line, pr.Column)
	l.problems = append(l.problems, pr)
}

// spoil marks the setting at p as bad.
func (l *loader) spoil(p place, line, column int) {
	if l.places[p] == nil {
		l.places[p] = &entry{line: line, column: column}
	}
	l.places[p].bad = true
	for up := p; up.path != ""; {
		up = up.parent()
		l.badWithin[up] = true
	}
}

func (l *loader) given(p place) bool { return l.places[p] != nil }

// sound reports whether nothing is wrong with the settings at these places, with
// what is around them, and with what is in them.
func (l *loader) sound(places ...place) bool {
	for _, p := range places {
		if l.badWithin[p] {
			return false
		}
		for up := p; ; up = up.parent() {
			if e := l.places[up]; e != nil && e.bad {
				return false
			}
			if up.path == "" {
				break
			}
		}
	}
	return true
}

// where returns file:line of a setting.
func (l *loader) where(p place) string {
	line, _ := l.position(p)
	return fmt.Sprintf("%s:%d", p.file, line)
}
