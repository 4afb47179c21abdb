package worker_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/worker"
)

// lossy is a store over a bad connection: of the calls of workers some do not
// arrive, and of some the answer gets lost.
type lossy struct {
	ff.Backend
	mu   sync.Mutex
	dice *rand.Rand
}

func (l *lossy) roll() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dice.Float64()
}

func over[C, R any](ctx context.Context, l *lossy, call func(context.Context, C) (R, error), c C) (r R, err error) {
	if l.roll() < 0.1 {
		return r, errCut
	}
	r, err = call(ctx, c)
	if l.roll() < 0.1 {
		var none R
		return none, errCut
	}
	return r, err
}

func (l *lossy) Claim(ctx context.Context, c ff.Claim) (ff.ClaimResult, error) {
	return over(ctx, l, l.Backend.Claim, c)
}

func (l *lossy) RenewLeases(ctx context.Context, c ff.RenewLeases) (ff.RenewLeasesResult, error) {
	return over(ctx, l, l.Backend.RenewLeases, c)
}

func (l *lossy) CompleteExecution(ctx context.Context, c ff.CompleteExecution) (ff.CompleteExecutionResult, error) {
	return over(ctx, l, l.Backend.CompleteExecution, c)
}

func (l *lossy) FailExecution(ctx context.Context, c ff.FailExecution) (ff.FailExecutionResult, error) {
	return over(ctx, l, l.Backend.FailExecution, c)
}

func (l *lossy) DelayExecution(ctx context.Context, c ff.DelayExecution) (ff.DelayExecutionResult, error) {
	return over(ctx, l, l.Backend.DelayExecution, c)
}

func (l *lossy) ReleaseExecutions(ctx context.Context, c ff.ReleaseExecutions) (ff.ReleaseExecutionsResult, error) {
	return over(ctx, l, l.Backend.ReleaseExecutions, c)
}

func (l *lossy) HeartbeatWorker(ctx context.Context, c ff.HeartbeatWorker) (ff.HeartbeatWorkerResult, error) {
	return over(ctx, l, l.Backend.HeartbeatWorker, c)
}

// TestEveryExecutionIsCompletedOverABadConnection lets workers come and go on a
// connection that loses a fifth of the calls, with handlers that fail, panic and
// delay: every execution is completed once, by its last attempt.
func TestEveryExecutionIsCompletedOverABadConnection(t *testing.T) {
	const executions = 150
	b := storetest.OpenWithEngine(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	l := &lossy{Backend: b, dice: rand.New(rand.NewPCG(seed, 0))}
	var ids []ff.ExecutionID
	for range executions {
		p := retries(1000, time.Millisecond)
		p.MaxReclaims = 1000
		ids = append(ids, submit(t, b, ff.CreateExecution{Kind: "job", Policy: p}))
	}
	all, stopAll := context.WithCancel(t.Context())
	var generations sync.WaitGroup
	for n := range 3 {
		generations.Go(func() {
			for all.Err() == nil {
				generation(all, t, l, n)
			}
		})
	}
	for _, id := range ids {
		waitFor(t, b, id, "it is completed", inState(ff.StateCompleted))
	}
	stopAll()
	generations.Wait()
	for _, id := range ids {
		x, err := b.Execution(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		result, err := b.ExecutionResult(t.Context(), id)
		if want := fmt.Sprintf("attempt %d", x.Attempt.Index); err != nil || string(result) != want {
			t.Errorf("%s has result %q, its last attempt wrote %q, %v", id, result, want, err)
		}
		ends, err := b.ReadEvents(t.Context(), ff.ReadEvents{ID: id, Family: ff.FamilyCompletion})
		if err != nil || len(ends.Events) != 1 {
			t.Errorf("%s has %d completions, %v", id, len(ends.Events), err)
		}
	}
}

// generation is a worker that lives for a moment.
func generation(ctx context.Context, t *testing.T, l *lossy, n int) {
	life, cancel := context.WithTimeout(ctx, time.Duration(50+500*l.roll())*time.Millisecond)
	defer cancel()
	w, err := worker.Connect(life, l, worker.Config{
		Worker: ff.WorkerID(fmt.Sprintf("w%d", n)), Lanes: []ff.LaneID{"default"}, LeaseTTL: 300 * time.Millisecond,
		Concurrency: 8, DrainTimeout: 20 * time.Millisecond,
	})
	if err != nil {
		if life.Err() == nil {
			t.Errorf("connect: %v", err)
		}
		return
	}
	w.HandleTask("job", func(ctx context.Context, task *worker.Task) ([]byte, error) {
		select {
		case <-time.After(time.Duration(20*l.roll()) * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		switch dice := l.roll(); {
		case dice < 0.2:
			return nil, fmt.Errorf("bad luck")
		case dice < 0.3:
			panic("worse luck")
		case dice < 0.5:
			return nil, worker.Delay(time.Millisecond)
		}
		return fmt.Appendf(nil, "attempt %d", task.Attempt().Index), nil
	})
	if err := w.Run(life); err != nil {
		t.Errorf("run: %v", err)
	}
}
