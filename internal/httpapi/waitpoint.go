package httpapi

import (
	ff "github.com/flowfabric/flowfabric"
)

// CreateWaitpoint is the body of POST /v1/executions/{id}/waitpoints.
type CreateWaitpoint struct {
	Fence       ff.Fence       `json:"fence"`
	WaitpointID ff.WaitpointID `json:"waitpoint_id,omitzero" doc:"Chosen by the client, so that a repetition is one; minted by the server when absent"`
	Key         string         `json:"waitpoint_key,omitempty" maxLength:"256"`
	TTLMS       Millis         `json:"expires_in_ms,omitempty" doc:"How long it is kept if no suspension takes it up; a day when absent" minimum:"0"`
}

// CreatedWaitpoint is a waitpoint with its token.
type CreatedWaitpoint struct {
	WaitpointID ff.WaitpointID    `json:"waitpoint_id"`
	Key         string            `json:"waitpoint_key"`
	Token       ff.WaitpointToken `json:"waitpoint_token"`
	ExpiresAt   Time              `json:"expires_at"`
}

// CloseWaitpoint is the body of POST /v1/executions/{id}/waitpoints/{waitpoint_id}/close.
type CloseWaitpoint struct {
	Reason string `json:"reason,omitempty" maxLength:"256"`
}

// ClosedWaitpoint says whether the waitpoint was closed before.
type ClosedWaitpoint struct {
	AlreadyClosed bool `json:"already_closed"`
}

// Waitpoints is the answer of GET /v1/executions/{id}/waitpoints.
type Waitpoints struct {
	Waitpoints []Waitpoint    `json:"waitpoints"`
	NextCursor ff.WaitpointID `json:"next_cursor,omitzero"`
}

// Waitpoint is a waitpoint without its token.
type Waitpoint struct {
	WaitpointID      ff.WaitpointID    `json:"waitpoint_id"`
	Key              string            `json:"waitpoint_key"`
	ExecutionID      ff.ExecutionID    `json:"execution_id"`
	AttemptIndex     int               `json:"attempt_index"`
	SuspensionID     ff.SuspensionID   `json:"suspension_id,omitzero"`
	State            ff.WaitpointState `json:"state"`
	SignalNames      []string          `json:"required_signal_names,omitempty" doc:"Names that it waits for; any when absent"`
	CreatedAt        Time              `json:"created_at"`
	ActivatedAt      Time              `json:"activated_at,omitzero"`
	SatisfiedAt      Time              `json:"satisfied_at,omitzero"`
	ClosedAt         Time              `json:"closed_at,omitzero"`
	ExpiresAt        Time              `json:"expires_at,omitzero"`
	LastSignalAt     Time              `json:"last_signal_at,omitzero"`
	CloseReason      string            `json:"close_reason,omitempty"`
	Signals          int               `json:"signal_count"`
	MatchedSignals   int               `json:"matched_signal_count"`
	TokenKeyID       string            `json:"token_kid,omitempty"`
	TokenFingerprint string            `json:"token_fingerprint,omitempty"`
}

// WaitpointOf makes a waitpoint.
func WaitpointOf(w *ff.Waitpoint) Waitpoint {
	return Waitpoint{w.ID, w.Key, w.ExecutionID, w.AttemptIndex, w.SuspensionID, w.State, w.SignalNames, At(w.CreatedAt), At(w.ActivatedAt),
		At(w.SatisfiedAt), At(w.ClosedAt), At(w.ExpiresAt), At(w.LastSignalAt), w.CloseReason, w.Signals, w.MatchedSignals, w.TokenKeyID, w.TokenFingerprint}
}

// Waitpoint is the waitpoint that it was made of.
func (w *Waitpoint) Waitpoint() ff.Waitpoint {
	return ff.Waitpoint{ID: w.WaitpointID, Key: w.Key, ExecutionID: w.ExecutionID, AttemptIndex: w.AttemptIndex, SuspensionID: w.SuspensionID,
		State: w.State, SignalNames: w.SignalNames, CreatedAt: w.CreatedAt.Time, ActivatedAt: w.ActivatedAt.Time, SatisfiedAt: w.SatisfiedAt.Time,
		ClosedAt: w.ClosedAt.Time, ExpiresAt: w.ExpiresAt.Time, LastSignalAt: w.LastSignalAt.Time, CloseReason: w.CloseReason,
		Signals: w.Signals, MatchedSignals: w.MatchedSignals, TokenKeyID: w.TokenKeyID, TokenFingerprint: w.TokenFingerprint}
}

// PendingWaitpoint is one entry of GET /v1/executions/{id}/pending-waitpoints
// (spec 08 §3.7).
type PendingWaitpoint struct {
	WaitpointID         ff.WaitpointID `json:"waitpoint_id"`
	WaitpointKey        string         `json:"waitpoint_key"`
	State               string         `json:"state"`
	RequiredSignalNames []string       `json:"required_signal_names"`
	CreatedAt           Time           `json:"created_at"`
	ActivatedAt         Time           `json:"activated_at,omitzero"`
	ExpiresAt           Time           `json:"expires_at,omitzero"`
	ExecutionID         ff.ExecutionID `json:"execution_id"`
	TokenKid            string         `json:"token_kid"`
	TokenFingerprint    string         `json:"token_fingerprint"`
}

// PendingWaitpointOf makes an entry.
func PendingWaitpointOf(w *ff.Waitpoint) PendingWaitpoint {
	return PendingWaitpoint{w.ID, w.Key, string(w.State), append([]string{}, w.SignalNames...), At(w.CreatedAt), At(w.ActivatedAt),
		At(w.ExpiresAt), w.ExecutionID, w.TokenKeyID, w.TokenFingerprint}
}

// Token is the answer of GET /v1/executions/{id}/waitpoints/{waitpoint_id}/token
// (spec 08 §3.8).
type Token struct {
	Token ff.WaitpointToken `json:"token"`
}

// RotateSecretArgs is the body of POST /v1/admin/rotate-waitpoint-secret
// (spec 08 §3.26).
type RotateSecretArgs struct {
	NewKid       string `json:"new_kid"`
	NewSecretHex string `json:"new_secret_hex"`
}

// RotateSecretAnswer is the answer of that.
type RotateSecretAnswer struct {
	Rotated int    `json:"rotated"`
	Failed  []int  `json:"failed"`
	NewKid  string `json:"new_kid"`
}

// RotateSecret is the body of POST /v1/admin/waitpoint-secrets/rotate.
type RotateSecret struct {
	KeyID   string  `json:"key_id" doc:"Becomes part of every token" maxLength:"64"`
	Secret  string  `json:"secret" doc:"In hex digits" minLength:"32" maxLength:"512"`
	GraceMS *Millis `json:"grace_ms,omitempty" doc:"How long tokens of the secret before stay valid; the server's setting when absent" minimum:"0"`
}

// RotatedSecret is what a rotation found.
type RotatedSecret struct {
	Rotated   int    `json:"rotated" doc:"Parts of the store that have the new secret now"`
	Failed    []int  `json:"failed,omitempty" doc:"Parts that do not: repeat the call"`
	Previous  string `json:"previous_key_id,omitempty"`
	Unchanged bool   `json:"unchanged"`
	Collected int    `json:"collected" doc:"Old secrets that were deleted"`
}

// SeedSecret is the body of POST /v1/admin/waitpoint-secrets/seed.
type SeedSecret struct {
	KeyID  string `json:"key_id" maxLength:"64"`
	Secret string `json:"secret" doc:"In hex digits" minLength:"32" maxLength:"512"`
}

// SeededSecret says which secret signs.
type SeededSecret struct {
	Seeded bool   `json:"seeded"`
	KeyID  string `json:"key_id"`
	Same   bool   `json:"same" doc:"The secret in force is that of the call"`
}

// Secrets is the answer of GET /v1/admin/waitpoint-secrets.
type Secrets struct {
	Current   string   `json:"current_key_id,omitempty"`
	Verifying []Secret `json:"verifying" doc:"Replaced secrets whose tokens are still valid"`
}

// Secret is the id of a secret.
type Secret struct {
	KeyID     string `json:"key_id"`
	ExpiresAt Time   `json:"expires_at,omitzero"`
}

// SecretsOf makes the answer.
func SecretsOf(s *ff.WaitpointSecrets) Secrets {
	out := Secrets{Current: s.Current, Verifying: make([]Secret, len(s.Verifying))}
	for i, v := range s.Verifying {
		out.Verifying[i] = Secret{v.KeyID, At(v.ExpiresAt)}
	}
	return out
}

// Secrets are the secrets that it was made of.
func (s *Secrets) Secrets() ff.WaitpointSecrets {
	out := ff.WaitpointSecrets{Current: s.Current}
	for _, v := range s.Verifying {
		out.Verifying = append(out.Verifying, ff.WaitpointSecret{KeyID: v.KeyID, ExpiresAt: v.ExpiresAt.Time})
	}
	return out
}
