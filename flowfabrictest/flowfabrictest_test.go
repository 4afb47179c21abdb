package flowfabrictest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
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

func TestTheClockStopsAtEveryInstantOnTheWay(t *testing.T) {
	e := flowfabrictest.New(t, flowfabrictest.Options{})
	p := ff.DefaultExecutionPolicy()
	p.Retry = ff.FixedRetry(1, time.Minute)
	p.Timeout = &ff.TimeoutPolicy{Attempt: 45 * time.Minute, Deadline: 3 * time.Hour}
	id := e.Submit("stuck", nil, func(c *ff.CreateExecution) { c.Policy, c.Delay = p, 30*time.Minute })
	e.Advance(30 * time.Minute)
	task, err := e.Worker().Claim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e.Advance(24 * time.Hour)
	if err := task.Complete(t.Context(), nil); err == nil {
		t.Error("completed after the deadline")
	}
	x := e.Execution(id)
	if x.PublicState() != ff.StateExpired || !x.CompletedAt.Equal(flowfabrictest.Start.Add(3*time.Hour)) || x.RetryCount != 1 {
		t.Errorf("%s at %s after %d retries", x.PublicState(), x.CompletedAt, x.RetryCount)
	}
	attempts, err := e.Backend().Attempts(t.Context(), id)
	if err != nil || len(attempts) != 1 || !attempts[0].EndedAt.Equal(flowfabrictest.Start.Add(75*time.Minute)) {
		t.Errorf("attempts %+v, %v", attempts, err)
	}
}

func TestALostLeaseCanBeRehearsed(t *testing.T) {
	e := flowfabrictest.New(t, flowfabrictest.Options{})
	var progress []error
	e.Worker().HandleTask("slow", func(ctx context.Context, task *worker.Task) ([]byte, error) {
		if task.Attempt().Index == 0 {
			e.Advance(time.Hour) // the lease lasts an hour, and nobody renews it
		}
		progress = append(progress, task.Progress(ctx, 50, "half"))
		return []byte(task.Attempt().Type), ctx.Err()
	})
	id := e.Submit("slow", nil)
	if n := e.RunAll(); n != 2 || !errors.Is(progress[0], ff.ErrLeaseExpired) || progress[1] != nil {
		t.Fatalf("%d attempts, progress %v", n, progress)
	}
	e.RequireState(id, ff.StateCompleted)
	if got := flowfabrictest.Result[[]byte](e, id); string(got) != string(ff.AttemptReclaim) {
		t.Errorf("completed by an attempt of type %s", got)
	}
}

func TestHandlersMayRunOthers(t *testing.T) {
	e := flowfabrictest.New(t, flowfabrictest.Options{})
	worker.Handle(e.Worker(), "outer", func(context.Context, []byte) (int, error) {
		inner := e.Submit("inner", nil)
		e.RunOne()
		return flowfabrictest.Result[int](e, inner) + 1, nil
	})
	worker.Handle(e.Worker(), "inner", func(context.Context, []byte) (int, error) { return 1, nil })
	id := e.Submit("outer", nil)
	e.RunAll()
	if got := flowfabrictest.Result[int](e, id); got != 2 {
		t.Errorf("result %d", got)
	}
}

func TestCapabilitiesDecideWhatIsRun(t *testing.T) {
	required, err := ff.NewCapabilitySet("gpu")
	if err != nil {
		t.Fatal(err)
	}
	p := ff.DefaultExecutionPolicy()
	p.Routing = &ff.RoutingRequirements{RequiredCapabilities: required}
	for _, c := range []struct {
		have []string
		want int
	}{{nil, 0}, {[]string{"gpu"}, 1}} {
		e := flowfabrictest.New(t, flowfabrictest.Options{Capabilities: c.have})
		e.Submit("render", nil, func(x *ff.CreateExecution) { x.Policy = p })
		if n := e.RunAll(); n != c.want {
			t.Errorf("%d attempts with capabilities %v", n, c.have)
		}
	}
}

// verdict is a testing.TB that keeps what failed instead of failing.
type verdict struct {
	testing.TB
	failure string
}

func (v *verdict) Fatalf(format string, args ...any) {
	v.failure = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestFailuresSayWhatWasFoundAndWhy(t *testing.T) {
	bad := func(e *flowfabrictest.Engine) ff.ExecutionID {
		worker.Handle(e.Worker(), "bad", func(context.Context, []byte) ([]byte, error) { return []byte("{"), errors.New("no disk") })
		worker.Handle(e.Worker(), "good", func(context.Context, []byte) ([]byte, error) { return []byte("{"), nil })
		return e.Submit("bad", nil)
	}
	for want, do := range map[string]func(e *flowfabrictest.Engine){
		`of kind "bad" is failed, want completed (no disk)`: func(e *flowfabrictest.Engine) {
			id := bad(e)
			e.RunAll()
			e.RequireState(id, ff.StateCompleted)
		},
		`2 executions of kind "bad" were submitted, want one`: func(e *flowfabrictest.Engine) {
			bad(e)
			bad(e)
			e.RequireSubmitted("bad")
		},
		`nothing is left that would move it: does the worker serve lane "elsewhere"`: func(e *flowfabrictest.Engine) {
			e.RunUntilEnded(e.Submit("x", nil, func(c *ff.CreateExecution) { c.Lane = "elsewhere" }))
		},
		`the clock cannot go back (by 1s)`:   func(e *flowfabrictest.Engine) { e.Advance(-time.Second) },
		`submitting "": invalid_input: kind`: func(e *flowfabrictest.Engine) { e.Submit("", nil) },
		`encoding the payload of "f"`:        func(e *flowfabrictest.Engine) { e.Submit("f", func() {}) },
		`execution_not_found`:                func(e *flowfabrictest.Engine) { e.Execution(ff.ExecutionID{}) },
		`of kind "x" is waiting and has no result yet`: func(e *flowfabrictest.Engine) {
			flowfabrictest.Result[int](e, e.Submit("x", nil))
		},
		`is "{", which is no map[string]int: unexp`: func(e *flowfabrictest.Engine) {
			bad(e)
			id := e.Submit("good", nil)
			e.RunAll()
			flowfabrictest.Result[map[string]int](e, id)
		},
	} {
		v := &verdict{TB: t}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			do(flowfabrictest.New(v, flowfabrictest.Options{}))
		}()
		<-ended
		if !strings.Contains(v.failure, want) {
			t.Errorf("failed with %q, want %q", v.failure, want)
		}
	}
}
