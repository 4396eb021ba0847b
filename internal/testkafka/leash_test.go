package testkafka

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// holdFor makes the test binary a process that holds another one on a leash, with
// a directory of that name, until it is killed.
const holdFor = "TESTKAFKA_HOLD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdFor); dir != "" {
		hold(dir)
	}
	os.Exit(m.Run())
}

func hold(dir string) {
	leash, err := NewLeash(dir)
	if err == nil {
		var p *Process
		if p, err = leash.Start(exec.Command("sleep", "1000")); err == nil {
			fmt.Fprintln(os.Stdout, p.Pid())
			<-p.Exited()
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func TestLeashOutlivesTheProcessThatIsKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.MkdirAll(filepath.Join(dir, "deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	holder := exec.Command(os.Args[0])
	holder.Env = append(os.Environ(), holdFor+"="+dir)
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var held int
	if _, err := fmt.Sscan(line, &held); err != nil {
		t.Fatal(err)
	}
	if !alive(held) {
		t.Fatalf("process %d does not run", held)
	}
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait() // killed
	await(t, "the end of the held process", func() bool { return !alive(held) })
	await(t, "the directory to be removed", func() bool { return missing(dir) })
}

func TestLeashClose(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	leash, err := NewLeash(dir)
	if err != nil {
		t.Fatal(err)
	}
	ended, err := leash.Start(exec.Command("sh", "-c", "exit 3"))
	if err != nil {
		t.Fatal(err)
	}
	<-ended.Exited()
	if code := ended.ExitCode(); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
	held, err := leash.Start(exec.Command("sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	frozen, err := leash.Start(exec.Command("sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	if err := frozen.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := leash.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []*Process{held, frozen} {
		select {
		case <-p.Exited():
		default:
			t.Errorf("process %d has not ended", p.Pid())
		}
	}
	if !missing(dir) {
		t.Errorf("%s is still there", dir)
	}
	if _, err := leash.Start(exec.Command("true")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("start on a closed leash: %v, want %v", err, os.ErrClosed)
	}
}

// alive reports whether a process runs; one that has ended and that nobody has
// waited for does not.
func alive(pid int) bool {
	out, err := exec.Command("ps", "-o", "stat=", "-p", fmt.Sprint(pid)).Output()
	return err == nil && !strings.HasPrefix(string(out), "Z")
}

func missing(name string) bool {
	_, err := os.Stat(name)
	return errors.Is(err, fs.ErrNotExist)
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("waited 10 s for %s", what)
		case <-look.C:
		}
	}
}
