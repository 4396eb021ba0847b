package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"seriatim/internal/testkafka"
)

// A build is the program as users run it, with a directory of its own. What was started
// from it ends with it.
type build struct {
	dir   string
	leash *testkafka.Leash
	env   []string // beside that of the bench
}

// newBuild builds the program.
func newBuild(ctx context.Context) (*build, error) {
	dir, err := os.MkdirTemp("", "seriatim-bench-")
	if err != nil {
		return nil, err
	}
	leash, err := testkafka.NewLeash(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	b := &build{dir: dir, leash: leash}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", b.binary(), "./cmd/seriatim")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.end()
		return nil, fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return b, nil
}

func (b *build) binary() string { return filepath.Join(b.dir, "seriatim") }

func (b *build) end() {
	if err := b.leash.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}

// start starts the program.
func (b *build) start(config string) (*testkafka.Process, error) {
	file, err := os.CreateTemp(b.dir, "*.yaml")
	if err != nil {
		return nil, err
	}
	if _, err := file.WriteString(config); err != nil {
		return nil, err
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	cmd := exec.Command(b.binary(), "run", "-c", file.Name())
	cmd.Stderr = os.Stderr // the log
	cmd.Env = append(os.Environ(), b.env...)
	return b.leash.Start(cmd)
}

// startProgram builds the program and starts it.
func startProgram(ctx context.Context, config string) (program *testkafka.Process, stop func(), err error) {
	b, err := newBuild(ctx)
	if err != nil {
		return nil, nil, err
	}
	if program, err = b.start(config); err != nil {
		b.end()
		return nil, nil, err
	}
	return program, b.end, nil
}

// An instance is a process of the program with an admin listener.
type instance struct {
	*testkafka.Process
	admin string // host:port
}

// instanceConfig is that of one pipeline whose other settings follow.
const instanceConfig = `kafka: {brokers: [%q]}
admin: {listen: %q}
log: {level: warn}
instance: %s
pipelines:
  - name: bench
%s`

// startInstance starts the program with a pipeline. Its settings are lines of YAML,
// indented by four.
func (b *build) startInstance(broker, name, pipeline string) (*instance, error) {
	ports, err := testkafka.FreePorts(1)
	if err != nil {
		return nil, err
	}
	admin := "127.0.0.1:" + strconv.Itoa(ports[0])
	process, err := b.start(fmt.Sprintf(instanceConfig, broker, admin, name, pipeline))
	if err != nil {
		return nil, err
	}
	return &instance{process, admin}, nil
}

// leave ends it as a person would.
func (i *instance) leave() error {
	if err := i.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	<-i.Exited()
	if code := i.ExitCode(); code != 0 {
		return fmt.Errorf("the program ended with exit code %d", code)
	}
	return nil
}

// kill ends it as a crash would.
func (i *instance) kill() error {
	err := i.Signal(syscall.SIGKILL)
	<-i.Exited()
	return err
}

// partitions are those that are assigned to it now.
func (i *instance) partitions(ctx context.Context) (map[int32]bool, error) {
	var state struct {
		Pipelines []struct {
			Partitions []struct {
				Partition  int32
				NextOffset *int64 `json:"next_offset"`
			}
		}
	}
	resp, err := get(ctx, "http://"+i.admin+"/api/v1/pipelines")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&state); err != nil {
		return nil, err
	}
	assigned := make(map[int32]bool)
	for _, pipeline := range state.Pipelines {
		for _, p := range pipeline.Partitions {
			if p.NextOffset != nil { // else it has only just come
				assigned[p.Partition] = true
			}
		}
	}
	return assigned, nil
}

// metric is the value of one of its metrics without labels.
func (i *instance) metric(ctx context.Context, name string) (float64, error) {
	resp, err := get(ctx, "http://"+i.admin+"/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("%s has no metric %s", i.admin, name)
}

func get(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return resp, nil
}

// until asks every 50 ms until the answer is yes, for two minutes at most.
func until(ctx context.Context, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	var last error
	for {
		is, err := done()
		if is {
			return nil
		}
		last = err // such as that nobody listens yet
		if err := pause(ctx, look.C); err != nil {
			return fmt.Errorf("%s: %w", what, errors.Join(err, last))
		}
	}
}

// pause waits for c.
func pause(ctx context.Context, c <-chan time.Time) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
