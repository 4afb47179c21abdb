package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/engine"
	"github.com/flowfabric/flowfabric/server"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

const (
	demoLane = ff.LaneID("index")
	// demoLease is short, so that the work of the killed process is soon taken
	// over.
	demoLease = time.Second
	// demoFlaky is the number of executions that fail twice.
	demoFlaky = 3
	// maxDemoFiles bounds the files of a demo.
	maxDemoFiles = 100_000
	// demoPatience is the longest time without any progress.
	demoPatience = 60 * time.Second
)

type demoFlags struct {
	input   string
	workers int
	keep    bool
	files   bool

	interactive bool
	approval    time.Duration
}

func (a *app) demoCommand() *cobra.Command {
	var f demoFlags
	c := &cobra.Command{
		Use: "demo", Short: "Index a directory with durable executions, a killed worker, retries and an approval", Args: exactly(),
		Long: `Counts the words and lines of every text file of a directory: one execution per
file, and one that sums up. A server with a SQLite store runs in this process, the
workers are processes of their own. One execution counts those that have completed;
its output is followed and shown as the progress. One of them is killed with SIGKILL while it
holds work, which the others take over; three executions fail twice before they
succeed. Before the totals are published somebody has to approve them: the execution
is suspended until another process sends the approval, or you do with --interactive.
The totals, those of ` + "`cat FILES | wc`" + `, are checked against a direct count.`,
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return a.demo(c.Context(), &f) }
	flags := c.Flags()
	flags.StringVar(&f.input, "input", ".", "directory to index")
	flags.IntVar(&f.workers, "workers", 3, "worker processes; one of them is killed")
	flags.BoolVar(&f.keep, "keep", false, "keep the store, and say where it is")
	flags.BoolVar(&f.interactive, "interactive", false, "wait for your approval, and say how to give it")
	flags.DurationVar(&f.approval, "approval-timeout", demoApprovalTime, "how long the report waits for its approval")
	flags.BoolVar(&f.files, "list", false, "only list the files that would be indexed")
	return c
}

func (a *app) demo(ctx context.Context, f *demoFlags) error {
	if f.workers < 2 || f.workers > 64 {
		return usageError("--workers must be 2 to 64 (got %d): one is killed, the others take over", f.workers)
	}
	if f.approval <= 0 || f.approval > ff.MaxDelay {
		return usageError("--approval-timeout must be above 0 and at most %s (got %s)", ff.MaxDelay, f.approval)
	}
	files, skipped, err := a.textFiles(f.input)
	if err != nil {
		return err
	}
	if f.files {
		return a.print(files, func(p *printer) {
			for _, file := range files {
				p.line("%s", file)
			}
		})
	}
	dir, err := os.MkdirTemp("", "flowfabric-demo-")
	if err != nil {
		return err
	}
	d := &demo{app: a, flags: f, files: files, skipped: skipped, dir: dir, show: a.progress(), pending: map[ff.ExecutionID]bool{},
		patience: demoPatience}
	err = d.run(ctx)
	d.show.done()
	if f.keep {
		fmt.Fprintf(a.stderr, "The store is kept: flowfabric list --store sqlite:%s\n", filepath.Join(dir, defaultStore))
		return err
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// textFiles lists the text files below a directory: regular files of valid UTF-8
// without NUL bytes, but for those that this command prints to. What cannot be
// read is said and left out.
func (a *app) textFiles(root string) (files []string, skipped int, err error) {
	info, err := os.Stat(root)
	if err != nil {
		return nil, 0, ff.InvalidInput("input", "cannot be read: %w", err)
	}
	if !info.IsDir() {
		return nil, 0, ff.InvalidInput("input", "%s is not a directory", root)
	}
	if root, err = filepath.EvalSymlinks(root); err == nil {
		root, err = filepath.Abs(root)
	}
	if err != nil {
		return nil, 0, ff.InvalidInput("input", "cannot be read: %w", err)
	}
	err = filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		switch {
		case err != nil:
			fmt.Fprintf(a.stderr, "left out: %v\n", err)
			skipped++
			if e != nil && e.IsDir() {
				return filepath.SkipDir
			}
			return nil
		case e.IsDir() && e.Name() == ".git":
			return filepath.SkipDir
		case !e.Type().IsRegular() || a.printsTo(e):
			return nil
		}
		_, text, err := countFile(path)
		switch {
		case err != nil:
			fmt.Fprintf(a.stderr, "left out: %v\n", err)
			skipped++
		case text:
			files = append(files, path)
		default:
			skipped++
		}
		if len(files) > maxDemoFiles {
			return ff.InvalidInput("input", "%s has more than %d text files", root, maxDemoFiles)
		}
		return nil
	})
	if err == nil && len(files) == 0 {
		err = ff.InvalidInput("input", "%s has no text file to index", root)
	}
	return files, skipped, err
}

// printsTo reports whether a file is where this command prints: it grows while it
// would be counted.
func (a *app) printsTo(e os.DirEntry) bool {
	file, err := e.Info()
	if err != nil {
		return false // reading it will say why
	}
	for _, w := range []io.Writer{a.stdout, a.stderr} {
		if f, ok := w.(*os.File); ok {
			if out, err := f.Stat(); err == nil && os.SameFile(file, out) {
				return true
			}
		}
	}
	return false
}

// demo is one run.
type demo struct {
	app     *app
	flags   *demoFlags
	files   []string
	skipped int
	dir     string
	show    *progress
	store   ff.Backend
	url     string

	begun time.Time
	index []ff.ExecutionID
	// watcher is the execution that counts the others; what it writes is shown.
	watcher ff.ExecutionID
	counted chan counted
	pending map[ff.ExecutionID]bool
	after   ff.EventCursor
	total   int
	said    int
	// patience is the longest time without any progress.
	patience time.Duration
	// later counts what is not submitted yet.
	later int
}

func (d *demo) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop, err := d.serve(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	d.begun = time.Now()
	if err := d.submitAll(ctx); err != nil {
		return fmt.Errorf("submitting: %w", err)
	}
	followed, err := d.follow(ctx)
	if err != nil {
		return err
	}
	defer func() { cancel(); <-followed }()
	workers := &processes{app: d.app, url: d.url}
	defer workers.stop()
	if err := d.work(ctx, workers); err != nil {
		return err
	}
	return d.report(ctx)
}

// serve runs the store, its loops and the server in this process.
func (d *demo) serve(ctx context.Context) (stop func() error, err error) {
	store, err := sqlite.Open(ctx, filepath.Join(d.dir, defaultStore), sqlite.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	d.store = store
	loops, err := engine.New(store, engine.Options{})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	api, err := server.New(store, server.Options{Listen: "127.0.0.1:0"})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	l, err := api.Bind(ctx)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	d.url = baseURL(l.Addr())
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- runBoth(serving, slog.New(slog.DiscardHandler), loops, api, l) }()
	return func() error { end(); return errors.Join(<-ended, store.Close()) }, nil
}

// submitAll submits one execution per file, and some that fail twice.
func (d *demo) submitAll(ctx context.Context) error {
	var many ff.CreateExecutions
	flush := func() error {
		if len(many.Executions) == 0 {
			return nil
		}
		r, err := d.store.CreateExecutions(ctx, many)
		if err != nil {
			return err
		}
		for i, one := range r.Results {
			d.pending[one.ID] = true
			if many.Executions[i].Kind == kindIndex {
				d.index = append(d.index, one.ID)
			}
		}
		many.Executions = nil
		return nil
	}
	for _, file := range d.files {
		// Raw bytes: a path need not be valid UTF-8.
		many.Executions = append(many.Executions, ff.CreateExecution{Lane: demoLane, Kind: kindIndex, Payload: []byte(file)})
		if len(many.Executions) == ff.MaxBatch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	retry := ff.DefaultExecutionPolicy()
	retry.Retry = ff.FixedRetry(5, 100*time.Millisecond)
	for range demoFlaky {
		many.Executions = append(many.Executions, ff.CreateExecution{Lane: demoLane, Kind: kindFlaky, Policy: retry})
	}
	if err := flush(); err != nil {
		return err
	}
	d.later = 2 // the summary and the publication
	d.total = len(d.files) + demoFlaky + d.later + 1
	return d.submitWatcher(ctx)
}

// work starts the workers, kills the first while it holds work, and waits until
// everything is done.
func (d *demo) work(ctx context.Context, workers *processes) error {
	hold := min(3, len(d.files))
	victim, err := workers.start(ctx, hold)
	if err != nil {
		return err
	}
	held, err := victim.holding(ctx)
	if err != nil {
		return err
	}
	for range d.flags.workers - 1 {
		if _, err := workers.start(ctx, 0); err != nil {
			return err
		}
	}
	// In the middle of the work: when half of what others can do is done.
	if err := d.waitPending(ctx, (len(d.pending)+1)/2); err != nil {
		return err
	}
	if err := victim.kill(); err != nil {
		return err
	}
	d.say("killed worker process %d while it held %s; the others take over", victim.cmd.Process.Pid, held)
	if err := d.waitPending(ctx, 0); err != nil {
		return err
	}
	summary, err := d.submitOne(ctx, kindSummary, d.index)
	if err != nil {
		return fmt.Errorf("submitting the summary: %w", err)
	}
	d.pending[d.watcher] = true // it ends with the summary
	if err := d.waitPending(ctx, 0); err != nil {
		return err
	}
	if err := d.tellRest(ctx); err != nil {
		return err
	}
	return d.publish(ctx, summary)
}

// submitOne submits one of the executions that follow on others.
func (d *demo) submitOne(ctx context.Context, kind string, input any) (ff.ExecutionID, error) {
	payload, err := json.Marshal(input)
	if err != nil {
		return ff.ExecutionID{}, err
	}
	r, err := d.store.CreateExecution(ctx, ff.CreateExecution{Lane: demoLane, Kind: kind, Payload: payload, PayloadEncoding: "json"})
	if err != nil {
		return r.ID, err
	}
	d.pending[r.ID] = true
	d.later--
	return r.ID, nil
}

func (d *demo) say(format string, args ...any) {
	if d.app.json {
		return
	}
	d.show.done()
	fmt.Fprintf(d.app.stderr, format+"\n", args...)
}

// waitPending waits until at most n executions are not completed. An execution
// that ends otherwise ends the demo.
func (d *demo) waitPending(ctx context.Context, n int) error {
	quiet := time.Now()
	for len(d.pending) > n {
		r, err := d.store.ReadEvents(ctx, ff.ReadEvents{After: d.after, Family: ff.FamilyCompletion, Limit: ff.MaxPageLimit, Wait: time.Second})
		if err != nil {
			return err
		}
		d.after = r.Next
		for _, e := range r.Events {
			if e.Outcome == ff.OutcomeExpired {
				return &exitError{exitTimeout, fmt.Errorf("execution %s ended as %s: %s", e.ID, e.Outcome, e.Reason)}
			}
			if e.Outcome != ff.OutcomeSuccess {
				return fmt.Errorf("execution %s ended as %s: %s", e.ID, e.Outcome, e.Reason)
			}
			delete(d.pending, e.ID)
			quiet = time.Now()
		}
		if time.Since(quiet) > d.patience {
			return &exitError{exitTimeout, fmt.Errorf("nothing was completed for %s, %d executions are left", d.patience, len(d.pending))}
		}
		if err := d.tell(); err != nil {
			return err
		}
	}
	return nil
}

func (p *printer) demo(r *demoReport) {
	states := make([]string, 0, len(r.States))
	for _, s := range ff.PublicStates {
		if n := r.States[s]; n > 0 {
			states = append(states, fmt.Sprintf("%d %s", n, s))
		}
	}
	p.fields("files", fmt.Sprint(r.Files), "words", fmt.Sprint(r.Words), "lines", fmt.Sprint(r.Lines), "executions", fmt.Sprintf("%d (%s)", r.Executions, strings.Join(states, ", ")),
		"approved by", r.ApprovedBy, "retried", fmt.Sprint(r.Retried), "reclaimed", fmt.Sprintf("%d, from %d killed worker process", r.Reclaimed, r.Killed), "store", r.Store,
		"took", fmt.Sprintf("%.2f s, %.0f executions/s with worker processes over HTTP", r.Seconds, r.PerSecond))
}
