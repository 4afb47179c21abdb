package flowfabric

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// The six dimensions of an execution's state and the derived public state
// (spec 01 §4). The words are those of the wire.
type (
	// LifecyclePhase is the coarse phase.
	LifecyclePhase string
	// OwnershipState says whether a worker holds it.
	OwnershipState string
	// EligibilityState says whether it may be claimed, and if not, why.
	EligibilityState string
	// BlockingReason says what it waits for.
	BlockingReason string
	// TerminalOutcome says how it ended.
	TerminalOutcome string
	// AttemptPhase says what comes of its attempts.
	AttemptPhase string
	// PublicState is the one word for people.
	PublicState string
)

// Phases.
const (
	PhaseSubmitted LifecyclePhase = "submitted"
	PhaseRunnable  LifecyclePhase = "runnable"
	PhaseActive    LifecyclePhase = "active"
	PhaseSuspended LifecyclePhase = "suspended"
	PhaseTerminal  LifecyclePhase = "terminal"
)

// Ownership.
const (
	OwnershipUnowned      OwnershipState = "unowned"
	OwnershipLeased       OwnershipState = "leased"
	OwnershipLeaseExpired OwnershipState = "lease_expired_reclaimable"
	OwnershipLeaseRevoked OwnershipState = "lease_revoked"
)

// Eligibility.
const (
	EligibleNow              EligibilityState = "eligible_now"
	NotEligibleUntilTime     EligibilityState = "not_eligible_until_time"
	BlockedByDependencies    EligibilityState = "blocked_by_dependencies"
	BlockedByBudget          EligibilityState = "blocked_by_budget"
	BlockedByQuota           EligibilityState = "blocked_by_quota"
	BlockedByRoute           EligibilityState = "blocked_by_route"
	BlockedByLaneState       EligibilityState = "blocked_by_lane_state"
	BlockedByOperator        EligibilityState = "blocked_by_operator"
	EligibilityNotApplicable EligibilityState = "not_applicable"
)

// Blocking reasons.
const (
	BlockingNone            BlockingReason = "none"
	WaitingForWorker        BlockingReason = "waiting_for_worker"
	WaitingForRetryBackoff  BlockingReason = "waiting_for_retry_backoff"
	WaitingForResumeDelay   BlockingReason = "waiting_for_resume_delay"
	WaitingForDelay         BlockingReason = "waiting_for_delay"
	WaitingForSignal        BlockingReason = "waiting_for_signal"
	WaitingForApproval      BlockingReason = "waiting_for_approval"
	WaitingForCallback      BlockingReason = "waiting_for_callback"
	WaitingForToolResult    BlockingReason = "waiting_for_tool_result"
	WaitingForChildren      BlockingReason = "waiting_for_children"
	WaitingForBudget        BlockingReason = "waiting_for_budget"
	WaitingForQuota         BlockingReason = "waiting_for_quota"
	WaitingForCapableWorker BlockingReason = "waiting_for_capable_worker"
	WaitingForLocalityMatch BlockingReason = "waiting_for_locality_match"
	PausedByOperator        BlockingReason = "paused_by_operator"
	PausedByPolicy          BlockingReason = "paused_by_policy"
	PausedByFlowCancel      BlockingReason = "paused_by_flow_cancel"
)

// Outcomes.
const (
	OutcomeNone      TerminalOutcome = "none"
	OutcomeSuccess   TerminalOutcome = "success"
	OutcomeFailed    TerminalOutcome = "failed"
	OutcomeCancelled TerminalOutcome = "cancelled"
	OutcomeExpired   TerminalOutcome = "expired"
	OutcomeSkipped   TerminalOutcome = "skipped"
)

// Attempt phases.
const (
	AttemptNone          AttemptPhase = "none"
	AttemptPendingFirst  AttemptPhase = "pending_first_attempt"
	AttemptRunning       AttemptPhase = "running_attempt"
	AttemptInterrupted   AttemptPhase = "attempt_interrupted"
	AttemptPendingRetry  AttemptPhase = "pending_retry_attempt"
	AttemptPendingReplay AttemptPhase = "pending_replay_attempt"
	AttemptTerminal      AttemptPhase = "attempt_terminal"
)

// Public states.
const (
	StateWaiting         PublicState = "waiting"
	StateDelayed         PublicState = "delayed"
	StateRateLimited     PublicState = "rate_limited"
	StateWaitingChildren PublicState = "waiting_children"
	StateActive          PublicState = "active"
	StateSuspended       PublicState = "suspended"
	StateResumable       PublicState = "resumable"
	StateCompleted       PublicState = "completed"
	StateFailed          PublicState = "failed"
	StateCancelled       PublicState = "cancelled"
	StateExpired         PublicState = "expired"
	StateSkipped         PublicState = "skipped"
)

// AttemptState is the state of one attempt's record (spec 01 §4).
type AttemptState string

// Attempt states.
const (
	AttemptCreated              AttemptState = "created"
	AttemptStarted              AttemptState = "started"
	AttemptSuspended            AttemptState = "suspended"
	AttemptEndedSuccess         AttemptState = "ended_success"
	AttemptEndedFailure         AttemptState = "ended_failure"
	AttemptEndedCancelled       AttemptState = "ended_cancelled"
	AttemptInterruptedReclaimed AttemptState = "interrupted_reclaimed"
)

// AttemptType says why an attempt was started.
type AttemptType string

// Attempt types.
const (
	AttemptInitial  AttemptType = "initial"
	AttemptRetry    AttemptType = "retry"
	AttemptReclaim  AttemptType = "reclaim"
	AttemptReplay   AttemptType = "replay"
	AttemptFallback AttemptType = "fallback"
)

// All words of each dimension, in the order of the spec. Stores may keep the
// position instead of the word, so new words go to the end.
var (
	LifecyclePhases   = []LifecyclePhase{PhaseSubmitted, PhaseRunnable, PhaseActive, PhaseSuspended, PhaseTerminal}
	OwnershipStates   = []OwnershipState{OwnershipUnowned, OwnershipLeased, OwnershipLeaseExpired, OwnershipLeaseRevoked}
	EligibilityStates = []EligibilityState{EligibleNow, NotEligibleUntilTime, BlockedByDependencies, BlockedByBudget,
		BlockedByQuota, BlockedByRoute, BlockedByLaneState, BlockedByOperator, EligibilityNotApplicable}
	BlockingReasons = []BlockingReason{BlockingNone, WaitingForWorker, WaitingForRetryBackoff, WaitingForResumeDelay,
		WaitingForDelay, WaitingForSignal, WaitingForApproval, WaitingForCallback, WaitingForToolResult, WaitingForChildren,
		WaitingForBudget, WaitingForQuota, WaitingForCapableWorker, WaitingForLocalityMatch, PausedByOperator, PausedByPolicy,
		PausedByFlowCancel}
	TerminalOutcomes = []TerminalOutcome{OutcomeNone, OutcomeSuccess, OutcomeFailed, OutcomeCancelled, OutcomeExpired, OutcomeSkipped}
	AttemptPhases    = []AttemptPhase{AttemptNone, AttemptPendingFirst, AttemptRunning, AttemptInterrupted, AttemptPendingRetry,
		AttemptPendingReplay, AttemptTerminal}
	PublicStates = []PublicState{StateWaiting, StateDelayed, StateRateLimited, StateWaitingChildren, StateActive, StateSuspended,
		StateResumable, StateCompleted, StateFailed, StateCancelled, StateExpired, StateSkipped}
	AttemptStates = []AttemptState{AttemptCreated, AttemptStarted, AttemptSuspended, AttemptEndedSuccess, AttemptEndedFailure,
		AttemptEndedCancelled, AttemptInterruptedReclaimed}
	AttemptTypes = []AttemptType{AttemptInitial, AttemptRetry, AttemptReclaim, AttemptReplay, AttemptFallback}
)

// Valid reports whether the word is known.
func (p LifecyclePhase) Valid() bool { return slices.Contains(LifecyclePhases, p) }

// Valid reports whether the word is known.
func (o OwnershipState) Valid() bool { return slices.Contains(OwnershipStates, o) }

// Valid reports whether the word is known.
func (e EligibilityState) Valid() bool { return slices.Contains(EligibilityStates, e) }

// Valid reports whether the word is known.
func (b BlockingReason) Valid() bool { return slices.Contains(BlockingReasons, b) }

// Valid reports whether the word is known.
func (o TerminalOutcome) Valid() bool { return slices.Contains(TerminalOutcomes, o) }

// Valid reports whether the word is known.
func (a AttemptPhase) Valid() bool { return slices.Contains(AttemptPhases, a) }

// Valid reports whether the word is known.
func (s PublicState) Valid() bool { return slices.Contains(PublicStates, s) }

// Valid reports whether the word is known.
func (s AttemptState) Valid() bool { return slices.Contains(AttemptStates, s) }

// Valid reports whether the word is known.
func (t AttemptType) Valid() bool { return slices.Contains(AttemptTypes, t) }

// readWord sets one of the known words. The empty text is the unset word, as for
// ids. Errors: invalid_input naming the field, the word and those that are allowed.
func readWord[W ~string](to *W, field string, words []W, text []byte) error {
	word := W(text)
	if word != "" && !slices.Contains(words, word) {
		return unknownWord(field, word, words)
	}
	*to = word
	return nil
}

func unknownWord[W ~string](field string, word W, words []W) error {
	known := make([]string, len(words))
	for i, w := range words {
		known[i] = string(w)
	}
	return InvalidInput(field, "unknown %s %q (one of %s)", field, word, strings.Join(known, ", "))
}

// UnmarshalText reads a known word, or none.
func (p *LifecyclePhase) UnmarshalText(text []byte) error {
	return readWord(p, "lifecycle_phase", LifecyclePhases, text)
}

// UnmarshalText reads a known word, or none.
func (o *OwnershipState) UnmarshalText(text []byte) error {
	return readWord(o, "ownership_state", OwnershipStates, text)
}

// UnmarshalText reads a known word, or none.
func (e *EligibilityState) UnmarshalText(text []byte) error {
	return readWord(e, "eligibility_state", EligibilityStates, text)
}

// UnmarshalText reads a known word, or none.
func (b *BlockingReason) UnmarshalText(text []byte) error {
	return readWord(b, "blocking_reason", BlockingReasons, text)
}

// UnmarshalText reads a known word, or none.
func (o *TerminalOutcome) UnmarshalText(text []byte) error {
	return readWord(o, "terminal_outcome", TerminalOutcomes, text)
}

// UnmarshalText reads a known word, or none.
func (a *AttemptPhase) UnmarshalText(text []byte) error {
	return readWord(a, "attempt_state", AttemptPhases, text)
}

// UnmarshalText reads a known word, or none.
func (s *PublicState) UnmarshalText(text []byte) error {
	return readWord(s, "public_state", PublicStates, text)
}

// UnmarshalText reads a known word, or none.
func (s *AttemptState) UnmarshalText(text []byte) error {
	return readWord(s, "attempt_state", AttemptStates, text)
}

// UnmarshalText reads a known word, or none.
func (t *AttemptType) UnmarshalText(text []byte) error {
	return readWord(t, "attempt_type", AttemptTypes, text)
}

// Terminal reports whether an execution in this state has ended.
func (s PublicState) Terminal() bool {
	return slices.Contains([]PublicState{StateCompleted, StateFailed, StateCancelled, StateExpired, StateSkipped}, s)
}

// ParsePublicState reads a public state. Errors: invalid_input naming the words
// that are allowed.
func ParsePublicState(s string) (PublicState, error) {
	if p := PublicState(s); p.Valid() {
		return p, nil
	}
	return "", unknownWord("state", PublicState(s), PublicStates)
}

// StateVector is the state of an execution in its six dimensions.
type StateVector struct {
	Phase       LifecyclePhase
	Ownership   OwnershipState
	Eligibility EligibilityState
	Blocking    BlockingReason
	Outcome     TerminalOutcome
	Attempt     AttemptPhase
}

// Public derives the public state (spec 01 §4.1).
func (v StateVector) Public() PublicState {
	switch v.Phase {
	case PhaseTerminal:
		switch v.Outcome {
		case OutcomeSuccess:
			return StateCompleted
		case OutcomeCancelled:
			return StateCancelled
		case OutcomeExpired:
			return StateExpired
		case OutcomeSkipped:
			return StateSkipped
		}
		return StateFailed
	case PhaseSuspended:
		return StateSuspended
	case PhaseActive:
		return StateActive
	case PhaseRunnable:
		switch v.Eligibility {
		case NotEligibleUntilTime:
			return StateDelayed
		case BlockedByDependencies:
			return StateWaitingChildren
		case BlockedByBudget, BlockedByQuota:
			return StateRateLimited
		}
	}
	return StateWaiting
}

// Validate checks that every word is known.
func (v StateVector) Validate() error {
	for _, d := range []struct {
		field, word string
		valid       bool
	}{
		{"lifecycle_phase", string(v.Phase), v.Phase.Valid()},
		{"ownership_state", string(v.Ownership), v.Ownership.Valid()},
		{"eligibility_state", string(v.Eligibility), v.Eligibility.Valid()},
		{"blocking_reason", string(v.Blocking), v.Blocking.Valid()},
		{"terminal_outcome", string(v.Outcome), v.Outcome.Valid()},
		{"attempt_state", string(v.Attempt), v.Attempt.Valid()},
	} {
		if !d.valid {
			return InvalidInput(d.field, "unknown word %q", d.word)
		}
	}
	return nil
}

// stateJSON is the JSON form of a state vector without the derived public state.
type stateJSON struct {
	Phase       LifecyclePhase   `json:"lifecycle_phase"`
	Ownership   OwnershipState   `json:"ownership_state"`
	Eligibility EligibilityState `json:"eligibility_state"`
	Blocking    BlockingReason   `json:"blocking_reason"`
	Outcome     TerminalOutcome  `json:"terminal_outcome"`
	Attempt     AttemptPhase     `json:"attempt_state"`
}

// MarshalJSON writes the dimensions and the public state.
func (v StateVector) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		stateJSON
		Public PublicState `json:"public_state"`
	}{stateJSON(v), v.Public()})
}

// UnmarshalJSON reads the dimensions and refuses missing and unknown words; the
// public state is not read.
func (v *StateVector) UnmarshalJSON(data []byte) error {
	var j stateJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("state_vector: %w", err)
	}
	read := StateVector(j)
	if err := read.Validate(); err != nil {
		return err
	}
	*v = read
	return nil
}
