package worker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/worker"
)

// watched is a store that counts what workers ask for.
type watched struct {
	ff.Backend
	claimed atomic.Int32 // executions that claims gave
	asked   atomic.Int32 // completions that asked for more
	came    atomic.Int32 // executions that came with completions
	// answered, when set, decides about the answer of a completion.
	answered func(ff.CompleteExecution, ff.CompleteExecutionResult) error
}

func (w *watched) Claim(ctx context.Context, c ff.Claim) (ff.ClaimResult, error) {
	r, err := w.Backend.Claim(ctx, c)
	w.claimed.Add(int32(len(r.Claimed)))
	return r, err
}

func (w *watched) CompleteExecution(ctx context.Context, c ff.CompleteExecution) (ff.CompleteExecutionResult, error) {
	if c.Next != nil {
		w.asked.Add(1)
	}
	r, err := w.Backend.CompleteExecution(ctx, c)
	w.came.Add(int32(len(r.Next.Claimed)))
	if err == nil && w.answered != nil {
		if err = w.answered(c, r); err != nil {
			r = ff.CompleteExecutionResult{}
		}
	}
	return r, err
}

func TestASlotGoesOnWithWhatComesWithACompletion(t *testing.T) {
	const tasks = 20
	reader := sdkmetric.NewManualReader()
	meter := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test")
	b := &watched{Backend: storetest.OpenWithEngine(t)}
	w := connect(t, b, func(c *worker.Config) { c.Meter, c.Capabilities = meter, []string{"gpu"} })
	counting, err := worker.Metrics(meter)
	if err != nil {
		t.Fatal(err)
	}
	w.Use(counting)
	var order []int
	worker.Handle(w, "job", func(ctx context.Context, _ []byte) ([]byte, error) {
		order = append(order, worker.TaskFrom(ctx).Execution().Priority)
		return nil, nil
	})
	p := ff.DefaultExecutionPolicy()
	p.Routing = &ff.RoutingRequirements{}
	if p.Routing.RequiredCapabilities, err = ff.NewCapabilitySet("gpu"); err != nil {
		t.Fatal(err)
	}
	var ids []ff.ExecutionID
	for i := range tasks {
		ids = append(ids, submit(t, b, ff.CreateExecution{Kind: "job", Priority: i, Policy: p}))
	}
	stop := run(t, w)
	for _, id := range ids {
		waitFor(t, b, id, "it is completed", inState(ff.StateCompleted))
	}
	stop()
	if b.claimed.Load() != 1 || b.came.Load() != tasks-1 || b.asked.Load() != tasks {
		t.Errorf("%d claimed, %d came with %d completions; want 1, %d, %d", b.claimed.Load(), b.came.Load(), b.asked.Load(), tasks-1, tasks)
	}
	if !slices.IsSortedFunc(order, func(a, b int) int { return b - a }) || len(order) != tasks {
		t.Errorf("priorities were served in the order %v", order)
	}
	lane, kind := attribute.String("lane", "default"), attribute.String("kind", "job")
	for _, c := range []struct {
		name string
		set  []attribute.KeyValue
	}{
		{"ff_claimed_executions_total", []attribute.KeyValue{lane}},
		{"ff_attempt_outcome_total", []attribute.KeyValue{lane, attribute.String("outcome", "ok")}},
		{"ff_worker_tasks_total", []attribute.KeyValue{kind, attribute.String("outcome", "ok")}},
	} {
		if got := counted(t, reader, c.name, c.set...); got != tasks {
			t.Errorf("%s is %d, want %d", c.name, got, tasks)
		}
	}
}

func TestLanesTakeTurnsAlsoWithCompletions(t *testing.T) {
	const each = 15
	b := &watched{Backend: storetest.OpenWithEngine(t)}
	lanes := []ff.LaneID{"a", "b", "c"}
	w := connect(t, b, func(c *worker.Config) { c.Lanes = lanes })
	var order []ff.LaneID
	worker.Handle(w, "job", func(ctx context.Context, _ []byte) ([]byte, error) {
		order = append(order, worker.TaskFrom(ctx).Execution().Lane)
		return nil, nil
	})
	var ids []ff.ExecutionID
	for _, lane := range lanes {
		for range each {
			ids = append(ids, submit(t, b, ff.CreateExecution{Lane: lane, Kind: "job"}))
		}
	}
	stop := run(t, w)
	for _, id := range ids {
		waitFor(t, b, id, "it is completed", inState(ff.StateCompleted))
	}
	stop()
	if b.came.Load() < 3*each-3 {
		t.Errorf("only %d came with completions", b.came.Load())
	}
	for i := 0; i+3 <= 3*each; i += 3 {
		turn := slices.Clone(order[i : i+3])
		slices.Sort(turn)
		if !slices.Equal(turn, lanes) {
			t.Fatalf("lanes were served in the order %v", order)
		}
	}
}

func TestWhatComesWithACompletionWhenTheWorkerStopsIsHandedBackAtOnce(t *testing.T) {
	b := &watched{Backend: storetest.OpenWithEngine(t)}
	came, answer := make(chan struct{}), make(chan struct{})
	b.answered = func(_ ff.CompleteExecution, r ff.CompleteExecutionResult) error {
		if len(r.Next.Claimed) > 0 {
			close(came)
			<-answer
		}
		return nil
	}
	w := connect(t, b, func(c *worker.Config) { c.LeaseTTL = time.Minute })
	var handled atomic.Int32
	worker.Handle(w, "job", func(context.Context, []byte) ([]byte, error) { handled.Add(1); return nil, nil })
	first, second := submit(t, b, ff.CreateExecution{Kind: "job"}), submit(t, b, ff.CreateExecution{Kind: "job"})
	run(t, w)
	receive(t, came, "the completion")
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
	begin := time.Now()
	close(answer)
	if err := receive(t, ended, "the end of the worker"); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > patience/2 {
		t.Errorf("stopping took %s", took)
	}
	for id, want := range map[ff.ExecutionID]ff.PublicState{first: ff.StateCompleted, second: ff.StateWaiting} {
		if x, err := b.Execution(t.Context(), id); err != nil || x.PublicState() != want || x.TotalAttempts != 1 || x.ReclaimCount != 0 {
			t.Errorf("%s is %s after %d attempts, %v; want %s", id, x.PublicState(), x.TotalAttempts, err, want)
		}
	}
	if handled.Load() != 1 {
		t.Errorf("%d tasks were handled", handled.Load())
	}
}

func TestAStoppingWorkerAsksForNothingWithItsLastCompletions(t *testing.T) {
	b := &watched{Backend: storetest.OpenWithEngine(t)}
	w := connect(t, b, nil)
	started, release := make(chan struct{}), make(chan struct{})
	worker.Handle(w, "job", func(context.Context, []byte) ([]byte, error) {
		close(started)
		<-release
		return nil, nil
	})
	first, second := submit(t, b, ff.CreateExecution{Kind: "job"}), submit(t, b, ff.CreateExecution{Kind: "job"})
	stop := run(t, w)
	receive(t, started, "the start")
	ended := make(chan struct{})
	go func() { stop(); close(ended) }()
	for { // until the worker is stopping
		if _, err := w.RunOne(canceledContext(t)); errors.Is(err, worker.ErrDraining) {
			break
		}
	}
	close(release)
	receive(t, ended, "the stop")
	for id, want := range map[ff.ExecutionID]ff.PublicState{first: ff.StateCompleted, second: ff.StateWaiting} {
		if x, err := b.Execution(t.Context(), id); err != nil || x.PublicState() != want {
			t.Errorf("%s is %s, %v; want %s", id, x.PublicState(), err, want)
		}
	}
	if b.asked.Load() != 0 {
		t.Error("the completion asked for more")
	}
}

func canceledContext(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// Of each completion whose answer is lost, at most one execution waits for the end
// of its lease, however often it is repeated.
func TestARepeatedCompletionAsksForNothing(t *testing.T) {
	b := &watched{Backend: storetest.OpenWithEngine(t)}
	first := ff.ExecutionID{}
	lose := losing(3)
	b.answered = func(c ff.CompleteExecution, _ ff.CompleteExecutionResult) error {
		if c.ID != first {
			return nil
		}
		return lose()
	}
	var ids []ff.ExecutionID
	for range 6 {
		ids = append(ids, submit(t, b, ff.CreateExecution{Kind: "job"}))
	}
	first = ids[0]
	w := connect(t, b, func(c *worker.Config) { c.LeaseTTL = 500 * time.Millisecond })
	worker.Handle(w, "job", func(context.Context, []byte) ([]byte, error) { return nil, nil })
	run(t, w)
	late := 0
	for _, id := range ids {
		if x := waitFor(t, b, id, "it is completed", inState(ff.StateCompleted)); x.TotalAttempts > 1 {
			late++
		}
	}
	if late != 1 {
		t.Errorf("%d executions had to wait for the end of a lease, want the one that the lost answer had", late)
	}
}

func TestRunOneRunsOne(t *testing.T) {
	b := &watched{Backend: storetest.OpenWithEngine(t)}
	w := closed(t, connect(t, b, nil))
	worker.Handle(w, "job", func(context.Context, []byte) ([]byte, error) { return nil, nil })
	for range 3 {
		submit(t, b, ff.CreateExecution{Kind: "job"})
	}
	for n := range 3 {
		runOne(t, w)
		lanes, err := b.Lanes(t.Context())
		if err != nil || lanes[0].Counts[ff.StateCompleted] != n+1 || lanes[0].Counts[ff.StateWaiting] != 2-n {
			t.Errorf("after %d: %+v, %v", n+1, lanes, err)
		}
	}
}

// A task that its handler ended itself may be followed by more of the handler: what
// came with it would wait.
func TestWhatAHandlerEndsItselfBringsNothing(t *testing.T) {
	b := &watched{Backend: storetest.OpenWithEngine(t)}
	w := connect(t, b, nil)
	w.HandleTask("job", func(ctx context.Context, task *worker.Task) ([]byte, error) {
		return nil, task.Complete(ctx, []byte("by itself"))
	})
	w.HandleTask("bad", func(context.Context, *worker.Task) ([]byte, error) { return nil, errors.New("bad") })
	w.HandleTask("exit", func(context.Context, *worker.Task) ([]byte, error) { panic("oh no") })
	stop := run(t, w)
	for i, kind := range []string{"job", "bad", "exit", "job", "job", "bad"} {
		id := submit(t, b, ff.CreateExecution{Kind: kind, Priority: i})
		want := ff.StateFailed
		if kind == "job" {
			want = ff.StateCompleted
		}
		waitFor(t, b, id, "it is "+string(want), inState(want))
	}
	stop()
	if b.asked.Load() != 0 {
		t.Errorf("%d completions asked for more", b.asked.Load())
	}
}

// Handlers that fail, panic and succeed at random on a few slots, with lanes that
// come and go: every execution ends, and no more run than allowed.
func TestSlotsThatGoOnNeverExceedTheLimit(t *testing.T) {
	const limit, tasks = 3, 300
	b := &watched{Backend: storetest.OpenWithEngine(t)}
	w := connect(t, b, func(c *worker.Config) { c.Concurrency, c.Lanes = limit, []ff.LaneID{"a", "b"} })
	var now, most atomic.Int32
	var mu sync.Mutex
	runs := map[ff.ExecutionID]int{}
	w.HandleTask("job", func(_ context.Context, task *worker.Task) ([]byte, error) {
		n := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		mu.Lock()
		runs[task.ID()]++
		mu.Unlock()
		switch task.Execution().Priority % 7 {
		case 0:
			return nil, errors.New("bad")
		case 1:
			panic("worse")
		case 2:
			return nil, worker.Cancel("not wanted")
		}
		return nil, nil
	})
	stop := run(t, w)
	var ids []ff.ExecutionID
	for i := range tasks {
		ids = append(ids, submit(t, b, ff.CreateExecution{Lane: ff.LaneID(fmt.Sprintf("%c", 'a'+i%2)), Kind: "job", Priority: i}))
	}
	for _, id := range ids {
		waitFor(t, b, id, "it has ended", (*ff.Execution).Terminal)
	}
	stop()
	if most.Load() > limit || most.Load() < 1 {
		t.Errorf("%d tasks ran at a time", most.Load())
	}
	for id, n := range runs {
		if n != 1 {
			t.Errorf("%s ran %d times", id, n)
		}
	}
	if b.came.Load() == 0 || b.claimed.Load()+b.came.Load() != tasks {
		t.Errorf("%d claimed and %d came with completions, want %d in all", b.claimed.Load(), b.came.Load(), tasks)
	}
}
