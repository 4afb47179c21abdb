package worker_test

import (
	"context"
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/worker"
)

// brokenError cannot even be printed.
type brokenError struct{ text *string }

func (b *brokenError) Error() string { return *b.text }

func runOne(t testing.TB, w *worker.Worker) {
	t.Helper()
	if ran, err := w.RunOne(t.Context()); err != nil || !ran {
		t.Fatalf("ran %v, %v", ran, err)
	}
}

// closed closes a worker with the test.
func closed(t testing.TB, w *worker.Worker) *worker.Worker {
	t.Cleanup(func() {
		if err := w.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return w
}

func TestATaskIsEndedWhateverItsHandlerDoes(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	for name, c := range map[string]struct {
		do       func() error
		state    ff.PublicState
		reason   string
		category string
	}{
		"an error that cannot be printed": {func() error { return (*brokenError)(nil) },
			ff.StateFailed, "handler panicked: runtime error: invalid memory address", worker.CategoryHandlerPanic},
		"an error that is printed at the second wrapping": {func() error { return worker.Permanent((*brokenError)(nil)) },
			ff.StateFailed, "handler panicked: runtime error: invalid memory address", worker.CategoryHandlerPanic},
		"a panic without a value": {func() error { panic(nil) }, //nolint:govet // what it is about
			ff.StateFailed, "handler panicked: panic called with nil argument", worker.CategoryHandlerPanic},
		"a delay beyond every limit": {func() error { return worker.Delay(math.MaxInt64) },
			ff.StateFailed, "invalid_input: for: must be 0 to", worker.CategoryHandlerError},
		"a delay until nowhere": {func() error { return worker.DelayUntil(time.Time{}) }, ff.StateDelayed, "", ""},
		"a delay until the year 20000": {func() error { return worker.DelayUntil(time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)) },
			ff.StateFailed, "invalid_input: until: must lie between the years 1970 and 9999 (got 20000)", worker.CategoryHandlerError},
		"a delay into the past": {func() error { return worker.Delay(-time.Hour) }, ff.StateDelayed, "", ""},
		"a retry after ages":    {func() error { return worker.RetryAfter(errors.New("late"), math.MaxInt64) }, ff.StateFailed, "late", worker.CategoryHandlerError},
		"a retry before now":    {func() error { return worker.RetryAfter(errors.New("early"), -1) }, ff.StateFailed, "early", worker.CategoryHandlerError},
		"a reason without end": {func() error { return errors.New(strings.Repeat("ü", ff.MaxReasonBytes)) },
			ff.StateFailed, strings.Repeat("ü", (ff.MaxReasonBytes-3)/2) + "…", worker.CategoryHandlerError},
		"a category without end": {func() error { return worker.WithCategory(errors.New("x"), strings.Repeat("c", 1000)) },
			ff.StateFailed, "x", strings.Repeat("c", ff.MaxCategoryBytes-3) + "…"},
		"a cancel with zero bytes": {func() error { return worker.Cancel("\x00") }, ff.StateCancelled, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := closed(t, connect(t, b, func(c *worker.Config) { c.DrainTimeout = time.Millisecond }))
			worker.Handle(w, "job", func(context.Context, []byte) ([]byte, error) { return nil, c.do() })
			id := submit(t, b, ff.CreateExecution{Kind: "job"})
			runOne(t, w)
			x, err := b.Execution(t.Context(), id)
			if err != nil || !strings.HasPrefix(x.FailureReason, c.reason) || x.FailureCategory != c.category {
				t.Errorf("reason %q, category %q, %v", x.FailureReason, x.FailureCategory, err)
			}
			// A delay that is over already may have been promoted.
			if s := x.PublicState(); s != c.state && (s != ff.StateWaiting || c.state != ff.StateDelayed) {
				t.Errorf("it is %s, want %s", s, c.state)
			}
			if _, err := b.CancelExecution(t.Context(), ff.CancelExecution{ID: id}); err != nil && !x.Terminal() {
				t.Error(err)
			}
		})
	}
}

func TestAHandlerThatEndsItsGoroutineFailsItsAttempt(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	w := connect(t, b, nil)
	worker.Handle(w, "job", func(context.Context, []byte) ([]byte, error) {
		runtime.Goexit()
		return nil, nil
	})
	run(t, w)
	for range 3 { // more than there are slots
		id := submit(t, b, ff.CreateExecution{Kind: "job"})
		x := waitFor(t, b, id, "it failed", inState(ff.StateFailed))
		if x.FailureCategory != worker.CategoryHandlerPanic || !strings.HasPrefix(x.FailureReason, "handler ended its goroutine") {
			t.Errorf("reason %q, category %q", x.FailureReason, x.FailureCategory)
		}
	}
}

func TestRunOneRunsWhatIsThereAndDoesNotWait(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	w := closed(t, connect(t, b, nil))
	worker.Handle(w, "job", func(context.Context, []byte) ([]byte, error) { return nil, nil })
	if ran, err := w.RunOne(t.Context()); ran || err != nil {
		t.Errorf("ran %v without work, %v", ran, err)
	}
	ids := []ff.ExecutionID{submit(t, b, ff.CreateExecution{Kind: "job"}), submit(t, b, ff.CreateExecution{Kind: "job"})}
	runOne(t, w)
	for i, want := range []ff.PublicState{ff.StateCompleted, ff.StateWaiting} {
		if x, err := b.Execution(t.Context(), ids[i]); err != nil || x.PublicState() != want {
			t.Errorf("execution %d is %s, %v", i, x.PublicState(), err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if ran, err := w.RunOne(ended); ran || !errors.Is(err, context.Canceled) {
		t.Errorf("ran %v in an ended context, %v", ran, err)
	}
}

func TestMiddlewareIsWrappedOnceForEachKindInTheGivenOrder(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	w := closed(t, connect(t, b, nil))
	wraps := 0
	var order []string
	layer := func(name string) worker.Middleware {
		return func(next worker.Handler) worker.Handler {
			wraps++
			return func(ctx context.Context, task *worker.Task) ([]byte, error) {
				order = append(order, name)
				return next(ctx, task)
			}
		}
	}
	w.Use(layer("outer"), layer("inner"))
	worker.Handle(w, "job", func(context.Context, []byte) ([]byte, error) { return nil, nil })
	for _, kind := range []string{"job", "job", "nobody", "no one"} {
		submit(t, b, ff.CreateExecution{Kind: kind})
		runOne(t, w)
	}
	if wraps != 4 {
		t.Errorf("%d wrappings by 2 layers of one kind and the unknown ones", wraps)
	}
	if got := strings.Join(order, " "); got != strings.TrimSpace(strings.Repeat("outer inner ", 4)) {
		t.Errorf("order %s", got)
	}
}

func TestAMiddlewareThatPanicsFailsTheAttempt(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	w := closed(t, connect(t, b, nil))
	w.Use(func(worker.Handler) worker.Handler { panic("no layer") })
	id := submit(t, b, ff.CreateExecution{Kind: "job"})
	runOne(t, w)
	if x, err := b.Execution(t.Context(), id); err != nil || x.FailureReason != "handler panicked: no layer" {
		t.Errorf("reason %q, %v", x.FailureReason, err)
	}
}

func TestWhatAnEndedTaskReturnsIsIgnored(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	w := closed(t, connect(t, b, nil))
	w.HandleTask("job", func(ctx context.Context, task *worker.Task) ([]byte, error) {
		return []byte("ignored"), errors.Join(task.Complete(ctx, []byte("first")), errors.New("too late"))
	})
	id := submit(t, b, ff.CreateExecution{Kind: "job"})
	runOne(t, w)
	if r, err := b.ExecutionResult(t.Context(), id); err != nil || string(r) != "first" {
		t.Errorf("result %q, %v", r, err)
	}
}

func TestAnEndWithBadArgumentsLeavesTheTaskAlive(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	w := closed(t, connect(t, b, nil))
	id := submit(t, b, ff.CreateExecution{Kind: "job"})
	task, err := w.Claim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Complete(t.Context(), make([]byte, ff.MaxResultBytes+1)); !errors.Is(err, ff.ErrPayloadTooLarge) {
		t.Errorf("a huge result: %v", err)
	}
	if _, err := task.Fail(t.Context(), worker.Failure{RetryAfter: -1}); !errors.Is(err, ff.ErrInvalidInput) {
		t.Errorf("a retry before now: %v", err)
	}
	if err := task.DelayUntil(t.Context(), time.Time{}); !errors.Is(err, ff.ErrInvalidInput) {
		t.Errorf("a delay until nowhere: %v", err)
	}
	if err := task.Context().Err(); err != nil {
		t.Errorf("the task has ended: %v", err)
	}
	r, err := task.Fail(t.Context(), worker.Failure{Reason: "enough"})
	if err != nil || r.State != ff.StateFailed {
		t.Errorf("%+v, %v", r, err)
	}
	if x, err := b.Execution(t.Context(), id); err != nil || x.FailureReason != "enough" {
		t.Errorf("reason %q, %v", x.FailureReason, err)
	}
}
