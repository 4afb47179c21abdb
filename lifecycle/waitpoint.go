package lifecycle

import (
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// Waitpoint is the record of a waitpoint as a store keeps it: with its token.
type Waitpoint struct {
	ff.Waitpoint
	Token ff.WaitpointToken `json:"token"`
}

// issued is the waitpoint for the worker that made it.
func (w *Waitpoint) issued() ff.IssuedWaitpoint {
	return ff.IssuedWaitpoint{ID: w.ID, Key: w.Key, Token: w.Token}
}

// Open reports whether signals may come.
func (w *Waitpoint) Open() bool {
	return w.State == ff.WaitpointPending || w.State == ff.WaitpointActive
}

// newWaitpoint makes a waitpoint with its token.
func newWaitpoint(x *ff.Execution, id ff.WaitpointID, key string, keys *Keyring, now time.Time) (*Waitpoint, error) {
	token, err := keys.Sign(id, key, now)
	if err != nil {
		return nil, err
	}
	return &Waitpoint{Token: token, Waitpoint: ff.Waitpoint{
		ID: id, Key: key, ExecutionID: x.ID, AttemptIndex: x.Attempt.Index, CreatedAt: now,
		TokenKeyID: token.KeyID(), TokenFingerprint: token.Fingerprint(),
	}}, nil
}

// CreateWaitpoint creates a waitpoint ahead of its suspension (spec 04a §8); unlike the
// reference it wants the whole fence of the lease. existing is the waitpoint of that
// id, if there is one: when the same holder repeats the command, that is the answer.
// Errors: those of the lease validation, waitpoint_already_exists,
// hmac_secret_not_initialized.
func CreateWaitpoint(x *ff.Execution, existing *Waitpoint, c *ff.CreateWaitpoint, keys *Keyring, now time.Time) (*Waitpoint, Effects, error) {
	var fx Effects
	if err := checkLease(x, c.Fence, &fx, now); err != nil {
		return nil, fx, err
	}
	if existing != nil {
		if existing.State == ff.WaitpointPending && existing.ExecutionID == x.ID && existing.AttemptIndex == x.Attempt.Index && existing.Key == c.Key {
			return existing, fx, nil
		}
		return nil, fx, ff.Errorf(ff.CodeWaitpointAlreadyExists, "waitpoint %s is %s", existing.ID, existing.State)
	}
	w, err := newWaitpoint(x, c.WaitpointID, c.Key, keys, now)
	if err != nil {
		return nil, fx, err
	}
	w.State, w.ExpiresAt = ff.WaitpointPending, now.Add(c.TTL)
	return w, fx, nil
}

// CloseWaitpoint closes a pending waitpoint (spec 04a §10). already says that it was
// closed before. Errors: waitpoint_not_pending when a suspension is in force with it.
func CloseWaitpoint(w *Waitpoint, reason string, now time.Time) (already bool, err error) {
	switch w.State {
	case ff.WaitpointClosed:
		return true, nil
	case ff.WaitpointPending:
		if reason == "" {
			reason = ff.ClosedProactively
		}
		w.close(reason, now)
		return false, nil
	}
	return false, ff.Errorf(ff.CodeWaitpointNotPending, "waitpoint %s belongs to suspension %s", w.ID, w.SuspensionID)
}

func (w *Waitpoint) close(reason string, now time.Time) {
	w.State, w.ClosedAt, w.CloseReason = ff.WaitpointClosed, now, reason
}

// Settle closes a waitpoint of a suspension that is closed, for the same reason.
func Settle(s *Suspended, w *Waitpoint) {
	if s.Open() || !w.Open() {
		return
	}
	w.SatisfiedAt = s.SatisfiedAt
	w.close(s.CloseReason, s.ClosedAt)
}

// takeUp checks that the holder's attempt may wait at a waitpoint created ahead
// (spec 04a §6.4).
func takeUp(x *ff.Execution, w *Waitpoint, c *ff.ResumeCondition, now time.Time) error {
	switch {
	case w == nil:
		return ff.NewError(ff.CodeWaitpointNotFound, "")
	case w.State != ff.WaitpointPending:
		return ff.Errorf(ff.CodeWaitpointNotPending, "waitpoint %s is %s", w.ID, w.State)
	case w.ExecutionID != x.ID || w.AttemptIndex != x.Attempt.Index:
		return ff.Errorf(ff.CodeInvalidWaitpointForExecution, "waitpoint %s was created by attempt %d of %s", w.ID, w.AttemptIndex, w.ExecutionID)
	case !w.ExpiresAt.IsZero() && !w.ExpiresAt.After(now):
		return ff.Errorf(ff.CodePendingWaitpointExpired, "waitpoint %s expired at %s", w.ID, w.ExpiresAt.Format(time.RFC3339Nano))
	}
	for _, key := range c.WaitpointKeys() {
		if key != w.Key {
			return ff.Errorf(ff.CodeInvalidWaitpointKey, "the condition waits at %.80q, the waitpoint has the key %.80q", key, w.Key)
		}
	}
	return nil
}
