package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"seriatim/config"
	"seriatim/kafka"
	"seriatim/processor"
)

// A lockedBuffer is written by the process while a test reads it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	every := time.NewTicker(10 * time.Millisecond)
	defer every.Stop()
	for !cond() {
		select {
		case <-every.C:
		case <-deadline.C:
			t.Fatalf("never happened: %s", what)
		}
	}
}

// startBroker starts an embedded broker with the topics, of two partitions each.
func startBroker(t *testing.T, topics ...string) (address string, client *kgo.Client) {
	t.Helper()
	broker, err := kafka.StartEmbedded(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	partitions := make(map[string]int32)
	for _, topic := range topics {
		partitions[topic] = 2
	}
	if err := broker.CreateTopics(t.Context(), partitions); err != nil {
		t.Fatal(err)
	}
	client, err = kgo.NewClient(kgo.SeedBrokers(broker.Address()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return broker.Address(), client
}

// configFile writes a configuration and returns its name.
func configFile(t *testing.T, text string, args ...any) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "seriatim.yaml")
	if err := os.WriteFile(name, fmt.Appendf(nil, text, args...), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

const onePipeline = `
kafka: {brokers: ["%s"]}
admin: {listen: "127.0.0.1:0"}
instance: here
pipelines:
  - name: orders
    input: {topics: [orders.in], start: earliest}
    transform: {pass: {}}
    output: {topic: orders.out}
`

// adminAddress reads from the log where the state is served.
func adminAddress(t *testing.T, log fmt.Stringer) string {
	t.Helper()
	var found []string
	eventually(t, "the log says where the state is served", func() bool {
		found = regexp.MustCompile(`"?admin"?[=:]"?(127\.0\.0\.1:\d+)`).FindStringSubmatch(log.String())
		return found != nil
	})
	return found[1]
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func TestRunTransformsServesAndDrains(t *testing.T) {
	address, client := startBroker(t, "orders.in", "orders.out")
	for i := range 100 {
		r := &kgo.Record{Topic: "orders.in", Key: fmt.Append(nil, i), Value: fmt.Append(nil, "value ", i)}
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}

	log := new(lockedBuffer)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	code := make(chan int, 1)
	go func() {
		code <- execute(ctx, []string{"run", "-c", configFile(t, onePipeline, address)}, io.Discard, log)
	}()

	base := "http://" + adminAddress(t, log)
	eventually(t, "the pipeline is ready", func() bool { status, _ := get(t, base+"/readyz"); return status == 200 })
	admin := kadm.NewClient(client)
	eventually(t, "all records are in the output", func() bool {
		ends, err := admin.ListEndOffsets(t.Context(), "orders.out")
		if err != nil {
			t.Fatal(err)
		}
		sum := int64(0)
		ends.Each(func(o kadm.ListedOffset) { sum += o.Offset })
		return sum == 100
	})
	_, metrics := get(t, base+"/metrics")
	for _, name := range []string{
		`seriatim_settled_total{partition="0",pipeline="orders",topic="orders.in"}`, // from the status
		`seriatim_transform_duration_seconds_count{outcome="ok",pipeline="orders"}`, // from the hooks
		`seriatim_kafka_connects_total`,                                             // from the clients
		`seriatim_build_info`,
	} {
		if !strings.Contains(metrics, name) {
			t.Errorf("/metrics has no %s", name)
		}
	}

	cancel()
	if got := <-code; got != 0 {
		t.Errorf("exit code %d, want 0", got)
	}
	committed, err := admin.FetchOffsets(context.Background(), "seriatim.orders")
	if err != nil {
		t.Fatal(err)
	}
	sum := int64(0)
	committed.Each(func(o kadm.OffsetResponse) { sum += o.At })
	if sum != 100 {
		t.Errorf("committed %d records, want 100", sum)
	}
	for _, line := range []string{"seriatim starts", "version=", "instance=here", "pipelines=orders", "partitions are assigned", "everything is drained"} {
		if !strings.Contains(log.String(), line) {
			t.Errorf("the log lacks %q:\n%s", line, log)
		}
	}
}

func TestRunExitCodes(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	tests := map[string]struct {
		args []string
		code int
		want string
	}{
		"no file":       {nil, exitUsage, `required flag(s) "config" not set`},
		"an argument":   {[]string{"seriatim.yaml"}, exitUsage, "seriatim run -c seriatim.yaml"},
		"missing file":  {[]string{"-c", "missing.yaml"}, exitConfig, "missing.yaml"},
		"wrong setting": {[]string{"-c", configFile(t, "kafka: {brokerz: []}\npipelines: []\n")}, exitConfig, `did you mean "brokers"?`},
		"missing certificate": {
			[]string{"-c", configFile(t, strings.Replace(onePipeline, "kafka: {", "kafka: {tls: {enabled: true, ca_file: missing.pem}, ", 1), "127.0.0.1:1")},
			exitConfig, "kafka.tls.ca_file: open missing.pem",
		},
		"address in use": {
			[]string{"-c", configFile(t, strings.Replace(onePipeline, "127.0.0.1:0", taken.Addr().String(), 1), "127.0.0.1:1")},
			exitFailed, "admin.listen: listen tcp " + taken.Addr().String() + ": bind: address already in use: end the process that has the port, or give another one here",
		},
		"second address in use": {
			[]string{"-c", configFile(t, strings.Replace(onePipeline, "{listen:", "{probes_listen: '"+taken.Addr().String()+"', listen:", 1), "127.0.0.1:1")},
			exitFailed, "admin.probes_listen: listen tcp " + taken.Addr().String(),
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			stderr := new(lockedBuffer)
			code := execute(t.Context(), append([]string{"run"}, test.args...), io.Discard, stderr)
			if code != test.code || !strings.Contains(stderr.String(), test.want) {
				t.Errorf("exit code %d, want %d; output lacks %q:\n%s", code, test.code, test.want, stderr)
			}
		})
	}
}

// loadConfig loads a configuration that is right.
func loadConfig(t *testing.T, file string) config.Config {
	t.Helper()
	cfg, err := config.Load([]string{file}, os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// startStuck runs a process whose only record is stuck in its transform.
func startStuck(t *testing.T, drainTimeout time.Duration) (p *process, log *lockedBuffer, signals chan os.Signal, ended chan error) {
	t.Helper()
	address, client := startBroker(t, "orders.in", "orders.out")
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "orders.in"}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	log = new(lockedBuffer)
	file := strings.Replace(onePipeline, "pass: {}", "simulate: {latency: 1h, sigma: 0}", 1)
	cfg := loadConfig(t, configFile(t, file+"    drain_timeout: %v\n", address, drainTimeout))
	p, err := newProcess(cfg, newLogger(cfg.Log, log))
	if err != nil {
		t.Fatal(err)
	}
	signals, ended = make(chan os.Signal, 2), make(chan error, 1)
	go func() { ended <- p.run(context.Background(), signals) }()
	eventually(t, "the record is being transformed", func() bool {
		status, err := p.pipelines[0].Status(t.Context())
		return err == nil && status.WorkersBusy == 1
	})
	return p, log, signals, ended
}

func codeOf(err error) int {
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	return -1
}

func TestRunEndsAtTheDrainDeadline(t *testing.T) {
	_, log, signals, ended := startStuck(t, 200*time.Millisecond)
	signals <- syscall.SIGTERM
	if code := codeOf(<-ended); code != exitDrain {
		t.Errorf("exit code %d, want %d", code, exitDrain)
	}
	if want := processor.ErrDrainDeadline.Error(); !strings.Contains(log.String(), want) {
		t.Errorf("the log lacks %q:\n%s", want, log)
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	p, log, signals, ended := startStuck(t, 30*time.Second)
	signals <- syscall.SIGTERM
	eventually(t, "the drain is logged", func() bool { return strings.Contains(log.String(), "drains") })

	// The state is served while draining.
	if status, body := get(t, "http://"+p.addresses()+"/readyz?verbose"); status != 503 || !strings.Contains(body, "draining") {
		t.Errorf("/readyz while draining: %d %s", status, body)
	}

	signals <- syscall.SIGINT
	if code := codeOf(<-ended); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	if !strings.Contains(log.String(), "a second signal ends the process at once") {
		t.Errorf("the log does not say so:\n%s", log)
	}
}

func TestOneFailedPipelineDrainsTheOthers(t *testing.T) {
	address, _ := startBroker(t, "orders.in", "orders.out", "bills.in", "bills.out")
	cfg := loadConfig(t, configFile(t, onePipeline+`
  - name: bills
    input: {topics: [bills.in], start: earliest, static_membership: true}
    transform: {pass: {}}
    output: {topic: bills.out}
`, address))
	log := new(lockedBuffer)
	p, err := newProcess(cfg, newLogger(cfg.Log, log))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.run(t.Context(), nil) }()
	eventually(t, "both pipelines run", func() bool {
		status, _ := get(t, "http://"+p.addresses()+"/readyz")
		return status == 200
	})
	for i := range 2 { // after the first one the pipeline joins anew
		eventually(t, "the pipeline is a member", func() bool {
			status, err := p.pipelines[1].Status(t.Context())
			return err == nil && len(status.Partitions) > 0 && (i == 0 || strings.Contains(log.String(), "joining anew"))
		})
		twin, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.ConsumerGroup("seriatim.bills"), kgo.InstanceID("here"), kgo.ConsumeTopics("bills.in"))
		if err != nil {
			t.Fatal(err)
		}
		defer twin.Close()
	}
	if code := codeOf(<-ended); code != exitDrain {
		t.Errorf("exit code %d, want %d", code, exitDrain)
	}
	if want := `reason="pipeline bills: another process uses instance`; !strings.Contains(log.String(), want) {
		t.Errorf("the log lacks %q:\n%s", want, log)
	}
	if status, err := p.pipelines[0].Status(t.Context()); err != nil || status.State != "stopped" {
		t.Errorf("the other pipeline is %q (%v), want stopped", status.State, err)
	}
}

func TestExitCodeOfAPart(t *testing.T) {
	for err, want := range map[error]int{
		fmt.Errorf("pipeline orders: %w", processor.ErrDrainDeadline):                                        exitDrain,
		fmt.Errorf("pipeline orders: %w", &processor.FencedError{Instance: "here", Err: errors.New("twin")}): exitDrain,
		fmt.Errorf("pipeline orders: %w", &processor.InvariantError{Err: errors.New("bug")}):                 exitFailed,
		errors.New("admin: broken"): exitFailed,
	} {
		if got := exitCode(err); got != want {
			t.Errorf("%v: exit code %d, want %d", err, got, want)
		}
	}
}

func TestLogFormats(t *testing.T) {
	var b bytes.Buffer
	log := newLogger(config.Log{Level: "warn", Format: "json"}, &b)
	log.Info("not wanted")
	log.Warn("wanted")
	var line struct{ Level, Msg string }
	if err := json.Unmarshal(b.Bytes(), &line); err != nil || line.Level != slog.LevelWarn.String() || line.Msg != "wanted" {
		t.Errorf("got %q (%v), want one JSON line of the warning", b.String(), err)
	}
}
