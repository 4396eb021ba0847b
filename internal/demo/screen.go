package demo

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// A Screen is where a demo is shown: redrawn in place on a terminal, else as a
// line now and then. It is safe for concurrent use.
type Screen struct {
	out      io.Writer
	terminal *os.File // nil if out is none that can be redrawn
	view     view

	mu     sync.Mutex
	open   bool // the terminal shows frames
	closed bool // nothing is shown any more
	err    io.Writer
	held   []string // what was logged while frames are shown
	lost   int
}

// NewScreen returns a screen that shows on stdout, and what is logged on stderr.
// NO_COLOR and CLICOLOR_FORCE in the environment decide on colours, TERM and the
// locale on what else can be shown.
func NewScreen(stdout, stderr io.Writer) *Screen {
	s := &Screen{out: stdout, err: stderr, view: view{width: maxWidth, height: 1000}}
	if f, ok := stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		s.terminal = f
	}
	force := os.Getenv("CLICOLOR_FORCE")
	s.view.color = os.Getenv("NO_COLOR") == "" && (s.terminal != nil || force != "" && force != "0")
	if s.view.color {
		text.EnableColors() // what the library finds out for itself is about another stream
	}
	s.view.ascii = !speaksUTF8()
	return s
}

// speaksUTF8 reports whether the locale allows more than ASCII. Without any
// locale, as in containers, terminals do.
func speaksUTF8() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToUpper(os.Getenv(name)); v != "" {
			return strings.Contains(v, "UTF-8") || strings.Contains(v, "UTF8")
		}
	}
	return true
}

// live reports whether frames are redrawn in place.
func (s *Screen) live() bool { return s.terminal != nil }

const (
	openFrames  = "\x1b[?1049h\x1b[?25l" // the other screen, without a cursor
	closeFrames = "\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// draw shows a frame in place of the one before.
func (s *Screen) draw(f frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	f.notes = append(slices.Clip(f.notes), s.held[max(0, len(s.held)-2):]...)
	v := s.view
	if width, height, err := term.GetSize(int(s.terminal.Fd())); err == nil && width > 0 && height > 0 {
		v.width, v.height = width, height
	}
	var b strings.Builder
	if !s.open {
		s.open = true
		b.WriteString(openFrames)
	}
	b.WriteString(home)
	for i, line := range v.render(f) {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(line + clearLine)
	}
	b.WriteString(clearBelow)
	_, _ = io.WriteString(s.out, b.String())
}

// say prints a frame as one line.
func (s *Screen) say(f frame) { s.print(s.view.line(f)) }

// print prints lines that stay.
func (s *Screen) print(lines ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	for _, line := range lines {
		fmt.Fprintln(s.out, line)
	}
}

// leave ends redrawing. The last frame stays where the shell goes on, and what was
// logged meanwhile follows.
func (s *Screen) leave(last frame) {
	s.restore()
	if s.live() {
		v := s.view
		if width, _, err := term.GetSize(int(s.terminal.Fd())); err == nil && width > 0 {
			v.width = width
		}
		s.print(v.render(last)...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost > 0 {
		fmt.Fprintf(s.err, "(%d lines of the log before these were dropped)\n", s.lost)
	}
	for _, line := range s.held {
		fmt.Fprintln(s.err, line)
	}
	s.held, s.lost = nil, 0
}

// Close gives the terminal back as it was; nothing is shown afterwards.
func (s *Screen) Close() {
	s.restore()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// Reopen lets a closed screen show something again.
func (s *Screen) Reopen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = false
}

func (s *Screen) restore() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open {
		s.open = false
		_, _ = io.WriteString(s.out, closeFrames)
	}
}

// maxHeld is how many lines of the log are kept while frames are shown.
const maxHeld = 50

// Log returns where to log: lines appear in the frame while one is shown, and on
// stderr afterwards.
func (s *Screen) Log() io.Writer { return logWriter{s} }

type logWriter struct{ screen *Screen }

// Write takes whole lines.
func (w logWriter) Write(p []byte) (int, error) {
	s := w.screen
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return len(p), nil
	case !s.open:
		return s.err.Write(p)
	}
	for line := range strings.Lines(string(p)) {
		s.held = append(s.held, strings.TrimRight(line, "\n"))
	}
	if over := len(s.held) - maxHeld; over > 0 {
		s.lost += over
		s.held = slices.Delete(s.held, 0, over)
	}
	return len(p), nil
}
