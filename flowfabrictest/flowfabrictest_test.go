package flowfabrictest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/flowfabrictest"
	"github.com/flowfabric/flowfabric/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHandlersRunOneByOneOnTheTestsClock(t *testing.T) {
	e := flowfabrictest.New(t, flowfabrictest.Options{})
	tries := 0
	worker.Handle(e.Worker(), "flaky", func(_ context.Context, n int) (int, error) {
		if tries++; tries < 3 {
			return 0, errors.New("not yet")
		}
		return n * 2, nil
	})
	p := ff.DefaultExecutionPolicy()
	p.Retry = ff.FixedRetry(5, time.Hour)
	id := e.Submit("flaky", 21, func(c *ff.CreateExecution) { c.Policy = p })
	if n := e.RunAll(); n != 1 {
		t.Fatalf("%d attempts ran at once", n)
	}
	e.RequireState(id, ff.StateDelayed)
	e.Advance(59 * time.Minute)
	if e.RunOne() {
		t.Fatal("the retry ran too early")
	}
	e.Advance(time.Minute)
	e.RunAll()
	e.Advance(time.Hour)
	e.RunAll()
	e.RequireState(id, ff.StateCompleted)
	if got := flowfabrictest.Result[int](e, id); got != 42 {
		t.Errorf("result %d", got)
	}
	if x := e.Execution(id); x.TotalAttempts != 3 || !x.CompletedAt.Equal(flowfabrictest.Start.Add(2*time.Hour)) {
		t.Errorf("%d attempts, completed at %s", x.TotalAttempts, x.CompletedAt)
	}
}

func TestWhatAHandlerSubmitsIsSeenAndRun(t *testing.T) {
	e := flowfabrictest.New(t, flowfabrictest.Options{Lanes: []ff.LaneID{"a", "b"}})
	worker.Handle(e.Worker(), "parent", func(ctx context.Context, _ []byte) ([]byte, error) {
		_, err := e.Backend().CreateExecution(ctx, ff.CreateExecution{Lane: "b", Kind: "child", Payload: []byte(`"hello"`)})
		return nil, err
	})
	worker.Handle(e.Worker(), "child", func(_ context.Context, s string) (string, error) { return s + "!", nil })
	e.Submit("parent", nil)
	if n := e.RunAll(); n != 2 {
		t.Errorf("%d attempts ran", n)
	}
	child := e.RequireSubmitted("child")
	e.RequireState(child.ID, ff.StateCompleted)
	if in, out := flowfabrictest.Payload[string](e, child.ID), flowfabrictest.Result[string](e, child.ID); in != "hello" || out != "hello!" {
		t.Errorf("%q became %q", in, out)
	}
	if all := e.Submitted(""); len(all) != 2 || all[0].Kind != "parent" {
		t.Errorf("%d executions were submitted", len(all))
	}
}
