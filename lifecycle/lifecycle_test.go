package lifecycle_test

import (
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
func leaseID(n byte) ff.LeaseID { return ff.LeaseID(uuid.UUID{15: n}) }

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

func complete(t *testing.T, x *ff.Execution) ff.Fence {
	t.Helper()
	f := claim(t, x, 1, t0)
	if _, _, err := lifecycle.Complete(x, &ff.CompleteExecution{LeaseRef: ref(x, f)}, after(time.Second)); err != nil {
		t.Fatalf("complete: %v", err)
	}
	return f
}
