package lifecycle_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// t0 is the instant at which every test execution is created.
var t0 = time.UnixMilli(1_700_000_000_000).UTC()

func after(d time.Duration) time.Time { return t0.Add(d) }

// Ids that a test can name.
func leaseID(n byte) ff.LeaseID     { return ff.LeaseID(uuid.UUID{15: n}) }
func attemptID(n byte) ff.AttemptID { return ff.AttemptID(uuid.UUID{14: n}) }

func caps(t *testing.T, tokens ...string) ff.CapabilitySet {
	t.Helper()
	set, err := ff.NewCapabilitySet(tokens...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func submit(c ff.CreateExecution) *ff.Execution {
	c.Lane, c.Kind = "default", "job"
	x := lifecycle.Create(&c, ff.MakeExecutionID(86, uuid.UUID{1}), t0)
	return &x
}

func policy(edit func(*ff.ExecutionPolicy)) ff.CreateExecution {
	p := ff.DefaultExecutionPolicy()
	edit(p)
	return ff.CreateExecution{Policy: p}
}

func withRetries(n int, delay time.Duration) ff.CreateExecution {
	return policy(func(p *ff.ExecutionPolicy) { p.Retry = ff.FixedRetry(n, delay) })
}

func claimArgs(n byte) *lifecycle.ClaimArgs {
	return &lifecycle.ClaimArgs{
		Claimant: ff.Claimant{Worker: "w", Instance: "w-1"},
		LeaseID:  leaseID(n), AttemptID: attemptID(n), LeaseTTL: 30 * time.Second,
	}
}

func claim(t *testing.T, x *ff.Execution, n byte, now time.Time) ff.Fence {
	t.Helper()
	if _, _, err := lifecycle.Claim(x, claimArgs(n), now); err != nil {
		t.Fatalf("claim: %v", err)
	}
	return fence(x)
}

func fence(x *ff.Execution) ff.Fence {
	return ff.Fence{LeaseID: x.Lease.ID, LeaseEpoch: x.LeaseEpoch, AttemptID: x.CurrentAttemptID}
}

func ref(x *ff.Execution, f ff.Fence) ff.LeaseRef { return ff.LeaseRef{ID: x.ID, Fence: f} }

func wantVector(t *testing.T, x *ff.Execution, want ff.StateVector) {
	t.Helper()
	if d := cmp.Diff(want, x.State); d != "" {
		t.Errorf("state vector (-want +got):\n%s", d)
	}
}

func wantEvents(t *testing.T, fx lifecycle.Effects, want ...ff.EventType) {
	t.Helper()
	var got []ff.EventType
	for _, e := range fx.Events {
		got = append(got, e.Type)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
}

func wantCode(t *testing.T, err error, want ff.Code) {
	t.Helper()
	if got := ff.CodeOf(err); got != want {
		t.Errorf("error %v, want code %q", err, want)
	}
}

// The vectors of spec 01 §4.2.
var (
	waitingVector = ff.StateVector{Phase: ff.PhaseRunnable, Ownership: ff.OwnershipUnowned, Eligibility: ff.EligibleNow,
		Blocking: ff.WaitingForWorker, Outcome: ff.OutcomeNone, Attempt: ff.AttemptPendingFirst}
	activeVector = ff.StateVector{Phase: ff.PhaseActive, Ownership: ff.OwnershipLeased, Eligibility: ff.EligibilityNotApplicable,
		Blocking: ff.BlockingNone, Outcome: ff.OutcomeNone, Attempt: ff.AttemptRunning}
	completedVector = ff.StateVector{Phase: ff.PhaseTerminal, Ownership: ff.OwnershipUnowned, Eligibility: ff.EligibilityNotApplicable,
		Blocking: ff.BlockingNone, Outcome: ff.OutcomeSuccess, Attempt: ff.AttemptTerminal}
)

func with(v ff.StateVector, edit func(*ff.StateVector)) ff.StateVector { edit(&v); return v }

func TestAnExecutionIsCreatedWaiting(t *testing.T) {
	x := submit(ff.CreateExecution{Priority: 12345})
	wantVector(t, x, waitingVector)
	if x.Priority != ff.MaxPriority || x.PublicState() != ff.StateWaiting || !lifecycle.Claimable(x) || !x.CreatedAt.Equal(t0) {
		t.Errorf("created %+v", x)
	}
	if x := submit(ff.CreateExecution{Priority: -5}); x.Priority != 0 {
		t.Errorf("a negative priority became %d", x.Priority)
	}
}

func TestADelayedExecutionIsPromotedWhenDue(t *testing.T) {
	x := submit(ff.CreateExecution{Delay: time.Minute})
	if x.PublicState() != ff.StateDelayed || x.BlockingDetail != "delayed until 1700000060000" || lifecycle.Claimable(x) {
		t.Fatalf("created %s, %q", x.PublicState(), x.BlockingDetail)
	}
	if due, ok := lifecycle.NextDue(x, time.Hour); !ok || due.Kind != ff.SweepDelayed || !due.At.Equal(after(time.Minute)) {
		t.Fatalf("next due %+v, %v", due, ok)
	}
	if changed, _, _ := lifecycle.Advance(x, time.Hour, after(59*time.Second)); changed {
		t.Error("promoted too early")
	}
	if changed, _, _ := lifecycle.Advance(x, time.Hour, after(time.Minute)); !changed {
		t.Error("not promoted when due")
	}
	wantVector(t, x, waitingVector)
	if _, ok := lifecycle.NextDue(x, time.Hour); ok || !x.DelayUntil.IsZero() {
		t.Error("something is still due")
	}
}

func TestADelayThatHasPassedMeansNow(t *testing.T) {
	for _, c := range []ff.CreateExecution{{DelayUntil: t0}, {DelayUntil: after(-time.Hour)}} {
		wantVector(t, submit(c), waitingVector)
	}
}

func TestScoreOrdersByPriorityThenAge(t *testing.T) {
	for priority, want := range map[int]int64{0: 1700000000000, 5: -3300000000000, 9000: -8998300000000000} {
		if got := lifecycle.Score(submit(ff.CreateExecution{Priority: priority})); got != want {
			t.Errorf("score of priority %d is %d, want %d", priority, got, want)
		}
	}
}

func TestAClaimStartsAnAttemptUnderANewLease(t *testing.T) {
	x := submit(policy(func(p *ff.ExecutionPolicy) { p.Timeout = &ff.TimeoutPolicy{Attempt: time.Minute} }))
	resumed, fx, err := lifecycle.Claim(x, claimArgs(1), after(time.Second))
	if err != nil || resumed {
		t.Fatal(resumed, err)
	}
	wantVector(t, x, activeVector)
	wantEvents(t, fx, ff.EventAcquired)
	want := ff.Attempt{ID: attemptID(1), Type: ff.AttemptInitial, State: ff.AttemptStarted, CreatedAt: after(time.Second), StartedAt: after(time.Second),
		Worker: "w", Instance: "w-1", LeaseID: leaseID(1), LeaseEpoch: 1, Previous: -1}
	if d := cmp.Diff(want, x.Attempt); d != "" {
		t.Errorf("attempt (-want +got):\n%s", d)
	}
	if x.LeaseEpoch != 1 || x.TotalAttempts != 1 || !x.Lease.ExpiresAt.Equal(after(31*time.Second)) || !x.AttemptTimeoutAt.Equal(after(61*time.Second)) {
		t.Errorf("lease %+v, epoch %d, timeout %s", x.Lease, x.LeaseEpoch, x.AttemptTimeoutAt)
	}
}

func TestClaimRefusals(t *testing.T) {
	gpu := policy(func(p *ff.ExecutionPolicy) {
		p.Routing = &ff.RoutingRequirements{RequiredCapabilities: caps(t, "gpu", "cuda")}
	})
	for name, c := range map[string]struct {
		make func() *ff.Execution
		code ff.Code
	}{
		"while another worker holds it": {func() *ff.Execution { x := submit(ff.CreateExecution{}); claim(t, x, 9, t0); return x }, ff.CodeLeaseConflict},
		"while it is delayed":           {func() *ff.Execution { return submit(ff.CreateExecution{Delay: time.Hour}) }, ff.CodeExecutionNotLeaseable},
		"after it ended":                {func() *ff.Execution { x := submit(ff.CreateExecution{}); complete(t, x); return x }, ff.CodeExecutionNotLeaseable},
		"without the capabilities":      {func() *ff.Execution { return submit(gpu) }, ff.CodeCapabilityMismatch},
		"while it is granted to another": {func() *ff.Execution {
			x := submit(ff.CreateExecution{})
			g := &lifecycle.GrantArgs{Claimant: ff.Claimant{Worker: "other", Instance: "o-1"}, TTL: time.Minute}
			if err := lifecycle.GrantClaim(x, g, t0); err != nil {
				t.Fatal(err)
			}
			return x
		}, ff.CodeGrantAlreadyExists},
	} {
		x := c.make()
		before := *x
		_, fx, err := lifecycle.Claim(x, claimArgs(1), t0)
		wantCode(t, err, c.code)
		before.CapabilityMismatchAt = x.CapabilityMismatchAt
		if d := cmp.Diff(before, *x, cmp.AllowUnexported(ff.CapabilitySet{}), cmp.Comparer(func(a, b ff.ExecutionID) bool { return a == b })); d != "" || len(fx.Events) > 0 {
			t.Errorf("%s: a refused claim changed the execution:\n%s", name, d)
		}
	}
	_, _, err := lifecycle.Claim(submit(gpu), claimArgs(1), t0)
	var e *ff.Error
	if !errors.As(err, &e) || e.Detail != "cuda,gpu" {
		t.Errorf("the missing capabilities are not named: %v", err)
	}
}

func complete(t *testing.T, x *ff.Execution) ff.Fence {
	t.Helper()
	f := claim(t, x, 1, t0)
	if _, _, err := lifecycle.Complete(x, &ff.CompleteExecution{LeaseRef: ref(x, f)}, after(time.Second)); err != nil {
		t.Fatalf("complete: %v", err)
	}
	return f
}

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

// Every command of a holder validates the lease in the same way and order.
func TestHoldersCommandsAreFenced(t *testing.T) {
	commands := map[string]func(x *ff.Execution, f ff.Fence, now time.Time) (lifecycle.Effects, error){
		"complete": func(x *ff.Execution, f ff.Fence, now time.Time) (lifecycle.Effects, error) {
			_, fx, err := lifecycle.Complete(x, &ff.CompleteExecution{LeaseRef: ref(x, f)}, now)
			return fx, err
		},
		"fail": func(x *ff.Execution, f ff.Fence, now time.Time) (lifecycle.Effects, error) {
			_, fx, err := lifecycle.Fail(x, &ff.FailExecution{LeaseRef: ref(x, f)}, now)
			return fx, err
		},
		"delay": func(x *ff.Execution, f ff.Fence, now time.Time) (lifecycle.Effects, error) {
			_, fx, err := lifecycle.Delay(x, &ff.DelayExecution{LeaseRef: ref(x, f), For: time.Hour}, now)
			return fx, err
		},
		"release": func(x *ff.Execution, f ff.Fence, now time.Time) (lifecycle.Effects, error) {
			return lifecycle.Release(x, f, "", now)
		},
		"renew": func(x *ff.Execution, f ff.Fence, now time.Time) (lifecycle.Effects, error) {
			return lifecycle.Renew(x, f, time.Minute, now)
		},
		"progress": func(x *ff.Execution, f ff.Fence, now time.Time) (lifecycle.Effects, error) {
			return lifecycle.Progress(x, &ff.UpdateProgress{LeaseRef: ref(x, f), Message: "m"}, now)
		},
		"cancel": func(x *ff.Execution, f ff.Fence, now time.Time) (lifecycle.Effects, error) {
			_, _, fx, err := lifecycle.Cancel(x, &ff.CancelExecution{ID: x.ID, Fence: f}, now)
			return fx, err
		},
	}
	for name, run := range commands {
		t.Run(name, func(t *testing.T) {
			x := submit(ff.CreateExecution{})
			_, err := run(x, ff.Fence{LeaseID: leaseID(1), LeaseEpoch: 1, AttemptID: attemptID(1)}, t0)
			wantCode(t, err, ff.CodeExecutionNotActive)

			good := claim(t, x, 1, t0)
			for what, f := range map[string]ff.Fence{
				"another lease id":   {LeaseID: leaseID(2), LeaseEpoch: 1, AttemptID: attemptID(1)},
				"another epoch":      {LeaseID: leaseID(1), LeaseEpoch: 2, AttemptID: attemptID(1)},
				"another attempt id": {LeaseID: leaseID(1), LeaseEpoch: 1, AttemptID: attemptID(2)},
			} {
				if _, err := run(x, f, t0); ff.CodeOf(err) != ff.CodeStaleLease {
					t.Errorf("%s: %v", what, err)
				}
			}
			wantVector(t, x, activeVector)

			lapsed := *x
			fx, err := run(&lapsed, good, x.Lease.ExpiresAt)
			wantCode(t, err, ff.CodeLeaseExpired)
			wantEvents(t, fx, ff.EventLeaseExpired)
			if !lifecycle.Claimable(&lapsed) {
				t.Error("the lapse was not recorded")
			}
			fx, err = run(&lapsed, good, x.Lease.ExpiresAt)
			wantCode(t, err, ff.CodeLeaseExpired)
			wantEvents(t, fx)

			revoked := *x
			if _, _, err := lifecycle.Revoke(&revoked, &ff.RevokeLease{Reason: "ops"}, t0); err != nil {
				t.Fatal(err)
			}
			_, err = run(&revoked, good, t0)
			wantCode(t, err, ff.CodeLeaseRevoked)

			if _, err := run(x, good, t0); err != nil {
				t.Errorf("the holder was refused: %v", err)
			}
		})
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

func TestALostLeaseIsTakenOverByANewAttemptUpToTheLimit(t *testing.T) {
	x := submit(policy(func(p *ff.ExecutionPolicy) { p.MaxReclaims = 1 }))
	stale := claim(t, x, 1, t0)
	now := x.Lease.ExpiresAt
	if changed, _, fx := lifecycle.Advance(x, time.Hour, now); !changed || fx.Events[0].Type != ff.EventLeaseExpired {
		t.Fatal("the lapse was not marked")
	}
	wantVector(t, x, with(activeVector, func(v *ff.StateVector) {
		v.Ownership, v.Blocking, v.Attempt = ff.OwnershipLeaseExpired, ff.WaitingForWorker, ff.AttemptInterrupted
	}))
	_, fx, err := lifecycle.Claim(x, claimArgs(2), now)
	if err != nil || x.Attempt.Type != ff.AttemptReclaim || x.Attempt.Index != 1 || x.LeaseEpoch != 2 || x.ReclaimCount != 1 {
		t.Fatalf("reclaim: %+v, %v", x.Attempt, err)
	}
	wantEvents(t, fx, ff.EventReclaimed)
	if fx.Superseded.State != ff.AttemptInterruptedReclaimed || fx.Superseded.FailureReason != "lease_lease_expired_reclaimable" {
		t.Errorf("superseded %+v", fx.Superseded)
	}
	_, _, err = lifecycle.Complete(x, &ff.CompleteExecution{LeaseRef: ref(x, stale)}, now)
	wantCode(t, err, ff.CodeStaleLease)

	lifecycle.Advance(x, time.Hour, x.Lease.ExpiresAt)
	_, fx, err = lifecycle.Claim(x, claimArgs(3), now.Add(time.Hour))
	wantCode(t, err, ff.CodeMaxRetriesExhausted)
	wantEvents(t, fx, ff.EventCompletion)
	if x.PublicState() != ff.StateFailed || x.FailureReason != "max_reclaims_exceeded" || x.TotalAttempts != 2 {
		t.Errorf("at the limit: %s, %q, %d attempts", x.PublicState(), x.FailureReason, x.TotalAttempts)
	}
}

func TestARevokedLeaseIsTakenOver(t *testing.T) {
	x := submit(ff.CreateExecution{})
	if already, _, err := lifecycle.Revoke(x, &ff.RevokeLease{}, t0); already != "no_active_lease" || err != nil {
		t.Errorf("revoking nothing: %q, %v", already, err)
	}
	claim(t, x, 1, t0)
	if already, _, _ := lifecycle.Revoke(x, &ff.RevokeLease{Instance: "w-2"}, t0); already != "different_worker_instance_id" {
		t.Errorf("revoking from another instance: %q", already)
	}
	_, _, err := lifecycle.Revoke(x, &ff.RevokeLease{LeaseID: leaseID(9)}, t0)
	wantCode(t, err, ff.CodeStaleLease)
	already, fx, err := lifecycle.Revoke(x, &ff.RevokeLease{LeaseID: leaseID(1), Instance: "w-1", Reason: "ops"}, t0)
	if already != "" || err != nil || x.BlockingDetail != "lease revoked: ops" {
		t.Fatal(already, err, x.BlockingDetail)
	}
	wantEvents(t, fx, ff.EventRevoked)
	if already, _, _ := lifecycle.Revoke(x, &ff.RevokeLease{}, t0); already != "already_revoked" {
		t.Errorf("revoking twice: %q", already)
	}
	claim(t, x, 2, t0)
	if x.Attempt.Type != ff.AttemptReclaim || !x.LeaseRevokedAt.IsZero() {
		t.Errorf("after the takeover: %+v, revoked at %s", x.Attempt, x.LeaseRevokedAt)
	}
	if _, err := lifecycle.Renew(x, fence(x), time.Minute, t0); err != nil {
		t.Errorf("the new lease cannot be renewed: %v", err)
	}
}

func TestARenewalNeverShortensALease(t *testing.T) {
	x := submit(ff.CreateExecution{})
	f := claim(t, x, 1, t0)
	end := x.Lease.ExpiresAt
	if _, err := lifecycle.Renew(x, f, time.Second, t0); err != nil || !x.Lease.ExpiresAt.Equal(end) {
		t.Errorf("a short renewal moved the end from %s to %s, %v", end, x.Lease.ExpiresAt, err)
	}
	if _, err := lifecycle.Renew(x, f, time.Minute, after(time.Second)); err != nil || !x.Lease.ExpiresAt.Equal(after(61*time.Second)) {
		t.Errorf("renewed until %s, %v", x.Lease.ExpiresAt, err)
	}
	if x.LeaseEpoch != 1 {
		t.Errorf("the renewal changed the epoch to %d", x.LeaseEpoch)
	}
}

func TestAParkedAttemptGoesOnUnderANewLease(t *testing.T) {
	park := map[string]func(x *ff.Execution, f ff.Fence) error{
		"delay": func(x *ff.Execution, f ff.Fence) error {
			until, _, err := lifecycle.Delay(x, &ff.DelayExecution{LeaseRef: ref(x, f), For: time.Minute}, t0)
			if err == nil && !until.Equal(after(time.Minute)) {
				t.Errorf("delayed until %s", until)
			}
			lifecycle.Advance(x, time.Hour, after(time.Minute))
			return err
		},
		"delay until a time that has passed": func(x *ff.Execution, f ff.Fence) error {
			_, _, err := lifecycle.Delay(x, &ff.DelayExecution{LeaseRef: ref(x, f), Until: after(-time.Minute)}, t0)
			return err
		},
		"release": func(x *ff.Execution, f ff.Fence) error {
			_, err := lifecycle.Release(x, f, "shutdown", t0)
			return err
		},
	}
	for name, run := range park {
		t.Run(name, func(t *testing.T) {
			x := submit(ff.CreateExecution{})
			if err := run(x, claim(t, x, 1, t0)); err != nil {
				t.Fatal(err)
			}
			wantVector(t, x, with(waitingVector, func(v *ff.StateVector) { v.Attempt = ff.AttemptInterrupted }))
			resumed, fx, err := lifecycle.Claim(x, claimArgs(2), after(time.Minute))
			if err != nil || !resumed || fx.Superseded != nil {
				t.Fatal(resumed, fx, err)
			}
			if x.Attempt.ID != attemptID(1) || x.Attempt.Index != 0 || x.LeaseEpoch != 2 || x.Lease.ID != leaseID(2) || x.TotalAttempts != 1 || x.Attempt.Suspension != "" {
				t.Errorf("resumed %+v, epoch %d", x.Attempt, x.LeaseEpoch)
			}
			wantVector(t, x, activeVector)
		})
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

func TestPriorityChangesOnlyWhileWaiting(t *testing.T) {
	x := submit(ff.CreateExecution{Priority: 3})
	if old, applied, err := lifecycle.ChangePriority(x, 99999, t0); err != nil || old != 3 || applied != 9000 {
		t.Errorf("%d → %d, %v", old, applied, err)
	}
	claim(t, x, 1, t0)
	_, _, err := lifecycle.ChangePriority(x, 1, t0)
	wantCode(t, err, ff.CodeExecutionNotEligible)
	_, _, err = lifecycle.ChangePriority(submit(ff.CreateExecution{Delay: time.Hour}), 1, t0)
	wantCode(t, err, ff.CodeExecutionNotEligible)
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

func TestAnAttemptThatTakesTooLongIsRetriedAndThenExpires(t *testing.T) {
	c := withRetries(1, time.Second)
	c.Policy.Timeout = &ff.TimeoutPolicy{Attempt: 10 * time.Second}
	x := submit(c)
	claim(t, x, 1, t0)
	if due, _ := lifecycle.NextDue(x, time.Hour); due.Kind != ff.SweepAttemptTimeout || !due.At.Equal(after(10*time.Second)) {
		t.Fatalf("next due %+v", due)
	}
	_, _, fx := lifecycle.Advance(x, time.Hour, after(10*time.Second))
	wantEvents(t, fx, ff.EventReleased)
	if x.PublicState() != ff.StateDelayed || x.RetryCount != 1 || x.Attempt.FailureReason != "attempt_timeout" {
		t.Fatalf("after the first timeout: %s, %+v", x.PublicState(), x.Attempt)
	}
	lifecycle.Advance(x, time.Hour, after(11*time.Second))
	claim(t, x, 2, after(11*time.Second))
	_, _, fx = lifecycle.Advance(x, time.Hour, after(21*time.Second))
	wantEvents(t, fx, ff.EventCompletion)
	if x.PublicState() != ff.StateExpired || x.FailureReason != "attempt_timeout" || fx.Events[0].Outcome != ff.OutcomeExpired {
		t.Errorf("after the second timeout: %s, %q", x.PublicState(), x.FailureReason)
	}
}

func TestTheDeadlineExpiresAnExecutionWhateverItDoes(t *testing.T) {
	deadline := ff.CreateExecution{Deadline: after(time.Minute)}
	for name, make := range map[string]func() *ff.Execution{
		"waiting": func() *ff.Execution { return submit(deadline) },
		"delayed": func() *ff.Execution { c := deadline; c.Delay = time.Hour; return submit(c) },
		"active": func() *ff.Execution {
			x := submit(deadline)
			args := claimArgs(1)
			args.LeaseTTL = time.Hour
			if _, _, err := lifecycle.Claim(x, args, t0); err != nil {
				t.Fatal(err)
			}
			return x
		},
		"by the policy": func() *ff.Execution {
			return submit(policy(func(p *ff.ExecutionPolicy) { p.Timeout = &ff.TimeoutPolicy{Deadline: time.Minute} }))
		},
	} {
		x := make()
		if due, ok := lifecycle.NextDue(x, time.Hour); !ok || due.Kind != ff.SweepExecutionDeadline || !due.At.Equal(after(time.Minute)) {
			t.Errorf("%s: next due %+v", name, due)
		}
		lifecycle.Advance(x, time.Hour, after(time.Minute))
		if x.PublicState() != ff.StateExpired || x.FailureReason != "execution_deadline" {
			t.Errorf("%s: %s, %q", name, x.PublicState(), x.FailureReason)
		}
	}
}

func TestRetentionEndsWhenThePolicySays(t *testing.T) {
	x := submit(policy(func(p *ff.ExecutionPolicy) { p.Stream = &ff.StreamPolicy{RetentionTTL: time.Minute} }))
	complete(t, x)
	if _, purge, _ := lifecycle.Advance(x, time.Hour, after(60*time.Second)); purge {
		t.Error("purged before its retention was over")
	}
	if changed, purge, _ := lifecycle.Advance(x, time.Hour, after(61*time.Second)); !purge || changed {
		t.Error("not purged when its retention was over")
	}
	y := submit(ff.CreateExecution{})
	complete(t, y)
	if due, ok := lifecycle.NextDue(y, time.Hour); !ok || due.Kind != ff.SweepRetention || !due.At.Equal(after(time.Second+time.Hour)) {
		t.Errorf("without a policy: %+v", due)
	}
}

func TestAGrantReservesAnExecutionUntilItLapses(t *testing.T) {
	grant := &lifecycle.GrantArgs{Claimant: ff.Claimant{Worker: "w", Instance: "w-1"}, TTL: 5 * time.Second}
	x := submit(ff.CreateExecution{})
	wantCode(t, lifecycle.GrantReclaim(x, grant, t0), ff.CodeExecutionNotReclaimable)
	_, _, err := lifecycle.ClaimGranted(x, claimArgs(1), t0)
	wantCode(t, err, ff.CodeInvalidClaimGrant)
	if err := lifecycle.GrantClaim(x, grant, t0); err != nil {
		t.Fatal(err)
	}
	wantCode(t, lifecycle.GrantClaim(x, grant, t0), ff.CodeGrantAlreadyExists)
	if lifecycle.Claimable(x) {
		t.Error("a granted execution is open to others")
	}
	other := claimArgs(2)
	other.Worker = "other"
	_, _, err = lifecycle.ClaimGranted(x, other, t0)
	wantCode(t, err, ff.CodeInvalidClaimGrant)
	_, _, err = lifecycle.ClaimGranted(x, claimArgs(1), after(6*time.Second))
	wantCode(t, err, ff.CodeClaimGrantExpired)

	lapsed := *x
	if changed, _, _ := lifecycle.Advance(&lapsed, time.Hour, after(5*time.Second)); !changed || !lifecycle.Claimable(&lapsed) {
		t.Error("a lapsed grant still reserves")
	}
	sibling := claimArgs(1)
	sibling.Instance = "w-2"
	if _, _, err := lifecycle.ClaimGranted(x, sibling, t0); err != nil || x.Grant.Worker != "" || x.Lease.Instance != "w-2" {
		t.Errorf("another instance of the worker: %v, grant %+v", err, x.Grant)
	}
	lifecycle.Advance(x, time.Hour, x.Lease.ExpiresAt)
	if err := lifecycle.GrantReclaim(x, grant, after(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := lifecycle.ClaimGranted(x, claimArgs(3), after(time.Minute)); err != nil || x.Attempt.Type != ff.AttemptReclaim {
		t.Errorf("taking over by a grant: %+v, %v", x.Attempt, err)
	}
}

func TestTagsAreMergedAndBounded(t *testing.T) {
	x := submit(ff.CreateExecution{Tags: map[string]string{"a.b": "1"}})
	if err := lifecycle.SetTags(x, map[string]string{"a.b": "2", "c.d": "3"}, t0); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]string{"a.b": "2", "c.d": "3"}, x.Tags); d != "" {
		t.Error(d)
	}
	many := map[string]string{}
	for i := range ff.MaxTags {
		many["t."+string(rune('a'+i%26))+string(rune('a'+i/26))] = ""
	}
	wantCode(t, lifecycle.SetTags(x, many, t0), ff.CodeInvalidInput)
}
