package valkey

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// Suspensions through the compatible functions: the rule decides, the function makes the
// transition, and what the rule says beyond the function is written over its records, in
// the same transaction.

// sender runs commands: plainly, or on a connection that watches.
type sender func(context.Context, ...valkey.Completed) []valkey.ValkeyResult

// readSuspended reads the latest suspension; nil when there was none.
func (s *compatible) readSuspended(ctx context.Context, send sender, id ff.ExecutionID) (*lifecycle.Suspended, error) {
	k, b := keysOf(id), s.client.B()
	results := send(ctx, b.Hgetall().Key(k.suspension()).Build(), b.Smembers().Key(k.suspension()+":satisfied_set").Build(),
		b.Smembers().Key(k.suspension()+":satisfied_set:signals").Build())
	hash, err := results[0].AsStrMap()
	if err != nil {
		return nil, damage(id, s.lift(ctx, err))
	}
	tokens, err := results[1].AsStrSlice()
	if err != nil {
		return nil, damage(id, s.lift(ctx, err))
	}
	fed, err := results[2].AsStrSlice()
	if err != nil {
		return nil, damage(id, s.lift(ctx, err))
	}
	resumed, err := s.satisfiers(ctx, send, id, hash, fed)
	if err != nil {
		return nil, err
	}
	x, err := suspensionOf(id, hash, resumed)
	if err != nil || x.ID.IsZero() {
		return nil, err
	}
	out := &lifecycle.Suspended{Suspension: x}
	for _, t := range tokens {
		if !strings.HasPrefix(t, "node:") { // of inner nodes, which follow from the others
			out.Tokens = append(out.Tokens, t)
		}
	}
	return out, nil
}

// satisfiers are the signals that have met the condition: those that were noted, then
// those that a function has fed, in their order. One that a plain condition has taken
// stands with the condition.
func (s *compatible) satisfiers(ctx context.Context, send sender, id ff.ExecutionID, hash map[string]string, fed []string) (list []string, err error) {
	if text := hash["all_satisfier_signals"]; text != "" && text != "{}" {
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			return nil, ff.Errorf(ff.CodeCorruption, "suspension of execution %s: all_satisfier_signals: %w", id, err)
		}
	}
	fed = slices.DeleteFunc(fed, func(signal string) bool { return slices.Contains(list, signal) })
	if len(list)+len(fed) == 0 && hash["suspension_id"] != "" {
		return s.takenSignals(ctx, send, id, hash)
	}
	if len(fed) < 2 {
		return append(list, fed...), nil
	}
	answer := send(ctx, s.client.B().Zmscore().Key(keysOf(id).signals()).Member(fed...).Build())[0]
	scores, err := answer.AsFloatSlice()
	if err != nil {
		return nil, damage(id, s.lift(ctx, err))
	}
	order := map[string]float64{}
	for i, signal := range fed {
		order[signal] = scores[i]
	}
	slices.SortFunc(fed, func(a, b string) int { return cmp.Or(cmp.Compare(order[a], order[b]), strings.Compare(a, b)) })
	return append(list, fed...), nil
}

// takenSignals are those that the conditions of the waitpoints have taken.
func (s *compatible) takenSignals(ctx context.Context, send sender, id ff.ExecutionID, hash map[string]string) (list []string, err error) {
	f := &fields{hash: "suspension of execution " + id.String(), m: hash}
	var commands []valkey.Completed
	for _, w := range suspensionWaitpoints(f) {
		commands = append(commands, s.client.B().Hgetall().Key(tagOf(id.Partition()).waitpointCondition(w)).Build())
	}
	if f.err != nil {
		return nil, f.err
	}
	for _, r := range send(ctx, commands...) {
		condition, err := r.AsStrMap()
		if err != nil {
			return nil, damage(id, s.lift(ctx, err))
		}
		for i := 0; ; i++ {
			signal, ok := condition["matcher:"+strconv.Itoa(i)+":signal_id"]
			if !ok {
				break
			}
			if signal != "" {
				list = append(list, signal)
			}
		}
	}
	return list, nil
}

// keyring reads the secrets of a partition.
func (s *Store) keyring(ctx context.Context, send sender, p uint16) (*lifecycle.Keyring, error) {
	hash, err := send(ctx, s.client.B().Hgetall().Key(tagOf(p).secrets()).Build())[0].AsStrMap()
	if err != nil {
		return nil, s.lift(ctx, err)
	}
	f := &fields{hash: tagOf(p).secrets(), m: hash}
	ring := &lifecycle.Keyring{Current: hash["current_kid"], Secrets: map[string]lifecycle.Secret{}}
	for name, v := range hash {
		if kid, ok := strings.CutPrefix(name, "secret:"); ok {
			ring.Secrets[kid] = lifecycle.Secret{Hex: v, ExpiresAt: f.instant("expires_at:" + kid)}
		}
	}
	return ring, f.err
}

// signing runs what may need a secret, and once more when the store had none.
func (s *compatible) signing(ctx context.Context, do func() error) error {
	err := do()
	if ff.CodeOf(err) != ff.CodeHMACSecretNotInitialized {
		return err
	}
	if err := s.createSecret(ctx); err != nil {
		return err
	}
	return do()
}

// SuspendExecution suspends.
func (s *compatible) SuspendExecution(ctx context.Context, c ff.SuspendExecution) (r ff.SuspendExecutionResult, err error) {
	if err := c.Validate(); err != nil {
		return r, err
	}
	err = s.signing(ctx, func() error {
		r, err = s.suspend(ctx, &c)
		return err
	})
	return r, s.noteLapse(ctx, c.ID, err)
}

func (s *compatible) suspend(ctx context.Context, c *ff.SuspendExecution) (ff.SuspendExecutionResult, error) {
	var out lifecycle.SuspendOutput
	var known *ff.SuspendExecutionResult
	keys := []string{keysOf(c.ID).core(), keysOf(c.ID).suspension()}
	for _, w := range c.Waitpoints {
		keys = append(keys, tagOf(c.ID.Partition()).waitpoint(w.ID))
	}
	a, err := s.commit(ctx, keys, func(ctx context.Context, conn valkey.DedicatedClient) (deed, error) {
		before, now, err := s.describeWatched(ctx, conn, c.ID)
		if err != nil {
			return deed{}, err
		}
		if known, err = s.earlierSuspend(ctx, conn.DoMulti, c); err != nil || known != nil {
			return deed{}, err
		}
		in, err := s.suspendInput(ctx, conn.DoMulti, c)
		if err != nil {
			return deed{}, err
		}
		after := before.x
		if out, _, err = lifecycle.Suspend(&after, in, c, now); err != nil || out.Repeated {
			return deed{}, err
		}
		return s.suspending(&before, &out, c, now)
	})
	if err != nil || known != nil {
		return deref(known), err
	}
	if a != nil {
		// The function has signed the waitpoints, by its own clock.
		issued, err := compatibleSuspendResult(a)
		if err != nil {
			return ff.SuspendExecutionResult{}, err
		}
		out.Result.Waitpoints = issued.Waitpoints
		if !out.Result.TimeoutAt.IsZero() {
			s.follow(ctx, s.dueOf(ff.SweepSuspensionTimeout, out.Result.TimeoutAt))
		}
	}
	return out.Result, nil
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// compatibleSuspendResult reads what ff_suspend_execution answers, without its status.
func compatibleSuspendResult(a reply) (ff.SuspendExecutionResult, error) {
	texts := []string{"OK"}
	for i := range a {
		texts = append(texts, a.text(i))
	}
	return suspendOutcome(texts)
}

// suspendOutcome reads the outcome of a suspension: status, suspension, primary
// waitpoint with its key and token, how many others there are, and the same of each
// (spec 01 §6.6).
func suspendOutcome(v []string) (r ff.SuspendExecutionResult, err error) {
	if len(v) < 5 {
		return r, ff.NewError(ff.CodeCorruption, "the outcome of a suspension is not whole")
	}
	r.Satisfied = v[0] == "ALREADY_SATISFIED"
	if r.SuspensionID, err = ff.ParseSuspensionID(v[1]); err != nil {
		return r, err
	}
	triples := slices.Clone(v[2:5])
	if len(v) > 6 {
		triples = append(triples, v[6:]...)
	}
	for i := 0; i+2 < len(triples); i += 3 {
		id, err := ff.ParseWaitpointID(triples[i])
		if err != nil {
			return r, err
		}
		r.Waitpoints = append(r.Waitpoints, ff.IssuedWaitpoint{ID: id, Key: triples[i+1], Token: ff.WaitpointToken(triples[i+2])})
	}
	return r, nil
}

// outcomeText is what suspendOutcome reads.
func outcomeText(r *ff.SuspendExecutionResult) string {
	status := "OK"
	if r.Satisfied {
		status = "ALREADY_SATISFIED"
	}
	v := []string{status, r.SuspensionID.String()}
	for i, w := range r.Waitpoints {
		v = append(v, w.ID.String(), w.Key, w.Token.Reveal())
		if i == 0 {
			v = append(v, strconv.Itoa(len(r.Waitpoints)-1))
		}
	}
	return strings.Join(v, "\t")
}

// earlierSuspend finds what the idempotency key of a command has answered before.
func (s *compatible) earlierSuspend(ctx context.Context, send sender, c *ff.SuspendExecution) (*ff.SuspendExecutionResult, error) {
	if c.IdempotencyKey == "" {
		return nil, nil
	}
	hash, err := send(ctx, s.client.B().Hgetall().Key(keysOf(c.ID).suspendDedup(c.IdempotencyKey)).Build())[0].AsStrMap()
	if err != nil || hash["outcome"] == "" {
		return nil, damage(c.ID, s.lift(ctx, err))
	}
	f := &fields{hash: "outcome of a suspension", m: hash}
	r, err := suspendOutcome(strings.Split(hash["outcome"], "\t"))
	r.TimeoutAt = f.instant("timeout_at")
	return &r, cmp.Or(err, f.err)
}

func (s *compatible) suspendInput(ctx context.Context, send sender, c *ff.SuspendExecution) (in *lifecycle.SuspendInput, err error) {
	in = &lifecycle.SuspendInput{}
	if in.Keys, err = s.keyring(ctx, send, c.ID.Partition()); err != nil {
		return nil, err
	}
	if in.Last, err = s.readSuspended(ctx, send, c.ID); err != nil {
		return nil, err
	}
	var ids []ff.WaitpointID
	for _, w := range c.Waitpoints {
		ids = append(ids, w.ID)
	}
	if in.Last != nil && in.Last.ID == c.SuspensionID {
		ids = in.Last.Waitpoints
	}
	if in.Known, err = s.readWaitpoints(ctx, send, c.ID.Partition(), ids); err != nil || !c.Waitpoints[0].Pending {
		return in, err
	}
	in.Buffered, err = s.bufferedSignals(ctx, send, c.ID, c.Waitpoints[0].ID)
	return in, err
}

// bufferedSignals are the signals to a waitpoint, with what conditions look at.
func (s *compatible) bufferedSignals(ctx context.Context, send sender, id ff.ExecutionID, w ff.WaitpointID) (list []ff.Signal, err error) {
	answer := send(ctx, s.client.B().Xrange().Key(tagOf(id.Partition()).waitpointSignals(w)).Start("-").End("+").Build())[0]
	entries, err := answer.AsXRange()
	if err != nil {
		return nil, damage(id, s.lift(ctx, err))
	}
	for _, e := range entries {
		signal, err := signalOf(id, e.FieldValues, nil)
		if err != nil {
			return nil, err
		}
		list = append(list, signal)
	}
	return list, nil
}

// suspending is the call of a suspension with what it does not do. When signals that came
// ahead satisfy it there is no transition, and the records alone are written.
func (s *compatible) suspending(before *record, out *lifecycle.SuspendOutput, c *ff.SuspendExecution, now time.Time) (deed, error) {
	k, t, b := keysOf(c.ID), tagOf(c.ID.Partition()), s.client.B()
	x, list := out.Suspension, out.Waitpoints
	condition, err := x.Condition.Wire(x.OnTimeout)
	if err != nil {
		return deed{}, ff.InvalidInput("resume_condition", "%w", err)
	}
	var d deed
	if out.Result.Satisfied {
		d.after = append(d.after, b.Del().Key(k.suspension(), k.suspension()+":satisfied_set", k.suspension()+":satisfied_set:signals",
			k.suspension()+":member_map").Build(), hset(b, k.suspension(), suspensionFields(x, list, condition)...),
			b.Zrem().Key(t.pendingWaitpoints()).Member(list[0].ID.String()).Build(),
			b.Sadd().Key(k.waitpoints()).Member(list[0].ID.String()).Build())
		d.after = append(append(d.after, s.conditionOf(x, list[0])...), s.settling(x, list)...)
	} else {
		call := callCompatibleSuspend(c, condition, before.holding(), now)
		d.call = &call
		if len(x.Tokens) > 0 { // the function of others leaves out what came ahead (quirk 04a S2)
			d.after = append(d.after, b.Sadd().Key(k.suspension()+":satisfied_set").Member(x.Tokens...).Build(),
				hset(b, k.suspension(), "all_satisfier_signals", satisfierText(x.ResumedBy)))
		}
		if key := conditionKey(x, list); key != "" {
			d.after = append(d.after, hset(b, k.suspension(), "condition_key", key))
		}
	}
	if c.IdempotencyKey != "" {
		dedup := k.suspendDedup(c.IdempotencyKey)
		if d.call == nil {
			d.after = append(d.after, hset(b, dedup, "outcome", outcomeText(&out.Result)),
				b.Pexpire().Key(dedup).Milliseconds((c.IdempotencyWindow(now) - time.Millisecond).Milliseconds()).Build())
		}
		d.after = append(d.after, hset(b, dedup, "timeout_at", ms(out.Result.TimeoutAt)), b.Sadd().Key(k.suspendKeys()).Member(dedup).Build())
	}
	return d, nil
}

// conditionOf writes the condition of a waitpoint that signals have satisfied ahead.
func (s *compatible) conditionOf(x *lifecycle.Suspended, w *lifecycle.Waitpoint) []valkey.Completed {
	key, b := tagOf(x.ExecutionID.Partition()).waitpointCondition(w.ID), s.client.B()
	v := []string{"condition_type", "composite", "composite", "1", "match_mode", "composite", "minimum_signal_count", "1", "total_matchers", "0",
		"satisfied_count", "0", "updated_at", ms(x.CreatedAt)}
	if !x.Condition.Composite() {
		v = []string{"condition_type", "signal_set", "match_mode", "any", "minimum_signal_count", "1", "total_matchers", "1", "satisfied_count", "1",
			"updated_at", ms(x.CreatedAt), "matcher:0:name", x.Condition.Signal, "matcher:0:satisfied", "1", "matcher:0:signal_id", x.ResumedBy[0].String()}
	}
	return []valkey.Completed{b.Del().Key(key).Build(), hset(b, key, v...)}
}

// conditionKey is the key that a plain condition waits at, when that is not the one of
// the primary waitpoint.
func conditionKey(x *lifecycle.Suspended, list []*lifecycle.Waitpoint) string {
	if keys := x.Condition.WaitpointKeys(); !x.Condition.Composite() && len(keys) > 0 && keys[0] != list[0].Key {
		return keys[0]
	}
	return ""
}

func satisfierText(list []ff.SignalID) string {
	if len(list) == 0 {
		return ""
	}
	return jsonText(list)
}

// suspensionFields are the fields of a record of one waitpoint, as a function writes
// them.
func suspensionFields(x *lifecycle.Suspended, list []*lifecycle.Waitpoint, condition string) []string {
	return []string{"suspension_id", x.ID.String(), "execution_id", x.ExecutionID.String(), "attempt_index", strconv.Itoa(x.AttemptIndex),
		"waitpoint_id", list[0].ID.String(), "waitpoint_key", list[0].Key, "additional_waitpoints_json", "[]", "reason_code", string(x.Reason),
		"requested_by", string(x.RequestedBy), "created_at", ms(x.CreatedAt), "timeout_at", ms(x.TimeoutAt), "timeout_behavior", string(x.OnTimeout),
		"resume_condition_json", condition, "resume_policy_json", policyOf(x.ResumeDelay), "continuation_metadata_pointer", x.Continuation,
		"buffered_signal_summary_json", `{"total_count":0,"matched_count":0,"signal_names":[]}`}
}

// settling writes what the rule says of a suspension and its waitpoints where functions
// say less: when and why it was closed, what met it, and that the conditions of all its
// waitpoints are closed with it (quirk 04a S6).
func (s *compatible) settling(x *lifecycle.Suspended, list []*lifecycle.Waitpoint) (commands []valkey.Completed) {
	k, t, b := keysOf(x.ExecutionID), tagOf(x.ExecutionID.Partition()), s.client.B()
	commands = append(commands, hset(b, k.suspension(), "last_signal_at", ms(x.LastSignalAt), "satisfied_at", ms(x.SatisfiedAt),
		"closed_at", ms(x.ClosedAt), "close_reason", x.CloseReason, "all_satisfier_signals", satisfierText(x.ResumedBy)))
	for _, w := range list {
		lifecycle.Settle(x, w)
		commands = append(commands, hset(b, t.waitpoint(w.ID), "state", string(w.State), "suspension_id", x.ID.String(), "activated_at", ms(w.ActivatedAt),
			"satisfied_at", ms(w.SatisfiedAt), "closed_at", ms(w.ClosedAt), "close_reason", w.CloseReason, "expires_at", ms(w.ExpiresAt),
			"signal_count", strconv.Itoa(w.Signals), "matched_signal_count", strconv.Itoa(w.MatchedSignals), "last_signal_at", ms(w.LastSignalAt)))
		if !x.Open() {
			commands = append(commands, hset(b, t.waitpointCondition(w.ID), "closed", "1", "closed_at", ms(x.ClosedAt), "closed_reason", x.CloseReason))
		}
	}
	return commands
}

// waits is a suspended execution with what it waits at.
type waits struct {
	record
	latest     *lifecycle.Suspended
	waitpoints []*lifecycle.Waitpoint
}

// readWaits reads an execution, its suspension and the waitpoints of that, and the clock.
func (s *compatible) readWaits(ctx context.Context, conn valkey.DedicatedClient, id ff.ExecutionID) (w waits, now time.Time, err error) {
	if w.record, now, err = s.describeWatched(ctx, conn, id); err != nil {
		return w, now, err
	}
	if w.latest, err = s.readSuspended(ctx, conn.DoMulti, id); err != nil || w.latest == nil {
		return w, now, err
	}
	w.waitpoints, err = s.readWaitpoints(ctx, conn.DoMulti, id.Partition(), w.latest.Waitpoints)
	return w, now, err
}

// woken is what follows when an execution is claimable again: until when it is held
// back, and who is told.
func (s *compatible) woken(ctx context.Context, x *ff.Execution) {
	if x.State.Eligibility == ff.NotEligibleUntilTime {
		s.tellDue(ctx, x.DelayUntil)
		return
	}
	s.wake(ctx, x.ID.Partition(), x.Lane)
}

// waking writes what functions leave out of the record of an execution that was resumed
// (quirk 04a S1).
func (s *compatible) waking(x *ff.Execution) []valkey.Completed {
	return []valkey.Completed{hset(s.client.B(), keysOf(x.ID).core(), "delay_until", ms(x.DelayUntil))}
}

// ResumeExecution ends a suspension for an operator.
func (s *compatible) ResumeExecution(ctx context.Context, c ff.ResumeExecution) (r ff.ResumeExecutionResult, err error) {
	if err := c.Validate(); err != nil {
		return r, err
	}
	var after ff.Execution
	_, err = s.commit(ctx, []string{keysOf(c.ID).core(), keysOf(c.ID).suspension()}, func(ctx context.Context, conn valkey.DedicatedClient) (deed, error) {
		w, now, err := s.readWaits(ctx, conn, c.ID)
		if err != nil {
			return deed{}, err
		}
		after = w.x
		if _, err := lifecycle.Resume(&after, w.latest, &c, now); err != nil {
			return deed{}, err
		}
		call := callCompatibleResume(c.ID, w.holding(), c.Delay)
		return deed{call: &call, after: append(s.settling(w.latest, w.waitpoints), s.waking(&after)...)}, nil
	})
	if err != nil {
		return r, err
	}
	s.woken(ctx, &after)
	return ff.ResumeExecutionResult{State: after.PublicState()}, nil
}

// Suspension reads the latest suspension.
func (s *compatible) Suspension(ctx context.Context, id ff.ExecutionID) (ff.Suspension, error) {
	if err := s.exists(ctx, id); err != nil {
		return ff.Suspension{}, err
	}
	x, err := s.readSuspended(ctx, s.send, id)
	return deref(x).Suspension, err
}

// timeOutSuspension does what a suspension does when its time is over.
func (s *compatible) timeOutSuspension(ctx context.Context, e *dueEntry) (done, left bool, err error) {
	var after ff.Execution
	keys := []string{keysOf(e.id).core(), keysOf(e.id).suspension()}
	_, err = s.commit(ctx, keys, func(ctx context.Context, conn valkey.DedicatedClient) (d deed, err error) {
		done, left = false, false
		stray := deed{after: []valkey.Completed{conn.B().Zrem().Key(e.index.key).Member(e.text).Build()}}
		w, now, err := s.readWaits(ctx, conn, e.id)
		if ff.CodeOf(err) == ff.CodeExecutionNotFound {
			return stray, nil
		}
		if err != nil {
			return deed{}, err
		}
		due, any := lifecycle.NextDue(&w.x, s.retention)
		if left = any && w.x.State.Phase == ff.PhaseSuspended && due.Kind != ff.SweepSuspensionTimeout; left {
			return deed{}, nil // a deadline came before
		}
		after = w.x
		if done, _ = lifecycle.TimeOutSuspension(&after, w.latest, now); !done {
			if l := w.latest; l != nil && l.Open() && l.TimeoutAt.After(now) {
				stray.after = []valkey.Completed{conn.B().Zadd().Key(e.index.key).ScoreMember().ScoreMember(float64(l.TimeoutAt.UnixMilli()), e.text).Build()}
			}
			return stray, nil
		}
		call := callExpireSuspension(e.id, w.holding())
		d.call = &call
		if !w.latest.Open() {
			d.after = s.settling(w.latest, w.waitpoints)
		}
		if after.Terminal() {
			d.after = append(append(d.after, s.ending(&w.x, &after, now)...),
				conn.B().Zrem().Key(tagOf(e.index.p).executionDeadline()).Member(e.text).Build())
		}
		return d, nil
	})
	if err == nil && done && after.State.Phase == ff.PhaseRunnable {
		s.woken(ctx, &after)
	}
	return done, left, err
}

// abandoning closes the suspension of an execution that ends while it is suspended, and
// that of which the function closes a part only.
func (s *compatible) abandoning(ctx context.Context, conn valkey.DedicatedClient, before, after *ff.Execution, now time.Time) ([]valkey.Completed, error) {
	if before.State.Phase != ff.PhaseSuspended {
		return nil, nil
	}
	w, _, err := s.readWaits(ctx, conn, before.ID)
	if err != nil || !lifecycle.CloseAbandoned(after, w.latest, now) {
		return nil, err
	}
	k, b := keysOf(before.ID), conn.B()
	return append(s.settling(w.latest, w.waitpoints), hset(b, k.core(), "current_suspension_id", "", "current_waitpoint_id", ""),
		b.Zrem().Key(tagOf(before.ID.Partition()).suspensionTimeout()).Member(before.ID.String()).Build(),
		b.Del().Key(k.suspension()+":satisfied_set", k.suspension()+":satisfied_set:signals", k.suspension()+":member_map").Build()), nil
}
