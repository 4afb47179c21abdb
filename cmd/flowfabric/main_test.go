package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

// binary is the command, built once for all tests.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "flowfabric-test-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "flowfabric")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "building the command:", err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, "goroutines are left:", err)
		code = 1
	}
	os.Exit(code)
}

const patience = 60 * time.Second

// output is what a command left behind.
type output struct {
	stdout, stderr string
	code           int
}

// flowfabric runs the command to its end.
func flowfabric(t testing.TB, env []string, stdin string, args ...string) output {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", args, err)
	}
	return output{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// ok runs a command that must succeed and returns its standard output.
func ok(t testing.TB, args ...string) string {
	t.Helper()
	o := flowfabric(t, nil, "", args...)
	if o.code != exitOK {
		t.Fatalf("%v: exit code %d: %s", args, o.code, o.stderr)
	}
	return o.stdout
}

// okJSON runs a command with --json and decodes its one object.
func okJSON[T any](t testing.TB, args ...string) (v T) {
	t.Helper()
	out := ok(t, append(args, "--json")...)
	dec := json.NewDecoder(strings.NewReader(out))
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%v: %v in %q", args, err, out)
	}
	if rest, _ := io.ReadAll(dec.Buffered()); len(bytes.TrimSpace(rest)) > 0 {
		t.Fatalf("%v: more than one object: %q", args, out)
	}
	return v
}

// daemon is a command that runs in the background.
type daemon struct {
	cmd    *exec.Cmd
	stdout *lines
	stderr *lines
	wait   func() error
	ended  chan struct{}
}

// lines collects what a daemon prints.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// launch starts a command; the test's end kills it if it still runs.
func launch(t testing.TB, env []string, args ...string) *daemon {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), binary, args...)
	cmd.Env = append(os.Environ(), env...)
	d := &daemon{cmd: cmd, stdout: &lines{}, stderr: &lines{}, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = d.stdout, d.stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.wait = sync.OnceValue(cmd.Wait)
	go func() {
		defer close(d.ended)
		_ = d.wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = d.wait()
		if t.Failed() {
			t.Logf("%v printed:\n%.4000s", args, d.stderr)
		}
	})
	return d
}

var listening = regexp.MustCompile(`on (http://[^\s]+)`)

// serve starts a server on a SQLite file and waits until it answers.
func serve(t testing.TB, store, listen string, args ...string) (*daemon, string) {
	t.Helper()
	d := launch(t, nil, append([]string{"serve", "--store", "sqlite:" + store, "--listen", listen}, args...)...)
	return d, d.answers(t)
}

// answers waits until a server answers, and returns its URL.
func (d *daemon) answers(t testing.TB) (base string) {
	t.Helper()
	eventually(t, "the server listens", func() bool {
		select {
		case <-d.ended:
			t.Fatalf("the server ended: %s", d.stderr)
		default:
		}
		m := listening.FindStringSubmatch(d.stderr.String())
		if m == nil {
			return false
		}
		base = m[1]
		resp, err := http.Get(base + "/livez")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil
	})
	return base
}

// bodyOf reads a page of a server.
func bodyOf(t testing.TB, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// stop ends a daemon gracefully and expects exit code 0.
func (d *daemon) stop(t testing.TB) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.wait(); err != nil {
		t.Errorf("%v: %v: %s", d.cmd.Args, err, d.stderr)
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s until %s", patience, what)
		}
		<-tick.C
	}
}

func number(t rapid.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		t.Fatalf("%q is no number: %v", s, err)
	}
	return n
}
