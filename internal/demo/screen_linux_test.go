package demo

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal returns the two ends of a new terminal of the given size.
func openTerminal(t *testing.T, width, height uint16) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = person.Close() })
	fd := int(person.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width}); err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return person, program
}

// readUntil reads what the program wrote until a text comes.
func readUntil(t *testing.T, person *os.File, text string) string {
	t.Helper()
	var got []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(got, []byte(text)) {
		n, err := person.Read(buf)
		if err != nil {
			t.Fatalf("%v; got %q, want %q", err, got, text)
		}
		got = append(got, buf[:n]...)
	}
	return string(got)
}

func TestFramesAreRedrawnAndTheTerminalIsGivenBack(t *testing.T) {
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "1")
	t.Setenv("LC_ALL", "C.UTF-8")
	person, program := openTerminal(t, 72, 20)
	var log bytes.Buffer
	s := NewScreen(program, &log)
	if !s.live() {
		t.Fatal("the terminal is not recognised")
	}

	s.draw(someFrame())
	first := readUntil(t, person, clearBelow)
	if !strings.HasPrefix(first, openFrames+home+"One at a time against Seriatim") {
		t.Errorf("the first frame is %q", first)
	}
	if lines := strings.Split(first, "\r\n"); len(lines) > 20 {
		t.Errorf("%d lines in a terminal of 20", len(lines))
	}

	// What is logged shows in the frame, not across it.
	for i := range maxHeld + 5 {
		fmt.Fprintf(s.Log(), "warning %d\n", i)
	}
	if log.Len() > 0 {
		t.Errorf("the log goes across the frame: %q", &log)
	}
	f := someFrame()
	f.heads, f.charts = nil, nil // make room
	s.draw(f)
	second := readUntil(t, person, clearBelow)
	if strings.Contains(second, openFrames) || !strings.HasPrefix(second, home) || !strings.Contains(second, "! warning 54") {
		t.Errorf("the second frame is %q", second)
	}

	last := someFrame()
	last.clock = "the end"
	s.leave(last)
	s.print("the verdict")
	if got := readUntil(t, person, "the verdict"); !strings.HasPrefix(got, closeFrames) || !strings.Contains(got, "the end") {
		t.Errorf("at the end the terminal gets %q", got)
	}
	if got := log.String(); !strings.Contains(got, "(5 lines") || !strings.Contains(got, "warning 5\n") || !strings.HasSuffix(got, "warning 54\n") {
		t.Errorf("the log got %q", got)
	}
}

func TestNothingIsShownAfterClose(t *testing.T) {
	t.Setenv("TERM", "xterm")
	person, program := openTerminal(t, 80, 24)
	s := NewScreen(program, new(bytes.Buffer))
	s.draw(someFrame())
	readUntil(t, person, clearBelow)
	s.Close()
	s.draw(someFrame())
	s.print("not shown")
	fmt.Fprint(program, "prompt")
	if got := readUntil(t, person, "prompt"); got != closeFrames+"prompt" {
		t.Errorf("got %q, want the terminal given back and nothing more", got)
	}
}

func TestDumbTerminalGetsLines(t *testing.T) {
	t.Setenv("TERM", "dumb")
	_, program := openTerminal(t, 80, 24)
	if s := NewScreen(program, new(bytes.Buffer)); s.live() || s.view.color {
		t.Errorf("live %v, color %v; want neither", s.live(), s.view.color)
	}
}
