package flowfabric

import (
	"context"
	"log/slog"
	"strings"
	"time"
)

// A waitpoint is where signals for one suspension arrive. It is created with its
// suspension, or ahead of it, when somebody must be able to answer before the worker
// has got as far as waiting: the signals that come meanwhile are kept for it.

// WaitpointState is the state of a waitpoint.
type WaitpointState string

// The states (spec 04a §13).
const (
	// WaitpointPending was created ahead of its suspension.
	WaitpointPending WaitpointState = "pending"
	// WaitpointActive belongs to a suspension in force.
	WaitpointActive WaitpointState = "active"
	WaitpointClosed WaitpointState = "closed"
)

// WaitpointStates lists all states.
var WaitpointStates = []WaitpointState{WaitpointPending, WaitpointActive, WaitpointClosed}

// Limits of waitpoints.
const (
	// DefaultWaitpointTTL is how long a pending waitpoint is kept when nothing else is
	// said.
	DefaultWaitpointTTL = 24 * time.Hour
	// MaxSecretKeyIDBytes bounds the id of a secret.
	MaxSecretKeyIDBytes = 64
	// MaxSecretBytes bounds a secret, before it is written in hex.
	MaxSecretBytes = 256
	// MinSecretBytes is what a secret should have at least. Shorter ones are in use in
	// deployments of the reference: stores take them, servers warn (quirk 09 Q30).
	MinSecretBytes = 16
	// DefaultSecretGrace is how long tokens of a replaced secret stay valid.
	DefaultSecretGrace = 24 * time.Hour
	// MaxSecretGrace bounds it.
	MaxSecretGrace = 10 * 365 * 24 * time.Hour
)

// WaitpointToken lets whoever has it send signals to one waitpoint: it is a secret.
// Printing and logging show which token it is without giving it away; Reveal gives it.
type WaitpointToken string

// Reveal is the token as it is sent.
func (t WaitpointToken) Reveal() string { return string(t) }

// KeyID is the id of the secret that signed the token, empty for what is no token.
func (t WaitpointToken) KeyID() string {
	kid, _, ok := strings.Cut(string(t), ":")
	if !ok {
		return ""
	}
	return kid
}

// Fingerprint is the beginning of the signature: enough to tell tokens apart, too
// little to use one.
func (t WaitpointToken) Fingerprint() string {
	_, digest, ok := strings.Cut(string(t), ":")
	if !ok {
		return ""
	}
	return digest[:min(16, len(digest))]
}

// String hides the token.
func (t WaitpointToken) String() string {
	if t == "" {
		return ""
	}
	return t.KeyID() + ":" + t.Fingerprint() + "…"
}

// GoString hides the token.
func (t WaitpointToken) GoString() string { return t.String() }

// LogValue hides the token.
func (t WaitpointToken) LogValue() slog.Value { return slog.StringValue(t.String()) }

// IssuedWaitpoint is a waitpoint with its token, for the worker that made it.
type IssuedWaitpoint struct {
	ID    WaitpointID    `json:"waitpoint_id"`
	Key   string         `json:"waitpoint_key"`
	Token WaitpointToken `json:"waitpoint_token"`
}

// Waitpoint is the record of a waitpoint (spec 01 §6.7). The token is not part of it.
type Waitpoint struct {
	ID           WaitpointID `json:"waitpoint_id"`
	Key          string      `json:"waitpoint_key"`
	ExecutionID  ExecutionID `json:"execution_id"`
	AttemptIndex int         `json:"attempt_index"`
	// SuspensionID is zero while the waitpoint is pending.
	SuspensionID SuspensionID   `json:"suspension_id,omitzero"`
	State        WaitpointState `json:"state"`
	// SignalNames are the names it waits for; none means any (or, while it is pending,
	// that nothing is decided yet).
	SignalNames    []string  `json:"required_signal_names,omitempty"`
	CreatedAt      time.Time `json:"created_at"`
	ActivatedAt    time.Time `json:"activated_at,omitzero"`
	SatisfiedAt    time.Time `json:"satisfied_at,omitzero"`
	ClosedAt       time.Time `json:"closed_at,omitzero"`
	ExpiresAt      time.Time `json:"expires_at,omitzero"`
	LastSignalAt   time.Time `json:"last_signal_at,omitzero"`
	CloseReason    string    `json:"close_reason,omitempty"`
	Signals        int       `json:"signal_count"`
	MatchedSignals int       `json:"matched_signal_count"`
	// TokenKeyID and TokenFingerprint tell which token the waitpoint has.
	TokenKeyID       string `json:"token_kid,omitempty"`
	TokenFingerprint string `json:"token_fingerprint,omitempty"`
}

// CreateWaitpoint creates a waitpoint ahead of its suspension.
type CreateWaitpoint struct {
	LeaseRef
	// WaitpointID is minted when zero. An id is never used twice.
	WaitpointID WaitpointID
	// Key is "wpk:" and the id when empty.
	Key string
	// TTL is how long the waitpoint is kept if no suspension takes it up; 0 means
	// DefaultWaitpointTTL.
	TTL time.Duration
}

// Validate checks the command and fills in what may be left out. Errors:
// invalid_input, fence_required, partial_fence_triple.
func (c *CreateWaitpoint) Validate() error {
	if err := c.LeaseRef.Validate(); err != nil {
		return err
	}
	if c.TTL < 0 || c.TTL > MaxDelay {
		return InvalidInput("expires_in", "must be 0 to %s (got %s)", MaxDelay, c.TTL)
	}
	if c.TTL == 0 {
		c.TTL = DefaultWaitpointTTL
	}
	if c.WaitpointID.IsZero() {
		c.WaitpointID = NewWaitpointID()
	}
	if c.Key == "" {
		c.Key = DefaultWaitpointKey(c.WaitpointID)
	}
	return checkWaitpointKey(c.Key)
}

// DefaultWaitpointKey is the key of a waitpoint that was given none.
func DefaultWaitpointKey(id WaitpointID) string { return "wpk:" + id.String() }

// checkWaitpointKey refuses what the records of the store could not hold: they join
// keys with tabs.
func checkWaitpointKey(key string) error {
	if strings.ContainsAny(key, "\t\n\r") {
		return InvalidInput("waitpoint_key", "must not contain tabs or line breaks (got %.80q)", key)
	}
	return checkText("waitpoint_key", key, MaxWaitpointKeyBytes)
}

// CreateWaitpointResult is the waitpoint with its token.
type CreateWaitpointResult struct {
	IssuedWaitpoint
	ExpiresAt time.Time
}

// CloseWaitpoint closes a pending waitpoint that nobody will wait at.
type CloseWaitpoint struct {
	ID          ExecutionID
	WaitpointID WaitpointID
	// Reason is kept; empty means proactive_close.
	Reason string
}

// Validate checks the command.
func (c *CloseWaitpoint) Validate() error {
	if err := (WaitpointRef{c.ID, c.WaitpointID}).Validate(); err != nil {
		return err
	}
	return checkText("reason", c.Reason, MaxCategoryBytes)
}

// CloseWaitpointResult says whether the waitpoint was closed before.
type CloseWaitpointResult struct{ AlreadyClosed bool }

// WaitpointRef names a waitpoint.
type WaitpointRef struct {
	ID          ExecutionID
	WaitpointID WaitpointID
}

// Validate checks that both ids are there.
func (r WaitpointRef) Validate() error {
	if err := checkID(r.ID); err != nil {
		return err
	}
	if r.WaitpointID.IsZero() {
		return InvalidInput("waitpoint_id", "must not be empty")
	}
	return nil
}

// ListWaitpoints asks for the waitpoints of an execution, ordered by id.
type ListWaitpoints struct {
	ID ExecutionID
	// After is the last id of the page before.
	After WaitpointID
	// Closed lists closed waitpoints as well.
	Closed bool
	Limit  int
}

// Validate checks the query.
func (c *ListWaitpoints) Validate() error {
	if err := checkID(c.ID); err != nil {
		return err
	}
	return checkLimit(c.Limit)
}

// ListWaitpointsResult is a page; Next is zero on the last one.
type ListWaitpointsResult struct {
	Waitpoints []Waitpoint
	Next       WaitpointID
}

// RotateWaitpointSecret makes another secret the one that signs new tokens. Tokens of
// the one before stay valid for the grace period.
type RotateWaitpointSecret struct {
	// KeyID names the new secret; it becomes part of every token.
	KeyID string
	// Secret is the new secret in hex digits.
	Secret string
	Grace  time.Duration
}

// Validate checks the command. Errors: invalid_kid, invalid_secret_hex,
// invalid_grace_ms.
func (c *RotateWaitpointSecret) Validate() error {
	if c.KeyID == "" || len(c.KeyID) > MaxSecretKeyIDBytes || !isPlain(c.KeyID) {
		return Errorf(CodeInvalidKid, "must be 1 to %d printable ASCII characters without ':' (got %.80q)", MaxSecretKeyIDBytes, c.KeyID)
	}
	if n := len(c.Secret); n < 2 || n > 2*MaxSecretBytes || n%2 != 0 || strings.Trim(c.Secret, "0123456789abcdefABCDEF") != "" {
		return Errorf(CodeInvalidSecretHex, "must be an even number of hex digits, 2 to %d (got %d characters)", 2*MaxSecretBytes, n)
	}
	if c.Grace < 0 || c.Grace > MaxSecretGrace {
		return Errorf(CodeInvalidGraceMS, "must be 0 to %s (got %s)", MaxSecretGrace, c.Grace)
	}
	return nil
}

// WeakSecret reports whether a secret in hex digits is shorter than it should be.
func WeakSecret(hex string) bool { return len(hex) < 2*MinSecretBytes }

func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || s[i] == ':' {
			return false
		}
	}
	return true
}

// RotateWaitpointSecretResult says what the rotation found.
type RotateWaitpointSecretResult struct {
	// Rotated counts the parts of the store that have the new secret now, Failed lists
	// those that could not be reached or know the key id with another secret: repeat.
	Rotated int
	Failed  []int
	// Previous is the id of the secret before; empty when there was none.
	Previous string
	// Unchanged says that the store had this secret already.
	Unchanged bool
	// Collected counts old secrets whose grace was over and that were deleted.
	Collected int
}

// SeedWaitpointSecret installs the first secret of a store. A store that has one keeps
// it.
type SeedWaitpointSecret struct {
	KeyID string
	// Secret is in hex digits.
	Secret string
}

// Validate checks the command. Errors: invalid_kid, invalid_secret_hex.
func (c *SeedWaitpointSecret) Validate() error {
	return (&RotateWaitpointSecret{KeyID: c.KeyID, Secret: c.Secret}).Validate()
}

// SeedWaitpointSecretResult says which secret signs.
type SeedWaitpointSecretResult struct {
	Seeded bool
	// KeyID is the id of the secret in force, Same says that it is the one of the command.
	KeyID string
	Same  bool
}

// WaitpointSecret is a secret that tokens are checked with, without the secret itself.
type WaitpointSecret struct {
	KeyID string
	// ExpiresAt is when its grace ends; zero for the current one.
	ExpiresAt time.Time
}

// WaitpointSecrets are the secrets in force.
type WaitpointSecrets struct {
	// Current is the id of the secret that signs; empty when there is none.
	Current   string
	Verifying []WaitpointSecret
}

// WaitpointLister is what ChooseWaitpoint needs of a store.
type WaitpointLister interface {
	ListWaitpoints(context.Context, ListWaitpoints) (ListWaitpointsResult, error)
}

// shownWaitpoints bounds how many waitpoints an error names.
const shownWaitpoints = 8

// ChooseWaitpoint finds the open waitpoint that a person means by its id, by its key, or
// by nothing when there is only one. Errors: execution_not_found; waitpoint_not_found for
// an unknown key; target_not_signalable when none is open; invalid_input, which names
// them, when several are.
func ChooseWaitpoint(ctx context.Context, store WaitpointLister, id ExecutionID, which string) (WaitpointRef, error) {
	if at, err := ParseWaitpointID(which); err == nil {
		return WaitpointRef{id, at}, nil
	}
	q := ListWaitpoints{ID: id, Limit: MaxPageLimit}
	var open []Waitpoint
	for more := true; more; more = !q.After.IsZero() {
		page, err := store.ListWaitpoints(ctx, q)
		if err != nil {
			return WaitpointRef{}, err
		}
		for _, w := range page.Waitpoints {
			if which == "" || w.Key == which {
				open = append(open, w)
			}
		}
		q.After = page.Next
	}
	switch {
	case len(open) == 1:
		return WaitpointRef{id, open[0].ID}, nil
	case len(open) > 1:
		return WaitpointRef{}, InvalidInput("waitpoint", "%d waitpoints of the execution are open, name one by its id: %s", len(open), nameWaitpoints(open))
	case which != "":
		return WaitpointRef{}, Errorf(CodeWaitpointNotFound, "the execution has no open waitpoint with the key %.80q", which)
	}
	return WaitpointRef{}, NewError(CodeTargetNotSignalable, "the execution has no open waitpoint: it waits for nothing that a signal could bring")
}

func nameWaitpoints(open []Waitpoint) string {
	var names []string
	for _, w := range open[:min(len(open), shownWaitpoints)] {
		names = append(names, w.ID.String()+" ("+w.Key+")")
	}
	if len(open) > shownWaitpoints {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
}
