package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"
)

// Logging writes one line per task: what it was, how long it took, what came of
// it. Payloads and results are not written.
func Logging(log *slog.Logger) Middleware {
	return func(next Handler) Handler {
		return func(ctx context.Context, t *Task) ([]byte, error) {
			start := time.Now()
			result, err := next(ctx, t)
			level, attrs := slog.LevelInfo, []slog.Attr{
				slog.String("execution_id", t.ID().String()), slog.String("kind", t.Kind()),
				slog.Int("attempt", t.Attempt().Index), slog.Duration("took", time.Since(start)),
				slog.String("outcome", t.outcomeOf(err)),
			}
			if failed(t.outcomeOf(err)) {
				level = slog.LevelWarn
			}
			if err != nil {
				attrs = append(attrs, slog.String("err", err.Error()))
			}
			log.LogAttrs(ctx, level, "task", attrs...)
			return result, err
		}
	}
}

// Tracing runs each task in a span named after its kind.
func Tracing(tracer trace.Tracer) Middleware {
	return func(next Handler) Handler {
		return func(ctx context.Context, t *Task) ([]byte, error) {
			ctx, span := tracer.Start(ctx, "task "+t.Kind(), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
				attribute.String("flowfabric.execution_id", t.ID().String()),
				attribute.String("flowfabric.lane_id", string(t.Execution().Lane)),
				attribute.Int("flowfabric.attempt_index", t.Attempt().Index)))
			defer span.End()
			result, err := next(ctx, t)
			span.SetAttributes(attribute.String("flowfabric.outcome", t.outcomeOf(err)))
			if failed(t.outcomeOf(err)) {
				span.RecordError(err)
				span.SetStatus(codes.Error, t.outcomeOf(err))
			}
			return result, err
		}
	}
}

// Metrics counts tasks by kind and outcome and records how long they took.
func Metrics(meter metric.Meter) (Middleware, error) {
	tasks, err := meter.Int64Counter("ff_worker_tasks_total", metric.WithDescription("Tasks by kind and outcome"))
	if err != nil {
		return nil, fmt.Errorf("worker metrics: %w", err)
	}
	took, err := meter.Float64Histogram("ff_worker_task_duration_seconds", metric.WithUnit("s"), metric.WithDescription("Duration of handlers"))
	if err != nil {
		return nil, fmt.Errorf("worker metrics: %w", err)
	}
	return func(next Handler) Handler {
		return func(ctx context.Context, t *Task) ([]byte, error) {
			start := time.Now()
			result, err := next(ctx, t)
			kind := attribute.String("kind", t.Kind())
			took.Record(ctx, time.Since(start).Seconds(), metric.WithAttributes(kind))
			tasks.Add(ctx, 1, metric.WithAttributes(kind, attribute.String("outcome", t.outcomeOf(err))))
			return result, err
		}
	}, nil
}

// outcomeOf names what became of a task: one that was suspended is, whatever its handler
// returns.
func (t *Task) outcomeOf(err error) string {
	if t.hasSuspended() {
		return "suspended"
	}
	return outcomeOf(err)
}

// outcomeOf names what an error of a handler asks for.
func outcomeOf(err error) string {
	if err == nil {
		return "ok"
	}
	var o *outcome
	if errors.As(err, &o) {
		switch {
		case o.cancel:
			return "cancelled"
		case o.delayed:
			return "delayed"
		case o.suspended:
			return "suspended"
		case o.permanent:
			return "failed_permanently"
		}
	}
	return "failed"
}

// failed reports whether an outcome is a failure.
func failed(outcome string) bool { return outcome == "failed" || outcome == "failed_permanently" }

// RateLimit lets handlers begin at a limited rate; a task waits for its turn
// while its lease is renewed. The limiter may be shared.
func RateLimit(limiter *rate.Limiter) Middleware {
	return func(next Handler) Handler {
		return func(ctx context.Context, t *Task) ([]byte, error) {
			if err := limiter.Wait(ctx); err != nil {
				return nil, fmt.Errorf("waiting for the rate limit: %w", err)
			}
			return next(ctx, t)
		}
	}
}

// errInterrupted marks what a handler returned after its context had ended: that
// says nothing about the kind.
var errInterrupted = errors.New("interrupted")

// CircuitBreaker stops running a kind that keeps failing: after so many failures
// in a row its tasks are delayed, without using up an attempt, until the
// cool-down is over and a trial succeeds. Handlers that were interrupted because
// the lease was lost or the worker stops count neither way.
func CircuitBreaker(failures uint32, coolDown time.Duration) Middleware {
	var mu sync.Mutex
	breakers := map[string]*gobreaker.CircuitBreaker[[]byte]{}
	breaker := func(kind string) *gobreaker.CircuitBreaker[[]byte] {
		mu.Lock()
		defer mu.Unlock()
		b := breakers[kind]
		if b == nil {
			b = gobreaker.NewCircuitBreaker[[]byte](gobreaker.Settings{
				Name: kind, Timeout: coolDown,
				ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= failures },
				IsSuccessful: func(err error) bool { return !failed(outcomeOf(err)) },
				IsExcluded:   func(err error) bool { return errors.Is(err, errInterrupted) },
			})
			breakers[kind] = b
		}
		return b
	}
	return func(next Handler) Handler {
		return func(ctx context.Context, t *Task) ([]byte, error) {
			var result []byte
			var err error
			ran := false
			_, refusal := breaker(t.Kind()).Execute(func() ([]byte, error) {
				ran = true
				result, err = next(ctx, t)
				if err != nil && ctx.Err() != nil && !errors.Is(context.Cause(ctx), ErrTimeout) {
					return nil, errInterrupted
				}
				return nil, err
			})
			if !ran && refusal != nil {
				return nil, Delay(coolDown)
			}
			return result, err
		}
	}
}
