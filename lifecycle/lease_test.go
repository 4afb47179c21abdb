package lifecycle_test

import (
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

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
