package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/engine"
	"github.com/flowfabric/flowfabric/valkey"
	"github.com/flowfabric/flowfabric/worker"
)

const (
	// stderrTail is how much of a command's errors becomes the failure reason.
	stderrTail = 2 << 10
	// killGrace is the time between asking a command to end and killing it.
	killGrace = 5 * time.Second
	// connectPatience is how long a worker waits for its server at the start.
	connectPatience = time.Minute
)

type workerFlags struct {
	exec, name, instance, namespace, logFormat, logLevel string
	lanes, kinds, capabilities                           []string
	permanent                                            []int
	concurrency                                          int
	lease, drain                                         time.Duration
	loops, stream                                        bool
}

func (a *app) workerCommand() *cobra.Command {
	parent := &cobra.Command{Use: "worker", Short: "Work on executions", Args: cobra.ArbitraryArgs, RunE: onlyCommands}
	var f workerFlags
	c := &cobra.Command{
		Use: "run --exec CMD", Short: "Run a shell command for each execution", Args: exactly(),
		Long: `Runs a shell command for each execution: the payload is its standard input, its
standard output becomes the result. The environment has FLOWFABRIC_EXECUTION_ID,
FLOWFABRIC_KIND, FLOWFABRIC_LANE and FLOWFABRIC_ATTEMPT (from 0).

Exit code 0 completes the execution. Any other fails the attempt, with the end of
standard error as the reason; whether another attempt follows is for the execution's
policy to say, except for the codes of --permanent, which are final. The command
and what it started are ended when the execution is cancelled, times out or is lost:
first asked (SIGTERM), then killed. What a command leaves running is killed as well.

The worker talks to a server (--server URL), or to the store itself (--store). Then it
also runs the store's background loops, unless --loops=false leaves them to servers. A
Valkey may have any number of workers and servers; only servers delete executions whose
retention is over, because they know how long that is. A SQLite file is this worker's alone.`,
		Example: "  flowfabric worker run --exec 'tr a-z A-Z'\n  flowfabric worker run --lane media --kind resize --exec ./resize.sh --concurrency 4\n  flowfabric worker run --store valkey://localhost:6379 --exec 'tr a-z A-Z'",
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return a.runWorker(c.Context(), &f) }
	flags := c.Flags()
	flags.StringVar(&f.exec, "exec", "", "shell command")
	flags.StringSliceVar(&f.lanes, "lane", []string{"default"}, "lane to serve; may be repeated")
	flags.StringSliceVar(&f.kinds, "kind", nil, "kind to run; may be repeated; others fail. All kinds when absent")
	flags.StringSliceVar(&f.capabilities, "capability", nil, "capability to offer; may be repeated")
	flags.StringVar(&f.name, "name", "flowfabric-exec", "name of the worker")
	flags.StringVar(&f.instance, "instance", "", "id of this process, made up when absent")
	flags.StringVar(&f.namespace, "namespace", "default", "namespace of the worker")
	flags.IntVar(&f.concurrency, "concurrency", 1, "commands at a time")
	flags.DurationVar(&f.lease, "lease", ff.DefaultLeaseTTL, "how long an execution stays with a worker that has gone silent")
	flags.DurationVar(&f.drain, "drain", 30*time.Second, "how long running commands may go on when the worker stops")
	flags.BoolVar(&f.loops, "loops", true, "with --store, run the store's background loops as well")
	flags.BoolVar(&f.stream, "stream", false, "write what the commands print into the output of the attempt as well, as frames stdout and stderr")
	flags.IntSliceVar(&f.permanent, "permanent", nil, "exit code that is final; may be repeated")
	flags.StringVar(&f.logFormat, "log-format", "text", "text or json")
	flags.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	parent.AddCommand(c)
	return parent
}

func (a *app) runWorker(ctx context.Context, f *workerFlags) (err error) {
	if strings.TrimSpace(f.exec) == "" {
		return usageError("--exec is missing or empty; give a shell command, for example --exec 'tr a-z A-Z'")
	}
	if f.concurrency < 1 {
		return usageError("--concurrency must be at least 1 (got %d)", f.concurrency)
	}
	log, err := (&serveFlags{logFormat: f.logFormat, logLevel: f.logLevel}).logger(a)
	if err != nil {
		return err
	}
	b, err := a.openFor(ctx, valkey.Options{Connect: connectPatience, Logger: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if kind := kindOf(a.location()); f.loops && kind != kindServer {
		stop, err := runEngine(ctx, b, kind, log)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	w, err := connectWorker(ctx, b, f, log)
	if err != nil {
		return err
	}
	handler := f.handler()
	if len(f.kinds) == 0 {
		w.HandleOthers(handler)
	}
	for _, k := range f.kinds {
		w.HandleTask(k, handler)
	}
	w.Use(worker.Logging(log))
	log.Info("worker runs", "lanes", f.lanes, "worker_instance_id", w.Instance(), "concurrency", f.concurrency)
	return w.Run(ctx)
}

// runEngine runs the background loops of a store. One that others share keeps what
// its servers want to keep.
func runEngine(ctx context.Context, b ff.Maintenance, kind string, log *slog.Logger) (stop func() error, err error) {
	if kind == kindValkey {
		b = withoutRetention{b}
	}
	e, err := engine.New(b, engine.Options{Logger: log})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	return func() error { cancel(); return <-ended }, nil
}

// withoutRetention is a store from which nothing is deleted.
type withoutRetention struct{ ff.Maintenance }

func (w withoutRetention) Sweep(ctx context.Context, c ff.Sweep) (ff.SweepResult, error) {
	if c.Kind == ff.SweepRetention {
		return ff.SweepResult{}, nil
	}
	return w.Maintenance.Sweep(ctx, c)
}

// connectWorker waits for a server that is not up yet.
func connectWorker(ctx context.Context, b ff.Backend, f *workerFlags, log *slog.Logger) (*worker.Worker, error) {
	lanes := make([]ff.LaneID, len(f.lanes))
	for i, l := range f.lanes {
		lanes[i] = ff.LaneID(l)
	}
	cfg := worker.Config{Worker: ff.WorkerID(f.name), Instance: ff.WorkerInstanceID(f.instance), Namespace: ff.Namespace(f.namespace), Lanes: lanes,
		Capabilities: f.capabilities, LeaseTTL: f.lease, Concurrency: f.concurrency, DrainTimeout: f.drain, Logger: log}
	deadline := time.Now().Add(connectPatience)
	for {
		w, err := worker.Connect(ctx, b, cfg)
		if err == nil || !ff.IsRetryable(err) || time.Now().After(deadline) {
			return w, err
		}
		log.Warn("the server is not there yet; trying again", "err", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// handler runs the command for one execution.
func (f *workerFlags) handler() worker.Handler {
	return func(ctx context.Context, t *worker.Task) ([]byte, error) {
		stdout := &limited{limit: ff.MaxResultBytes}
		stderr := &tail{limit: stderrTail}
		cmd := exec.CommandContext(ctx, "sh", "-c", f.exec)
		cmd.Stdin = bytes.NewReader(t.Payload())
		cmd.Stdout, cmd.Stderr = stdout, stderr
		if f.stream {
			cmd.Stdout, cmd.Stderr = streamed(t, "stdout", stdout), streamed(t, "stderr", stderr)
		}
		cmd.Env = append(os.Environ(), "FLOWFABRIC_EXECUTION_ID="+t.ID().String(), "FLOWFABRIC_KIND="+t.Kind(),
			"FLOWFABRIC_LANE="+string(t.Execution().Lane), "FLOWFABRIC_ATTEMPT="+strconv.Itoa(t.Attempt().Index))
		err := runGroup(cmd)
		switch {
		case context.Cause(ctx) != nil:
			return nil, context.Cause(ctx)
		case stdout.over:
			return nil, worker.Permanent(ff.Errorf(ff.CodePayloadTooLarge, "the command printed more than %d bytes", ff.MaxResultBytes))
		case err == nil:
			return stdout.data, nil
		case errors.Is(err, exec.ErrWaitDelay):
			return nil, fmt.Errorf("the command ended, but what it started in the background kept its output open for %s: end it, or redirect its output", killGrace)
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			return nil, fmt.Errorf("running the command: %w", err)
		}
		err = fmt.Errorf("%s: %s", exit.ProcessState, strings.TrimSpace(stderr.String()))
		for _, code := range f.permanent {
			if exit.ExitCode() == code {
				return nil, worker.Permanent(err)
			}
		}
		return nil, err
	}
}

// streamed also writes to the output of the attempt. What cannot be written there
// does not end the command.
func streamed(t *worker.Task, frameType string, to io.Writer) io.Writer {
	return io.MultiWriter(to, &careless{t.Stream().Writer(ff.NewFrame{Type: frameType})})
}

// careless is a writer whose errors do not matter.
type careless struct{ io.Writer }

func (c *careless) Write(p []byte) (int, error) {
	_, _ = c.Writer.Write(p)
	return len(p), nil
}

// limited keeps up to limit bytes, and refuses more, so that the command ends.
type limited struct {
	data  []byte
	limit int
	over  bool
}

func (l *limited) Write(p []byte) (int, error) {
	if len(l.data)+len(p) > l.limit {
		l.over = true
		return 0, errors.New("too much output")
	}
	l.data = append(l.data, p...)
	return len(p), nil
}

// tail keeps the last limit bytes.
type tail struct {
	data  []byte
	limit int
}

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if n := len(t.data) - t.limit; n > 0 {
		t.data = t.data[n:]
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.data) }
