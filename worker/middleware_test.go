package worker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sony/gobreaker/v2"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"golang.org/x/time/rate"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/worker"
)

func TestTheBreakerClosesAgainAfterASuccessfulTrial(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	w := closed(t, connect(t, b, nil))
	w.Use(worker.CircuitBreaker(1, 20*time.Millisecond))
	broken := true
	worker.Handle(w, "call", func(context.Context, []byte) ([]byte, error) {
		if broken {
			return nil, errors.New("refused")
		}
		return nil, nil
	})
	submit(t, b, ff.CreateExecution{Kind: "call"})
	runOne(t, w)
	broken = false
	id := submit(t, b, ff.CreateExecution{Kind: "call"})
	runOne(t, w)
	run(t, w) // the delay is over with the cool-down, and then a trial succeeds
	x := waitFor(t, b, id, "it is completed", inState(ff.StateCompleted))
	if x.TotalAttempts != 1 {
		t.Errorf("%d attempts", x.TotalAttempts)
	}
}

func TestKindsHaveBreakersOfTheirOwn(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	w := closed(t, connect(t, b, nil))
	w.Use(worker.CircuitBreaker(1, time.Hour))
	worker.Handle(w, "bad", func(context.Context, []byte) ([]byte, error) { return nil, errors.New("refused") })
	worker.Handle(w, "good", func(context.Context, []byte) ([]byte, error) { return nil, nil })
	for _, c := range []struct {
		kind string
		want ff.PublicState
	}{{"bad", ff.StateFailed}, {"bad", ff.StateDelayed}, {"good", ff.StateCompleted}} {
		id := submit(t, b, ff.CreateExecution{Kind: c.kind})
		runOne(t, w)
		if x, err := b.Execution(t.Context(), id); err != nil || x.PublicState() != c.want {
			t.Errorf("%s is %s, want %s, %v", c.kind, x.PublicState(), c.want, err)
		}
	}
}

func TestTheBreakerIsNotOpenedByWhatIsNoFailure(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	w := closed(t, connect(t, b, nil))
	w.Use(worker.CircuitBreaker(1, time.Hour))
	for kind, err := range map[string]error{"delayed": worker.Delay(time.Hour), "cancelled": worker.Cancel("no"), "completed": nil} {
		worker.Handle(w, kind, func(context.Context, []byte) ([]byte, error) { return nil, err })
		for range 3 {
			id := submit(t, b, ff.CreateExecution{Kind: kind})
			runOne(t, w)
			if x, err := b.Execution(t.Context(), id); err != nil || string(x.PublicState()) != kind {
				t.Errorf("%s is %s, %v", kind, x.PublicState(), err)
			}
		}
	}
	// A handler that was interrupted says nothing about its kind.
	interrupted := 0
	w.HandleTask("revoked", func(ctx context.Context, task *worker.Task) ([]byte, error) {
		interrupted++
		if _, err := b.RevokeLease(ctx, ff.RevokeLease{ID: task.ID()}); err != nil {
			t.Error(err)
		}
		return nil, task.Progress(ctx, 1, "")
	})
	for want := 1; want <= 3; want++ {
		submit(t, b, ff.CreateExecution{Kind: "revoked"})
		runOne(t, w)
		if interrupted != want {
			t.Fatalf("the handler ran %d times, want %d", interrupted, want)
		}
	}
}

func TestABreakerWithinTheHandlerIsNotTakenForTheMiddlewares(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	w := closed(t, connect(t, b, nil))
	w.Use(worker.CircuitBreaker(10, time.Hour))
	worker.Handle(w, "call", func(context.Context, []byte) ([]byte, error) { return nil, gobreaker.ErrOpenState })
	id := submit(t, b, ff.CreateExecution{Kind: "call"})
	runOne(t, w)
	if x, err := b.Execution(t.Context(), id); err != nil || x.FailureReason != gobreaker.ErrOpenState.Error() {
		t.Errorf("it is %s (%s), %v", x.PublicState(), x.FailureReason, err)
	}
}

func TestWaitingForTheRateLimitEndsWithTheTask(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	w := connect(t, b, func(c *worker.Config) { c.DrainTimeout = time.Millisecond })
	limiter := rate.NewLimiter(rate.Every(time.Hour), 1)
	limiter.Allow() // the only token for an hour
	w.Use(worker.RateLimit(limiter))
	worker.Handle(w, "call", func(context.Context, []byte) ([]byte, error) { return nil, nil })
	stop := run(t, w)
	id := submit(t, b, ff.CreateExecution{Kind: "call"})
	waitFor(t, b, id, "it is active", inState(ff.StateActive))
	stop()
	if x, err := b.Execution(t.Context(), id); err != nil || x.PublicState() != ff.StateWaiting || x.RetryCount != 0 {
		t.Errorf("it is %s after %d retries, %v", x.PublicState(), x.RetryCount, err)
	}
}

func TestADelayIsNoErrorOfItsSpan(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	w := closed(t, connect(t, b, nil))
	spans := tracetest.NewSpanRecorder()
	w.Use(worker.Tracing(trace.NewTracerProvider(trace.WithSpanProcessor(spans)).Tracer("test")))
	worker.Handle(w, "later", func(context.Context, []byte) ([]byte, error) { return nil, worker.Delay(time.Hour) })
	worker.Handle(w, "never", func(context.Context, []byte) ([]byte, error) { panic("never") })
	for i, want := range []codes.Code{codes.Unset, codes.Error} {
		submit(t, b, ff.CreateExecution{Kind: []string{"later", "never"}[i]})
		runOne(t, w)
		if got := spans.Ended()[i].Status().Code; got != want {
			t.Errorf("status %s, want %s", got, want)
		}
	}
}
