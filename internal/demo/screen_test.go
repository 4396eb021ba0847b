package demo

import (
	"bytes"
	"strings"
	"testing"
)

func TestColoursAndSignsFollowTheEnvironment(t *testing.T) {
	for name, test := range map[string]struct {
		env          map[string]string
		color, ascii bool
	}{
		"no terminal":         {nil, false, false},
		"forced":              {map[string]string{"CLICOLOR_FORCE": "1"}, true, false},
		"not forced":          {map[string]string{"CLICOLOR_FORCE": "0"}, false, false},
		"forced but unwanted": {map[string]string{"CLICOLOR_FORCE": "1", "NO_COLOR": "1"}, false, false},
		"a locale of bytes":   {map[string]string{"LANG": "C"}, false, true},
		"the first one wins":  {map[string]string{"LC_ALL": "en_GB.UTF-8", "LANG": "C"}, false, false},
		"another spelling":    {map[string]string{"LC_CTYPE": "C.utf8"}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, name := range []string{"NO_COLOR", "CLICOLOR_FORCE", "LC_ALL", "LC_CTYPE", "LANG"} {
				t.Setenv(name, test.env[name])
			}
			var out bytes.Buffer
			s := NewScreen(&out, &out)
			if s.live() || s.view.color != test.color || s.view.ascii != test.ascii {
				t.Errorf("live %v, color %v, ascii %v; want false, %v, %v", s.live(), s.view.color, s.view.ascii, test.color, test.ascii)
			}
			s.say(someFrame())
			if got := strings.ContainsRune(out.String(), '\x1b'); got != test.color {
				t.Errorf("a line has colours: %v, want %v: %q", got, test.color, &out)
			}
		})
	}
}

func TestLogGoesThroughWithoutFrames(t *testing.T) {
	var out, log bytes.Buffer
	s := NewScreen(&out, &log)
	if _, err := s.Log().Write([]byte("a warning\n")); err != nil {
		t.Fatal(err)
	}
	if log.String() != "a warning\n" || out.Len() > 0 {
		t.Errorf("log %q, output %q; want it in the log alone", &log, &out)
	}
}
