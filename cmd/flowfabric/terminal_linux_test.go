package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"unsafe"
)

// terminalPair is a terminal and its other side, where a test reads what was printed.
func terminalPair(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	control := func(request uintptr, value *int32) {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), request, uintptr(unsafe.Pointer(value))); errno != 0 {
			t.Fatal(errno)
		}
	}
	var unlock, number int32
	control(syscall.TIOCSPTLCK, &unlock)
	control(syscall.TIOCGPTN, &number)
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, terminal
}

// onTerminal runs a command whose standard output is a terminal, and returns what
// it printed there.
func onTerminal(t *testing.T, env []string, args ...string) string {
	t.Helper()
	master, terminal := terminalPair(t)
	printed := make(chan []byte, 1)
	go func() {
		out, _ := io.ReadAll(master) // ends with an error when the terminal is closed
		printed <- out
	}()
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout = terminal
	err := cmd.Run()
	_ = terminal.Close()
	out := string(bytes.ReplaceAll(<-printed, []byte("\r\n"), []byte("\n")))
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
	return out
}

func TestAResultEndsItsLineOnATerminalAndIsUnchangedInAPipe(t *testing.T) {
	store := t.TempDir() + "/ff.db"
	server, base := serve(t, store, "127.0.0.1:0")
	launch(t, nil, "worker", "run", "--exec", "cat", "--server", base)
	id := ok(t, "submit", "echo", "--payload", `"a"`, "--server", base)
	id = id[:len(id)-1]
	if got := ok(t, "result", id, "--wait", "30s", "--server", base); got != `"a"` {
		t.Errorf("in a pipe: %q", got)
	}
	for _, env := range [][]string{nil, {"NO_COLOR=1"}, {"TERM=dumb"}} {
		if got := onTerminal(t, env, "result", id, "--server", base); got != "\"a\"\n" {
			t.Errorf("on a terminal with %q: %q", env, got)
		}
	}
	server.stop(t)
}
