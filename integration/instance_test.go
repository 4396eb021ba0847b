package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"seriatim/internal/testkafka"
)

// settings is a part of a configuration file.
type settings map[string]any

// with returns s with more settings put in, object by object. A transform takes
// the place of another.
func (s settings) with(more settings) settings {
	merged := make(settings, len(s)+len(more))
	for key, value := range s {
		merged[key] = value
	}
	for key, value := range more {
		old, both := merged[key].(settings)
		if object, ok := value.(settings); ok && both && key != "transform" {
			value = old.with(object)
		}
		merged[key] = value
	}
	return merged
}

// pipeline returns the settings of a pipeline that passes a topic on, and commits
// often.
func pipeline(name, in, out string) settings {
	return settings{
		"name": name,
		"input": settings{
			"topics":            []string{in},
			"start":             "earliest",
			"rebalance_timeout": "20s",
		},
		"transform": settings{"pass": settings{}},
		"output":    settings{"topic": out},
		"commit":    settings{"interval": "500ms"},
	}
}

// group is the consumer group of a pipeline.
func group(name string) string { return "seriatim." + name }

// process returns the settings of a process with these pipelines.
func process(pipelines ...settings) settings {
	return settings{
		"kafka":     settings{"brokers": bed.cluster.Brokers()},
		"pipelines": pipelines,
	}
}

// An instance is a process of the binary under test.
type instance struct {
	process *testkafka.Process
	name    string
	url     string // of the admin server
	log     string // file
	ending  bool   // the test wants it to end
}

// instances are those of each test.
var instances struct {
	sync.Mutex
	started int
	of      map[*testing.T][]*instance
}

// mustRun fails the test if one of its instances has ended by itself.
func mustRun(t *testing.T) {
	t.Helper()
	instances.Lock()
	defer instances.Unlock()
	for _, i := range instances.of[t] {
		select {
		case <-i.process.Exited():
			if !i.ending {
				i.ending = true
				t.Fatalf("%s has ended with exit code %d", i.name, i.process.ExitCode())
			}
		default:
		}
	}
}

// start runs the binary with a configuration. It is killed when the test ends.
func start(t *testing.T, conf settings) *instance {
	t.Helper()
	instances.Lock()
	instances.started++
	name := fmt.Sprintf("i%d", instances.started)
	instances.Unlock()
	addr := freeAddr(t)
	i := &instance{name: name, url: "http://" + addr, log: filepath.Join(bed.dir, name+".log")}
	text, err := yaml.Marshal(settings{
		"instance": name,
		"admin":    settings{"listen": addr},
	}.with(conf))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(bed.dir, name+".yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(i.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(bed.binary, "run", "-c", file)
	cmd.Stdout, cmd.Stderr = log, log
	if i.process, err = bed.leash.Start(cmd); err != nil {
		t.Fatal(err)
	}
	instances.Lock()
	if instances.of == nil {
		instances.of = make(map[*testing.T][]*instance)
	}
	instances.of[t] = append(instances.of[t], i)
	instances.Unlock()
	t.Cleanup(func() {
		instances.Lock()
		delete(instances.of, t)
		instances.Unlock()
		_ = i.process.Signal(syscall.SIGKILL) // it may have ended
		<-i.process.Exited()
		if t.Failed() {
			t.Logf("the configuration of %s:\n%s\nthe end of its log:\n%s", name, text, i.logTail(60))
		}
		if text := i.logText(); strings.Contains(text, "\npanic: ") || strings.Contains(text, "\nfatal error: ") {
			t.Errorf("instance %s has crashed:\n%s", name, i.logTail(60))
		}
	})
	return i
}

// freeAddr returns an address of loopback that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// end notes that the test wants the instance to end.
func (i *instance) end(t *testing.T) {
	t.Helper()
	mustRun(t)
	instances.Lock()
	i.ending = true
	instances.Unlock()
}

// terminate asks the instance to end, and returns its exit code when it has.
func (i *instance) terminate(t *testing.T) int {
	t.Helper()
	i.end(t)
	if err := i.process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("terminate %s: %v", i.name, err)
	}
	return i.exit(t)
}

// exit waits for the end of the instance and returns its exit code.
func (i *instance) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-i.process.Exited():
		return i.process.ExitCode()
	case <-time.After(patience):
		t.Fatalf("waited %v for %s to end", patience, i.name)
		return 0
	}
}

// kill ends the instance as kill -9 does.
func (i *instance) kill(t *testing.T) {
	t.Helper()
	i.end(t)
	if err := i.process.Signal(syscall.SIGKILL); err != nil {
		t.Fatalf("kill %s: %v", i.name, err)
	}
	<-i.process.Exited()
}

// drain terminates the instance, which must finish what it has begun.
func (i *instance) drain(t *testing.T) {
	t.Helper()
	if code := i.terminate(t); code != 0 {
		t.Fatalf("%s ended with exit code %d, want 0", i.name, code)
	}
}

// finish waits until its pipeline has committed all of the input, and drains it: the output
// must be that input, in order, with nothing twice.
func (i *instance) finish(t *testing.T, pipeline, in, out string) {
	t.Helper()
	awaitCaughtUp(t, patience, group(pipeline), in)
	i.drain(t)
	compareExact(t, in, out)
}

// get asks the admin server. It reports code 0 while that does not listen.
func (i *instance) get(t *testing.T, path string) (code int, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, i.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

// awaitReady waits until the instance says that it is ready.
func (i *instance) awaitReady(t *testing.T) {
	t.Helper()
	await(t, patience, i.name+" to be ready", func() (bool, string) {
		code, body := i.get(t, "/readyz?verbose")
		return code == http.StatusOK, body
	})
}

// awaitUnready waits until the instance gives a reason in which all these words
// are, and returns the line.
func (i *instance) awaitUnready(t *testing.T, words ...string) string {
	t.Helper()
	var found string
	await(t, patience, fmt.Sprintf("%s to say why it is not ready: %q", i.name, words), func() (bool, string) {
		code, body := i.get(t, "/readyz?verbose")
		for line := range strings.Lines(body) {
			if code == http.StatusServiceUnavailable && strings.HasPrefix(line, "[-] ") && containsAll(line, words) {
				found = line
				return true, ""
			}
		}
		return false, body
	})
	return found
}

func containsAll(text string, words []string) bool {
	for _, word := range words {
		if !strings.Contains(text, word) {
			return false
		}
	}
	return true
}

// metric returns the sum of the samples of a metric whose labels hold all these.
func (i *instance) metric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	code, body := i.get(t, "/metrics")
	if code != http.StatusOK {
		t.Fatalf("/metrics of %s: %d %s", i.name, code, body)
	}
	var sum float64
	found := false
	for line := range strings.Lines(body) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if !strings.HasPrefix(series, name+"{") || !containsAll(series, labels) {
			continue
		}
		var v float64
		if _, err := fmt.Sscan(value, &v); err != nil {
			t.Fatalf("/metrics of %s: %q: %v", i.name, line, err)
		}
		sum += v
		found = true
	}
	if !found {
		t.Fatalf("%s has no metric %s with %q", i.name, name, labels)
	}
	return sum
}

// awaitStatus waits until the state of a pipeline is what the test wants.
func (i *instance) awaitStatus(t *testing.T, pipeline, what string, wanted func(*status) bool) {
	t.Helper()
	await(t, patience, fmt.Sprintf("%s: %s", i.name, what), func() (bool, string) {
		s := i.status(t, pipeline)
		return wanted(&s), fmt.Sprintf("%+v", s)
	})
}

// awaitPartitions waits until the instance has so many partitions.
func (i *instance) awaitPartitions(t *testing.T, pipeline string, n int) {
	t.Helper()
	i.awaitStatus(t, pipeline, fmt.Sprintf("%d partitions", n), func(s *status) bool { return len(s.Partitions) == n })
}

// awaitEmitted waits until the instance has emitted so many records.
func (i *instance) awaitEmitted(t *testing.T, pipeline string, n uint64) {
	t.Helper()
	i.awaitStatus(t, pipeline, fmt.Sprintf("%d records emitted", n), func(s *status) bool {
		var emitted uint64
		for _, p := range s.Partitions {
			emitted += p.Emitted
		}
		return emitted >= n
	})
}

// awaitBusy waits until so many workers are busy.
func (i *instance) awaitBusy(t *testing.T, pipeline string, n int) {
	t.Helper()
	i.awaitStatus(t, pipeline, fmt.Sprintf("%d busy workers", n), func(s *status) bool { return s.WorkersBusy >= n })
}

// A status is what the tests read of /api/v1/pipelines.
type status struct {
	Name        string
	State       string
	WorkersBusy int `json:"workers_busy"`
	Partitions  []partitionStatus
}

type partitionStatus struct {
	Topic           string
	Partition       int32
	CommittedOffset *int64 `json:"committed_offset"`
	Emitted         uint64
	Stopped         string
}

// status returns the state of a pipeline.
func (i *instance) status(t *testing.T, pipeline string) status {
	t.Helper()
	code, body := i.get(t, "/api/v1/pipelines")
	var list struct{ Pipelines []status }
	if code == http.StatusOK {
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			t.Fatalf("/api/v1/pipelines of %s: %v: %s", i.name, err, body)
		}
	}
	for _, s := range list.Pipelines {
		if s.Name == pipeline {
			return s
		}
	}
	return status{}
}

// logText returns the log of the instance.
func (i *instance) logText() string {
	text, err := os.ReadFile(i.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (i *instance) logTail(lines int) string {
	all := strings.Split(strings.TrimSpace(i.logText()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
