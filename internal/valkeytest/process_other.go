//go:build !linux

package valkeytest

import (
	"errors"
	"os"
	"os/exec"
)

func endWithTest(*exec.Cmd) {}

func pauseProcess(*os.Process) error    { return errors.ErrUnsupported }
func resumeProcess(*os.Process) error   { return errors.ErrUnsupported }
func mapClock(*os.File) ([]byte, error) { return nil, errors.ErrUnsupported }
func unmapClock([]byte) error           { return errors.ErrUnsupported }
