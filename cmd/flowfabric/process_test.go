//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	ff "github.com/flowfabric/flowfabric"
)

// alive lists the processes that match: zombies are dead.
func alive(match func(group int, commandLine string) bool) (pids []string) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		group, _ := strconv.Atoi(fields[2])
		if fields[0] != "Z" && fields[0] != "X" && match(group, string(line)) {
			pids = append(pids, filepath.Base(dir))
		}
	}
	return pids
}

func TestCancelledLostAndTimedOutCommandsEndWithAllTheyStarted(t *testing.T) {
	_, base := serve(t, filepath.Join(t.TempDir(), "ff.db"), "127.0.0.1:0")
	on := func(args ...string) []string { return append(args, "--server", base) }
	dir := t.TempDir()
	// The command's process group is in a file named after its kind. The second
	// kind ignores the polite request.
	command := `[ "$FLOWFABRIC_KIND" = stubborn ] && trap "" TERM; sleep 900 & echo $$ > "$DIR/$FLOWFABRIC_KIND.new"; mv "$DIR/$FLOWFABRIC_KIND.new" "$DIR/$FLOWFABRIC_KIND"; wait; sleep 900`
	launch(t, []string{"DIR=" + dir}, on("worker", "run", "--exec", command, "--lease", "1s", "--concurrency", "4")...)
	for kind, end := range map[string]func(id string){
		"cancelled": func(id string) { ok(t, on("cancel", id)...) },
		"stubborn":  func(id string) { ok(t, on("cancel", id)...) },
		"timed-out": func(string) {},
		"revoked": func(id string) {
			ok(t, on("revoke", id)...)
			ok(t, on("cancel", id)...)
		},
	} {
		args := []string{"submit", kind}
		if kind == "timed-out" {
			args = append(args, "--timeout", "1s")
		}
		id := strings.TrimSpace(ok(t, on(args...)...))
		var group int
		eventually(t, "the command runs", func() bool {
			text, err := os.ReadFile(filepath.Join(dir, kind))
			if err == nil {
				group = number(t, string(text))
			}
			return err == nil
		})
		end(id)
		eventually(t, kind+" leaves no process behind", func() bool {
			return len(alive(func(g int, _ string) bool { return g == group })) == 0
		})
	}
}

func TestWhatACommandLeavesRunningIsEnded(t *testing.T) {
	_, base := serve(t, filepath.Join(t.TempDir(), "ff.db"), "127.0.0.1:0")
	on := func(args ...string) []string { return append(args, "--server", base) }
	launch(t, nil, on("worker", "run", "--exec", `sleep 900 >/dev/null 2>&1 & printf %s $$`)...)
	group := number(t, ok(t, on("submit", "leaver", "--wait", "30s")...))
	eventually(t, "it is ended", func() bool { return len(alive(func(g int, _ string) bool { return g == group })) == 0 })
}

func TestTooMuchOutputIsAClearFailure(t *testing.T) {
	_, base := serve(t, filepath.Join(t.TempDir(), "ff.db"), "127.0.0.1:0")
	on := func(args ...string) []string { return append(args, "--server", base) }
	launch(t, nil, on("worker", "run", "--exec", fmt.Sprintf("head -c %d /dev/zero", ff.MaxResultBytes+1))...)
	o := flowfabric(t, nil, "", on("submit", "big", "--retries", "3", "--wait", "30s")...)
	if want := fmt.Sprintf("printed more than %d bytes", ff.MaxResultBytes); o.code != exitFailed || !strings.Contains(o.stderr, want) {
		t.Errorf("exit code %d: %s", o.code, o.stderr)
	}
}

func TestAWorkerWaitsForItsServer(t *testing.T) {
	store := filepath.Join(t.TempDir(), "ff.db")
	first, base := serve(t, store, "127.0.0.1:0")
	first.stop(t)
	w := launch(t, nil, "worker", "run", "--exec", "cat", "--server", base)
	eventually(t, "the worker finds no server", func() bool { return strings.Contains(w.stderr.String(), "not there yet") })
	_, _ = serve(t, store, strings.TrimPrefix(base, "http://"))
	if got := ok(t, "submit", "echo", "--payload", "1", "--wait", "30s", "--server", base); got != "1" {
		t.Errorf("result %q", got)
	}
	w.stop(t)
}

func TestWaitingForAResultSurvivesTheServer(t *testing.T) {
	store := filepath.Join(t.TempDir(), "ff.db")
	server, base := serve(t, store, "127.0.0.1:0")
	id := strings.TrimSpace(ok(t, "submit", "echo", "--payload", "1", "--server", base))
	waiter := launch(t, nil, "result", id, "--wait", "50s", "--server", base)
	eventually(t, "the execution has been looked at", func() bool {
		return strings.Contains(bodyOf(t, base+"/metrics"), `path="/v1/executions/{id}/record",status="200"`)
	})
	if err := server.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = server.wait()
	// Who asks first while there is no server is told at once.
	if o := flowfabric(t, nil, "", "result", id, "--wait", "50s", "--server", base); o.code != exitUnavailable {
		t.Errorf("exit code %d for a server that is not there: %s", o.code, o.stderr)
	}
	_, _ = serve(t, store, strings.TrimPrefix(base, "http://"))
	launch(t, nil, "worker", "run", "--exec", "cat", "--server", base)
	if err := waiter.wait(); err != nil {
		t.Errorf("the result was not waited for: %v: %s", err, waiter.stderr)
	}
}

func TestAWorkerOnALocalStoreNeedsNoServer(t *testing.T) {
	store := "sqlite:" + filepath.Join(t.TempDir(), "ff.db")
	id := strings.TrimSpace(ok(t, "submit", "shout", "--payload", `"a"`, "--store", store))
	dir := t.TempDir()
	w := launch(t, []string{"DIR=" + dir}, "worker", "run", "--exec", `tr a-z A-Z; [ "$FLOWFABRIC_ATTEMPT" = 0 ]`, "--store", store)
	eventually(t, "the worker has run it", func() bool { return strings.Contains(w.stderr.String(), "outcome=ok") })
	w.stop(t)
	if got := ok(t, "result", id, "--store", store); got != `"A"` {
		t.Errorf("result %q", got)
	}
}

// filesIn makes n small text files.
func filesIn(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte("one two\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestADemoThatEndsEarlyLeavesNothingBehind(t *testing.T) {
	for sig, want := range map[syscall.Signal]int{syscall.SIGKILL: -1, syscall.SIGINT: exitInterrupted} {
		temp := t.TempDir()
		d := launch(t, []string{"TMPDIR=" + temp}, "demo", "--input", filesIn(t, 500))
		eventually(t, "the demo is in the middle", func() bool { return strings.Contains(d.stderr.String(), "executions completed") })
		if err := d.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		_ = d.wait()
		if got := d.cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("%s: exit code %d, want %d", sig, got, want)
		}
		eventually(t, "no worker process is left", func() bool {
			return len(alive(func(_ int, line string) bool { return strings.HasPrefix(line, binary+"\x00demo-worker") })) == 0
		})
		if left, _ := os.ReadDir(temp); sig == syscall.SIGINT && len(left) > 0 {
			t.Errorf("%s leaves %v", sig, left)
		}
	}
}

func TestAnInterruptedCommandSaysSoInItsExitCode(t *testing.T) {
	store := "sqlite:" + filepath.Join(t.TempDir(), "ff.db")
	id := strings.TrimSpace(ok(t, "submit", "job", "--store", store))
	ok(t, "cancel", id, "--store", store)
	cmd := exec.CommandContext(t.Context(), binary, "events", "--follow", "--store", store)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for range 2 { // the header, an event
		lines.Scan()
	}
	if !strings.Contains(lines.Text(), id) {
		t.Errorf("below the header is %q", lines.Text())
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != exitInterrupted {
		t.Errorf("exit code %d, want %d", cmd.ProcessState.ExitCode(), exitInterrupted)
	}
}
