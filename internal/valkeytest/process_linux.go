package valkeytest

import (
	"os"
	"os/exec"
	"syscall"
)

// endWithTest makes the kernel kill the server when the test process dies, as on
// a timeout of `go test`, which runs no cleanups.
func endWithTest(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

func pauseProcess(p *os.Process) error  { return p.Signal(syscall.SIGSTOP) }
func resumeProcess(p *os.Process) error { return p.Signal(syscall.SIGCONT) }

// mapClock maps the eight bytes of a clock's file for writing.
func mapClock(f *os.File) ([]byte, error) {
	return syscall.Mmap(int(f.Fd()), 0, 8, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
}

func unmapClock(memory []byte) error { return syscall.Munmap(memory) }
