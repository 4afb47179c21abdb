package flowfabric

import (
	"encoding"
	"encoding/json"
	"slices"
	"strings"
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
	odd := strings.Replace(want, `"public_state":"waiting"`, `"public_state":"asleep"`, 1)
	if err := json.Unmarshal([]byte(odd), &read); err != nil || read != v {
		t.Errorf("the public state was read: %+v, %v", read, err)
	}
	if err := json.Unmarshal([]byte(`{}`), &read); err == nil || read != v {
		t.Errorf("a vector without words was accepted: %+v", read)
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

func TestUnknownWordsAreRefusedWithTheKnownOnes(t *testing.T) {
	for field, to := range map[string]encoding.TextUnmarshaler{
		"lifecycle_phase":   new(LifecyclePhase),
		"ownership_state":   new(OwnershipState),
		"eligibility_state": new(EligibilityState),
		"blocking_reason":   new(BlockingReason),
		"terminal_outcome":  new(TerminalOutcome),
		"attempt_state":     new(AttemptState),
		"attempt_type":      new(AttemptType),
		"public_state":      new(PublicState),
	} {
		err := to.UnmarshalText([]byte("asleep"))
		if e, ok := AsError(err); !ok || e.Field != field || !strings.Contains(e.Detail, `"asleep" (one of `) {
			t.Errorf("%s: %v", field, err)
		}
		if err := to.UnmarshalText(nil); err != nil {
			t.Errorf("%s: the unset word is refused: %v", field, err)
		}
	}
	var phase AttemptPhase
	const want = `invalid_input: attempt_state: unknown attempt_state "created" (one of none, pending_first_attempt, running_attempt, attempt_interrupted, pending_retry_attempt, pending_replay_attempt, attempt_terminal)`
	if err := json.Unmarshal([]byte(`"created"`), &phase); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestEveryWordIsValidAndSurvivesJSON(t *testing.T) {
	checkWords(t, LifecyclePhases, LifecyclePhase.Valid)
	checkWords(t, OwnershipStates, OwnershipState.Valid)
	checkWords(t, EligibilityStates, EligibilityState.Valid)
	checkWords(t, BlockingReasons, BlockingReason.Valid)
	checkWords(t, TerminalOutcomes, TerminalOutcome.Valid)
	checkWords(t, AttemptPhases, AttemptPhase.Valid)
	checkWords(t, PublicStates, PublicState.Valid)
	checkWords(t, AttemptStates, AttemptState.Valid)
	checkWords(t, AttemptTypes, AttemptType.Valid)
}

func checkWords[W ~string](t *testing.T, words []W, valid func(W) bool) {
	t.Helper()
	if valid("") || valid("asleep") {
		t.Errorf("%T: an unknown word is valid", words)
	}
	data, err := json.Marshal(words)
	if err != nil {
		t.Fatal(err)
	}
	var read []W
	if err := json.Unmarshal(data, &read); err != nil || !slices.Equal(read, words) {
		t.Errorf("%s is read as %v, %v", data, read, err)
	}
	for _, w := range words {
		if !valid(w) {
			t.Errorf("%q is not valid", w)
		}
	}
}
