//go:build !unix

package main

import "os/exec"

// runGroup runs a command. It is killed alone when its context ends.
func runGroup(cmd *exec.Cmd) error {
	cmd.WaitDelay = killGrace
	return cmd.Run()
}
