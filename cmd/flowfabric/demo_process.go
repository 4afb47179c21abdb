package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// processes are the worker processes of a demo.
type processes struct {
	app *app
	url string
	all []*process
}

type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	lines *bufio.Scanner
	ended func() error
}

// start starts a worker. One that holds stops in the middle of its task number
// hold and waits to be killed. Workers end when this process does: their standard
// input closes.
func (p *processes) start(ctx context.Context, hold int) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, "demo-worker", "--server", p.url, "--hold", fmt.Sprint(hold))
	cmd.Stderr = p.app.stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a worker process: %w", err)
	}
	w := &process{cmd: cmd, stdin: stdin, lines: bufio.NewScanner(stdout), ended: sync.OnceValue(cmd.Wait)}
	p.all = append(p.all, w)
	return w, nil
}

// holding waits until the worker says which execution it holds.
func (w *process) holding(ctx context.Context) (string, error) {
	line := make(chan string, 1)
	go func() {
		w.lines.Scan()
		line <- w.lines.Text()
	}()
	select {
	case id := <-line:
		if id == "" {
			return "", fmt.Errorf("a worker process ended before it held an execution: %w", w.ended())
		}
		return id, nil
	case <-ctx.Done():
		return "", ctx.Err()
	case <-time.After(demoPatience):
		return "", &exitError{exitTimeout, errors.New("the first worker process claimed nothing")}
	}
}

func (w *process) kill() error {
	if err := w.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("killing a worker process: %w", err)
	}
	_ = w.ended() // it reports the kill
	return nil
}

// stop lets the workers end, and kills those that do not.
func (p *processes) stop() {
	for _, w := range p.all {
		_ = w.stdin.Close()
	}
	for _, w := range p.all {
		late := time.AfterFunc(killGrace, func() { _ = w.cmd.Process.Kill() })
		_ = w.ended()
		late.Stop()
	}
}
