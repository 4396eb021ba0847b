package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
)

// Load reads the configuration from files, and from the files *.yaml and *.yml
// of directories, with lookup for environment variables. Files add up: each
// section stands in one of them, pipelines in any number. If anything is wrong
// the error is of type [Problems] and the Config is of no use.
//
// The sections named in ignored, such as kafka, are not looked at, as if they
// were not there: nothing in them is wrong, and no variable of theirs is needed.
func Load(paths []string, lookup func(string) (string, bool), ignored ...string) (Config, error) {
	return load(paths, source{lookup: lookup, read: readFile}, ignored...)
}

func load(paths []string, src source, ignored ...string) (Config, error) {
	l := newLoader(src)
	l.ignored = ignored
	for _, path := range paths {
		l.add(path)
	}
	return l.finish()
}

func newLoader(src source) *loader {
	l := &loader{src: src, places: map[place]*entry{}, badWithin: map[place]bool{}, sections: map[string]place{}}
	setDefaults(root, reflect.ValueOf(&l.config).Elem())
	return l
}

// finish checks the whole of what was loaded.
func (l *loader) finish() (Config, error) {
	if len(l.files) > 0 {
		l.derive()
		l.check()
	}
	if len(l.problems) > 0 {
		return Config{}, l.problems.sorted(l.files)
	}
	return l.config, nil
}

// A loader walks YAML nodes and the field tree side by side.
type loader struct {
	src      source
	ignored  []string // sections
	config   Config
	files    []string
	problems Problems

	places    map[place]*entry // every setting that was given
	badWithin map[place]bool   // settings with a problem somewhere in them
	sections  map[string]place // those at the top, in whichever file
	origins   []place          // of config.Pipelines
	unread    bool             // a file could not be read, so that anything may be missing
	aliased   int              // nodes reached through aliases
}

// add loads a file or the files of a directory.
func (l *loader) add(path string) {
	path = filepath.Clean(path)
	content, err := l.src.read(path)
	switch {
	case errors.Is(err, syscall.EISDIR):
		err = l.addDirectory(path)
	case err == nil && slices.Contains(l.files, path):
		err = errors.New("is given twice")
	case err == nil:
		l.files = append(l.files, path)
		l.document(place{file: path}, content)
	}
	if err != nil {
		l.unread = true
		l.problems = append(l.problems, Problem{File: path, What: plainError(err).Error()})
	}
}

func (l *loader) addDirectory(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	none := true
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if (ext == ".yaml" || ext == ".yml") && !strings.HasPrefix(e.Name(), ".") {
			none = false
			l.add(filepath.Join(path, e.Name()))
		}
	}
	if none {
		return errors.New("no *.yaml or *.yml file in this directory")
	}
	return nil
}

// derive fills in the defaults that depend on other settings or on the host.
func (l *loader) derive() {
	if len(l.config.Pipelines) == 0 && !l.unread && l.sound(place{l.files[0], "pipelines"}) {
		l.problem(place{l.files[0], "pipelines"}, nil, "is required: there is nothing to run")
	}
	if _, given := l.sections["instance"]; !given {
		l.config.Instance, _ = l.src.lookup("HOSTNAME")
		if l.config.Instance == "" {
			l.config.Instance, _ = os.Hostname()
		}
		if err := checkText(root.child("instance"), l.config.Instance, quote(l.config.Instance)); err != nil {
			l.problem(place{l.files[0], "instance"}, nil, "is not given, and the host name %v", err)
		}
	}
	for i := range l.config.Pipelines {
		p := &l.config.Pipelines[i]
		if p.Input.Group == "" {
			p.Input.Group = "seriatim." + p.Name
		}
		if p.Window.Records == 0 {
			p.Window.Records = max(16384, 64*p.Workers)
		}
	}
}
