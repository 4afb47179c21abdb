//go:build unix

package main

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// runGroup runs a command in a process group of its own. When its context ends
// the group is asked to end, and killed after killGrace. What the command started
// and left behind is killed when the command has ended.
func runGroup(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	kill := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	cmd.WaitDelay = killGrace
	err := cmd.Run()
	if cmd.Process != nil {
		kill()
	}
	return err
}
