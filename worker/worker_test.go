package worker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/worker"
)

func TestMain(m *testing.M) {
	if os.Getenv(mortalStore) != "" {
		os.Exit(beMortal())
	}
	goleak.VerifyTestMain(m)
}

const patience = 20 * time.Second

func connect(t testing.TB, b ff.Backend, edit func(*worker.Config)) *worker.Worker {
	t.Helper()
	cfg := worker.Config{Worker: "test", Lanes: []ff.LaneID{"default"}, LeaseTTL: 5 * time.Second, PollInterval: time.Second, DrainTimeout: patience}
	if edit != nil {
		edit(&cfg)
	}
	w, err := worker.Connect(t.Context(), b, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// run runs a worker until the test ends or stop is called.
func run(t testing.TB, w *worker.Worker) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func submit(t testing.TB, b ff.Backend, c ff.CreateExecution) ff.ExecutionID {
	t.Helper()
	if c.Lane == "" {
		c.Lane = "default"
	}
	r, err := b.CreateExecution(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r.ID
}

// waitFor waits until the execution satisfies a condition.
func waitFor(t testing.TB, b ff.Backend, id ff.ExecutionID, what string, ok func(*ff.Execution) bool) ff.Execution {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var after ff.EventCursor
	for {
		x, err := b.Execution(ctx, id)
		if err != nil {
			t.Fatalf("waiting until %s: %v", what, err)
		}
		if ok(&x) {
			return x
		}
		r, err := b.ReadEvents(ctx, ff.ReadEvents{After: after, ID: id, Wait: 50 * time.Millisecond})
		if err != nil {
			t.Fatalf("waiting until %s: the execution is %s (%s), %v", what, x.PublicState(), x.FailureReason, err)
		}
		after = r.Next
	}
}

func inState(s ff.PublicState) func(*ff.Execution) bool {
	return func(x *ff.Execution) bool { return x.PublicState() == s }
}

func receive[T any](t testing.TB, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("waited %s for %s", patience, what)
	}
	return v
}

func retries(n int, delay time.Duration) *ff.ExecutionPolicy {
	p := ff.DefaultExecutionPolicy()
	p.Retry = ff.FixedRetry(n, delay)
	return p
}

func TestATypedHandlerGetsItsInputAndItsResultIsStored(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	w := connect(t, b, nil)
	type sum struct{ A, B int }
	worker.Handle(w, "sum", func(_ context.Context, in sum) (int, error) { return in.A + in.B, nil })
	worker.Handle(w, "raw", func(_ context.Context, in []byte) ([]byte, error) { return append(in, 0xff), nil })
	run(t, w)
	sumID := submit(t, b, ff.CreateExecution{Kind: "sum", Payload: []byte(`{"A":2,"B":3}`)})
	rawID := submit(t, b, ff.CreateExecution{Kind: "raw", Payload: []byte{0, 1}})
	for id, want := range map[ff.ExecutionID]string{sumID: "5", rawID: "\x00\x01\xff"} {
		waitFor(t, b, id, "it is completed", inState(ff.StateCompleted))
		if got, err := b.ExecutionResult(t.Context(), id); err != nil || string(got) != want {
			t.Errorf("result %q, %v; want %q", got, err, want)
		}
	}
}

func TestWhatAHandlerReturnsDecidesWhatBecomesOfItsExecution(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	w := connect(t, b, func(c *worker.Config) { c.Concurrency = 8 })
	var delayed atomic.Int32
	worker.Handle(w, "fail", func(context.Context, []byte) ([]byte, error) { return nil, errors.New("boom") })
	worker.Handle(w, "permanent", func(context.Context, []byte) ([]byte, error) { return nil, worker.Permanent(errors.New("no use")) })
	worker.Handle(w, "category", func(context.Context, []byte) ([]byte, error) {
		return nil, worker.Permanent(worker.WithCategory(errors.New("x"), "quota"))
	})
	worker.Handle(w, "panic", func(context.Context, []byte) ([]byte, error) { panic("oh\xffno") })
	worker.Handle(w, "cancel", func(context.Context, []byte) ([]byte, error) { return nil, worker.Cancel("not wanted") })
	worker.Handle(w, "delay", func(context.Context, []byte) ([]byte, error) {
		if delayed.Add(1) == 1 {
			return nil, worker.Delay(10 * time.Millisecond)
		}
		return nil, nil
	})
	worker.Handle(w, "huge", func(context.Context, []byte) ([]byte, error) { return make([]byte, ff.MaxResultBytes+1), nil })
	worker.Handle(w, "json", func(context.Context, struct{ N int }) (struct{}, error) { return struct{}{}, nil })
	run(t, w)
	for _, c := range []struct {
		kind, payload, reason, category string
		state                           ff.PublicState
		attempts                        int
	}{
		{"fail", "", "boom", worker.CategoryHandlerError, ff.StateFailed, 3},
		{"permanent", "", "no use", worker.CategoryHandlerError, ff.StateFailed, 1},
		{"category", "", "x", "quota", ff.StateFailed, 1},
		{"panic", "", "handler panicked: oh\uFFFDno", worker.CategoryHandlerPanic, ff.StateFailed, 3},
		{"cancel", "", "", "", ff.StateCancelled, 1},
		{"delay", "", "", "", ff.StateCompleted, 1},
		{"huge", "", "payload_too_large: result: exceeds 8388608 bytes (got 8388609)", worker.CategoryResultEncode, ff.StateFailed, 1},
		{"json", "{", "extractor: payload decode failed: unexpected end of JSON input", worker.CategoryPayloadDecode, ff.StateFailed, 1},
		{"nobody", "", `runtime: no handler registered for execution_kind "nobody"`, worker.CategoryNoHandler, ff.StateFailed, 3},
	} {
		id := submit(t, b, ff.CreateExecution{Kind: c.kind, Payload: []byte(c.payload), Policy: retries(2, time.Millisecond)})
		x := waitFor(t, b, id, c.kind+" is "+string(c.state), inState(c.state))
		if x.FailureReason != c.reason || x.FailureCategory != c.category || x.TotalAttempts != c.attempts {
			t.Errorf("%s: reason %q, category %q, %d attempts", c.kind, x.FailureReason, x.FailureCategory, x.TotalAttempts)
		}
	}
}

func TestBadConfigurationsAreRefusedBeforeAnythingIsWritten(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	for want, edit := range map[string]func(*worker.Config){
		"at least one lane is required":              func(c *worker.Config) { c.Lanes = nil },
		"capability token must not be empty":         func(c *worker.Config) { c.Capabilities = []string{""} },
		`(CSV delimiter): "a,b"`:                     func(c *worker.Config) { c.Capabilities = []string{"a,b"} },
		"worker_id: must not be empty":               func(c *worker.Config) { c.Worker = "" },
		"lease_ttl_ms: must be 100ms":                func(c *worker.Config) { c.LeaseTTL = time.Millisecond },
		"concurrency: must be 1 to 100000 (got -1)":  func(c *worker.Config) { c.Concurrency = -1 },
		"poll_interval: must be at most 1m0s (got 2": func(c *worker.Config) { c.PollInterval = 2 * time.Minute },
		"lane_id contains non-ASCII":                 func(c *worker.Config) { c.Lanes = []ff.LaneID{"ü"} },
	} {
		cfg := worker.Config{Worker: "w", Lanes: []ff.LaneID{"default"}}
		edit(&cfg)
		if _, err := worker.Connect(t.Context(), b, cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	got, err := b.ListWorkers(t.Context(), ff.ListWorkers{AllNamespaces: true})
	if err != nil || len(got.Workers) != 0 {
		t.Errorf("%d workers are registered, %v", len(got.Workers), err)
	}
}

func TestALiveInstanceIDIsNotGivenTwice(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	cfg := worker.Config{Worker: "w", Instance: "w-1", Lanes: []ff.LaneID{"default"}}
	first := connect(t, b, func(c *worker.Config) { *c = cfg })
	_, err := worker.Connect(t.Context(), b, cfg)
	if !errors.Is(err, ff.ErrDuplicateWorkerInstance) || !strings.Contains(err.Error(), "duplicate worker_instance_id 'w-1'") {
		t.Errorf("a second process with the id: %v", err)
	}
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := connect(t, b, func(c *worker.Config) { *c = cfg })
	if err := second.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestTheTaskContextEndsWithTheReason(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	ctx := t.Context()
	for name, c := range map[string]struct {
		policy *ff.ExecutionPolicy
		do     func(id ff.ExecutionID) error
		cause  error
		state  ff.PublicState
	}{
		"cancelled": {do: func(id ff.ExecutionID) error {
			_, err := b.CancelExecution(ctx, ff.CancelExecution{ID: id})
			return err
		}, cause: ff.ErrExecutionNotActive, state: ff.StateCancelled},
		"revoked": {do: func(id ff.ExecutionID) error {
			_, err := b.RevokeLease(ctx, ff.RevokeLease{ID: id})
			return err
		}, cause: ff.ErrLeaseRevoked, state: ff.StateActive},
		"timed out": {policy: func() *ff.ExecutionPolicy {
			p := ff.DefaultExecutionPolicy()
			p.Timeout = &ff.TimeoutPolicy{Attempt: 50 * time.Millisecond}
			return p
		}(), cause: worker.ErrTimeout, state: ff.StateExpired},
	} {
		t.Run(name, func(t *testing.T) {
			lane := ff.LaneID(name)
			w := connect(t, b, func(c *worker.Config) { c.Lanes, c.LeaseTTL = []ff.LaneID{lane}, 600*time.Millisecond })
			started, causes := make(chan ff.ExecutionID, 4), make(chan error, 4)
			worker.Handle(w, "job", func(ctx context.Context, _ []byte) ([]byte, error) {
				started <- worker.TaskFrom(ctx).ID()
				<-ctx.Done()
				causes <- context.Cause(ctx)
				return nil, ctx.Err()
			})
			stop := run(t, w)
			id := submit(t, b, ff.CreateExecution{Lane: lane, Kind: "job", Policy: c.policy})
			receive(t, started, "the start")
			if c.do != nil {
				if err := c.do(id); err != nil {
					t.Fatal(err)
				}
			}
			if cause := receive(t, causes, "the end of the context"); !errors.Is(cause, c.cause) {
				t.Errorf("cause %v, want %v", cause, c.cause)
			}
			waitFor(t, b, id, "it is "+string(c.state), inState(c.state))
			if _, err := b.CancelExecution(ctx, ff.CancelExecution{ID: id}); err != nil && !errors.Is(err, ff.ErrExecutionNotActive) {
				t.Fatal(err)
			}
			stop()
		})
	}
}

// cut is a store whose connection a test can cut.
type cut struct {
	ff.Backend
	off      atomic.Bool
	failures atomic.Int32 // calls of CompleteExecution that lose their answer
	renewals atomic.Int32
}

var errCut = ff.NewError(ff.CodeTransport, "the connection is cut")

func (c *cut) RenewLeases(ctx context.Context, r ff.RenewLeases) (ff.RenewLeasesResult, error) {
	c.renewals.Add(1)
	if c.off.Load() {
		return ff.RenewLeasesResult{}, errCut
	}
	return c.Backend.RenewLeases(ctx, r)
}

func (c *cut) CompleteExecution(ctx context.Context, r ff.CompleteExecution) (ff.CompleteExecutionResult, error) {
	if c.off.Load() {
		return ff.CompleteExecutionResult{}, errCut
	}
	got, err := c.Backend.CompleteExecution(ctx, r)
	if c.failures.Add(-1) >= 0 {
		return ff.CompleteExecutionResult{}, errCut
	}
	return got, err
}

func TestALeaseThatCannotBeRenewedEndsTheTaskByItself(t *testing.T) {
	c := &cut{Backend: storetest.OpenWithEngine(t)}
	w := connect(t, c, func(cfg *worker.Config) { cfg.LeaseTTL = 400 * time.Millisecond })
	causes := make(chan error, 4)
	worker.Handle(w, "job", func(ctx context.Context, _ []byte) ([]byte, error) {
		if worker.TaskFrom(ctx).Attempt().Index > 0 {
			return []byte("second"), nil
		}
		c.off.Store(true)
		<-ctx.Done()
		causes <- context.Cause(ctx)
		c.off.Store(false)
		return []byte("first"), nil
	})
	run(t, w)
	id := submit(t, c, ff.CreateExecution{Kind: "job"})
	if cause := receive(t, causes, "the end of the context"); !errors.Is(cause, ff.ErrLeaseExpired) {
		t.Errorf("cause %v", cause)
	}
	x := waitFor(t, c, id, "it is completed", inState(ff.StateCompleted))
	result, err := c.ExecutionResult(t.Context(), id)
	if err != nil || string(result) != "second" || x.TotalAttempts != 2 || x.Attempt.Type != ff.AttemptReclaim {
		t.Errorf("result %q of attempt %+v, %v", result, x.Attempt, err)
	}
}

func TestACompletionWhoseAnswerIsLostIsRepeated(t *testing.T) {
	c := &cut{Backend: storetest.OpenWithEngine(t)}
	c.failures.Store(3)
	w := connect(t, c, nil)
	worker.Handle(w, "job", func(context.Context, []byte) ([]byte, error) { return []byte("done"), nil })
	stop := run(t, w)
	id := submit(t, c, ff.CreateExecution{Kind: "job"})
	x := waitFor(t, c, id, "it is completed", inState(ff.StateCompleted))
	stop()
	if x.TotalAttempts != 1 || c.failures.Load() > 0 {
		t.Errorf("%d attempts, %d failures left", x.TotalAttempts, c.failures.Load())
	}
}

func TestManyLeasesAreRenewedInFewCalls(t *testing.T) {
	const tasks = 200
	c := &cut{Backend: storetest.OpenWithEngine(t)}
	w := connect(t, c, func(cfg *worker.Config) { cfg.Concurrency, cfg.LeaseTTL = tasks, 3*time.Second })
	var running sync.WaitGroup
	running.Add(tasks)
	release := make(chan struct{})
	worker.Handle(w, "job", func(ctx context.Context, _ []byte) ([]byte, error) {
		if worker.TaskFrom(ctx).Attempt().Index > 0 {
			return nil, nil // its lease was lost, which is reported below
		}
		running.Done()
		select {
		case <-release:
			return nil, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	})
	many := ff.CreateExecutions{}
	for range tasks {
		many.Executions = append(many.Executions, ff.CreateExecution{Lane: "default", Kind: "job"})
	}
	got, err := c.CreateExecutions(t.Context(), many)
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, w)
	running.Wait()
	// Hold the tasks for several leases: each renewal round is a few calls.
	begin, before := time.Now(), c.renewals.Load()
	for c.renewals.Load() < before+4 {
		if time.Since(begin) > patience {
			t.Fatal("leases are not renewed")
		}
		receive(t, time.After(10*time.Millisecond), "time to pass")
	}
	rounds := time.Since(begin)/(900*time.Millisecond) + 2
	if calls := c.renewals.Load() - before; int(calls) > 6*int(rounds) {
		t.Errorf("%d calls in about %d rounds for %d leases", calls, rounds, tasks)
	}
	close(release)
	for _, r := range got.Results {
		if x := waitFor(t, c, r.ID, "it is completed", inState(ff.StateCompleted)); x.TotalAttempts != 1 {
			t.Errorf("%s took %d attempts: its lease was lost", r.ID, x.TotalAttempts)
		}
	}
	stop()
}

func TestNoMoreTasksRunAtATimeThanAllowed(t *testing.T) {
	const limit, tasks = 4, 60
	b := storetest.OpenWithEngine(t)
	w := connect(t, b, func(c *worker.Config) { c.Concurrency = limit })
	var now, most atomic.Int32
	worker.Handle(w, "job", func(context.Context, []byte) ([]byte, error) {
		n := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		return nil, nil
	})
	var ids []ff.ExecutionID
	for range tasks {
		ids = append(ids, submit(t, b, ff.CreateExecution{Kind: "job"}))
	}
	run(t, w)
	for _, id := range ids {
		waitFor(t, b, id, "it is completed", inState(ff.StateCompleted))
	}
	if n := most.Load(); n > limit || n < 1 {
		t.Errorf("%d tasks ran at a time", n)
	}
}

func TestAStoppingWorkerHandsItsWorkBackAndAnotherGoesOn(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	first := connect(t, b, func(c *worker.Config) { c.DrainTimeout = 20 * time.Millisecond })
	started, causes := make(chan struct{}, 1), make(chan error, 1)
	first.HandleTask("job", func(ctx context.Context, _ *worker.Task) ([]byte, error) {
		started <- struct{}{}
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return nil, ctx.Err()
	})
	stop := run(t, first)
	id := submit(t, b, ff.CreateExecution{Kind: "job"})
	receive(t, started, "the start")
	stop()
	if cause := receive(t, causes, "the interruption"); !errors.Is(cause, worker.ErrDraining) {
		t.Errorf("cause %v", cause)
	}
	x := waitFor(t, b, id, "it is handed back", inState(ff.StateWaiting))
	if x.RetryCount != 0 || x.ReclaimCount != 0 {
		t.Errorf("handing back cost %d retries and %d reclaims", x.RetryCount, x.ReclaimCount)
	}

	second := connect(t, b, nil)
	second.HandleTask("job", func(_ context.Context, task *worker.Task) ([]byte, error) {
		return fmt.Appendf(nil, "attempt %d, resumed %v", task.Attempt().Index, task.Resumed()), nil
	})
	run(t, second)
	waitFor(t, b, id, "it is completed", inState(ff.StateCompleted))
	if result, err := b.ExecutionResult(t.Context(), id); err != nil || string(result) != "attempt 0, resumed true" {
		t.Errorf("result %q, %v", result, err)
	}
}

func TestAStoppingWorkerLetsRunningTasksFinish(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	w := connect(t, b, nil)
	started, release := make(chan struct{}), make(chan struct{})
	worker.Handle(w, "job", func(ctx context.Context, _ []byte) ([]byte, error) {
		close(started)
		<-release
		return []byte("finished"), ctx.Err()
	})
	ended := make(chan struct{})
	stop := run(t, w)
	id := submit(t, b, ff.CreateExecution{Kind: "job"})
	receive(t, started, "the start")
	go func() { stop(); close(ended) }()
	close(release)
	receive(t, ended, "the stop")
	if x := waitFor(t, b, id, "it is completed", inState(ff.StateCompleted)); x.TotalAttempts != 1 {
		t.Errorf("%d attempts", x.TotalAttempts)
	}
	workers, err := b.ListWorkers(t.Context(), ff.ListWorkers{AllNamespaces: true})
	if err != nil || len(workers.Workers) != 0 {
		t.Errorf("%d workers are still registered, %v", len(workers.Workers), err)
	}
}

func TestATaskOfOnesOwnLoopIsEndedOnce(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	w := connect(t, b, nil)
	id := submit(t, b, ff.CreateExecution{Kind: "job"})
	task, err := w.Claim(t.Context())
	if err != nil || task.ID() != id {
		t.Fatal(task, err)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := w.Claim(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("claiming beyond the limit: %v", err)
	}
	if err := task.Progress(t.Context(), 40, "on it"); err != nil {
		t.Error(err)
	}
	if err := task.Complete(t.Context(), []byte("x")); err != nil {
		t.Error(err)
	}
	if err := task.Complete(t.Context(), nil); !errors.Is(err, worker.ErrEnded) {
		t.Errorf("ending twice: %v", err)
	}
	if cause := context.Cause(task.Context()); !errors.Is(cause, worker.ErrEnded) {
		t.Errorf("the context of an ended task: %v", cause)
	}
	x, err := b.Execution(t.Context(), id)
	if err != nil || *x.Progress.Percent != 40 || x.PublicState() != ff.StateCompleted {
		t.Errorf("%+v, %v", x.Progress, err)
	}
	if err := w.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := w.Claim(t.Context()); !errors.Is(err, worker.ErrDraining) {
		t.Errorf("claiming after the end: %v", err)
	}
}
