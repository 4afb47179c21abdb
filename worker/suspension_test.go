package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/flowfabrictest"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/worker"
)

// names of signals, for short comparisons.
func namesOf(list []ff.Signal) (names []string) {
	for _, sig := range list {
		names = append(names, sig.Name+" "+string(sig.Payload))
	}
	return names
}

// awaiting registers a handler that waits at two places, one after the other.
func awaiting(e *flowfabrictest.Engine, first, second worker.Wait) (runs *int) {
	runs = new(int)
	e.Worker().HandleTask("deploy", func(ctx context.Context, t *worker.Task) ([]byte, error) {
		*runs++
		a, err := t.Await(ctx, "review", first)
		if err != nil {
			return nil, err
		}
		b, err := t.Await(ctx, "approval", second)
		if errors.Is(err, worker.ErrWaitTimeout) {
			return fmt.Appendf(nil, "%q then nobody", namesOf(a)), nil
		}
		if err != nil {
			return nil, err
		}
		return fmt.Appendf(nil, "%q then %q", namesOf(a), namesOf(b)), nil
	})
	return runs
}

func TestAHandlerWaitsAtPlacesAndGoesOnThere(t *testing.T) {
	e := flowfabrictest.New(t, flowfabrictest.Options{})
	runs := awaiting(e, worker.WaitForSignal("reviewed"), worker.WaitForSignal("").Within(time.Hour).OrResume())
	id := e.Submit("deploy", nil)
	e.RunAll()
	e.RequireState(id, ff.StateSuspended)
	e.Signal(id, "reviewed", []byte("fine"))
	e.RunAll()
	e.RequireState(id, ff.StateSuspended)
	e.Signal(id, "yes", []byte("go"))
	e.RunAll()
	e.RequireState(id, ff.StateCompleted)
	if got := string(flowfabrictest.Result[[]byte](e, id)); got != `["reviewed fine"] then ["yes go"]` || *runs != 3 {
		t.Errorf("result %s after %d runs", got, *runs)
	}
	if x := e.Execution(id); x.TotalAttempts != 1 {
		t.Errorf("%d attempts, want the same one", x.TotalAttempts)
	}

	id = e.Submit("deploy", nil)
	e.RunAll()
	e.Signal(id, "reviewed", nil)
	e.RunUntilEnded(id)
	if got := string(flowfabrictest.Result[[]byte](e, id)); got != `["reviewed "] then nobody` {
		t.Errorf("result %s", got)
	}
}

func TestWhatHasComeCountsForLaterAttemptsButNotForAReplay(t *testing.T) {
	e := flowfabrictest.New(t, flowfabrictest.Options{})
	broken := true
	e.Worker().HandleTask("deploy", func(ctx context.Context, t *worker.Task) ([]byte, error) {
		list, err := t.Await(ctx, "approval", worker.WaitForSignal("approved"))
		if err == nil && broken {
			err = errors.New("the rollout broke")
		}
		return fmt.Appendf(nil, "%q", namesOf(list)), err
	})
	id := e.Submit("deploy", nil, func(c *ff.CreateExecution) {
		c.Policy = ff.DefaultExecutionPolicy()
		c.Policy.Retry = ff.FixedRetry(1, 0)
	})
	e.RunAll()
	e.Signal(id, "approved", []byte("by ann"))
	e.RunOne()
	broken = false
	e.RunAll()
	e.RequireState(id, ff.StateCompleted)
	if x := e.Execution(id); x.TotalAttempts != 2 || string(flowfabrictest.Result[[]byte](e, id)) != `["approved by ann"]` {
		t.Errorf("%d attempts, result %s", x.TotalAttempts, flowfabrictest.Result[[]byte](e, id))
	}
	if _, err := e.Backend().ReplayExecution(t.Context(), ff.ReplayExecution{ID: id}); err != nil {
		t.Fatal(err)
	}
	e.RunAll()
	e.RequireState(id, ff.StateSuspended)
}

func TestATokenCanBeGivenAwayBeforeTheTaskWaits(t *testing.T) {
	e := flowfabrictest.New(t, flowfabrictest.Options{})
	var sent []worker.Waitpoint
	e.Worker().HandleTask("deploy", func(ctx context.Context, t *worker.Task) ([]byte, error) {
		wp, err := t.Waitpoint(ctx, "approval", time.Hour)
		if err != nil {
			return nil, err
		}
		sent = append(sent, wp)
		if wp.Pending {
			// Whoever got the token is quicker than this handler.
			if _, err := e.Backend().DeliverSignal(ctx, ff.DeliverSignal{ID: t.ID(), WaitpointID: wp.ID, Name: "approved", Token: wp.Token}); err != nil {
				return nil, err
			}
		}
		list, err := t.Await(ctx, "approval", worker.WaitForSignal("approved"))
		return fmt.Appendf(nil, "%q, resumed %t", namesOf(list), t.Resumed()), err
	})
	id := e.Submit("deploy", nil)
	e.RunAll()
	e.RequireState(id, ff.StateCompleted)
	if got := string(flowfabrictest.Result[[]byte](e, id)); got != `["approved "], resumed false` || len(sent) != 1 || !sent[0].Pending {
		t.Errorf("result %s, waitpoints %v", got, sent)
	}
}

func TestAWaitpointIsMadeOnceAndReadAgain(t *testing.T) {
	e := flowfabrictest.New(t, flowfabrictest.Options{})
	var sent []worker.Waitpoint
	e.Worker().HandleTask("deploy", func(ctx context.Context, t *worker.Task) ([]byte, error) {
		wp, err := t.Waitpoint(ctx, "approval", 0)
		if err != nil {
			return nil, err
		}
		sent = append(sent, wp)
		if !t.Resumed() {
			return nil, worker.Delay(time.Minute)
		}
		_, err = t.Await(ctx, "approval", worker.WaitForSignal("approved"))
		return nil, err
	})
	id := e.Submit("deploy", nil)
	e.RunAll()
	e.Advance(time.Minute)
	e.RunAll()
	e.RequireState(id, ff.StateSuspended)
	if len(sent) != 2 || !sent[0].Pending || !sent[1].Pending || sent[0].ID != sent[1].ID || sent[0].Token != sent[1].Token {
		t.Errorf("waitpoints %v", sent)
	}
	e.Signal(id, "approved", nil)
	e.RunAll()
	e.RequireState(id, ff.StateCompleted)
}

func TestASuspendedTaskHasEnded(t *testing.T) {
	e := flowfabrictest.New(t, flowfabrictest.Options{})
	e.Worker().HandleTask("wait", func(ctx context.Context, task *worker.Task) ([]byte, error) {
		if _, err := task.Suspend(ctx, worker.WaitFor(ff.AllOf())); ff.CodeOf(err) != ff.CodeInvalidInput {
			t.Errorf("a condition that cannot be: %v", err)
		}
		if task.Resumed() {
			signals, err := task.Signals(ctx)
			if err != nil || len(signals) != 2 {
				t.Errorf("signals %v, %v", signals, err)
			}
			s, err := task.Suspension(ctx)
			if err != nil || s.Continuation != "step 2" || s.CloseReason != ff.ClosedResumed {
				t.Errorf("suspension %+v, %v", s, err)
			}
			return []byte("done"), nil
		}
		r, err := task.Suspend(ctx, worker.WaitFor(ff.AllOf(ff.AwaitSignal("").At("a"), ff.AwaitSignal("").At("b"))).Leaving("step 2").Because(ff.SuspendedForCallback))
		if err != nil || r.Satisfied || len(r.Waitpoints) != 2 {
			t.Errorf("suspended: %+v, %v", r, err)
		}
		if err := task.Complete(ctx, nil); !errors.Is(err, worker.ErrEnded) {
			t.Errorf("completing a suspended task: %v", err)
		}
		if ctx.Err() == nil {
			t.Error("the context of a suspended task goes on")
		}
		return nil, errors.New("what the handler of an ended task returns does not count")
	})
	id := e.Submit("wait", nil)
	e.RunAll()
	e.RequireState(id, ff.StateSuspended)
	e.Signal(id, "x", nil)
	e.RequireState(id, ff.StateSuspended)
	e.Signal(id, "y", nil)
	e.RunAll()
	e.RequireState(id, ff.StateCompleted)
}

func TestWaitsEndAsTheySay(t *testing.T) {
	e := flowfabrictest.New(t, flowfabrictest.Options{})
	for want, wait := range map[ff.PublicState]worker.Wait{
		ff.StateFailed:    worker.WaitForSignal("x").Within(time.Minute),
		ff.StateCancelled: worker.WaitForSignal("x").Within(time.Minute).OrCancel(),
		ff.StateExpired:   worker.WaitForSignal("x").Until(e.Now().Add(time.Hour)).OrExpire(),
		ff.StateCompleted: worker.Sleep(time.Minute),
	} {
		e.Worker().HandleTask(string(want), func(ctx context.Context, t *worker.Task) ([]byte, error) {
			_, err := t.Await(ctx, "w", wait)
			if errors.Is(err, worker.ErrWaitTimeout) {
				err = nil
			}
			return nil, err
		})
		if x := e.RunUntilEnded(e.Submit(string(want), nil)); x.PublicState() != want {
			t.Errorf("ended as %s, want %s", x.PublicState(), want)
		}
	}
}

// An attempt asks and breaks before it waits: who has answered is not asked in vain, and
// who answers later at the old place is told.
func TestAnswersToAnAttemptThatBrokeCountForTheNext(t *testing.T) {
	for name, asksAgain := range map[string]bool{"the next attempt asks": true, "the next attempt only waits": false} {
		t.Run(name, func(t *testing.T) {
			e := flowfabrictest.New(t, flowfabrictest.Options{})
			var asked []worker.Waitpoint
			e.Worker().HandleTask("deploy", func(ctx context.Context, t *worker.Task) ([]byte, error) {
				if t.Attempt().Index == 0 || asksAgain {
					wp, err := t.Waitpoint(ctx, "approval", 0)
					if err != nil {
						return nil, err
					}
					asked = append(asked, wp)
				}
				if t.Attempt().Index == 0 {
					return nil, errors.New("broken before it waits")
				}
				list, err := t.Await(ctx, "approval", worker.WaitFor(ff.AwaitCount(2, ff.DistinctSources)))
				return fmt.Appendf(nil, "%q", namesOf(list)), err
			})
			id := e.Submit("deploy", nil, func(c *ff.CreateExecution) { c.Policy = retries(1, time.Minute) })
			e.RunAll()
			answer := func(wp ff.IssuedWaitpoint, by string) error {
				_, err := e.Backend().DeliverSignal(t.Context(), ff.DeliverSignal{ID: id, WaitpointID: wp.ID, Token: wp.Token,
					Name: "approved", Payload: []byte(by), SourceType: "person", SourceIdentity: by})
				return err
			}
			if err := answer(asked[0].IssuedWaitpoint, "ann"); err != nil {
				t.Fatal(err)
			}
			e.Advance(time.Minute)
			e.RunAll()
			e.RequireState(id, ff.StateSuspended)
			if err := answer(asked[0].IssuedWaitpoint, "ben"); ff.CodeOf(err) != ff.CodeWaitpointClosed {
				t.Errorf("an answer at the place of the broken attempt: %v", err)
			}
			e.Signal(id, "approved", []byte("test"))
			e.RunAll()
			e.RequireState(id, ff.StateCompleted)
			if got := string(flowfabrictest.Result[[]byte](e, id)); got != `["approved ann" "approved test"]` {
				t.Errorf("result %s", got)
			}
		})
	}
}

// A handler that is interrupted while it tells others is run again and tells them.
func TestNobodyIsLeftUntoldByAHandlerThatIsInterrupted(t *testing.T) {
	e := flowfabrictest.New(t, flowfabrictest.Options{})
	var told []ff.WaitpointID
	e.Worker().HandleTask("deploy", func(ctx context.Context, t *worker.Task) ([]byte, error) {
		wp, err := t.Waitpoint(ctx, "approval", 0)
		if err != nil {
			return nil, err
		}
		if wp.Pending {
			told = append(told, wp.ID)
			if len(told) == 1 {
				return nil, t.Release(ctx, "the worker stops")
			}
		}
		_, err = t.Await(ctx, "approval", worker.WaitForSignal("approved"))
		return nil, err
	})
	id := e.Submit("deploy", nil)
	e.RunAll()
	e.Signal(id, "approved", nil)
	e.RunAll()
	e.RequireState(id, ff.StateCompleted)
	if len(told) != 2 || told[0] != told[1] {
		t.Errorf("told of %v, want the same waitpoint twice: before the interruption and after it", told)
	}
}

func TestAnOperatorsResumeIsNotWhatATaskWaitedFor(t *testing.T) {
	e := flowfabrictest.New(t, flowfabrictest.Options{})
	e.Worker().HandleTask("deploy", func(ctx context.Context, t *worker.Task) ([]byte, error) {
		list, err := t.Await(ctx, "approval", worker.WaitFor(ff.AwaitCount(2, ff.DistinctSources)))
		if errors.Is(err, worker.ErrResumedByOperator) {
			return fmt.Appendf(nil, "not approved, but %q", namesOf(list)), nil
		}
		if err != nil {
			return nil, err
		}
		if _, err := t.Await(ctx, "go", worker.WaitForOperator()); err != nil {
			return nil, err
		}
		return []byte("approved"), nil
	})
	resume := func(id ff.ExecutionID) {
		if _, err := e.Backend().ResumeExecution(t.Context(), ff.ResumeExecution{ID: id}); err != nil {
			t.Fatal(err)
		}
		e.RunAll()
	}
	id := e.Submit("deploy", nil)
	e.RunAll()
	e.Signal(id, "approved", nil)
	resume(id)
	if got := string(flowfabrictest.Result[[]byte](e, id)); got != `not approved, but ["approved "]` {
		t.Errorf("after one of two: %s", got)
	}
	id = e.Submit("deploy", nil)
	e.RunAll()
	resume(id)
	if got := string(flowfabrictest.Result[[]byte](e, id)); got != `not approved, but []` {
		t.Errorf("after none: %s", got)
	}
	e.Worker().HandleTask("sign off", func(ctx context.Context, t *worker.Task) ([]byte, error) {
		_, err := t.Await(ctx, "go", worker.WaitForOperator())
		return nil, err
	})
	id = e.Submit("sign off", nil)
	e.RunAll()
	resume(id)
	e.RequireState(id, ff.StateCompleted)
}

func TestWhatWasWrittenBeforeAWaitIsStored(t *testing.T) {
	e := flowfabrictest.New(t, flowfabrictest.Options{})
	e.Worker().HandleTask("deploy", func(ctx context.Context, t *worker.Task) ([]byte, error) {
		if !t.Resumed() {
			if err := t.Stream().Append(ctx, ff.NewFrame{Payload: []byte("asking")}); err != nil {
				return nil, err
			}
		}
		_, err := t.Await(ctx, "approval", worker.WaitForSignal("approved"))
		return nil, err
	})
	id := e.Submit("deploy", nil)
	e.RunAll()
	e.RequireState(id, ff.StateSuspended)
	r, err := e.Backend().ReadFrames(t.Context(), ff.ReadFrames{StreamRef: ff.StreamRef{ID: id}})
	if err != nil || len(r.Frames) != 1 || string(r.Frames[0].Payload) != "asking" {
		t.Errorf("%+v, %v", r.Frames, err)
	}
	e.Signal(id, "approved", nil)
	e.RunUntilEnded(id)
	e.RequireState(id, ff.StateCompleted)
}

func TestWhatWasWrittenBeforeAWaitIsKept(t *testing.T) {
	onEveryStore(t, func(t *testing.T, b ff.Backend) {
		var log bytes.Buffer
		w := closed(t, connect(t, b, func(c *worker.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) }))
		w.HandleTask("deploy", func(ctx context.Context, task *worker.Task) ([]byte, error) {
			if err := task.Stream().Append(ctx, text(fmt.Sprintf("resumed %t", task.Resumed()))); err != nil {
				return nil, err
			}
			_, err := task.Await(ctx, "approval", worker.WaitForOperator())
			return nil, err
		})
		id := submit(t, b, ff.CreateExecution{Kind: "deploy"})
		runOne(t, w)
		if got := payloads(output(t, b, id, 0)); !slices.Equal(got, []string{"resumed false"}) {
			t.Errorf("before the wait is over the output is %q", got)
		}
		if _, err := b.ResumeExecution(t.Context(), ff.ResumeExecution{ID: id}); err != nil {
			t.Fatal(err)
		}
		runOne(t, w)
		if got := payloads(output(t, b, id, 0)); !slices.Equal(got, []string{"resumed false", "resumed true"}) {
			t.Errorf("the output is %q", got)
		}
		if log.Len() > 0 {
			t.Errorf("the log: %s", &log)
		}
	})
}

// approve sends the approval of a person to a waitpoint.
func approve(ctx context.Context, b ff.Backend, id ff.ExecutionID, wp ff.WaitpointID, by string) error {
	token, err := b.WaitpointToken(ctx, ff.WaitpointRef{ID: id, WaitpointID: wp})
	if err != nil {
		return err
	}
	_, err = b.DeliverSignal(ctx, ff.DeliverSignal{ID: id, WaitpointID: wp, Token: token, Name: "approved",
		Payload: []byte(by), SourceType: "person", SourceIdentity: by})
	return err
}

// approveAll sends approvals to the waitpoint at which an execution waits.
func approveAll(t testing.TB, b ff.Backend, id ff.ExecutionID, by []string) {
	t.Helper()
	for _, who := range by {
		waits, err := b.ListWaitpoints(t.Context(), ff.ListWaitpoints{ID: id})
		if err != nil || len(waits.Waitpoints) != 1 {
			t.Fatalf("%v, %v", waits, err)
		}
		if err := approve(t.Context(), b, id, waits.Waitpoints[0].ID, who); err != nil {
			t.Fatal(err)
		}
	}
}

// resumption is a wait, and how it comes to an end.
type resumption struct {
	wait worker.Wait
	// ahead approve before the handler waits, by while it does; an operator resumes then.
	ahead, by []string
	operator  bool
	// want is what Await answers.
	want string
}

// deployAsked registers a handler whose first attempt breaks after its wait, and notes
// what Await has answered to each.
func deployAsked(b ff.Backend, w *worker.Worker, c resumption) *[]string {
	var answers []string
	w.HandleTask("deploy", func(ctx context.Context, t *worker.Task) ([]byte, error) {
		if len(c.ahead) > 0 {
			wp, err := t.Waitpoint(ctx, "approval", 0)
			for i := 0; err == nil && wp.Pending && i < len(c.ahead); i++ {
				err = approve(ctx, b, t.ID(), wp.ID, c.ahead[i])
			}
			if err != nil {
				return nil, err
			}
		}
		list, err := t.Await(ctx, "approval", c.wait)
		if errors.Is(err, worker.ErrSuspended) {
			return nil, err
		}
		answers = append(answers, fmt.Sprintf("%q, by an operator %t", namesOf(list), errors.Is(err, worker.ErrResumedByOperator)))
		return nil, errors.New("broken after its wait")
	})
	return &answers
}

func TestAnOperatorWhoResumesHasNotAnswered(t *testing.T) {
	two := worker.WaitFor(ff.AwaitCount(2, ff.DistinctSources).Named("approved"))
	one := worker.WaitForSignal("approved")
	ann, ben := []string{"ann"}, []string{"ben"}
	both := []string{"ann", "ben"}
	onEveryStore(t, func(t *testing.T, b ff.Backend) {
		for name, c := range map[string]resumption{
			"one of two":                    {two, nil, ann, true, `["approved ann"], by an operator true`},
			"one person twice":              {two, nil, []string{"ann", "ann"}, true, `["approved ann" "approved ann"], by an operator true`},
			"one of two, ahead":             {two, ann, nil, true, `["approved ann"], by an operator true`},
			"nobody":                        {one, nil, nil, true, `[], by an operator true`},
			"both":                          {two, nil, both, false, `["approved ann" "approved ben"], by an operator false`},
			"both, one ahead":               {two, ann, ben, false, `["approved ann" "approved ben"], by an operator false`},
			"both ahead":                    {two, both, nil, false, `["approved ann" "approved ben"], by an operator false`},
			"one ahead is enough":           {one, ann, nil, false, `["approved ann"], by an operator false`},
			"an operator is waited for":     {worker.WaitForOperator(), nil, nil, true, `[], by an operator false`},
			"an operator wakes the sleeper": {worker.Sleep(time.Hour), nil, nil, true, `[], by an operator false`},
		} {
			t.Run(name, func(t *testing.T) {
				w := connect(t, b, nil)
				answers := deployAsked(b, w, c)
				id := submit(t, b, ff.CreateExecution{Kind: "deploy", Policy: retries(1, 0)})
				runOne(t, w)
				approveAll(t, b, id, c.by)
				if c.operator {
					if _, err := b.ResumeExecution(t.Context(), ff.ResumeExecution{ID: id}); err != nil {
						t.Fatal(err)
					}
				}
				for range 2 - len(*answers) {
					runOne(t, w)
				}
				if !slices.Equal(*answers, []string{c.want, c.want}) {
					t.Errorf("the attempts got %q, both want %s", *answers, c.want)
				}
				if err := w.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

func TestAHandlerThatGoesOnAfterItsSuspensionIsTold(t *testing.T) {
	b := storetest.OpenWithEngine(t)
	for name, c := range map[string]struct {
		result []byte
		err    func(suspended error) error
		want   string
	}{
		"a result":                 {[]byte("done"), func(error) error { return nil }, "dropped_result_bytes=4"},
		"another error":            {nil, func(error) error { return errors.New("no approval") }, `dropped_err="no approval"`},
		"the error":                {nil, func(err error) error { return err }, ""},
		"the error within another": {nil, func(err error) error { return fmt.Errorf("waiting: %w", err) }, ""},
		"nothing":                  {nil, func(error) error { return nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var log, lines bytes.Buffer
			w := closed(t, connect(t, b, func(c *worker.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) }))
			w.Use(worker.Logging(slog.New(slog.NewTextHandler(&lines, nil))))
			w.HandleTask("deploy", func(ctx context.Context, t *worker.Task) ([]byte, error) {
				_, err := t.Await(ctx, "approval", worker.WaitForOperator())
				return c.result, c.err(err)
			})
			id := submit(t, b, ff.CreateExecution{Kind: "deploy"})
			runOne(t, w)
			warned := strings.Contains(log.String(), "level=WARN") && strings.Contains(log.String(), id.String()) && strings.Contains(log.String(), c.want)
			if warned != (c.want != "") {
				t.Errorf("the log: %s", &log)
			}
			if !strings.Contains(lines.String(), "level=INFO") || !strings.Contains(lines.String(), "outcome=suspended") {
				t.Errorf("the log of the tasks: %s", &lines)
			}
		})
	}
}

func TestASignalIsNotLostWithTheTimeOfAWaitpoint(t *testing.T) {
	e := flowfabrictest.New(t, flowfabrictest.Options{})
	e.Worker().HandleTask("deploy", func(ctx context.Context, t *worker.Task) ([]byte, error) {
		wp, err := t.Waitpoint(ctx, "approval", time.Hour)
		if err != nil {
			return nil, err
		}
		if t.Attempt().Index == 0 {
			_, err := e.Backend().DeliverSignal(ctx, ff.DeliverSignal{ID: t.ID(), WaitpointID: wp.ID, Token: wp.Token, Name: "approved", IdempotencyKey: "k"})
			return nil, errors.Join(err, worker.RetryAfter(errors.New("the rollout broke"), 2*time.Hour))
		}
		list, err := t.Await(ctx, "approval", worker.WaitForSignal("approved"))
		return fmt.Appendf(nil, "%q", namesOf(list)), err
	})
	id := e.Submit("deploy", nil, func(c *ff.CreateExecution) {
		c.Policy = ff.DefaultExecutionPolicy()
		c.Policy.Retry = ff.FixedRetry(3, time.Second)
	})
	e.RunUntilEnded(id)
	if got := string(flowfabrictest.Result[[]byte](e, id)); got != `["approved "]` {
		t.Errorf("result %s", got)
	}
}

func TestWhoeverCannotSuspendKeepsTheLease(t *testing.T) {
	e := flowfabrictest.New(t, flowfabrictest.Options{})
	e.Worker().HandleTask("deploy", func(ctx context.Context, t *worker.Task) ([]byte, error) {
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := t.Suspend(cancelled, worker.WaitForSignal("x")); !errors.Is(err, context.Canceled) {
			return nil, fmt.Errorf("a cancelled suspension: %w", err)
		}
		if _, err := t.Suspend(ctx, worker.WaitForSignal("x").At(ff.NewWaitpointID())); err == nil || errors.Is(err, worker.ErrEnded) {
			return nil, fmt.Errorf("a suspension at no waitpoint: %w", err)
		}
		return []byte("done"), nil
	})
	id := e.Submit("deploy", nil)
	e.RunAll()
	e.RequireState(id, ff.StateCompleted)
}

func TestSignalsSentAheadMeetAConditionOfSeveralParts(t *testing.T) {
	e := flowfabrictest.New(t, flowfabrictest.Options{})
	e.Worker().HandleTask("deploy", func(ctx context.Context, t *worker.Task) ([]byte, error) {
		wp, err := t.Waitpoint(ctx, "approval", time.Hour)
		if err != nil {
			return nil, err
		}
		if wp.Pending {
			for _, name := range []string{"note", "approve"} {
				if _, err := e.Backend().DeliverSignal(ctx, ff.DeliverSignal{ID: t.ID(), WaitpointID: wp.ID, Token: wp.Token, Name: name}); err != nil {
					return nil, err
				}
			}
		}
		parts := worker.WaitFor(ff.AllOf(ff.AwaitCount(2, ff.DistinctSignals), ff.AwaitSignal("approve")))
		first, err := t.Await(ctx, "approval", parts)
		if err != nil {
			return nil, err
		}
		again, err := t.Await(ctx, "approval", parts)
		return fmt.Appendf(nil, "%q %q", namesOf(first), namesOf(again)), err
	})
	id := e.Submit("deploy", nil)
	e.RunUntilEnded(id)
	if got := string(flowfabrictest.Result[[]byte](e, id)); got != `["note " "approve "] ["note " "approve "]` {
		t.Errorf("result %s, %+v", got, e.Execution(id).FailureReason)
	}
}
