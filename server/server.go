// Package server is the HTTP API over any store: the endpoints of the reference
// (spec 08) with the same paths, bodies and statuses, and beside them endpoints
// for people and for workers on other machines. /openapi.json describes all.
//
// It is safe by default. Without a token it listens on loopback addresses only,
// answers only requests that name such a host, and refuses changes that a page of
// another origin asks a browser for.
package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/outage"
	"github.com/flowfabric/flowfabric/scheduler"
)

// DefaultListen is where the server listens when nothing else is configured.
const DefaultListen = "127.0.0.1:9090"

// DefaultMaxTails is how many callers may wait for output when nothing else is
// configured.
const DefaultMaxTails = 4096

// MaxMaxTails bounds Options.MaxTails.
const MaxMaxTails = 1_000_000

const (
	defaultTailHeartbeat    = 15 * time.Second
	defaultTailWriteTimeout = 10 * time.Second
)

// Options of a server; the zero value is good for one machine.
type Options struct {
	// Listen is the address of ListenAndServe.
	Listen string
	// Token, when not empty, is required of every request except for health and
	// metrics, as `Authorization: Bearer …`.
	Token string
	// AllowOpen permits listening beyond loopback without a token.
	AllowOpen bool
	// CORSOrigins are the origins whose pages may call the API; "*" is any.
	CORSOrigins []string
	// MaxTails bounds how many callers may wait for the output of attempts at the same
	// time; further ones are refused with resource_exhausted, status 429. At most
	// MaxMaxTails; the default is DefaultMaxTails.
	MaxTails int
	// TailHeartbeat is the time between two comments on an event stream on which nothing
	// happens: 1 ms to flowfabric.MaxTailWait, 15 s by default.
	TailHeartbeat time.Duration
	// TailWriteTimeout is how long the client of an event stream may take to accept what
	// is written before it is cut off. The default is 10 s.
	TailWriteTimeout time.Duration
	// ShutdownTimeout bounds the graceful end. The default is 15 s.
	ShutdownTimeout time.Duration
	// SecretGrace is how long waitpoint tokens of a secret stay valid after a rotation
	// that does not say. The default is flowfabric.DefaultSecretGrace.
	SecretGrace *time.Duration
	Logger      *slog.Logger
	Meter       metric.Meter
	// Metrics, when not nil, is served at /metrics.
	Metrics http.Handler
}

// Server serves one store.
type Server struct {
	store   ff.Backend
	claims  *scheduler.Scheduler
	opts    Options
	log     *slog.Logger
	handler http.Handler
	// document is the OpenAPI document of the routes.
	document []byte
	// stopping ends long polls when the server stops.
	stopping context.Context
	stop     context.CancelFunc
	// rotating is held while the waitpoint secret is rotated.
	rotating sync.Mutex

	// loss is of the store.
	loss outage.Outage
	// tails has an item for each caller that waits for output.
	tails chan struct{}

	requests  metric.Int64Counter
	tailing   metric.Int64UpDownCounter
	durations metric.Float64Histogram
}

// New makes a server. Errors: invalid_input naming the option.
func New(store ff.Backend, o Options) (*Server, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	// Lanes are served in the order of each claim: workers take turns themselves.
	claims, err := scheduler.New(store, scheduler.Options{Order: scheduler.Strict, Meter: o.Meter})
	if err != nil {
		return nil, err
	}
	s := &Server{store: store, claims: claims, opts: o, log: o.Logger, loss: outage.Outage{Quiet: quiet}, tails: make(chan struct{}, o.MaxTails)}
	s.stopping, s.stop = context.WithCancel(context.Background())
	if err := s.instruments(); err != nil {
		return nil, err
	}
	s.handler, err = s.stack()
	return s, err
}

// complete checks the options and fills in the defaults.
func (o *Options) complete() error {
	o.Listen = cmp.Or(o.Listen, DefaultListen)
	o.MaxTails = cmp.Or(o.MaxTails, DefaultMaxTails)
	o.TailHeartbeat = cmp.Or(o.TailHeartbeat, defaultTailHeartbeat)
	o.TailWriteTimeout = cmp.Or(o.TailWriteTimeout, defaultTailWriteTimeout)
	o.ShutdownTimeout = cmp.Or(o.ShutdownTimeout, 15*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Meter == nil {
		o.Meter = noop.Meter{}
	}
	switch {
	case o.MaxTails < 0 || o.MaxTails > MaxMaxTails:
		return ff.InvalidInput("max_tails", "must be 0 to %d (got %d)", MaxMaxTails, o.MaxTails)
	case o.TailHeartbeat < time.Millisecond || o.TailHeartbeat > ff.MaxTailWait:
		return ff.InvalidInput("tail_heartbeat", "must be 1ms to %s (got %s)", ff.MaxTailWait, o.TailHeartbeat)
	case o.TailWriteTimeout < 0:
		return ff.InvalidInput("tail_write_timeout", "must not be negative (got %s)", o.TailWriteTimeout)
	}
	return nil
}

func (s *Server) instruments() (err error) {
	s.requests, err = s.opts.Meter.Int64Counter("ff_http_requests_total", metric.WithDescription("Requests answered"))
	if err == nil {
		s.durations, err = s.opts.Meter.Float64Histogram("ff_http_request_duration_seconds", metric.WithUnit("s"),
			metric.WithDescription("Time of a request, with authentication and waiting for work"),
			metric.WithExplicitBucketBoundaries(.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60))
	}
	if err == nil {
		s.tailing, err = s.opts.Meter.Int64UpDownCounter("ff_http_tails", metric.WithDescription("Callers that wait for the output of attempts"))
	}
	if err != nil {
		return fmt.Errorf("server metrics: %w", err)
	}
	return nil
}

// Handler is the API, for servers of one's own. Without a token it must not be
// reachable from other machines.
func (s *Server) Handler() http.Handler { return s.handler }

// ListenAndServe listens on Options.Listen and serves until ctx ends. Errors:
// invalid_input when the address is open to other machines and there is no
// token; unavailable when it cannot be listened on.
func (s *Server) ListenAndServe(ctx context.Context) error {
	l, err := s.Bind(ctx)
	if err != nil {
		return err
	}
	return s.Serve(ctx, l)
}

// Bind opens the listener, so that its address is known before serving.
func (s *Server) Bind(ctx context.Context) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.opts.Listen)
	if err != nil {
		return nil, ff.Errorf(ff.CodeUnavailable, "cannot listen on %s; give a free address as HOST:PORT, port 0 for any: %w", s.opts.Listen, err)
	}
	if err := s.refuseOpen(l.Addr()); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// refuseOpen refuses an address that other machines reach while there is no token.
func (s *Server) refuseOpen(a net.Addr) error {
	if s.opts.Token != "" || s.opts.AllowOpen || a.Network() == "unix" {
		return nil
	}
	if ap, err := netip.ParseAddrPort(a.String()); err == nil && ap.Addr().IsLoopback() {
		return nil
	}
	return ff.InvalidInput("listen", "%s is reachable from other machines and no token is set: set a token (--token or FF_API_TOKEN), listen on 127.0.0.1, or allow open access on purpose (--open)", a)
}

// Times of one request. Those for reading and writing are longer than the longest
// poll, which they would end otherwise.
const (
	headerTimeout = 10 * time.Second
	readTimeout   = ff.MaxClaimWait + time.Minute
	writeTimeout  = readTimeout + time.Minute
	idleTimeout   = 2 * time.Minute
)

// Serve serves until ctx ends; then it accepts no more, answers long polls at
// once and finishes the requests that run, for at most ShutdownTimeout. It closes
// the listener. A Server serves once. Errors: invalid_input as ListenAndServe;
// timeout when requests were cut off at the end.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if err := s.refuseOpen(l.Addr()); err != nil {
		_ = l.Close()
		return err
	}
	hs := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	defer s.stop()
	ended := make(chan error, 1)
	go func() { ended <- hs.Serve(l) }()
	select {
	case err := <-ended:
		_ = hs.Close()
		return ff.Errorf(ff.CodeUnavailable, "serving HTTP: %w", err)
	case <-ctx.Done():
	}
	s.stop()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.ShutdownTimeout)
	defer cancel()
	err := hs.Shutdown(grace)
	if err != nil {
		_ = hs.Close()
		err = ff.Errorf(ff.CodeTimeout, "requests were still running after %s: %w", s.opts.ShutdownTimeout, err)
	}
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
