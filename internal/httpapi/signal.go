package httpapi

import (
	"encoding/json"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// DeliverSignalArgs is the body of POST /v1/executions/{id}/signal (spec 08 §3.9). Now
// and SignalMaxlen are read and not used: the clock is the store's, and no signal is
// dropped.
type DeliverSignalArgs struct {
	ExecutionID     string         `json:"execution_id"`
	WaitpointID     ff.WaitpointID `json:"waitpoint_id"`
	SignalID        ff.SignalID    `json:"signal_id"`
	Name            string         `json:"signal_name"`
	Category        string         `json:"signal_category"`
	SourceType      string         `json:"source_type"`
	SourceIdentity  string         `json:"source_identity"`
	TargetScope     string         `json:"target_scope"`
	Token           string         `json:"waitpoint_token"`
	Payload         Bytes          `json:"payload"`
	PayloadEncoding *string        `json:"payload_encoding"`
	CorrelationID   *string        `json:"correlation_id"`
	IdempotencyKey  *string        `json:"idempotency_key"`
	CreatedAt       *int64         `json:"created_at"`
	DedupTTLMS      *uint64        `json:"dedup_ttl_ms"`
	ResumeDelayMS   *uint64        `json:"resume_delay_ms"`
	MaxSignals      *uint64        `json:"max_signals_per_execution"`
	SignalMaxlen    *uint64        `json:"signal_maxlen"`
	Now             *int64         `json:"now"`
}

// DeliverSignalRequired are the fields that the reference requires.
var DeliverSignalRequired = []string{"execution_id", "waitpoint_id", "signal_id", "signal_name", "signal_category", "source_type",
	"source_identity", "target_scope", "waitpoint_token", "now"}

// Command is the command for an execution.
func (a *DeliverSignalArgs) Command(id ff.ExecutionID) (c ff.DeliverSignal, err error) {
	c = ff.DeliverSignal{ID: id, WaitpointID: a.WaitpointID, SignalID: a.SignalID, Name: a.Name, Category: a.Category, SourceType: a.SourceType,
		SourceIdentity: a.SourceIdentity, TargetScope: a.TargetScope, Token: ff.WaitpointToken(a.Token), Payload: a.Payload,
		PayloadEncoding: deref(a.PayloadEncoding), CorrelationID: deref(a.CorrelationID), IdempotencyKey: deref(a.IdempotencyKey),
		// The limit of this store is the lower one.
		MaxSignals: int(min(deref(a.MaxSignals), ff.DefaultMaxSignals))}
	if c.CreatedAt, err = instant("created_at", a.CreatedAt); err != nil {
		return c, err
	}
	if c.DedupWindow, err = span("dedup_ttl_ms", a.DedupTTLMS, ff.MaxSignalDedupWindow); err != nil {
		return c, err
	}
	c.ResumeDelay, err = span("resume_delay_ms", a.ResumeDelayMS, ff.MaxDelay)
	return c, err
}

// span is a duration of at most limit.
func span(field string, ms *uint64, limit time.Duration) (time.Duration, error) {
	n := deref(ms)
	if n > uint64(limit.Milliseconds()) {
		return 0, ff.InvalidInput(field, "must be 0 to %d (got %d)", limit.Milliseconds(), n)
	}
	return time.Duration(n) * time.Millisecond, nil
}

// DeliverSignalAnswer is {"Accepted":…} or {"Duplicate":…}.
type DeliverSignalAnswer struct {
	Accepted  *AcceptedSignal  `json:"Accepted,omitempty"`
	Duplicate *DuplicateSignal `json:"Duplicate,omitempty"`
}

// AcceptedSignal is a signal that was kept.
type AcceptedSignal struct {
	SignalID ff.SignalID     `json:"signal_id"`
	Effect   ff.SignalEffect `json:"effect"`
}

// DuplicateSignal names the signal that was there before.
type DuplicateSignal struct {
	SignalID ff.SignalID `json:"existing_signal_id"`
}

// DeliverSignalAnswerOf makes the answer.
func DeliverSignalAnswerOf(r ff.DeliverSignalResult) DeliverSignalAnswer {
	if r.Duplicate {
		return DeliverSignalAnswer{Duplicate: &DuplicateSignal{r.SignalID}}
	}
	return DeliverSignalAnswer{Accepted: &AcceptedSignal{r.SignalID, r.Effect}}
}

// DeliverSignal is the body of
// POST /v1/executions/{id}/waitpoints/{waitpoint_id}/signals.
type DeliverSignal struct {
	SignalID       ff.SignalID       `json:"signal_id,omitzero" doc:"Chosen by the client, so that a repetition is one; minted by the server when absent"`
	Name           string            `json:"signal_name" minLength:"1" maxLength:"256"`
	Token          ff.WaitpointToken `json:"waitpoint_token,omitempty" doc:"That of the waitpoint" maxLength:"512"`
	Category       string            `json:"signal_category,omitempty" maxLength:"256"`
	SourceType     string            `json:"source_type,omitempty" maxLength:"256"`
	SourceIdentity string            `json:"source_identity,omitempty" maxLength:"256"`
	// Payload is any JSON value, PayloadBase64 raw bytes; at most one is given.
	Payload         json.RawMessage `json:"payload,omitempty" doc:"Any JSON value, for the worker"`
	PayloadBase64   []byte          `json:"payload_base64,omitempty" doc:"Raw bytes in base64, instead of payload"`
	PayloadEncoding string          `json:"payload_encoding,omitempty" maxLength:"64"`
	CorrelationID   string          `json:"correlation_id,omitempty" maxLength:"256"`
	IdempotencyKey  string          `json:"idempotency_key,omitempty" doc:"A repetition with the same key within the window is not kept" maxLength:"512"`
	DedupWindowMS   Millis          `json:"dedup_window_ms,omitempty" doc:"How long the key counts; a day when absent" minimum:"0" maximum:"31536000000"`
	TargetScope     string          `json:"target_scope,omitempty" maxLength:"64"`
	CreatedAt       Time            `json:"created_at,omitzero" doc:"By the clock of the sender"`
	ResumeDelayMS   Millis          `json:"resume_delay_ms,omitempty" doc:"Hold the execution back for so long if this signal resumes it" minimum:"0"`
	MaxSignals      int             `json:"max_signals_per_execution,omitempty" minimum:"0" maximum:"10000"`
}

// DeliverSignalOf makes the body.
func DeliverSignalOf(c *ff.DeliverSignal) DeliverSignal {
	return DeliverSignal{SignalID: c.SignalID, Name: c.Name, Token: c.Token, Category: c.Category, SourceType: c.SourceType, SourceIdentity: c.SourceIdentity,
		PayloadBase64: c.Payload, PayloadEncoding: c.PayloadEncoding, CorrelationID: c.CorrelationID, IdempotencyKey: c.IdempotencyKey,
		DedupWindowMS: MillisOf(c.DedupWindow), TargetScope: c.TargetScope, CreatedAt: At(c.CreatedAt), ResumeDelayMS: MillisOf(c.ResumeDelay), MaxSignals: c.MaxSignals}
}

// Command is the command for a waitpoint.
func (b *DeliverSignal) Command(at ff.WaitpointRef) (c ff.DeliverSignal, err error) {
	c = ff.DeliverSignal{ID: at.ID, WaitpointID: at.WaitpointID, SignalID: b.SignalID, Name: b.Name, Token: b.Token, Category: b.Category,
		SourceType: b.SourceType, SourceIdentity: b.SourceIdentity, PayloadEncoding: b.PayloadEncoding, CorrelationID: b.CorrelationID,
		IdempotencyKey: b.IdempotencyKey, TargetScope: b.TargetScope, CreatedAt: b.CreatedAt.Time, MaxSignals: b.MaxSignals}
	if c.Payload, err = oneOf("payload", b.Payload, b.PayloadBase64); err != nil {
		return c, err
	}
	if c.DedupWindow, err = b.DedupWindowMS.Duration("dedup_window_ms"); err != nil {
		return c, err
	}
	c.ResumeDelay, err = b.ResumeDelayMS.Duration("resume_delay_ms")
	return c, err
}

// oneOf is the JSON value or the bytes of a field.
func oneOf(field string, value json.RawMessage, raw []byte) ([]byte, error) {
	if value != nil && raw != nil {
		return nil, ff.InvalidInput(field, "give either %s or %[1]s_base64, not both", field)
	}
	if value != nil {
		return value, nil
	}
	return raw, nil
}

// Delivered is what became of a signal.
type Delivered struct {
	SignalID  ff.SignalID     `json:"signal_id"`
	Duplicate bool            `json:"duplicate" doc:"The signal was delivered before; nothing was kept"`
	Effect    ff.SignalEffect `json:"effect,omitempty"`
}

// DeliveredOf makes the answer.
func DeliveredOf(r ff.DeliverSignalResult) Delivered {
	return Delivered{r.SignalID, r.Duplicate, r.Effect}
}

// Result is the result that it was made of.
func (d Delivered) Result() ff.DeliverSignalResult {
	return ff.DeliverSignalResult{SignalID: d.SignalID, Duplicate: d.Duplicate, Effect: d.Effect}
}

// Decide is the body of POST /v1/executions/{id}/decide: an operator's decision.
type Decide struct {
	Decision          string          `json:"decision" doc:"Name of the signal: approved and rejected by convention" minLength:"1" maxLength:"256"`
	Waitpoint         string          `json:"waitpoint,omitempty" doc:"Id or key of the waitpoint; the only open one when absent" maxLength:"256"`
	By                string          `json:"by" doc:"Who decides" minLength:"1" maxLength:"256"`
	Payload           json.RawMessage `json:"payload,omitempty" doc:"Any JSON value, for the worker"`
	PayloadBase64     []byte          `json:"payload_base64,omitempty" doc:"Raw bytes in base64, instead of payload"`
	IdempotencySuffix string          `json:"idempotency_suffix,omitempty" doc:"The same decision is taken once per suffix; by when absent" maxLength:"256"`
	DedupWindowMS     Millis          `json:"dedup_window_ms,omitempty" doc:"How long the suffix counts; a day when absent" minimum:"0" maximum:"31536000000"`
}

// Command is the command for a waitpoint.
func (b *Decide) Command(at ff.WaitpointRef) (c ff.DeliverApproval, err error) {
	c = ff.DeliverApproval{ID: at.ID, WaitpointID: at.WaitpointID, Decision: b.Decision, By: b.By, IdempotencySuffix: b.IdempotencySuffix}
	if c.Payload, err = oneOf("payload", b.Payload, b.PayloadBase64); err != nil {
		return c, err
	}
	c.DedupWindow, err = b.DedupWindowMS.Duration("dedup_window_ms")
	return c, err
}

// Decided is what became of a decision.
type Decided struct {
	WaitpointID ff.WaitpointID `json:"waitpoint_id"`
	Delivered
}

// SignalPage is the answer of GET /v1/executions/{id}/signals.
type SignalPage struct {
	Signals    []Signal `json:"signals"`
	NextCursor string   `json:"next_cursor,omitempty"`
}

// Signal is a signal that was accepted.
type Signal struct {
	SignalID        ff.SignalID     `json:"signal_id"`
	ExecutionID     ff.ExecutionID  `json:"execution_id"`
	WaitpointID     ff.WaitpointID  `json:"waitpoint_id"`
	Name            string          `json:"signal_name"`
	Category        string          `json:"signal_category,omitempty"`
	SourceType      string          `json:"source_type,omitempty"`
	SourceIdentity  string          `json:"source_identity,omitempty"`
	Payload         []byte          `json:"payload_base64,omitempty"`
	PayloadEncoding string          `json:"payload_encoding,omitempty"`
	CorrelationID   string          `json:"correlation_id,omitempty"`
	IdempotencyKey  string          `json:"idempotency_key,omitempty"`
	TargetScope     string          `json:"target_scope,omitempty"`
	CreatedAt       Time            `json:"created_at"`
	AcceptedAt      Time            `json:"accepted_at"`
	Effect          ff.SignalEffect `json:"observed_effect"`
}

// SignalOf makes a signal.
func SignalOf(s *ff.Signal) Signal {
	return Signal{s.ID, s.ExecutionID, s.WaitpointID, s.Name, s.Category, s.SourceType, s.SourceIdentity, s.Payload, s.PayloadEncoding,
		s.CorrelationID, s.IdempotencyKey, s.TargetScope, At(s.CreatedAt), At(s.AcceptedAt), s.Effect}
}

// Signal is the signal that it was made of.
func (s *Signal) Signal() ff.Signal {
	return ff.Signal{ID: s.SignalID, ExecutionID: s.ExecutionID, WaitpointID: s.WaitpointID, Name: s.Name, Category: s.Category,
		SourceType: s.SourceType, SourceIdentity: s.SourceIdentity, Payload: s.Payload, PayloadEncoding: s.PayloadEncoding,
		CorrelationID: s.CorrelationID, IdempotencyKey: s.IdempotencyKey, TargetScope: s.TargetScope, CreatedAt: s.CreatedAt.Time,
		AcceptedAt: s.AcceptedAt.Time, Effect: s.Effect}
}
