package lifecycle_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

func TestCompletionEndsTheExecutionOnceForTheSameHolder(t *testing.T) {
	x := submit(ff.CreateExecution{})
	f := complete(t, x)
	wantVector(t, x, completedVector)
	if x.Attempt.State != ff.AttemptEndedSuccess || !x.CompletedAt.Equal(after(time.Second)) || x.Lease != (ff.Lease{}) || x.LeaseEpoch != 1 {
		t.Errorf("completed %+v", x)
	}
	repeated, fx, err := lifecycle.Complete(x, &ff.CompleteExecution{LeaseRef: ref(x, f)}, after(time.Hour))
	if err != nil || !repeated || len(fx.Events) > 0 {
		t.Errorf("repeated completion: %v, %v, %v", repeated, fx, err)
	}
	_, _, err = lifecycle.Complete(x, &ff.CompleteExecution{LeaseRef: ref(x, ff.Fence{LeaseID: leaseID(7), LeaseEpoch: 2, AttemptID: attemptID(7)})}, t0)
	wantCode(t, err, ff.CodeExecutionNotActive)
	e, _ := ff.AsError(err)
	if d := cmp.Diff([]string{"success", "1", "terminal", attemptID(1).String()}, e.Details); d != "" {
		t.Errorf("details:\n%s", d)
	}
}

func TestOnlyAnOperatorMayActWithoutAFence(t *testing.T) {
	x := submit(ff.CreateExecution{})
	claim(t, x, 1, t0)
	_, _, err := lifecycle.Complete(x, &ff.CompleteExecution{LeaseRef: ref(x, ff.Fence{})}, t0)
	wantCode(t, err, ff.CodeFenceRequired)
	_, _, err = lifecycle.Complete(x, &ff.CompleteExecution{LeaseRef: ref(x, ff.Fence{LeaseEpoch: 1})}, t0)
	wantCode(t, err, ff.CodePartialFenceTriple)
	if _, _, err := lifecycle.Complete(x, &ff.CompleteExecution{LeaseRef: ref(x, ff.Fence{}), Source: ff.SourceOperatorOverride}, t0); err != nil {
		t.Error(err)
	}
	wantVector(t, x, completedVector)
}

func TestAFailureIsRetriedAsThePolicySays(t *testing.T) {
	x := submit(withRetries(2, time.Second))
	now := t0
	for i := range 2 {
		f := claim(t, x, byte(i+1), now)
		r, fx, err := lifecycle.Fail(x, &ff.FailExecution{LeaseRef: ref(x, f), Reason: "boom"}, now)
		if err != nil || !r.Retried || !r.RetryAt.Equal(now.Add(time.Second)) || r.State != ff.StateDelayed {
			t.Fatalf("failure %d: %+v, %v", i, r, err)
		}
		wantEvents(t, fx, ff.EventReleased)
		if x.RetryCount != i+1 || !x.CurrentAttemptID.IsZero() || x.Attempt.State != ff.AttemptEndedFailure {
			t.Errorf("after failure %d: %+v", i, x)
		}
		again, _, err := lifecycle.Fail(x, &ff.FailExecution{LeaseRef: ref(x, f), Reason: "boom"}, now)
		if err != nil || !again.Repeated || !again.Retried || x.RetryCount != i+1 {
			t.Errorf("a repeated failure: %+v, %v, %d retries", again, err, x.RetryCount)
		}
		now = now.Add(time.Second)
		if changed, _, _ := lifecycle.Advance(x, time.Hour, now); !changed {
			t.Fatal("the retry was not promoted")
		}
	}
	if x.BlockingDetail != "" {
		t.Errorf("detail after promotion: %q", x.BlockingDetail)
	}
	_, fx, err := lifecycle.Claim(x, claimArgs(3), now)
	if err != nil || x.Attempt.Type != ff.AttemptRetry || x.Attempt.Index != 2 || x.Attempt.Cause != "boom" || x.Attempt.Previous != 1 {
		t.Fatalf("third attempt %+v, %v", x.Attempt, err)
	}
	if fx.Superseded == nil || fx.Superseded.Index != 1 || fx.Superseded.State != ff.AttemptEndedFailure {
		t.Errorf("superseded %+v", fx.Superseded)
	}
	r, fx, err := lifecycle.Fail(x, &ff.FailExecution{LeaseRef: ref(x, fence(x)), Reason: "last"}, now)
	if err != nil || r.Retried || x.PublicState() != ff.StateFailed || x.FailureReason != "last" {
		t.Errorf("last failure %+v, %v, %s", r, err, x.PublicState())
	}
	wantEvents(t, fx, ff.EventCompletion)
	if fx.Events[0].Outcome != ff.OutcomeFailed {
		t.Errorf("completion event %+v", fx.Events[0])
	}
}

func TestRetryDecisions(t *testing.T) {
	categories := withRetries(1, time.Second)
	categories.Policy.Retry.RetryableCategories = []string{"timeout"}
	for name, c := range map[string]struct {
		create  ff.CreateExecution
		fail    ff.FailExecution
		retried bool
		wait    time.Duration
	}{
		"no policy":                     {ff.CreateExecution{}, ff.FailExecution{}, false, 0},
		"no retries":                    {withRetries(0, time.Second), ff.FailExecution{}, false, 0},
		"the caller forbids it":         {withRetries(5, time.Second), ff.FailExecution{NoRetry: true}, false, 0},
		"the caller sets the delay":     {withRetries(5, time.Second), ff.FailExecution{RetryAfter: time.Minute}, true, time.Minute},
		"a category that is listed":     {categories, ff.FailExecution{Category: "timeout"}, true, time.Second},
		"a category that is not":        {categories, ff.FailExecution{Category: "other"}, false, 0},
		"no delay makes it due at once": {withRetries(1, 0), ff.FailExecution{}, true, 0},
	} {
		x := submit(c.create)
		f := claim(t, x, 1, t0)
		c.fail.LeaseRef = ref(x, f)
		r, _, err := lifecycle.Fail(x, &c.fail, t0)
		if err != nil || r.Retried != c.retried || (c.retried && r.RetryAt.Sub(t0) != c.wait) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if c.retried && c.wait == 0 && !lifecycle.Claimable(x) {
			t.Errorf("%s: not claimable", name)
		}
	}
}

func TestJitterShortensTheBackoffByAtMostHalf(t *testing.T) {
	x := submit(policy(func(p *ff.ExecutionPolicy) {
		p.Retry = ff.ExponentialRetry(100, 10*time.Second, 10*time.Second)
		p.Retry.Backoff.Jitter = true
	}))
	seen := map[time.Duration]bool{}
	for x.RetryCount = range 50 {
		d := lifecycle.Backoff(x)
		if d < 5*time.Second || d > 10*time.Second {
			t.Fatalf("backoff %s", d)
		}
		seen[d] = true
	}
	if len(seen) < 25 {
		t.Errorf("only %d different waits", len(seen))
	}
}

func TestCancelEndsAnExecutionInEveryPhase(t *testing.T) {
	for name, c := range map[string]struct {
		make     func() *ff.Execution
		previous ff.LifecyclePhase
		attempt  ff.AttemptPhase
	}{
		"waiting": {func() *ff.Execution { return submit(ff.CreateExecution{}) }, ff.PhaseRunnable, ff.AttemptPendingFirst},
		"delayed": {func() *ff.Execution { return submit(ff.CreateExecution{Delay: time.Hour}) }, ff.PhaseRunnable, ff.AttemptPendingFirst},
		"active":  {func() *ff.Execution { x := submit(ff.CreateExecution{}); claim(t, x, 1, t0); return x }, ff.PhaseActive, ff.AttemptTerminal},
	} {
		x := c.make()
		previous, repeated, fx, err := lifecycle.Cancel(x, &ff.CancelExecution{ID: x.ID, Reason: "no"}, after(time.Second))
		if err != nil || repeated || previous != c.previous {
			t.Errorf("%s: %s, %v, %v", name, previous, repeated, err)
		}
		wantEvents(t, fx, ff.EventCompletion)
		if x.PublicState() != ff.StateCancelled || x.State.Attempt != c.attempt || x.CancelledBy != ff.SourceOperatorOverride || x.CancellationReason != "no" {
			t.Errorf("%s: %+v", name, x.State)
		}
		if x.TotalAttempts > 0 && x.Attempt.FailureReason != "cancelled: no" {
			t.Errorf("%s: attempt %+v", name, x.Attempt)
		}
		_, _, _, err = lifecycle.Cancel(x, &ff.CancelExecution{ID: x.ID}, t0)
		wantCode(t, err, ff.CodeExecutionNotActive)
	}
	x := submit(ff.CreateExecution{})
	f := claim(t, x, 1, t0)
	for range 2 {
		if _, _, _, err := lifecycle.Cancel(x, &ff.CancelExecution{ID: x.ID, Fence: f}, t0); err != nil {
			t.Errorf("the holder cannot repeat its cancel: %v", err)
		}
	}
	if x.CancelledBy != ff.SourceWorker {
		t.Errorf("cancelled by %q", x.CancelledBy)
	}
}

func TestAReplayStartsANewAttemptUpToTheLimit(t *testing.T) {
	x := submit(policy(func(p *ff.ExecutionPolicy) { p.MaxReplays = 1 }))
	_, err := lifecycle.Replay(x, &ff.ReplayExecution{ID: x.ID}, t0)
	wantCode(t, err, ff.CodeExecutionNotTerminal)
	complete(t, x)
	fx, err := lifecycle.Replay(x, &ff.ReplayExecution{ID: x.ID, Reason: "again", RequestedBy: "ann"}, after(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	wantEvents(t, fx, ff.EventReplayInitiated)
	wantVector(t, x, with(waitingVector, func(v *ff.StateVector) { v.Attempt = ff.AttemptPendingReplay }))
	claim(t, x, 2, after(time.Minute))
	if a := x.Attempt; a.Type != ff.AttemptReplay || a.Index != 1 || a.Previous != 0 || a.Cause != "again" || a.RequestedBy != "ann" || x.LeaseEpoch != 2 {
		t.Errorf("replayed attempt %+v", a)
	}
	if _, _, err := lifecycle.Complete(x, &ff.CompleteExecution{LeaseRef: ref(x, fence(x))}, after(time.Minute)); err != nil {
		t.Fatal(err)
	}
	_, err = lifecycle.Replay(x, &ff.ReplayExecution{ID: x.ID}, t0)
	wantCode(t, err, ff.CodeMaxReplaysExhausted)
}
