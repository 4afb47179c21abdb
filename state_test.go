package flowfabric

import (
	"encoding/json"
	"testing"
)

// The table of spec 01 §4.1.
func TestPublicStateIsDerivedFromTheVector(t *testing.T) {
	for _, c := range []struct {
		v    StateVector
		want PublicState
	}{
		{StateVector{Phase: PhaseTerminal, Outcome: OutcomeSuccess}, StateCompleted},
		{StateVector{Phase: PhaseTerminal, Outcome: OutcomeFailed}, StateFailed},
		{StateVector{Phase: PhaseTerminal, Outcome: OutcomeCancelled}, StateCancelled},
		{StateVector{Phase: PhaseTerminal, Outcome: OutcomeExpired}, StateExpired},
		{StateVector{Phase: PhaseTerminal, Outcome: OutcomeSkipped}, StateSkipped},
		{StateVector{Phase: PhaseTerminal, Outcome: OutcomeNone}, StateFailed},
		{StateVector{Phase: PhaseSuspended}, StateSuspended},
		{StateVector{Phase: PhaseActive, Ownership: OwnershipLeaseExpired}, StateActive},
		{StateVector{Phase: PhaseActive, Ownership: OwnershipLeaseRevoked}, StateActive},
		{StateVector{Phase: PhaseRunnable, Eligibility: EligibleNow}, StateWaiting},
		{StateVector{Phase: PhaseRunnable, Eligibility: NotEligibleUntilTime}, StateDelayed},
		{StateVector{Phase: PhaseRunnable, Eligibility: BlockedByDependencies}, StateWaitingChildren},
		{StateVector{Phase: PhaseRunnable, Eligibility: BlockedByBudget}, StateRateLimited},
		{StateVector{Phase: PhaseRunnable, Eligibility: BlockedByQuota}, StateRateLimited},
		{StateVector{Phase: PhaseRunnable, Eligibility: BlockedByRoute}, StateWaiting},
		{StateVector{Phase: PhaseRunnable, Eligibility: BlockedByLaneState}, StateWaiting},
		{StateVector{Phase: PhaseRunnable, Eligibility: BlockedByOperator}, StateWaiting},
		{StateVector{Phase: PhaseRunnable, Eligibility: EligibilityNotApplicable}, StateWaiting},
		{StateVector{Phase: PhaseSubmitted}, StateWaiting},
	} {
		if got := c.v.Public(); got != c.want {
			t.Errorf("%+v is %s, want %s", c.v, got, c.want)
		}
	}
}

func TestStateVectorJSONHasTheWordsOfTheWire(t *testing.T) {
	v := StateVector{PhaseRunnable, OwnershipUnowned, EligibleNow, WaitingForWorker, OutcomeNone, AttemptPendingFirst}
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"lifecycle_phase":"runnable","ownership_state":"unowned","eligibility_state":"eligible_now","blocking_reason":"waiting_for_worker","terminal_outcome":"none","attempt_state":"pending_first_attempt","public_state":"waiting"}`
	if string(data) != want {
		t.Errorf("got %s", data)
	}
	var read StateVector
	if err := json.Unmarshal(data, &read); err != nil || read != v {
		t.Errorf("read back %+v, %v", read, err)
	}
	if err := json.Unmarshal([]byte(`{"lifecycle_phase":"flying"}`), &read); err == nil {
		t.Error("an unknown phase was accepted")
	}
}

func TestUnknownPublicStatesAreRefusedWithTheKnownOnes(t *testing.T) {
	if _, err := ParsePublicState("waiting"); err != nil {
		t.Error(err)
	}
	_, err := ParsePublicState("asleep")
	if want := `invalid_input: state: unknown state "asleep" (one of waiting, delayed, rate_limited, waiting_children, active, suspended, resumable, completed, failed, cancelled, expired, skipped)`; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}
