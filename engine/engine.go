// Package engine runs the background loops that move executions on when time
// passes: lost leases, delays that are over, attempt timeouts, deadlines,
// suspensions and waitpoints whose time is over, and retention (spec 06). The loops work over any store; several engines may run
// on one store at the same time.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	ff "github.com/flowfabric/flowfabric"
)

// The default intervals (spec 09 §1.4). Work is done when it is due: the interval
// is the longest a loop sleeps without looking.
const (
	DefaultLeaseExpiry       = 1500 * time.Millisecond
	DefaultDelayed           = 750 * time.Millisecond
	DefaultAttemptTimeout    = 2 * time.Second
	DefaultExecutionDeadline = 5 * time.Second
	DefaultSuspensionTimeout = 2 * time.Second
	DefaultPendingWaitpoints = 5 * time.Second
	DefaultRetention         = time.Minute
	DefaultIndex             = 45 * time.Second
	// MinInterval bounds every interval.
	MinInterval = 10 * time.Millisecond
	// MaxBatchSize bounds BatchSize.
	MaxBatchSize = 10_000

	panicPause = 5 * time.Second
)

// Options of an engine; zero values mean the defaults.
type Options struct {
	LeaseExpiry, Delayed, AttemptTimeout, ExecutionDeadline time.Duration
	SuspensionTimeout, PendingWaitpoints, Retention, Index  time.Duration
	// BatchSize bounds the executions of one transaction; 0 means 500.
	BatchSize int
	Logger    *slog.Logger
	Meter     metric.Meter
}

// Engine runs the loops.
type Engine struct {
	store     ff.Maintenance
	batch     int
	log       *slog.Logger
	intervals map[ff.SweepKind]time.Duration
	cycles    metric.Int64Counter
	durations metric.Float64Histogram
}

// New makes an engine. Errors: invalid_input naming the option.
func New(store ff.Maintenance, o Options) (*Engine, error) {
	e := &Engine{store: store, batch: o.BatchSize, log: o.Logger, intervals: map[ff.SweepKind]time.Duration{}}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.batch == 0 {
		e.batch = 500
	}
	if e.batch < 0 || e.batch > MaxBatchSize {
		return nil, ff.InvalidInput("batch_size", "must be 1 to %d (got %d)", MaxBatchSize, e.batch)
	}
	for _, l := range []struct {
		kind             ff.SweepKind
		interval, preset time.Duration
	}{
		{ff.SweepLeaseExpiry, o.LeaseExpiry, DefaultLeaseExpiry},
		{ff.SweepDelayed, o.Delayed, DefaultDelayed},
		{ff.SweepAttemptTimeout, o.AttemptTimeout, DefaultAttemptTimeout},
		{ff.SweepExecutionDeadline, o.ExecutionDeadline, DefaultExecutionDeadline},
		{ff.SweepSuspensionTimeout, o.SuspensionTimeout, DefaultSuspensionTimeout},
		{ff.SweepPendingWaitpoints, o.PendingWaitpoints, DefaultPendingWaitpoints},
		{ff.SweepRetention, o.Retention, DefaultRetention},
		{ff.SweepIndex, o.Index, DefaultIndex},
	} {
		if l.interval == 0 {
			l.interval = l.preset
		}
		if l.interval < MinInterval {
			return nil, ff.InvalidInput(string(l.kind)+"_interval", "must be at least %s (got %s)", MinInterval, l.interval)
		}
		e.intervals[l.kind] = l.interval
	}
	return e, e.instruments(o.Meter)
}

func (e *Engine) instruments(meter metric.Meter) (err error) {
	if meter == nil {
		meter = noop.Meter{}
	}
	e.cycles, err = meter.Int64Counter("ff_scanner_cycle_total", metric.WithDescription("Finished cycles of a background loop"))
	if err != nil {
		return fmt.Errorf("engine metrics: %w", err)
	}
	e.durations, err = meter.Float64Histogram("ff_scanner_cycle_duration_seconds", metric.WithUnit("s"),
		metric.WithDescription("Duration of one cycle"), metric.WithExplicitBucketBoundaries(.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10))
	if err != nil {
		return fmt.Errorf("engine metrics: %w", err)
	}
	return nil
}

// Run runs all loops until ctx ends, and returns when the last of them has
// stopped. The transaction of a loop that is under way is finished or undone by
// the store. It returns nil: the end of ctx is the way to stop an engine.
func (e *Engine) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	for kind, interval := range e.intervals {
		loops.Go(func() { e.loop(ctx, kind, interval) })
	}
	loops.Wait()
	return nil
}

// loop sweeps one kind for ever: at once when something becomes due, and at the
// latest after the interval. Errors are reported when they begin and when they
// end, and slow the loop down: nothing wakes it early then.
func (e *Engine) loop(ctx context.Context, kind ff.SweepKind, interval time.Duration) {
	due, stop := e.store.WatchDue(kind)
	defer stop()
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 100*time.Millisecond, 10*time.Second
	failing := false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		sleep, err := e.cycle(ctx, kind, interval)
		if ctx.Err() != nil {
			return
		}
		woken := due
		switch {
		case err != nil:
			if !failing {
				e.log.Error("background loop fails; it goes on trying", "scanner", kind, "err", err)
			}
			woken = nil
			sleep = pause.NextBackOff()
			if errors.Is(err, errPanicked) {
				sleep = panicPause
			}
		case failing:
			e.log.Info("background loop works again", "scanner", kind)
		}
		failing = err != nil
		if !failing {
			pause.Reset()
		}
		timer.Reset(sleep)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-woken:
		}
	}
}

// errPanicked stands for a panic, which was logged with its stack.
var errPanicked = errors.New("the loop panicked")

// cycle sweeps until nothing of the kind is due, and says when to look again.
func (e *Engine) cycle(ctx context.Context, kind ff.SweepKind, interval time.Duration) (next time.Duration, err error) {
	start := time.Now()
	defer func() {
		if p := recover(); p != nil {
			e.log.Error("background loop panicked; it goes on after a pause", "scanner", kind, "pause", panicPause, "panic", p, "stack", string(debug.Stack()))
			err = errPanicked
		}
		set := metric.WithAttributes(attribute.String("scanner", string(kind)))
		e.cycles.Add(ctx, 1, set)
		e.durations.Record(ctx, time.Since(start).Seconds(), set)
	}()
	processed, failed := 0, 0
	for {
		r, err := e.store.Sweep(ctx, ff.Sweep{Kind: kind, Limit: e.batch, Every: interval})
		if err != nil {
			return 0, err
		}
		processed, failed = processed+r.Processed, failed+r.Errors
		if r.More && r.Processed > 0 && ctx.Err() == nil {
			continue
		}
		if processed+failed > 0 {
			e.log.Debug("scan cycle complete", "scanner", kind, "processed", processed, "errors", failed, "elapsed", time.Since(start))
		}
		if failed > 0 {
			// What failed is still due: without a pause the loop would spin on it.
			return interval, nil
		}
		return r.Wait(interval), nil
	}
}
