package demo

import (
	"bufio"
	"context"
	_ "embed" // the worker
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

//go:embed hanging.mjs
var hangingWorker string

// startNode starts a worker in Node and returns its address. It ends with its
// standard input, which end closes, or this process.
func startNode(ctx context.Context, env ...string) (url string, end func(), err error) {
	cmd := exec.CommandContext(ctx, "node", "--input-type=module", "--eval", hangingWorker)
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	end = func() {
		_ = in.Close()
		_ = cmd.Wait() // it was told to end
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		end()
		return "", nil, errors.New("node ends without a word; it must be Node 20 or later")
	}
	return strings.TrimSpace(line), end, nil
}

// startWorkers starts two workers, of which the second hangs now and then.
func startWorkers(ctx context.Context) (urls []string, end func(), err error) {
	well, endWell, err := startNode(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("it needs Node: %w", err)
	}
	hanging, endHanging, err := startNode(ctx, "HANGS=yes")
	if err != nil {
		endWell()
		return nil, nil, fmt.Errorf("it needs Node: %w", err)
	}
	return []string{well, hanging}, func() { endWell(); endHanging() }, nil
}
