package flowfabric

import (
	"context"
	"slices"
	"time"
)

// SuspensionReason says why an execution suspends itself. It decides the blocking
// reason that people see (spec 01 §7.8).
type SuspensionReason string

// The reasons.
const (
	SuspendedForSignal         SuspensionReason = "waiting_for_signal"
	SuspendedForApproval       SuspensionReason = "waiting_for_approval"
	SuspendedForCallback       SuspensionReason = "waiting_for_callback"
	SuspendedForToolResult     SuspensionReason = "waiting_for_tool_result"
	SuspendedForOperatorReview SuspensionReason = "waiting_for_operator_review"
	SuspendedByPolicy          SuspensionReason = "paused_by_policy"
	SuspendedByBudget          SuspensionReason = "paused_by_budget"
	SuspendedAtStep            SuspensionReason = "step_boundary"
	SuspendedManually          SuspensionReason = "manual_pause"
)

// SuspensionReasons lists all reasons.
var SuspensionReasons = []SuspensionReason{SuspendedForSignal, SuspendedForApproval, SuspendedForCallback, SuspendedForToolResult,
	SuspendedForOperatorReview, SuspendedByPolicy, SuspendedByBudget, SuspendedAtStep, SuspendedManually}

// TimeoutBehavior says what the timeout of a suspension does.
type TimeoutBehavior string

// The behaviours (spec 04a §9).
const (
	// TimeoutFail ends the execution as failed, whatever its retry policy says.
	TimeoutFail TimeoutBehavior = "fail"
	// TimeoutCancel ends it as cancelled.
	TimeoutCancel TimeoutBehavior = "cancel"
	// TimeoutExpire ends it as expired.
	TimeoutExpire TimeoutBehavior = "expire"
	// TimeoutResume lets the attempt go on; its suspension says that it timed out.
	TimeoutResume TimeoutBehavior = "auto_resume_with_timeout_signal"
	// TimeoutEscalate leaves it suspended, for an operator to decide.
	TimeoutEscalate TimeoutBehavior = "escalate"
)

// TimeoutBehaviors lists all behaviours.
var TimeoutBehaviors = []TimeoutBehavior{TimeoutFail, TimeoutCancel, TimeoutExpire, TimeoutResume, TimeoutEscalate}

// SuspensionRequester says who asked for a suspension.
type SuspensionRequester string

// The requesters.
const (
	RequestedByWorker        SuspensionRequester = "worker"
	RequestedByOperator      SuspensionRequester = "operator"
	RequestedByPolicy        SuspensionRequester = "policy"
	RequestedByTimeoutPolicy SuspensionRequester = "system_timeout_policy"
)

var suspensionRequesters = []SuspensionRequester{RequestedByWorker, RequestedByOperator, RequestedByPolicy, RequestedByTimeoutPolicy}

// Reasons for which a suspension was closed (spec 01 §6.6). A suspension that ended
// with an expired execution has "expired:" and the reason of that.
const (
	ClosedResumed        = "resumed"
	ClosedCancelled      = "cancelled"
	ClosedTimedOutResume = "timed_out_auto_resume"
	ClosedTimedOutCancel = "timed_out_cancel"
	ClosedTimedOutExpire = "timed_out_expire"
	ClosedTimedOutFail   = "timed_out_fail"
	ClosedExpiredPrefix  = "expired:"
	ClosedNeverCommitted = "never_committed"
	ClosedProactively    = "proactive_close"
)

// MaxContinuationBytes bounds the text that a worker leaves for whoever resumes.
const MaxContinuationBytes = 64 << 10

// MaxSuspendWindow bounds how long a suspend idempotency key counts (spec 11 §5.4).
const MaxSuspendWindow = 7 * 24 * time.Hour

// WaitpointBinding is a waitpoint of a suspension: a new one, or one that was created
// ahead.
type WaitpointBinding struct {
	// ID is minted when zero.
	ID WaitpointID
	// Key is "wpk:" and the id when empty; that of a pending waitpoint is its own.
	Key string
	// Pending says that the waitpoint exists already.
	Pending bool
}

// SuspendExecution ends the lease of an attempt until a condition is met, the timeout
// has come or an operator resumes it. The same attempt goes on then, under a new lease.
type SuspendExecution struct {
	LeaseRef
	// SuspensionID is minted when zero. Repeating the command with the same id answers
	// what the first answered, while the execution is still suspended by it.
	SuspensionID SuspensionID
	// Waitpoints are where signals may come, the first is the primary one. None means one
	// new waitpoint. Only a condition of several keys takes several.
	Waitpoints []WaitpointBinding
	Condition  ResumeCondition
	// ResumeDelay holds the execution back after it was resumed by a signal.
	ResumeDelay time.Duration
	// Reason is SuspendedForSignal when empty.
	Reason SuspensionReason
	// RequestedBy is RequestedByWorker when empty.
	RequestedBy SuspensionRequester
	// Continuation is kept for whoever takes up the attempt again.
	Continuation string
	// TimeoutAt, or TimeoutAfter by the store's clock, ends the suspension; neither means
	// that it may last for ever.
	TimeoutAt    time.Time
	TimeoutAfter time.Duration
	// OnTimeout is TimeoutFail when empty.
	OnTimeout TimeoutBehavior
	// IdempotencyKey makes every repetition within its window answer what the first
	// suspension with it answered, also after that was resumed: use a new key for every
	// suspension. The window is a minute longer than the timeout, at most
	// MaxSuspendWindow.
	IdempotencyKey string
}

// Validate checks the command and fills in what may be left out. Errors:
// invalid_input, fence_required, partial_fence_triple.
func (c *SuspendExecution) Validate() error {
	if err := c.LeaseRef.Validate(); err != nil {
		return err
	}
	c.fill()
	if err := c.validateWords(); err != nil {
		return err
	}
	if err := c.validateTimeout(); err != nil {
		return err
	}
	if err := c.validateWaitpoints(); err != nil {
		return err
	}
	// A condition at a waitpoint created ahead is bound when the waitpoint is known.
	condition := c.Condition
	if c.Waitpoints[0].Pending {
		condition = condition.Bind("pending")
	}
	if err := condition.validate(); err != nil {
		return err
	}
	if c.Condition.Kind == ConditionTimeout && c.TimeoutAt.IsZero() && c.TimeoutAfter == 0 {
		return InvalidInput("timeout_at", "must be set: timeout_only_without_deadline")
	}
	if c.ResumeDelay < 0 || c.ResumeDelay > MaxDelay {
		return InvalidInput("resume_delay_ms", "must be 0 to %s (got %s)", MaxDelay, c.ResumeDelay)
	}
	if err := checkText("idempotency_key", c.IdempotencyKey, MaxIdempotencyKeyBytes); err != nil {
		return err
	}
	return checkText("continuation_metadata_pointer", c.Continuation, MaxContinuationBytes)
}

func (c *SuspendExecution) fill() {
	if c.SuspensionID.IsZero() {
		c.SuspensionID = NewSuspensionID()
	}
	if c.Reason == "" {
		c.Reason = SuspendedForSignal
	}
	if c.RequestedBy == "" {
		c.RequestedBy = RequestedByWorker
	}
	if c.OnTimeout == "" {
		c.OnTimeout = TimeoutFail
	}
	c.Waitpoints = slices.Clone(c.Waitpoints)
	if len(c.Waitpoints) == 0 {
		c.Waitpoints = []WaitpointBinding{{}}
	}
	keys := c.Condition.WaitpointKeys()
	for i := range c.Waitpoints {
		w := &c.Waitpoints[i]
		if w.Pending {
			continue
		}
		if w.ID.IsZero() {
			w.ID = NewWaitpointID()
		}
		if w.Key == "" && len(c.Waitpoints) == 1 && len(keys) > 0 {
			w.Key = keys[0]
		}
		if w.Key == "" {
			w.Key = DefaultWaitpointKey(w.ID)
		}
	}
	if w := c.Waitpoints[0]; len(c.Waitpoints) == 1 && !w.Pending {
		c.Condition = c.Condition.Bind(w.Key)
	}
}

func (c *SuspendExecution) validateWords() error {
	switch {
	case !slices.Contains(SuspensionReasons, c.Reason):
		return InvalidInput("reason_code", "must be one of %v (got %.60q)", SuspensionReasons, string(c.Reason))
	case !slices.Contains(suspensionRequesters, c.RequestedBy):
		return InvalidInput("requested_by", "must be one of %v (got %.60q)", suspensionRequesters, string(c.RequestedBy))
	case !slices.Contains(TimeoutBehaviors, c.OnTimeout):
		return InvalidInput("timeout_behavior", "must be one of %v (got %.60q)", TimeoutBehaviors, string(c.OnTimeout))
	}
	return nil
}

func (c *SuspendExecution) validateTimeout() error {
	if c.TimeoutAfter != 0 && !c.TimeoutAt.IsZero() {
		return InvalidInput("timeout_after", "give either timeout_after or timeout_at, not both")
	}
	if c.TimeoutAfter < 0 || c.TimeoutAfter > MaxDelay {
		return InvalidInput("timeout_after", "must be 0 to %s (got %s)", MaxDelay, c.TimeoutAfter)
	}
	return checkInstant("timeout_at", c.TimeoutAt)
}

// validateWaitpoints checks that the waitpoints are those that the condition refers to
// (spec 04b §9.1).
func (c *SuspendExecution) validateWaitpoints() error {
	if n := len(c.Waitpoints); n > MaxWaitpoints {
		return InvalidInput("waitpoints", "must hold at most %d items (got %d)", MaxWaitpoints, n)
	}
	var bound []string
	for i, w := range c.Waitpoints {
		switch {
		case w.Pending && len(c.Waitpoints) > 1:
			return AtItem("waitpoints", i, InvalidInput("pending", "a waitpoint created ahead must be the only one: additional_waitpoint_binding_must_be_fresh"))
		case w.Pending && w.ID.IsZero():
			return AtItem("waitpoints", i, InvalidInput("waitpoint_id", "must not be empty"))
		case w.Pending:
			continue
		}
		if err := checkWaitpointKey(w.Key); err != nil {
			return AtItem("waitpoints", i, err)
		}
		if slices.Contains(bound, w.Key) {
			return AtItem("waitpoints", i, InvalidInput("waitpoint_key", "is used twice (got %.80q)", w.Key))
		}
		bound = append(bound, w.Key)
	}
	if c.Waitpoints[0].Pending {
		return nil
	}
	keys := c.Condition.WaitpointKeys()
	for _, key := range keys {
		if !slices.Contains(bound, key) {
			return InvalidInput("resume_condition", "refers to a waitpoint that the suspension does not have: referenced_waitpoint_key_missing_binding: %.80q", key)
		}
	}
	for i, key := range bound {
		if i > 0 && !slices.Contains(keys, key) {
			return InvalidInput("waitpoints", "extra_binding_not_referenced_by_condition: %.80q", key)
		}
	}
	return nil
}

// IdempotencyWindow is how long the key of the command counts at now.
func (c *SuspendExecution) IdempotencyWindow(now time.Time) time.Duration {
	at := c.Timeout(now)
	if at.IsZero() {
		return MaxSuspendWindow
	}
	return min(max(at.Sub(now), 0)+time.Minute, MaxSuspendWindow)
}

// Timeout is when the suspension times out; zero when never.
func (c *SuspendExecution) Timeout(now time.Time) time.Time {
	if c.TimeoutAfter > 0 {
		return now.Add(c.TimeoutAfter)
	}
	return c.TimeoutAt
}

// SuspendExecutionResult says whether the execution is suspended now.
type SuspendExecutionResult struct {
	SuspensionID SuspensionID
	// Waitpoints are in the order of the command, with their tokens.
	Waitpoints []IssuedWaitpoint
	// Satisfied says that signals that came ahead have met the condition: the execution
	// is not suspended, the lease goes on.
	Satisfied bool
	// TimeoutAt is when the suspension times out.
	TimeoutAt time.Time
}

// ResumeExecution ends a suspension without a signal: the operator's decision.
type ResumeExecution struct {
	ID ExecutionID
	// Delay holds the execution back.
	Delay time.Duration
}

// Validate checks the command.
func (c *ResumeExecution) Validate() error {
	if err := checkID(c.ID); err != nil {
		return err
	}
	if c.Delay < 0 || c.Delay > MaxDelay {
		return InvalidInput("resume_delay_ms", "must be 0 to %s (got %s)", MaxDelay, c.Delay)
	}
	return nil
}

// ResumeExecutionResult is the state after: waiting, or delayed.
type ResumeExecutionResult struct{ State PublicState }

// Suspension is the latest suspension of an execution (spec 01 §6.6), in force or
// closed.
type Suspension struct {
	ID           SuspensionID        `json:"suspension_id"`
	ExecutionID  ExecutionID         `json:"execution_id"`
	AttemptIndex int                 `json:"attempt_index"`
	Reason       SuspensionReason    `json:"reason_code"`
	RequestedBy  SuspensionRequester `json:"requested_by"`
	Condition    ResumeCondition     `json:"resume_condition"`
	ResumeDelay  time.Duration       `json:"resume_delay,omitempty"`
	Continuation string              `json:"continuation_metadata_pointer,omitempty"`
	// Waitpoints are the ids, the primary one first.
	Waitpoints   []WaitpointID   `json:"waitpoints"`
	CreatedAt    time.Time       `json:"created_at"`
	TimeoutAt    time.Time       `json:"timeout_at,omitzero"`
	OnTimeout    TimeoutBehavior `json:"timeout_behavior,omitempty"`
	LastSignalAt time.Time       `json:"last_signal_at,omitzero"`
	SatisfiedAt  time.Time       `json:"satisfied_at,omitzero"`
	ClosedAt     time.Time       `json:"closed_at,omitzero"`
	// CloseReason is one of the Closed constants.
	CloseReason string `json:"close_reason,omitempty"`
	// ResumedBy are the signals that met the condition, in the order in which they came;
	// none when it was an operator or the timeout.
	ResumedBy []SignalID `json:"all_satisfier_signals,omitempty"`
}

// Open reports whether the suspension is in force.
func (s *Suspension) Open() bool { return !s.ID.IsZero() && s.ClosedAt.IsZero() }

// TimedOut reports whether the timeout ended the suspension and let the attempt go on.
func (s *Suspension) TimedOut() bool { return s.CloseReason == ClosedTimedOutResume }

// Suspensions is waiting for people and for outside systems.
type Suspensions interface {
	// SuspendExecution suspends. Errors: those of Leases, already_suspended; with a
	// pending waitpoint waitpoint_not_found, waitpoint_not_pending,
	// pending_waitpoint_expired, invalid_waitpoint_for_execution;
	// hmac_secret_not_initialized when the store has no secret to sign tokens with.
	SuspendExecution(context.Context, SuspendExecution) (SuspendExecutionResult, error)
	// ResumeExecution resumes. Errors: execution_not_found, execution_not_suspended.
	ResumeExecution(context.Context, ResumeExecution) (ResumeExecutionResult, error)
	// Suspension reads the latest suspension; its ID is zero when there was none.
	// Errors: execution_not_found.
	Suspension(context.Context, ExecutionID) (Suspension, error)
	// CreateWaitpoint creates one ahead of its suspension. Errors: those of Leases,
	// waitpoint_already_exists, hmac_secret_not_initialized.
	CreateWaitpoint(context.Context, CreateWaitpoint) (CreateWaitpointResult, error)
	// CloseWaitpoint closes a pending one. Errors: waitpoint_not_found,
	// waitpoint_not_pending when a suspension is in force with it.
	CloseWaitpoint(context.Context, CloseWaitpoint) (CloseWaitpointResult, error)
	// ListWaitpoints lists the waitpoints of an execution. Errors: execution_not_found.
	ListWaitpoints(context.Context, ListWaitpoints) (ListWaitpointsResult, error)
	// WaitpointToken reads the token, for operators. It is another than the one that was
	// issued when the secret of that counts no longer. Errors: waitpoint_not_found.
	WaitpointToken(context.Context, WaitpointRef) (WaitpointToken, error)
	// DeliverSignal sends a signal to a waitpoint. Errors: execution_not_found;
	// missing_token, invalid_token, token_expired (also invalid_token for a waitpoint
	// that there is not); target_not_signalable, waitpoint_closed,
	// signal_limit_exceeded, hmac_secret_not_initialized.
	DeliverSignal(context.Context, DeliverSignal) (DeliverSignalResult, error)
	// ListSignals lists the signals of an execution. Errors: execution_not_found.
	ListSignals(context.Context, ListSignals) (ListSignalsResult, error)
	// SeedWaitpointSecret installs the first secret; a store that has one keeps it.
	SeedWaitpointSecret(context.Context, SeedWaitpointSecret) (SeedWaitpointSecretResult, error)
	// RotateWaitpointSecret installs the secret that signs from now on. Errors:
	// rotation_conflict when the key id is known with another secret.
	RotateWaitpointSecret(context.Context, RotateWaitpointSecret) (RotateWaitpointSecretResult, error)
	// WaitpointSecrets lists the ids of the secrets in force.
	WaitpointSecrets(context.Context) (WaitpointSecrets, error)
}
