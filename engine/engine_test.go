package engine_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/engine"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is a store with an engine that runs on it, in the time of a synctest
// bubble.
type house struct {
	*testing.T
	ff.Backend
	stop func()
}

// build starts an engine. Faulty stands between it and the store; nil means
// nothing does.
func build(t *testing.T, o engine.Options, faulty *fault) *house {
	t.Helper()
	store, err := sqlite.Open(t.Context(), ":memory:", sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	maintenance := ff.Maintenance(store)
	if faulty != nil {
		faulty.Maintenance = store
		maintenance = faulty
	}
	e, err := engine.New(maintenance, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- e.Run(ctx) }()
	h := &house{T: t, Backend: store}
	h.stop = func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
	return h
}

// fault is a store whose sweeps of one kind go wrong on demand.
type fault struct {
	ff.Maintenance
	kind ff.SweepKind
	// deaf makes WatchDue say that the store cannot tell.
	deaf   bool
	sweep  atomic.Pointer[func() (ff.SweepResult, error)]
	sweeps atomic.Int64
}

func (f *fault) set(sweep func() (ff.SweepResult, error)) {
	if sweep == nil {
		f.sweep.Store(nil)
		return
	}
	f.sweep.Store(&sweep)
}

func (f *fault) Sweep(ctx context.Context, s ff.Sweep) (ff.SweepResult, error) {
	if s.Kind == f.kind {
		f.sweeps.Add(1)
		if sweep := f.sweep.Load(); sweep != nil {
			return (*sweep)()
		}
	}
	return f.Maintenance.Sweep(ctx, s)
}

func (f *fault) WatchDue(kind ff.SweepKind) (<-chan struct{}, func()) {
	if f.deaf {
		return nil, func() {}
	}
	return f.Maintenance.WatchDue(kind)
}

func (h *house) submit(c ff.CreateExecution) ff.ExecutionID {
	h.Helper()
	c.Lane, c.Kind = "main", "k"
	r, err := h.CreateExecution(h.Context(), c)
	if err != nil {
		h.Fatal(err)
	}
	return r.ID
}

// claim waits for an execution and gives how long that took.
func (h *house) claim(lease time.Duration) (ff.Claimed, time.Duration) {
	h.Helper()
	start := time.Now()
	r, err := h.Claim(h.Context(), ff.Claim{Claimant: ff.Claimant{Worker: "w", Instance: "i"}, Lanes: []ff.LaneID{"main"},
		LeaseTTL: lease, Wait: time.Minute})
	if err != nil || len(r.Claimed) != 1 {
		h.Fatalf("claimed %d, %v", len(r.Claimed), err)
	}
	return r.Claimed[0], time.Since(start)
}

func (h *house) wantState(id ff.ExecutionID, want ff.PublicState) {
	h.Helper()
	x, err := h.Execution(h.Context(), id)
	if err != nil {
		h.Fatal(err)
	}
	if got := x.PublicState(); got != want {
		h.Errorf("%s is %s, want %s", id, got, want)
	}
}

// pass lets the time of the bubble go on until every loop is asleep.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// rare are options under which nothing happens in time by polling.
func rare() engine.Options {
	const interval = time.Hour
	return engine.Options{LeaseExpiry: interval, Delayed: interval, AttemptTimeout: interval, ExecutionDeadline: interval,
		SuspensionTimeout: interval, PendingWaitpoints: interval, Retention: interval}
}

// soon bounds how late a loop does what is due: instants are stored in whole
// milliseconds.
const soon = 2 * time.Millisecond

func TestADelayOf50MillisecondsIsOverAfter50Milliseconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := build(t, rare(), nil)
		defer h.stop()
		synctest.Wait() // The first sweep has found nothing.
		for _, delay := range []time.Duration{50 * time.Millisecond, 3 * time.Second, 20 * time.Millisecond} {
			id := h.submit(ff.CreateExecution{Delay: delay})
			c, took := h.claim(time.Hour)
			if c.Execution.ID != id || took < delay-soon || took > delay+soon {
				t.Errorf("a delay of %s was over after %s", delay, took)
			}
		}
	})
}

func TestAnEarlierDelayOvertakesAnotherThatTheLoopWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := build(t, rare(), nil)
		defer h.stop()
		h.submit(ff.CreateExecution{Delay: 10 * time.Second})
		synctest.Wait()
		early := h.submit(ff.CreateExecution{Delay: time.Second})
		if c, took := h.claim(time.Hour); c.Execution.ID != early || took > time.Second+soon {
			t.Errorf("claimed %s after %s, want %s after a second", c.Execution.ID, took, early)
		}
	})
}

func TestALapsedLeaseIsTakenOverAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := build(t, rare(), nil)
		defer h.stop()
		synctest.Wait()
		id := h.submit(ff.CreateExecution{})
		h.claim(100 * time.Millisecond)
		c, took := h.claim(time.Hour)
		if c.Execution.ID != id || c.Execution.Attempt.Type != ff.AttemptReclaim || took > 100*time.Millisecond+soon {
			t.Errorf("taken over as %s after %s", c.Execution.Attempt.Type, took)
		}
	})
}

func TestTimeoutsDeadlinesAndRetentionHappenWhenTheyAreDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := build(t, rare(), nil)
		defer h.stop()
		synctest.Wait()
		policy := ff.DefaultExecutionPolicy()
		policy.Timeout = &ff.TimeoutPolicy{Attempt: time.Second}
		policy.Stream = &ff.StreamPolicy{RetentionTTL: 2 * time.Second}
		slow := h.submit(ff.CreateExecution{Policy: policy})
		h.claim(time.Hour)
		late := h.submit(ff.CreateExecution{Deadline: time.Now().Add(1500 * time.Millisecond)})
		pass(time.Second + soon)
		h.wantState(slow, ff.StateExpired)
		h.wantState(late, ff.StateWaiting)
		pass(500 * time.Millisecond)
		h.wantState(late, ff.StateExpired)
		pass(1500 * time.Millisecond)
		if _, err := h.Execution(t.Context(), slow); !errors.Is(err, ff.ErrExecutionNotFound) {
			t.Errorf("after its retention: %v", err)
		}
	})
}

func TestSuspensionsAndWaitpointsEndWhenTheirTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := build(t, rare(), nil)
		defer h.stop()
		synctest.Wait()
		id := h.submit(ff.CreateExecution{})
		c, _ := h.claim(time.Hour)
		ahead, err := h.CreateWaitpoint(t.Context(), ff.CreateWaitpoint{LeaseRef: c.Ref(), TTL: 500 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		_, err = h.SuspendExecution(t.Context(), ff.SuspendExecution{LeaseRef: c.Ref(), Condition: ff.AwaitSignal("go"),
			TimeoutAfter: time.Second, OnTimeout: ff.TimeoutExpire})
		if err != nil {
			t.Fatal(err)
		}
		pass(500*time.Millisecond + soon)
		h.wantState(id, ff.StateSuspended)
		all, err := h.ListWaitpoints(t.Context(), ff.ListWaitpoints{ID: id, Closed: true})
		if err != nil {
			t.Fatal(err)
		}
		for i := range all.Waitpoints {
			if w := &all.Waitpoints[i]; (w.State == ff.WaitpointClosed) != (w.ID == ahead.ID) {
				t.Errorf("waitpoint %s is %s", w.Key, w.State)
			}
		}
		pass(500 * time.Millisecond)
		h.wantState(id, ff.StateExpired)
	})
}

func TestAStoreThatCannotTellIsPolled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := rare()
		o.Delayed = 300 * time.Millisecond
		f := &fault{kind: ff.SweepDelayed, deaf: true}
		h := build(t, o, f)
		defer h.stop()
		synctest.Wait()
		h.submit(ff.CreateExecution{Delay: 20 * time.Millisecond})
		if _, took := h.claim(time.Hour); took < 200*time.Millisecond || took > o.Delayed+soon {
			t.Errorf("promoted after %s, want about %s", took, o.Delayed)
		}
	})
}

func TestABacklogIsWorkedOffInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := rare()
		o.BatchSize = 7
		f := &fault{kind: ff.SweepDelayed}
		h := build(t, o, f)
		defer h.stop()
		synctest.Wait()
		until := time.Now().Add(time.Second)
		for range 50 {
			h.submit(ff.CreateExecution{DelayUntil: until})
		}
		pass(500 * time.Millisecond)
		before := f.sweeps.Load()
		pass(500*time.Millisecond + soon)
		lanes, err := h.Lanes(t.Context())
		if err != nil || lanes[0].Counts[ff.StateWaiting] != 50 {
			t.Errorf("lanes %+v, %v", lanes, err)
		}
		if n := f.sweeps.Load() - before; n < 8 || n > 10 {
			t.Errorf("50 executions by 7 took %d sweeps", n)
		}
	})
}

func TestAFailingStoreIsTriedLessOftenAndReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		o := rare()
		o.Delayed, o.Logger = 10*time.Millisecond, slog.New(slog.NewTextHandler(&log, nil))
		f := &fault{kind: ff.SweepDelayed}
		f.set(func() (ff.SweepResult, error) {
			return ff.SweepResult{}, ff.NewError(ff.CodeUnavailable, "gone fishing")
		})
		h := build(t, o, f)
		defer h.stop()
		pass(time.Minute)
		if n := f.sweeps.Load(); n < 5 || n > 40 {
			t.Errorf("%d tries in the first minute", n)
		}
		// New work does not make it try earlier.
		before := f.sweeps.Load()
		for range 20 {
			h.submit(ff.CreateExecution{Delay: time.Minute})
		}
		synctest.Wait()
		if n := f.sweeps.Load() - before; n > 1 {
			t.Errorf("%d tries because of new work", n)
		}
		f.set(nil)
		pass(time.Minute)
		if fails, works := strings.Count(log.String(), "fails"), strings.Count(log.String(), "works again"); fails != 1 || works != 1 {
			t.Errorf("reported %d failures and %d recoveries, want one each:\n%s", fails, works, &log)
		}
	})
}

func TestALoopThatPanicsGoesOnAfterFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		o := rare()
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		f := &fault{kind: ff.SweepDelayed}
		f.set(func() (ff.SweepResult, error) { panic("a bug") })
		h := build(t, o, f)
		defer h.stop()
		pass(time.Second)
		f.set(nil)
		id := h.submit(ff.CreateExecution{Delay: time.Second})
		pass(3 * time.Second)
		h.wantState(id, ff.StateDelayed)
		pass(2 * time.Second)
		h.wantState(id, ff.StateWaiting)
		if !strings.Contains(log.String(), "a bug") || !strings.Contains(log.String(), "engine_test.go") {
			t.Errorf("the log does not say what panicked and where:\n%s", &log)
		}
	})
}

func TestALoopDoesNotSpinOnExecutionsThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := rare()
		o.Delayed = 100 * time.Millisecond
		f := &fault{kind: ff.SweepDelayed}
		f.set(func() (ff.SweepResult, error) {
			return ff.SweepResult{Errors: 1, Next: time.Now().Add(-time.Second), Now: time.Now()}, nil
		})
		h := build(t, o, f)
		defer h.stop()
		pass(time.Second)
		if n := f.sweeps.Load(); n > 12 {
			t.Errorf("%d sweeps in a second, want one per interval", n)
		}
	})
}

func TestTwoEnginesShareAStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := build(t, engine.Options{}, nil)
		defer h.stop()
		second, err := engine.New(h.Backend, engine.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- second.Run(ctx) }()
		for range 100 {
			h.submit(ff.CreateExecution{Delay: time.Second})
		}
		pass(time.Second + soon)
		lanes, err := h.Lanes(t.Context())
		if err != nil || lanes[0].Counts[ff.StateWaiting] != 100 {
			t.Errorf("lanes %+v, %v", lanes, err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestCyclesAreMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := metric.NewManualReader()
		provider := metric.NewMeterProvider(metric.WithReader(reader))
		h := build(t, engine.Options{Meter: provider.Meter("test")}, nil)
		pass(10 * time.Second)
		h.stop()
		var got metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &got); err != nil {
			t.Fatal(err)
		}
		cycles := map[string]int64{}
		durations := map[string]uint64{}
		for _, m := range got.ScopeMetrics[0].Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					scanner, _ := p.Attributes.Value("scanner")
					cycles[scanner.AsString()] = p.Value
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					scanner, _ := p.Attributes.Value("scanner")
					durations[scanner.AsString()] = p.Count
				}
			}
		}
		for kind, want := range map[ff.SweepKind]int64{ff.SweepLeaseExpiry: 7, ff.SweepDelayed: 14, ff.SweepAttemptTimeout: 6,
			ff.SweepExecutionDeadline: 3, ff.SweepSuspensionTimeout: 6, ff.SweepPendingWaitpoints: 3, ff.SweepRetention: 1} {
			if n := cycles[string(kind)]; n != want || durations[string(kind)] != uint64(want) {
				t.Errorf("%s: %d cycles and %d durations in 10 s, want %d", kind, n, durations[string(kind)], want)
			}
		}
	})
}

func TestOptionsThatCannotBeAreRefusedWithTheirName(t *testing.T) {
	for field, o := range map[string]engine.Options{
		"batch_size":                  {BatchSize: -1},
		"lease_expiry_interval":       {LeaseExpiry: time.Millisecond},
		"delayed_promoter_interval":   {Delayed: -1},
		"attempt_timeout_interval":    {AttemptTimeout: 1},
		"execution_deadline_interval": {ExecutionDeadline: 9 * time.Millisecond},
		"suspension_timeout_interval": {SuspensionTimeout: -1},
		"pending_wp_expiry_interval":  {PendingWaitpoints: 1},
		"retention_trimmer_interval":  {Retention: -time.Hour},
	} {
		_, err := engine.New(nil, o)
		if e, ok := ff.AsError(err); !ok || e.Code != ff.CodeInvalidInput || e.Field != field {
			t.Errorf("bad %s: %v", field, err)
		}
	}
}
