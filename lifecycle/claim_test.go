package lifecycle_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

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
