package testkafka

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Version is the version of Kafka that runs.
const Version = "4.4.0"

var (
	//go:embed pom.xml
	pom []byte
	//go:embed kafka-4.4.0.sha256
	sums []byte
)

// javaVersion is the oldest Java that the brokers run on.
const javaVersion = 17

// provision returns the directory that holds the jars. They are fetched once and
// kept in the user's cache; a directory there is whole, or is not used.
func provision(ctx context.Context) (dir string, err error) {
	if err := checkJava(ctx); err != nil {
		return "", fmt.Errorf("the tests on a real Kafka need Java %d and Maven: %w", javaVersion, err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("where to keep the jars of Kafka: %w", err)
	}
	dir = filepath.Join(cache, "seriatim", "kafka-"+Version)
	if verify(dir) == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	fetched, err := os.MkdirTemp(filepath.Dir(dir), ".fetch-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fetched)
	if err := fetch(ctx, fetched); err != nil {
		return "", err
	}
	if err := verify(fetched); err != nil {
		return "", fmt.Errorf("the jars of Kafka %s are not those that are expected: %w", Version, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.Rename(fetched, dir); err != nil && verify(dir) != nil { // another process may have been faster
		return "", err
	}
	return dir, nil
}

// fetch has Maven copy the jars into dir.
func fetch(ctx context.Context, dir string) error {
	maven, err := exec.LookPath("mvn")
	if err != nil {
		return fmt.Errorf("the tests on a real Kafka need Java %d and Maven: %w", javaVersion, err)
	}
	project := filepath.Join(dir, "pom.xml")
	if err := os.WriteFile(project, pom, 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, maven, "--batch-mode", "--quiet", "--strict-checksums", "-Dstyle.color=never", "--file", project,
		"dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fetch Kafka %s with Maven: %w\n%s", Version, err, lastLines(out, 20))
	}
	return nil
}

// verify checks that dir holds every jar, and no other.
func verify(dir string) error {
	want := make(map[string]string)
	for line := range strings.Lines(string(sums)) {
		if sum, name, ok := strings.Cut(strings.TrimSpace(line), "  "); ok {
			want[name] = sum
		}
	}
	jars, err := filepath.Glob(filepath.Join(dir, "*.jar"))
	if err != nil {
		return err
	}
	for _, jar := range jars {
		name := filepath.Base(jar)
		got, err := sum(jar)
		if err != nil {
			return err
		}
		if want[name] != got {
			return fmt.Errorf("%s has the SHA-256 %s, want %q", name, got, want[name])
		}
		delete(want, name)
	}
	for name := range want {
		return fmt.Errorf("%s is missing, and %d more", name, len(want)-1)
	}
	return nil
}

func sum(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

var javaVersionLine = regexp.MustCompile(`version "(\d+)`)

func checkJava(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "java", "-version").CombinedOutput()
	if err != nil {
		return fmt.Errorf("java -version: %w", err)
	}
	m := javaVersionLine.FindSubmatch(out)
	if m == nil {
		return fmt.Errorf("java -version does not tell its version: %s", lastLines(out, 3))
	}
	if v, err := strconv.Atoi(string(m[1])); err != nil || v < javaVersion {
		return fmt.Errorf("java is version %s", m[1])
	}
	return nil
}

// lastLines returns the end of a text.
func lastLines(text []byte, n int) string {
	lines := bytes.Split(bytes.TrimRight(text, "\n"), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-n):], []byte("\n")))
}
