package flowfabric

import (
	"context"
	"strings"
	"time"
)

// SignalEffect says what a signal did (spec 04b §3.2).
type SignalEffect string

// The effects. Whatever the effect, an accepted signal is kept.
const (
	// EffectResumed met the condition: the execution goes on.
	EffectResumed SignalEffect = "resume_condition_satisfied"
	// EffectAppended met a part of the condition.
	EffectAppended SignalEffect = "appended_to_waitpoint"
	// EffectRepeated met a part that was met before.
	EffectRepeated SignalEffect = "appended_to_waitpoint_duplicate"
	// EffectNone is not what the condition waits for.
	EffectNone SignalEffect = "no_op"
	// EffectNotInCondition came to a waitpoint that the condition does not refer to.
	EffectNotInCondition SignalEffect = "signal_ignored_not_in_condition"
	// EffectNotMatched has another name than the condition wants.
	EffectNotMatched SignalEffect = "signal_ignored_matcher_failed"
	// EffectBuffered waits for the suspension that the waitpoint was created for.
	EffectBuffered SignalEffect = "buffered_for_pending_waitpoint"
)

// SignalEffects lists all effects.
var SignalEffects = []SignalEffect{EffectResumed, EffectAppended, EffectRepeated, EffectNone, EffectNotInCondition, EffectNotMatched, EffectBuffered}

// Matched reports whether the signal counts as one that the condition waited for.
func (e SignalEffect) Matched() bool {
	return e == EffectResumed || e == EffectAppended || e == EffectRepeated
}

// Limits of signals.
const (
	// MaxSignalPayloadBytes bounds the payload of a signal.
	MaxSignalPayloadBytes = 1 << 20
	// MaxSignalSourceBytes bounds the category, the source type and the source identity.
	MaxSignalSourceBytes = 256
	// SignalDedupWindow is how long the idempotency key of a signal counts.
	SignalDedupWindow = 24 * time.Hour
	// MaxSignalDedupWindow bounds it.
	MaxSignalDedupWindow = 365 * 24 * time.Hour
	// MaxSignalBytes bounds the payloads of one page of signals.
	MaxSignalBytes = 8 << 20
)

// DeliverSignal sends a signal to a waitpoint. A waitpoint that is still pending keeps
// it for its suspension.
type DeliverSignal struct {
	ID          ExecutionID
	WaitpointID WaitpointID
	// SignalID is minted when zero. Repeating the command with the same id is a duplicate,
	// so that a lost answer costs nothing.
	SignalID SignalID
	// Name is what conditions look at.
	Name string
	// Category, SourceType and SourceIdentity say what it is and who sent it; a count of
	// distinct sources counts pairs of the last two.
	Category       string
	SourceType     string
	SourceIdentity string
	Payload        []byte
	// PayloadEncoding is json when empty.
	PayloadEncoding string
	CorrelationID   string
	// IdempotencyKey makes a repetition within the window a duplicate: nothing is kept of
	// it. Its scope is the waitpoint.
	IdempotencyKey string
	// DedupWindow is SignalDedupWindow when 0.
	DedupWindow time.Duration
	// Token is that of the waitpoint.
	Token WaitpointToken
	// TargetScope is free text; empty means waitpoint.
	TargetScope string
	// CreatedAt is the sender's clock; the store's when zero.
	CreatedAt time.Time
	// ResumeDelay holds the execution back if this signal resumes it; the one of the
	// suspension counts when 0.
	ResumeDelay time.Duration
	// MaxSignals lowers DefaultMaxSignals when positive.
	MaxSignals int
}

// Validate checks the command and fills in what may be left out. Errors:
// invalid_input, payload_too_large. The token is for the store to judge.
func (c *DeliverSignal) Validate() error {
	if err := (WaitpointRef{c.ID, c.WaitpointID}).Validate(); err != nil {
		return err
	}
	c.fill()
	if c.Name == "" {
		return InvalidInput("signal_name", "must not be empty")
	}
	if err := checkSignalName("signal_name", c.Name); err != nil {
		return err
	}
	if n := len(c.Payload); n > MaxSignalPayloadBytes {
		return tooLarge("payload", n, MaxSignalPayloadBytes)
	}
	for _, t := range []struct {
		field, text string
		limit       int
	}{{"signal_category", c.Category, MaxSignalSourceBytes}, {"source_type", c.SourceType, MaxSignalSourceBytes},
		{"source_identity", c.SourceIdentity, MaxSignalSourceBytes}, {"payload_encoding", c.PayloadEncoding, MaxEncodingBytes},
		{"correlation_id", c.CorrelationID, MaxCorrelationIDBytes}, {"idempotency_key", c.IdempotencyKey, MaxIdempotencyKeyBytes},
		{"target_scope", c.TargetScope, MaxEncodingBytes}, {"waitpoint_token", c.Token.Reveal(), MaxIdempotencyKeyBytes}} {
		if err := checkText(t.field, t.text, t.limit); err != nil {
			return err
		}
	}
	return c.validateNumbers()
}

func (c *DeliverSignal) fill() {
	if c.SignalID.IsZero() {
		c.SignalID = NewSignalID()
	}
	if c.PayloadEncoding == "" {
		c.PayloadEncoding = "json"
	}
	if c.TargetScope == "" {
		c.TargetScope = "waitpoint"
	}
	if c.DedupWindow == 0 {
		c.DedupWindow = SignalDedupWindow
	}
	if c.MaxSignals == 0 {
		c.MaxSignals = DefaultMaxSignals
	}
}

func (c *DeliverSignal) validateNumbers() error {
	if c.DedupWindow < 0 || c.DedupWindow > MaxSignalDedupWindow {
		return InvalidInput("dedup_ttl_ms", "must be 0 to %s (got %s)", MaxSignalDedupWindow, c.DedupWindow)
	}
	if c.ResumeDelay < 0 || c.ResumeDelay > MaxDelay {
		return InvalidInput("resume_delay_ms", "must be 0 to %s (got %s)", MaxDelay, c.ResumeDelay)
	}
	if c.MaxSignals < 0 || c.MaxSignals > DefaultMaxSignals {
		return InvalidInput("max_signals_per_execution", "must be 0 to %d (got %d)", DefaultMaxSignals, c.MaxSignals)
	}
	return checkInstant("created_at", c.CreatedAt)
}

// DeliverSignalResult is what became of a signal.
type DeliverSignalResult struct {
	// SignalID is the id of the signal, or of the first one with its id or idempotency
	// key.
	SignalID SignalID
	// Duplicate says that nothing was kept: the signal was delivered before.
	Duplicate bool
	// Effect is empty for a duplicate.
	Effect SignalEffect
}

// Signal is a signal that was accepted (spec 01 §6.8).
type Signal struct {
	ID              SignalID     `json:"signal_id"`
	ExecutionID     ExecutionID  `json:"execution_id"`
	WaitpointID     WaitpointID  `json:"waitpoint_id"`
	Name            string       `json:"signal_name"`
	Category        string       `json:"signal_category,omitempty"`
	SourceType      string       `json:"source_type,omitempty"`
	SourceIdentity  string       `json:"source_identity,omitempty"`
	Payload         []byte       `json:"payload,omitempty"`
	PayloadEncoding string       `json:"payload_encoding,omitempty"`
	CorrelationID   string       `json:"correlation_id,omitempty"`
	IdempotencyKey  string       `json:"idempotency_key,omitempty"`
	TargetScope     string       `json:"target_scope,omitempty"`
	CreatedAt       time.Time    `json:"created_at"`
	AcceptedAt      time.Time    `json:"accepted_at"`
	Effect          SignalEffect `json:"observed_effect"`
}

// ListSignals asks for the signals of an execution in the order in which they were
// accepted.
type ListSignals struct {
	ID ExecutionID
	// WaitpointID, when set, keeps the signals of one waitpoint.
	WaitpointID WaitpointID
	// Resumed keeps the signals that met the condition of the latest suspension.
	Resumed bool
	Cursor  string
	Limit   int
}

// Validate checks the query.
func (c *ListSignals) Validate() error {
	if err := checkID(c.ID); err != nil {
		return err
	}
	return checkLimit(c.Limit)
}

// ListSignalsResult is a page; Next is empty on the last one. A page also ends when its
// payloads have reached MaxSignalBytes.
type ListSignalsResult struct {
	Signals []Signal
	Next    string
}

// DeliverApproval is an operator's decision at a waitpoint. It needs no token: whoever
// may read tokens may decide.
type DeliverApproval struct {
	ID          ExecutionID
	WaitpointID WaitpointID
	// Decision is the name of the signal: by convention approved or rejected.
	Decision string
	// By is who decides; it becomes the source identity. It must be given: decisions of
	// nobody cannot be told apart.
	By string
	// Payload is given to the worker.
	Payload []byte
	// IdempotencySuffix makes a repetition a duplicate, per decision; empty means by.
	IdempotencySuffix string
	DedupWindow       time.Duration
}

// ApprovalStore is what DeliverApprovalSignal needs of a store.
type ApprovalStore interface {
	WaitpointToken(context.Context, WaitpointRef) (WaitpointToken, error)
	DeliverSignal(context.Context, DeliverSignal) (DeliverSignalResult, error)
}

// DeliverApprovalSignal reads the token and delivers the decision (spec 04b §8.2).
// Errors: invalid_input without By, waitpoint_not_found, and those of DeliverSignal.
func DeliverApprovalSignal(ctx context.Context, store ApprovalStore, c DeliverApproval) (DeliverSignalResult, error) {
	ref := WaitpointRef{c.ID, c.WaitpointID}
	if err := ref.Validate(); err != nil {
		return DeliverSignalResult{}, err
	}
	if strings.TrimSpace(c.By) == "" {
		return DeliverSignalResult{}, InvalidInput("by", "must say who decides")
	}
	token, err := store.WaitpointToken(ctx, ref)
	if err != nil {
		return DeliverSignalResult{}, err
	}
	if c.IdempotencySuffix == "" {
		c.IdempotencySuffix = c.By
	}
	return store.DeliverSignal(ctx, DeliverSignal{
		ID: c.ID, WaitpointID: c.WaitpointID, Name: c.Decision, Category: "approval", SourceType: "operator",
		SourceIdentity: c.By, Payload: c.Payload, TargetScope: "execution", Token: token, DedupWindow: c.DedupWindow,
		IdempotencyKey: strings.Join([]string{"approval", c.Decision, c.IdempotencySuffix}, ":"),
	})
}
