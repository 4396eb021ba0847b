package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"seriatim/internal/demo"
)

// brokerAddress reads from the output of a demo where its broker listens.
func brokerAddress(t *testing.T, out *lockedBuffer) string {
	t.Helper()
	var found []string
	eventually(t, "the demo says where its broker listens", func() bool {
		found = regexp.MustCompile(`any Kafka client: (127\.0\.0\.1:\d+)`).FindStringSubmatch(out.String())
		return found != nil
	})
	return found[1]
}

func TestDemoGivesItsVerdictWhateverStraysIn(t *testing.T) {
	t.Parallel()
	out, log := new(lockedBuffer), new(lockedBuffer)
	code := make(chan int, 1)
	go func() { code <- execute(t.Context(), []string{"demo", "--for", "6s"}, out, log) }()

	address := brokerAddress(t, out)
	if r, err := http.Get("http://" + address); err == nil {
		_ = r.Body.Close()
		t.Error("the broker answers HTTP")
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := binary.BigEndian.AppendUint32(nil, 10)
	request = binary.BigEndian.AppendUint16(request, 9999) // no such key
	if _, err := conn.Write(append(request, make([]byte, 8)...)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a request of an unknown key: %v, want the end of the connection", err)
	}

	if got := <-code; got != 0 {
		t.Errorf("exit code %d, want 0", got)
	}
	want := `(?m)^[1-9]\d* records, 0 out of order, 0 lost; latency \d\.\d s against \d\.\d s and growing$`
	if !regexp.MustCompile(want).MatchString(out.String()) {
		t.Errorf("no line matches %s:\n%s", want, out)
	}
	if second := `(?m)^[1-9]\d* records twice, 0 out of order, 0 lost; latency p99 `; !regexp.MustCompile(second).MatchString(out.String()) {
		t.Errorf("no line matches %s:\n%s", second, out)
	}
	if !strings.Contains(out.String(), "\n5s of 6s | one at a time: ") {
		t.Errorf("no line after 5 s:\n%s", out)
	}
	if log.String() != "" {
		t.Errorf("it logs:\n%s", log)
	}
}

func TestDemoOfOwnPipelines(t *testing.T) {
	t.Parallel()
	file := configFile(t, `
kafka: {brokers: ['${SERIATIM_TEST_UNSET}'], tls: {enabled: true}}
admin: {listen: "127.0.0.1:0"}
pipelines:
  - name: orders
    input: {topics_regex: 'in\.(.+)', start: earliest}
    transform: {simulate: {latency: 100ms}}
    output: {topic: 'out.{1}'}
    on_exhausted: dead_letter
    dead_letter: {topic: orders.dead}
`)
	out, log := new(lockedBuffer), new(lockedBuffer)
	code := make(chan int, 1)
	go func() { code <- execute(t.Context(), []string{"demo", "-c", file, "--for", "3s"}, out, log) }()
	brokerAddress(t, out)
	admin := regexp.MustCompile(`admin: (127\.0\.0\.1:\d+)`).FindStringSubmatch(out.String())
	if admin == nil {
		t.Fatalf("it does not say where the state is served:\n%s", out)
	}
	eventually(t, "the pipeline is ready", func() bool { status, _ := get(t, "http://"+admin[1]+"/readyz"); return status == 200 })
	if got := <-code; got != 0 {
		t.Errorf("exit code %d, want 0", got)
	}
	for _, want := range []string{
		`The kafka section of your configuration is ignored: a broker inside this process holds in\.demo, orders\.dead, out\.demo,`,
		`(?m)^orders: [1-9]\d* records, [1-9]\d* outputs, 0 out of order; latency (0\.\d s|\d+ ms)$`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("nothing matches %s:\n%s", want, out)
		}
	}
	if log.String() != "" {
		t.Errorf("it logs:\n%s", log)
	}
}

func TestDemoExitCodes(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	for name, test := range map[string]struct {
		args string
		code int
		want string
	}{
		"no time":             {"--for 0s", exitUsage, "--for: must be longer than 0s"},
		"no unit":             {"--for 30", exitUsage, "invalid argument"},
		"a port that is none": {"--port 65536", exitUsage, "invalid argument"},
		"a port in use":       {"--port " + port, exitFailed, "--port " + port},
		"wrong configuration": {"-c " + configFile(t, "pipelines: []\n"), exitConfig, "pipelines: "},
		"an expression that takes everything": {
			"-c " + configFile(t, "pipelines: [{name: a, input: {topics_regex: '.*', start: earliest}, transform: {pass: {}}, output: {topic: demo}}]\nadmin: {listen: none}\n"),
			exitFailed, "pipeline a: demo would be input and output at once",
		},
	} {
		t.Run(name, func(t *testing.T) {
			log := new(lockedBuffer)
			code := execute(t.Context(), append([]string{"demo"}, strings.Fields(test.args)...), io.Discard, log)
			if code != test.code || !strings.Contains(log.String(), test.want) {
				t.Errorf("exit code %d, want %d; output lacks %q:\n%s", code, test.code, test.want, log)
			}
		})
	}
}

func TestDemoAndSignals(t *testing.T) {
	t.Parallel()
	screen := demo.NewScreen(io.Discard, io.Discard)
	signals := make(chan os.Signal, 2)
	signals <- syscall.SIGINT
	err := untilSecondSignal(t.Context(), signals, screen, func(ctx context.Context) error {
		<-ctx.Done()
		return nil
	})
	if err != nil {
		t.Errorf("after one signal: %v, want the end of the demo", err)
	}

	signals <- syscall.SIGINT
	signals <- syscall.SIGINT
	hangs := make(chan struct{})
	defer close(hangs)
	err = untilSecondSignal(t.Context(), signals, screen, func(context.Context) error { <-hangs; return nil })
	if codeOf(err) != exitFailed {
		t.Errorf("after two signals: %v, want exit code %d", err, exitFailed)
	}
	if code := codeOf(judged(true, nil)); code != exitFailed {
		t.Errorf("a wrong verdict: exit code %d, want %d", code, exitFailed)
	}
	if err := judged(false, nil); err != nil {
		t.Errorf("a good verdict: %v", err)
	}
}
