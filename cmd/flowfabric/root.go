package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/valkey"
)

// Exit codes; `flowfabric help exit-codes` shows them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitUnavailable = 4
	exitTimeout     = 5
	exitInterrupted = 130
)

const exitCodesHelp = `Exit codes:
    0  done
    1  refused or failed; the error says why
    2  the command line is wrong
    3  the execution does not exist, or has no result
    4  the store or the server cannot be reached, or cannot be used
    5  the time to wait is over
  130  interrupted

With --json an error is one object on stderr with error, code, field and exit_code.`

// defaultServer is where `flowfabric serve` listens.
const defaultServer = "http://127.0.0.1:9090"

// app is what the commands share.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	json           bool
	server         string
	store          string
	token          string
	insecure       bool
	timeout        time.Duration
}

// exitError carries an exit code of its own; err may be nil.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usageError is a wrong command line.
func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// run runs a command line and returns its exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	code := exitCode(ctx, err)
	if err != nil && code != exitOK {
		// A line that cannot be parsed has set no flag yet.
		a.json = a.json || slices.Contains(args, "--json")
		a.printError(err, code)
	}
	return code
}

func exitCode(ctx context.Context, err error) int {
	var e *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &e):
		return e.code
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	}
	fe, ok := ff.AsError(err)
	if !ok {
		return exitFailed
	}
	if fe.Code == ff.CodeInvalidInput && fe.Field == "store" {
		return exitUsage // the URL of --store; those of the environment name their variable
	}
	switch fe.Kind() {
	case ff.KindNotFound:
		return exitNotFound
	case ff.KindTransport, ff.KindUnavailable, ff.KindResourceExhausted:
		return exitUnavailable
	case ff.KindTimeout:
		return exitTimeout
	}
	return exitFailed
}

func (a *app) printError(err error, code int) {
	if code == exitInterrupted {
		err = errors.New("interrupted")
	}
	if !a.json {
		fmt.Fprintln(a.stderr, "flowfabric:", err)
		return
	}
	out := struct {
		Error string `json:"error"`
		Code  string `json:"code,omitempty"`
		Field string `json:"field,omitempty"`
		Exit  int    `json:"exit_code"`
	}{Error: err.Error(), Exit: code}
	if e, ok := ff.AsError(err); ok {
		out.Code, out.Field = string(e.Code), e.Field
	}
	_ = json.NewEncoder(a.stderr).Encode(out)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "flowfabric", Short: "Durable execution for Go teams: submit work that must not be lost, and work on it",
		Long:          "FlowFabric runs work that must not be lost: executions with leases, retries, delays and deadlines,\non an embedded SQLite store, on Valkey or over HTTP. Start with: flowfabric dev",
		SilenceErrors: true, SilenceUsage: true, Version: ff.Version,
		Args: cobra.ArbitraryArgs, RunE: onlyCommands,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError("%w (see: %s --help)", err, c.CommandPath())
	})
	flags := root.PersistentFlags()
	flags.BoolVar(&a.json, "json", false, "print JSON for programs")
	flags.StringVar(&a.server, "server", envOr("FLOWFABRIC_SERVER", defaultServer), "URL of the server (FLOWFABRIC_SERVER)")
	flags.StringVar(&a.store, "store", "", "use a store directly instead of a server: sqlite:FILE or valkey://HOST")
	flags.StringVar(&a.token, "token", os.Getenv("FF_API_TOKEN"), "token of the server (FF_API_TOKEN)")
	flags.Lookup("token").DefValue = ""
	flags.Lookup("server").DefValue = defaultServer
	flags.BoolVar(&a.insecure, "insecure-token", false, "allow sending the token over plain HTTP to another machine")
	flags.DurationVar(&a.timeout, "timeout-call", client.DefaultTimeout, "longest time of one call to the server")
	root.AddGroup(&cobra.Group{ID: "run", Title: "Run:"}, &cobra.Group{ID: "use", Title: "Submit, look and steer:"}, &cobra.Group{ID: "more", Title: "More:"})
	root.SetHelpCommandGroupID("more")
	root.SetCompletionCommandGroupID("more")
	for group, commands := range map[string][]*cobra.Command{
		"run": {a.serveCommand(), a.devCommand(), a.demoCommand(), a.workerCommand()},
		"use": {a.submitCommand(), a.getCommand(), a.listCommand(), a.resultCommand(), a.cancelCommand(), a.replayCommand(), a.priorityCommand(),
			a.revokeCommand(), a.waitpointsCommand(), a.approveCommand(), a.rejectCommand(), a.signalCommand(), a.resumeCommand(), a.explainCommand(),
			a.lanesCommand(), a.workersCommand(), a.eventsCommand(), a.streamCommand()},
		"more": {a.doctorCommand(), a.secretCommand(), a.libraryCommand(), a.benchCommand(), a.versionCommand()},
	} {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	root.AddCommand(&cobra.Command{Use: "exit-codes", Short: "Exit codes of all commands", Long: exitCodesHelp}, a.demoWorkerCommand(), a.docsCommand(root))
	return root
}

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// storeCommand is what a command does on a store.
type storeCommand func(ctx context.Context, b ff.Backend, args []string) error

// withStore runs a command on the store. A Valkey in which there is none is refused:
// its address is then more likely wrong than its emptiness news.
func (a *app) withStore(f storeCommand) func(*cobra.Command, []string) error {
	return a.withStoreOf(valkey.Options{Connect: commandPatience, MustExist: true}, f)
}

// withAnyStore is withStore for commands that make the store when there is none.
func (a *app) withAnyStore(f storeCommand) func(*cobra.Command, []string) error {
	return a.withStoreOf(valkey.Options{Connect: commandPatience}, f)
}

func (a *app) withStoreOf(o valkey.Options, f storeCommand) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		b, err := a.openFor(c.Context(), o)
		if err != nil {
			return err
		}
		return errors.Join(f(c.Context(), b, args), b.Close())
	}
}

// exactly is cobra.ExactArgs with the names of the arguments in its error.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) == len(names):
			return nil
		case len(names) == 0:
			return usageError("%s takes no arguments, got %q (see: %s --help)", c.CommandPath(), args, c.CommandPath())
		}
		return usageError("%s needs %d argument(s) %v, got %d (see: %s --help)", c.CommandPath(), len(names), names, len(args), c.CommandPath())
	}
}

// atLeastOne is cobra.MinimumNArgs(1) with the name of the arguments.
func atLeastOne(name string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError("%s needs at least one %s (see: %s --help)", c.CommandPath(), name, c.CommandPath())
		}
		return nil
	}
}

// onlyCommands is what a command does that only has others below it: it shows
// them, and refuses names that are not among them.
func onlyCommands(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	hint := ""
	c.SuggestionsMinimumDistance = 2
	if like := c.SuggestionsFor(args[0]); len(like) > 0 {
		hint = "did you mean " + strings.Join(like, " or ") + "? "
	}
	return usageError("unknown command %q for %q (%ssee: %s --help)", args[0], c.CommandPath(), hint, c.CommandPath())
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", Args: exactly(), RunE: func(*cobra.Command, []string) error {
		return a.print(map[string]string{"version": ff.Version, "library": ff.LibraryVersion}, func(p *printer) {
			p.line("flowfabric %s (speaks function library %s)", ff.Version, ff.LibraryVersion)
		})
	}}
}
