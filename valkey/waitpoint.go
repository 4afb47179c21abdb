package valkey

import (
	"context"
	"strconv"

	ff "github.com/flowfabric/flowfabric"
)

// CreateWaitpoint creates a waitpoint ahead of its suspension.
func (s *Store) CreateWaitpoint(ctx context.Context, c ff.CreateWaitpoint) (ff.CreateWaitpointResult, error) {
	if err := c.Validate(); err != nil {
		return ff.CreateWaitpointResult{}, err
	}
	call := holderCall("ffx_create_waitpoint", c.LeaseRef, c.WaitpointID.String(), c.Key, millis(c.TTL))
	r, err := s.signed(ctx, &call)
	if err != nil {
		return ff.CreateWaitpointResult{}, err
	}
	f := &fields{hash: "waitpoint " + c.WaitpointID.String(), m: map[string]string{"expires_at": r.text(2)}}
	w := ff.IssuedWaitpoint{ID: c.WaitpointID, Key: r.text(0), Token: ff.WaitpointToken(r.text(1))}
	return ff.CreateWaitpointResult{IssuedWaitpoint: w, ExpiresAt: f.instant("expires_at")}, f.err
}

// CloseWaitpoint closes a pending waitpoint.
func (s *Store) CloseWaitpoint(ctx context.Context, c ff.CloseWaitpoint) (ff.CloseWaitpointResult, error) {
	if err := c.Validate(); err != nil {
		return ff.CloseWaitpointResult{}, err
	}
	call := call{function: "ffx_close_waitpoint", keys: []string{keysOf(c.ID).core()},
		args: []string{c.ID.String(), c.WaitpointID.String(), orElse(c.Reason, ff.ClosedProactively)}}
	r, err := s.answer(ctx, &call)
	return ff.CloseWaitpointResult{AlreadyClosed: r.text(0) == "1"}, err
}

// WaitpointToken reads the token of a waitpoint.
func (s *Store) WaitpointToken(ctx context.Context, ref ff.WaitpointRef) (ff.WaitpointToken, error) {
	if err := ref.Validate(); err != nil {
		return "", err
	}
	if err := s.open(); err != nil {
		return "", err
	}
	b := s.client.B()
	results := s.client.DoMulti(ctx, b.Exists().Key(keysOf(ref.ID).core()).Build(),
		b.Hmget().Key(tagOf(ref.ID.Partition()).waitpoint(ref.WaitpointID)).Field("execution_id", "waitpoint_token", "waitpoint_key", "created_at").Build())
	n, err := results[0].AsInt64()
	if err != nil {
		return "", s.lift(ctx, err)
	}
	if n == 0 {
		return "", ff.NewError(ff.CodeExecutionNotFound, ref.ID.String())
	}
	v, err := results[1].ToArray()
	if err != nil {
		return "", damage(ref.ID, s.lift(ctx, err))
	}
	if r := reply(v); r.text(0) == ref.ID.String() && r.text(1) != "" {
		return s.reissue(ctx, ref, ff.WaitpointToken(r.text(1)), r.text(2), r.text(3))
	}
	return "", noWaitpoint(ref)
}

// reissue is the token that a waitpoint was given, or another when the secret of that
// counts no longer.
func (s *Store) reissue(ctx context.Context, ref ff.WaitpointRef, issued ff.WaitpointToken, key, created string) (ff.WaitpointToken, error) {
	keys, err := s.keyring(ctx, s.client.DoMulti, ref.ID.Partition())
	if err != nil || keys.Current == issued.KeyID() {
		return issued, err
	}
	now, err := s.Now(ctx)
	if err != nil {
		return "", err
	}
	f := &fields{hash: "waitpoint " + ref.WaitpointID.String(), m: map[string]string{"created_at": created}}
	at := f.instant("created_at")
	if f.err != nil {
		return "", f.err
	}
	return keys.Reissue(issued, ref.WaitpointID, key, at, now)
}

func noWaitpoint(ref ff.WaitpointRef) error {
	return ff.Errorf(ff.CodeWaitpointNotFound, "execution %s has no waitpoint %s", ref.ID, ref.WaitpointID)
}

// ListWaitpoints lists the waitpoints of an execution, ordered by id.
func (s *Store) ListWaitpoints(ctx context.Context, c ff.ListWaitpoints) (out ff.ListWaitpointsResult, err error) {
	if err := c.Validate(); err != nil {
		return out, err
	}
	after, closed := "", ""
	if !c.After.IsZero() {
		after = c.After.String()
	}
	if c.Closed {
		closed = "1"
	}
	call := call{function: "ffx_waitpoints", keys: []string{keysOf(c.ID).core()},
		args: []string{c.ID.String(), after, closed, strconv.Itoa(ff.PageLimit(c.Limit))}}
	r, err := s.answer(ctx, &call)
	if err != nil {
		return out, err
	}
	for i := 1; i < len(r); i++ {
		row, err := r[i].ToArray()
		if err != nil || len(row) != 2 {
			return ff.ListWaitpointsResult{}, unexpected(call.function)
		}
		hash, err := pairsOf(&row[0])
		if err != nil {
			return ff.ListWaitpointsResult{}, damage(c.ID, s.lift(ctx, err))
		}
		names, err := textsOf(&row[1])
		if err != nil {
			return ff.ListWaitpointsResult{}, damage(c.ID, s.lift(ctx, err))
		}
		w, err := waitpointOf(c.ID, hash, names)
		if err != nil {
			return ff.ListWaitpointsResult{}, err
		}
		out.Waitpoints = append(out.Waitpoints, w)
	}
	if r.text(0) == "1" {
		out.Next = out.Waitpoints[len(out.Waitpoints)-1].ID
	}
	return out, nil
}

// waitpointOf makes the record of a waitpoint, without its token. Errors: corruption.
func waitpointOf(id ff.ExecutionID, hash map[string]string, names []string) (ff.Waitpoint, error) {
	f := &fields{hash: "waitpoint " + hash["waitpoint_id"] + " of execution " + id.String(), m: hash}
	if hash["state"] == "expired" { // others know it as another word for closed
		hash["state"] = string(ff.WaitpointClosed)
	}
	token := ff.WaitpointToken(hash["waitpoint_token"])
	w := ff.Waitpoint{
		ID: requiredWaitpoint(f), Key: hash["waitpoint_key"], ExecutionID: id, AttemptIndex: f.count("attempt_index"),
		SuspensionID: parsed(f, "suspension_id", ff.ParseSuspensionID), State: word(f, "state", ff.WaitpointStates), SignalNames: names,
		CreatedAt: f.instant("created_at"), ActivatedAt: f.instant("activated_at"), SatisfiedAt: f.instant("satisfied_at"),
		ClosedAt: f.instant("closed_at"), ExpiresAt: f.instant("expires_at"), LastSignalAt: f.instant("last_signal_at"),
		CloseReason: hash["close_reason"], Signals: f.count("signal_count"), MatchedSignals: f.count("matched_signal_count"),
		TokenKeyID: token.KeyID(), TokenFingerprint: token.Fingerprint(),
	}
	if len(names) == 0 {
		w.SignalNames = nil
	}
	return w, f.err
}

func requiredWaitpoint(f *fields) ff.WaitpointID {
	id := parsed(f, "waitpoint_id", ff.ParseWaitpointID)
	if id.IsZero() {
		f.fail("waitpoint_id", "there is no waitpoint_id")
	}
	return id
}
