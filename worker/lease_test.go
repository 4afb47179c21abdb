package worker_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
	"github.com/flowfabric/flowfabric/worker"
)

// unreliable is a store over a connection of which a test decides what happens
// after each call of a kind.
type unreliable struct {
	ff.Backend
	claimed   func(ff.ClaimResult)
	completed func() error
	delayed   func() error
	released  func() error
	renewed   func(ff.RenewLeasesResult)
}

func (u *unreliable) Claim(ctx context.Context, c ff.Claim) (ff.ClaimResult, error) {
	r, err := u.Backend.Claim(ctx, c)
	if u.claimed != nil && err == nil {
		u.claimed(r)
	}
	return r, err
}

func (u *unreliable) CompleteExecution(ctx context.Context, c ff.CompleteExecution) (ff.CompleteExecutionResult, error) {
	r, err := u.Backend.CompleteExecution(ctx, c)
	if u.completed != nil && err == nil {
		err = u.completed()
	}
	return r, err
}

func (u *unreliable) DelayExecution(ctx context.Context, c ff.DelayExecution) (ff.DelayExecutionResult, error) {
	r, err := u.Backend.DelayExecution(ctx, c)
	if u.delayed != nil && err == nil {
		err = u.delayed()
	}
	return r, err
}

func (u *unreliable) ReleaseExecutions(ctx context.Context, c ff.ReleaseExecutions) (ff.ReleaseExecutionsResult, error) {
	r, err := u.Backend.ReleaseExecutions(ctx, c)
	if u.released != nil && err == nil {
		err = u.released()
	}
	return r, err
}

func (u *unreliable) RenewLeases(ctx context.Context, c ff.RenewLeases) (ff.RenewLeasesResult, error) {
	r, err := u.Backend.RenewLeases(ctx, c)
	if u.renewed != nil && err == nil {
		u.renewed(r)
	}
	return r, err
}

// losing answers a call's first n times with an error although it came through.
func losing(n int) func() error {
	var calls atomic.Int32
	return func() error {
		if int(calls.Add(1)) <= n {
			return errCut
		}
		return nil
	}
}

func TestARenewalThatFindsTheTaskCompletedDoesNotDisturbTheCompletion(t *testing.T) {
	u := &unreliable{Backend: storetest.OpenWithEngine(t)}
	refused := make(chan struct{})
	u.renewed = func(r ff.RenewLeasesResult) {
		if r.Renewals[0].Err != nil {
			close(refused)
			u.renewed = nil // renewals come from one goroutine
		}
	}
	lose := losing(1)
	u.completed = func() error {
		err := lose()
		if err != nil {
			<-refused // the completion came through, its answer is late and gets lost
		}
		return err
	}
	w := closed(t, connect(t, u, func(c *worker.Config) { c.LeaseTTL = 300 * time.Millisecond }))
	submit(t, u, ff.CreateExecution{Kind: "job"})
	task, err := w.Claim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Complete(t.Context(), nil); err != nil {
		t.Errorf("completing: %v", err)
	}
}

func TestParkingWhoseAnswerIsLostIsNotAFailure(t *testing.T) {
	for name, park := range map[string]func(context.Context, *worker.Task) error{
		"delay": func(ctx context.Context, task *worker.Task) error { return task.Delay(ctx, time.Hour) },
		"delay until": func(ctx context.Context, task *worker.Task) error {
			return task.DelayUntil(ctx, time.Now().Add(time.Hour))
		},
		"release": func(ctx context.Context, task *worker.Task) error { return task.Release(ctx, "not now") },
	} {
		t.Run(name, func(t *testing.T) {
			u := &unreliable{Backend: storetest.OpenWithEngine(t), delayed: losing(2), released: losing(2)}
			w := closed(t, connect(t, u, nil))
			submit(t, u, ff.CreateExecution{Kind: "job"})
			task, err := w.Claim(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := park(t.Context(), task); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestALeaseLostByTheStoresClockEndsTheTask(t *testing.T) {
	var ahead atomic.Int64
	b := storetest.Open(t, sqlite.Options{Clock: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	w := closed(t, connect(t, b, func(c *worker.Config) { c.LeaseTTL = 400 * time.Millisecond }))
	submit(t, b, ff.CreateExecution{Kind: "job"})
	task, err := w.Claim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(time.Minute)) // as if this process had been stopped for a minute
	receive(t, task.Context().Done(), "the end of the task")
	if cause := context.Cause(task.Context()); !errors.Is(cause, ff.ErrLeaseExpired) {
		t.Errorf("cause %v", cause)
	}
	if err := task.Complete(t.Context(), nil); !errors.Is(err, worker.ErrEnded) {
		t.Errorf("completing a lost task: %v", err)
	}
}

func TestALateAnswerToAClaimIsNoLease(t *testing.T) {
	u := &unreliable{Backend: storetest.OpenWithEngine(t)}
	u.claimed = func(r ff.ClaimResult) {
		// The answer comes when the lease is over by the store's own figures.
		for i := range r.Claimed {
			r.Claimed[i].Execution.Lease.ExpiresAt = r.Now
		}
	}
	w := closed(t, connect(t, u, nil))
	for range 2 { // the slot is free again
		submit(t, u, ff.CreateExecution{Kind: "job"})
		task, err := w.Claim(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		receive(t, task.Context().Done(), "the end of the task")
		if cause := context.Cause(task.Context()); !errors.Is(cause, ff.ErrLeaseExpired) {
			t.Errorf("cause %v", cause)
		}
	}
}

func TestProgressOnALostLeaseEndsTheTask(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	w := closed(t, connect(t, b, nil))
	id := submit(t, b, ff.CreateExecution{Kind: "job"})
	task, err := w.Claim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.RevokeLease(t.Context(), ff.RevokeLease{ID: id, Reason: "drained by an operator"}); err != nil {
		t.Fatal(err)
	}
	if err := task.Progress(t.Context(), 10, ""); !errors.Is(err, ff.ErrLeaseRevoked) {
		t.Errorf("progress: %v", err)
	}
	if cause := context.Cause(task.Context()); !errors.Is(cause, ff.ErrLeaseRevoked) {
		t.Errorf("cause %v", cause)
	}
}

func TestWhatIsClaimedWhileTheWorkerStopsIsHandedBack(t *testing.T) {
	u := &unreliable{Backend: storetest.OpenWithEngine(t)}
	claimed, answer := make(chan struct{}, 1), make(chan struct{})
	u.claimed = func(r ff.ClaimResult) {
		if len(r.Claimed) > 0 {
			claimed <- struct{}{}
			<-answer
		}
	}
	w := connect(t, u, func(c *worker.Config) { c.DrainTimeout = time.Millisecond })
	worker.Handle(w, "job", func(ctx context.Context, _ []byte) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	run(t, w)
	id := submit(t, u, ff.CreateExecution{Kind: "job"})
	receive(t, claimed, "the claim")
	ended := make(chan error, 1)
	go func() { ended <- w.Close(context.WithoutCancel(t.Context())) }()
	for { // until the worker is stopping
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		_, err := w.Claim(ctx)
		cancel()
		if errors.Is(err, worker.ErrDraining) {
			break
		}
	}
	close(answer)
	if err := receive(t, ended, "the end of the worker"); err != nil {
		t.Error(err)
	}
	if x, err := u.Execution(t.Context(), id); err != nil || x.PublicState() != ff.StateWaiting {
		t.Errorf("it is %s, %v", x.PublicState(), err)
	}
}

func TestHandingBackIsRepeatedUntilTheStoreAnswers(t *testing.T) {
	u := &unreliable{Backend: storetest.OpenWithEngine(t), released: losing(3)}
	w := connect(t, u, func(c *worker.Config) { c.DrainTimeout, c.Concurrency = time.Millisecond, 3 })
	var ids []ff.ExecutionID
	for range 3 { // tasks whose owner never ends them
		ids = append(ids, submit(t, u, ff.CreateExecution{Kind: "job"}))
		if _, err := w.Claim(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(t.Context()); err != nil {
		t.Error(err)
	}
	for _, id := range ids {
		if x, err := u.Execution(t.Context(), id); err != nil || x.PublicState() != ff.StateWaiting || x.TotalAttempts != 1 {
			t.Errorf("it is %s after %d attempts, %v", x.PublicState(), x.TotalAttempts, err)
		}
	}
}

func TestAHandlerThatIgnoresItsContextDoesNotKeepTheWorkerFromStopping(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	w := connect(t, b, func(c *worker.Config) { c.DrainTimeout = time.Millisecond })
	started, release, returned := make(chan struct{}), make(chan struct{}), make(chan struct{})
	worker.Handle(w, "job", func(context.Context, []byte) ([]byte, error) {
		close(started)
		<-release
		defer close(returned)
		return []byte("too late"), nil
	})
	stop := run(t, w)
	id := submit(t, b, ff.CreateExecution{Kind: "job"})
	receive(t, started, "the start")
	stop()
	if x, err := b.Execution(t.Context(), id); err != nil || x.PublicState() != ff.StateWaiting {
		t.Errorf("it is %s, %v", x.PublicState(), err)
	}
	close(release)
	receive(t, returned, "the handler")
	if r, err := b.ExecutionResult(t.Context(), id); err != nil || r != nil {
		t.Errorf("result %q, %v", r, err)
	}
}

func TestARegistrationThatLapsedIsMadeAgain(t *testing.T) {
	var ahead atomic.Int64
	b := storetest.Open(t, sqlite.Options{Clock: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	registered := func() (all []ff.WorkerInfo) {
		r, err := b.ListWorkers(t.Context(), ff.ListWorkers{Namespace: "ns"})
		if err != nil {
			t.Fatal(err)
		}
		return r.Workers
	}
	w := closed(t, connect(t, b, func(c *worker.Config) {
		c.Namespace, c.LeaseTTL, c.Capabilities = "ns", 100*time.Millisecond, []string{"gpu", "cuda"}
	}))
	if all := registered(); len(all) != 1 || all[0].Instance != w.Instance() || all[0].Capabilities.CSV() != "cuda,gpu" {
		t.Fatalf("registered %+v", all)
	}
	ahead.Store(int64(time.Hour))
	if all := registered(); len(all) != 0 {
		t.Fatalf("still registered %+v", all)
	}
	for begin := time.Now(); len(registered()) == 0; {
		if time.Since(begin) > patience {
			t.Fatal("the worker does not register again")
		}
		receive(t, time.After(10*time.Millisecond), "time to pass")
	}
}

func TestAWorkerCountsWhatItDoes(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	meter := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test")
	b := storetest.OpenWithEngine(t)
	w := closed(t, connect(t, b, func(c *worker.Config) { c.Meter, c.LeaseTTL = meter, 300*time.Millisecond }))
	tasks, err := worker.Metrics(meter)
	if err != nil {
		t.Fatal(err)
	}
	w.Use(tasks)
	worker.Handle(w, "ok", func(context.Context, []byte) ([]byte, error) { return nil, nil })
	worker.Handle(w, "bad", func(context.Context, []byte) ([]byte, error) { return nil, errors.New("bad") })
	worker.Handle(w, "off", func(context.Context, []byte) ([]byte, error) { return nil, worker.Cancel("off") })
	worker.Handle(w, "later", func(context.Context, []byte) ([]byte, error) { return nil, worker.Delay(time.Hour) })
	for _, c := range []ff.CreateExecution{{Kind: "ok"}, {Kind: "bad", Policy: retries(1, time.Hour)}, {Kind: "bad"}, {Kind: "off"}, {Kind: "later"}} {
		submit(t, b, c)
		runOne(t, w)
	}
	// A task that is held for several renewals, and a claim that must wait.
	submit(t, b, ff.CreateExecution{Kind: "ok"})
	task, err := w.Claim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := w.Claim(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	for begin := time.Now(); counted(t, reader, "ff_lease_renewal_total", attribute.String("outcome", "ok")) == 0; {
		if time.Since(begin) > patience {
			t.Fatal("no renewal was counted")
		}
		receive(t, time.After(10*time.Millisecond), "time to pass")
	}
	if err := task.Complete(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	lane := attribute.String("lane", "default")
	for _, c := range []struct {
		name string
		set  []attribute.KeyValue
		want int64
	}{
		{"ff_attempt_outcome_total", []attribute.KeyValue{lane, attribute.String("outcome", "ok")}, 2},
		{"ff_attempt_outcome_total", []attribute.KeyValue{lane, attribute.String("outcome", "retry")}, 1},
		{"ff_attempt_outcome_total", []attribute.KeyValue{lane, attribute.String("outcome", "error")}, 1},
		{"ff_attempt_outcome_total", []attribute.KeyValue{lane, attribute.String("outcome", "cancelled")}, 1},
		{"ff_worker_at_capacity_total", nil, 1},
		{"ff_claimed_executions_total", []attribute.KeyValue{lane}, 6},
		{"ff_worker_tasks_total", []attribute.KeyValue{attribute.String("kind", "bad"), attribute.String("outcome", "failed")}, 2},
		{"ff_worker_tasks_total", []attribute.KeyValue{attribute.String("kind", "later"), attribute.String("outcome", "delayed")}, 1},
	} {
		if got := counted(t, reader, c.name, c.set...); got != c.want {
			t.Errorf("%s%v is %d, want %d", c.name, c.set, got, c.want)
		}
	}
}

// counted is the value of a counter for a set of attributes.
func counted(t testing.TB, reader sdkmetric.Reader, name string, set ...attribute.KeyValue) int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	want := attribute.NewSet(set...)
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			sum, ok := m.Data.(metricdata.Sum[int64])
			if m.Name != name || !ok {
				continue
			}
			for _, point := range sum.DataPoints {
				if point.Attributes.Equals(&want) {
					return point.Value
				}
			}
		}
	}
	return 0
}

func TestRunTriesAgainWhenTheStoreIsAway(t *testing.T) {
	b := &away{Backend: storetest.OpenWithEngine(t)}
	b.failures.Store(3)
	w := connect(t, b, nil)
	worker.Handle(w, "job", func(context.Context, []byte) ([]byte, error) { return nil, nil })
	run(t, w)
	id := submit(t, b, ff.CreateExecution{Kind: "job"})
	waitFor(t, b, id, "it is completed", inState(ff.StateCompleted))
	if b.failures.Load() >= 0 {
		t.Error("the store was never away")
	}
}

// away is a store whose claims fail at first.
type away struct {
	ff.Backend
	failures atomic.Int32
}

func (a *away) Claim(ctx context.Context, c ff.Claim) (ff.ClaimResult, error) {
	if a.failures.Add(-1) >= 0 {
		return ff.ClaimResult{}, errCut
	}
	return a.Backend.Claim(ctx, c)
}

func TestClosingFromManyPlacesClosesOnce(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	w := connect(t, b, nil)
	run(t, w)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := w.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := w.Run(t.Context()); err != nil {
		t.Errorf("running a closed worker: %v", err)
	}
}

func TestATimedOutAttemptIsFollowedByAnother(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	w := connect(t, b, nil)
	worker.Handle(w, "job", func(ctx context.Context, _ []byte) ([]byte, error) {
		if worker.TaskFrom(ctx).Attempt().Index > 0 {
			return nil, nil
		}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	run(t, w)
	p := retries(1, time.Millisecond)
	p.Timeout = &ff.TimeoutPolicy{Attempt: 100 * time.Millisecond}
	id := submit(t, b, ff.CreateExecution{Kind: "job", Policy: p})
	waitFor(t, b, id, "it is completed", inState(ff.StateCompleted))
	attempts, err := b.Attempts(t.Context(), id)
	if err != nil || len(attempts) != 2 || attempts[0].FailureCategory != "timeout" || attempts[0].FailureReason != "attempt_timeout" {
		t.Errorf("attempts %+v, %v", attempts, err)
	}
}
