package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/backend"
	"github.com/flowfabric/flowfabric/engine"
	"github.com/flowfabric/flowfabric/internal/metrics"
	"github.com/flowfabric/flowfabric/server"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
	"github.com/flowfabric/flowfabric/valkey"
)

type serveFlags struct {
	listen, synchronous, logFormat, logLevel string
	origins                                  []string
	open                                     bool
	retention                                time.Duration
}

// add adds the flags to a command with its own default of --synchronous.
func (f *serveFlags) add(c *cobra.Command, synchronous string) {
	flags := c.Flags()
	flags.StringVar(&f.listen, "listen", server.DefaultListen, "address of the HTTP API (FF_LISTEN_ADDR)")
	flags.StringSliceVar(&f.origins, "cors-origin", nil, "origin of pages that may call the API, * for any; may be repeated (FF_CORS_ORIGINS)")
	flags.BoolVar(&f.open, "open", false, "listen beyond loopback without a token")
	flags.StringVar(&f.synchronous, "synchronous", synchronous, "what a commit to SQLite waits for: full (survives loss of power), normal, off")
	flags.DurationVar(&f.retention, "retention", ff.DefaultRetention, "how long executions are kept after they ended")
	flags.StringVar(&f.logFormat, "log-format", "text", "text or json")
	flags.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
}

func (a *app) serveCommand() *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use: "serve", Short: "Serve the HTTP API on a store and run its background loops", Args: exactly(),
		Long:    "Serves the HTTP API on a store, ./" + defaultStore + " by default, and runs the background loops.\nAny number of servers may share a Valkey; a SQLite file belongs to one.\nEnvironment variables are read as docs/configuration.md says; flags win over them.",
		Example: "  flowfabric serve\n  flowfabric serve --store sqlite:/var/lib/flowfabric/data.db --listen 0.0.0.0:9090 --token \"$TOKEN\"\n  flowfabric serve --store valkey://localhost:6379",
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		s, err := f.settings(c, a)
		if err != nil {
			return err
		}
		if a.store == "" && s.Store.URL != "" && os.Getenv("FF_BACKEND") == "" {
			return invalidVariable("FF_VALKEY_URL", "it has no effect on the SQLite store that FF_BACKEND leads to when it is not set: set FF_BACKEND=valkey, or unset FF_VALKEY_URL")
		}
		url := cmp.Or(a.store, s.Store.location())
		if kindOf(url) == kindValkey && c.Flags().Changed("synchronous") {
			return usageError("--synchronous is for SQLite; what a Valkey loses in a crash is its own setting: see flowfabric doctor --store '%s'", shown(url))
		}
		return a.serve(c.Context(), &f, s, url, func(base string) {
			fmt.Fprintf(a.stderr, "Serving %s on %s\nTry: flowfabric submit hello --payload '\"world\"'%s\n", strings.TrimPrefix(shown(url), "sqlite:"), base, serverHint(base))
		})
	}
	f.add(c, "full")
	return c
}

// serverHint is the flag that other commands need to find the server.
func serverHint(base string) string {
	if base == defaultServer {
		return ""
	}
	return " --server " + base
}

func (a *app) devCommand() *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use: "dev", Short: "Serve a temporary store, to try things out", Args: exactly(),
		Long: "Serves a temporary store that is deleted at the end.",
	}
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		if a.store != "" {
			return usageError("dev has a temporary store of its own; keep data with: flowfabric serve --store '%s'", shown(a.store))
		}
		s, err := f.settings(c, a)
		if err != nil {
			return err
		}
		dir, err := os.MkdirTemp("", "flowfabric-dev-")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		return a.serve(c.Context(), &f, s, "sqlite:"+filepath.Join(dir, defaultStore), func(base string) {
			hint := serverHint(base)
			fmt.Fprintf(a.stderr, `FlowFabric is running on %s with a temporary store. Look at it in a browser, and in another terminal:

  flowfabric submit shout --payload '"hello"'%s
  flowfabric worker run --exec 'tr a-z A-Z'%s
  flowfabric list%s

Stop with Ctrl-C; everything is deleted then.
`, base, hint, hint, hint)
		})
	}
	f.add(c, "normal")
	return c
}

// settings are the environment with the flags over it.
func (f *serveFlags) settings(c *cobra.Command, a *app) (settings, error) {
	s, err := loadSettings()
	if err != nil {
		return s, err
	}
	if c.Flags().Changed("listen") {
		s.Listen = f.listen
	}
	if c.Flags().Changed("cors-origin") {
		s.Origins = f.origins
	}
	s.Token = a.token
	if f.retention < time.Second || f.retention > ff.MaxDelay {
		return s, ff.InvalidInput("retention", "must be 1s to %s (got %s)", ff.MaxDelay, f.retention)
	}
	return s, nil
}

// logger writes to stderr.
func (f *serveFlags) logger(a *app) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, usageError("--log-level must be debug, info, warn or error (got %q)", f.logLevel)
	}
	o := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(a.stderr, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(a.stderr, o)), nil
	}
	return nil, usageError("--log-format must be text or json (got %q)", f.logFormat)
}

// serve runs a server and an engine on a store until ctx ends.
func (a *app) serve(ctx context.Context, f *serveFlags, s settings, url string, ready func(base string)) (err error) {
	kind := kindOf(url)
	if kind == kindServer {
		return usageError("serve needs a store of its own, not the store of another server (%s)", shown(url))
	}
	log, err := f.logger(a)
	if err != nil {
		return err
	}
	for _, name := range idle {
		if os.Getenv(name) != "" {
			log.Warn("this environment variable has no effect in this version", "variable", name)
		}
	}
	for _, name := range ineffective(kind) {
		log.Warn("this environment variable has no effect on this kind of store", "variable", name, "store", kind)
	}
	measured, err := metrics.New()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, measured.Close(context.WithoutCancel(ctx))) }()
	store, err := f.openStore(ctx, &s.Store, url, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	loops, err := engine.New(store, engine.Options{LeaseExpiry: time.Duration(s.LeaseExpiry), Delayed: time.Duration(s.Delayed),
		AttemptTimeout: time.Duration(s.AttemptTimeout), ExecutionDeadline: time.Duration(s.ExecutionDeadline),
		SuspensionTimeout: time.Duration(s.SuspensionTimeout), PendingWaitpoints: time.Duration(s.PendingWaitpoints), Retention: time.Duration(s.Retention), Index: time.Duration(s.Index),
		Logger: log, Meter: measured.Meter()})
	if err != nil {
		return err
	}
	grace := time.Duration(s.Grace)
	api, err := server.New(store, server.Options{Listen: s.Listen, SecretGrace: &grace, Token: s.Token, AllowOpen: f.open, CORSOrigins: s.Origins, MaxTails: int(s.Tails),
		Logger: log, Meter: measured.Meter(), Metrics: measured})
	if err != nil {
		return err
	}
	l, err := api.Bind(ctx)
	if err != nil {
		return err
	}
	ready(baseURL(l.Addr()))
	return runBoth(ctx, log, loops, api, l)
}

// openStore opens the store of a server.
func (f *serveFlags) openStore(ctx context.Context, s *storeSettings, url string, log *slog.Logger) (ff.Backend, error) {
	url, err := completeURL(url, s.User, s.Password)
	if err != nil {
		return nil, err
	}
	if s.Secret != "" && ff.WeakSecret(string(s.Secret)) {
		log.Warn("the secret of FF_WAITPOINT_HMAC_SECRET is short: tokens may be forged; install a longer one with: flowfabric secret rotate", "hex_digits", len(s.Secret), "want", 2*ff.MinSecretBytes)
	}
	o := backend.Options{SQLite: sqlite.Options{Partitions: s.partitions(), Synchronous: sqlite.Synchronous(f.synchronous), Retention: f.retention, Logger: log}}
	if kindOf(url) == kindValkey {
		lanes, err := s.lanes()
		if err != nil {
			return nil, err
		}
		o.Valkey = valkey.Options{Partitions: s.partitions(), Lanes: lanes, Retention: f.retention, ForceReload: bool(s.ForceReload), WaitpointSecret: string(s.Secret), Logger: log}
	}
	store, err := backend.Open(ctx, url, o)
	if err != nil || s.Secret == "" || kindOf(url) == kindValkey {
		return store, err // a Valkey store seeds itself
	}
	if err := seedSecret(ctx, store, string(s.Secret), log); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return store, nil
}

// firstKeyID is the id of the first secret of a store (spec 09 §9.1).
const firstKeyID = "k1"

// seedSecret installs the secret of the environment in a store that has none. A store
// that has another one keeps it.
func seedSecret(ctx context.Context, store ff.Backend, secret string, log *slog.Logger) error {
	known, err := store.WaitpointSecrets(ctx)
	if err != nil {
		return err
	}
	r, err := store.SeedWaitpointSecret(ctx, ff.SeedWaitpointSecret{KeyID: cmp.Or(known.Current, firstKeyID), Secret: secret})
	if err == nil && !r.Same {
		log.Warn("the store signs waitpoints with another secret than that of FF_WAITPOINT_HMAC_SECRET, which is ignored; install it with: flowfabric secret rotate", "kid", r.KeyID)
	}
	return err
}

// runBoth runs the loops and the server. The loops outlive the server, so that
// its last requests find a store that moves.
func runBoth(ctx context.Context, log *slog.Logger, loops *engine.Engine, api *server.Server, l net.Listener) error {
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- loops.Run(background) }()
	log.Info("HTTP API listening", "address", l.Addr().String())
	err := api.Serve(ctx, l)
	stop()
	err = errors.Join(err, <-ended)
	log.Info("stopped")
	return err
}

// baseURL is how programs on this machine reach a listener.
func baseURL(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return "http://" + addr.String()
	}
	if slices.Contains([]string{"0.0.0.0", "::"}, host) {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}
