package valkey

import (
	"context"
	"strconv"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// noteLapse completes the record of a lapse when a command was refused because of
// one. It gives the error back.
func (s *compatible) noteLapse(ctx context.Context, id ff.ExecutionID, err error) error {
	if ff.CodeOf(err) != ff.CodeLeaseExpired {
		return err
	}
	call := callMarkLeaseExpired(id)
	if _, e := s.answer(ctx, &call); e == nil {
		_, e = s.noteLost(ctx, []ff.ExecutionID{id})
		if e == nil {
			return err
		}
	}
	s.log.Warn("a lapsed lease could not be recorded; the loop does it", "execution", id)
	return err
}

// lostLease is an execution that can be claimed because its lease was lost.
type lostLease struct {
	id   ff.ExecutionID
	lane ff.LaneID
	// news says that claims did not know of it before.
	news bool
}

// noteLost puts those executions whose lease was lost where claims find them, and
// wakes who waits. The worker holds them no more.
func (s *compatible) noteLost(ctx context.Context, ids []ff.ExecutionID) (found []lostLease, err error) {
	list, _, err := s.glimpses(ctx, ids, "lane_id", "created_at", "priority", "ownership_state", "lifecycle_phase", "current_worker_instance_id")
	if err != nil {
		return nil, err
	}
	var commands []valkey.Completed
	var added []int
	for i, g := range list {
		x := ff.Execution{State: ff.StateVector{Phase: ff.LifecyclePhase(g["lifecycle_phase"]), Ownership: ff.OwnershipState(g["ownership_state"])}}
		if !lost(&x) {
			continue
		}
		f := fieldsOf(ids[i], g)
		h := g.holding()
		add := s.lostCommand(ids[i], h.lane, f.instant("created_at"), int(f.number("priority")))
		if f.err != nil {
			s.log.Error("an execution cannot be read and is not claimed", "execution", ids[i], "err", f.err)
			continue
		}
		added, found = append(added, len(commands)), append(found, lostLease{id: ids[i], lane: h.lane})
		commands = append(commands, add, s.client.B().Srem().Key(tagOf(ids[i].Partition()).workerLeases(h.instance)).Member(ids[i].String()).Build())
	}
	results := s.send(ctx, commands...)
	for i, at := range added {
		n, err := results[at].AsInt64()
		if err != nil {
			return found, s.lift(ctx, err)
		}
		if found[i].news = n == 1; n == 1 {
			s.wake(ctx, found[i].id.Partition(), found[i].lane)
		}
	}
	return found, nil
}

// RenewLeases extends many leases, in one pipeline.
func (s *compatible) RenewLeases(ctx context.Context, c ff.RenewLeases) (ff.RenewLeasesResult, error) {
	if err := c.Validate(); err != nil {
		return ff.RenewLeasesResult{}, err
	}
	list, now, err := s.glimpses(ctx, idsOf(c.Leases), "current_attempt_index", "lease_expires_at")
	if err != nil {
		return ff.RenewLeasesResult{}, err
	}
	calls := make([]call, len(c.Leases))
	var shorter []valkey.Completed
	for i, l := range c.Leases {
		ttl := c.TTL
		// A renewal never shortens a lease (quirk 03 Q22).
		if ends, _ := strconv.ParseInt(list[i]["lease_expires_at"], 10, 64); time.UnixMilli(ends).After(now.Add(ttl)) {
			ttl = time.UnixMilli(ends).Sub(now)
		}
		calls[i] = callRenewLease(l, list[i].holding().attempt, ttl)
	}
	r := ff.RenewLeasesResult{Renewals: make([]ff.Renewal, len(c.Leases))}
	for i, answer := range s.doMulti(ctx, calls) {
		if answer.err != nil {
			return r, answer.err
		}
		id := c.Leases[i].ID
		a, err := readReply(calls[i].function, &answer.m)
		r.Renewals[i] = ff.Renewal{ID: id, Err: s.noteLapse(ctx, id, err)}
		if err != nil {
			continue
		}
		r.Renewals[i].ExpiresAt = time.UnixMilli(a.number(0))
		if calls[i].args[5] != millis(c.TTL) {
			shorter = append(shorter, hset(s.client.B(), keysOf(id).core(), "lease_renewal_deadline", ms(now.Add(c.TTL*2/3))))
		}
	}
	s.follow(ctx, shorter...)
	return r, nil
}

func idsOf(leases []ff.LeaseRef) []ff.ExecutionID {
	ids := make([]ff.ExecutionID, len(leases))
	for i, l := range leases {
		ids[i] = l.ID
	}
	return ids
}

// UpdateProgress stores how far an attempt is. The function compares the lease but
// not the attempt, which never changes under one lease.
func (s *compatible) UpdateProgress(ctx context.Context, c ff.UpdateProgress) error {
	if err := c.Validate(); err != nil {
		return err
	}
	g, _, err := s.glimpse(ctx, c.ID, "current_attempt_id")
	if err != nil {
		return err
	}
	call := callUpdateProgress(&c)
	if g["current_attempt_id"] != c.Fence.AttemptID.String() {
		call.args[1] = "of another attempt" // no lease has this id
	}
	_, err = s.answer(ctx, &call)
	return s.noteLapse(ctx, c.ID, err)
}

// CompleteExecution ends an execution with success, and claims what is next when that
// is asked for. An error of the claim is not one of the completion.
func (s *compatible) CompleteExecution(ctx context.Context, c ff.CompleteExecution) (ff.CompleteExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.CompleteExecutionResult{}, err
	}
	r := ff.CompleteExecutionResult{State: ff.StateCompleted}
	var err error
	if r.Repeated, err = s.complete(ctx, &c); err != nil {
		return ff.CompleteExecutionResult{}, err
	}
	if c.Next != nil {
		t := newTaking(c.Next)
		if err = s.claimFrom(ctx, s.places(c.Next.Lanes), t); err == nil {
			r.Next = t.r
		} else if ctx.Err() == nil {
			s.log.Warn("a claim that came with a completion failed", "execution", c.ID, "err", err)
		}
	}
	return r, nil
}

func (s *compatible) complete(ctx context.Context, c *ff.CompleteExecution) (repeated bool, err error) {
	g, now, policy, err := s.glimpsePolicy(ctx, c.ID)
	if err != nil {
		return false, err
	}
	call := callCompatibleComplete(c.ID, g.fence(c.Fence, c.Source), g.holding(), c.Source, c.Result)
	if _, err = s.answer(ctx, &call); ownEnd(err, ff.OutcomeSuccess, c.Fence) {
		return true, nil
	}
	if err != nil {
		return false, s.noteLapse(ctx, c.ID, err)
	}
	var follow []valkey.Completed
	if g["failure_reason"] != "" || g["failure_category"] != "" {
		follow = append(follow, hset(s.client.B(), keysOf(c.ID).core(), "failure_reason", "", "failure_category", ""))
	}
	s.follow(ctx, append(follow, s.retaining(&ff.Execution{ID: c.ID, Policy: policy}, now)...)...)
	return false, nil
}

// glimpsePolicy reads what a completion needs. A policy that cannot be read is none
// here: the completion counts.
func (s *compatible) glimpsePolicy(ctx context.Context, id ff.ExecutionID) (g glimpse, now time.Time, p *ff.ExecutionPolicy, err error) {
	b := s.client.B()
	results := s.send(ctx, b.Time().Build(), s.glimpseCommand(id, holderFields), b.Get().Key(keysOf(id).policy()).Build())
	if now, err = instantOf(results[0]); err == nil {
		g, err = glimpseOf(results[1], holderFields)
	}
	if err != nil {
		return nil, now, nil, s.lift(ctx, err)
	}
	if g == nil {
		return nil, now, nil, ff.NewError(ff.CodeExecutionNotFound, id.String())
	}
	if text, err := results[2].AsBytes(); err == nil {
		p, _ = ff.ParseExecutionPolicy(text)
	}
	return g, now, p, nil
}

// ownEnd reports whether a command was refused because the same caller had given it
// before (spec 02 §5).
func ownEnd(err error, outcome ff.TerminalOutcome, f ff.Fence) bool {
	e, ok := ff.AsError(err)
	return ok && e.Code == ff.CodeExecutionNotActive && len(e.Details) >= 4 && !f.IsZero() && e.Details[0] == string(outcome) &&
		e.Details[1] == strconv.FormatUint(f.LeaseEpoch, 10) && e.Details[2] == string(ff.PhaseTerminal) && e.Details[3] == f.AttemptID.String()
}

// FailExecution ends an attempt with a failure. The rule decides whether another
// follows and when; the function is told so by a policy of its own.
func (s *compatible) FailExecution(ctx context.Context, c ff.FailExecution) (ff.FailExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.FailExecutionResult{}, err
	}
	now, err := s.Now(ctx)
	if err != nil {
		return ff.FailExecutionResult{}, err
	}
	before := s.describe(ctx, []ff.ExecutionID{c.ID})[0]
	if before.err != nil {
		return ff.FailExecutionResult{}, before.err
	}
	after := before.x
	r, _, err := lifecycle.Fail(&after, &c, now)
	if err != nil || r.Repeated {
		return r, s.noteLapse(ctx, c.ID, err)
	}
	call := callCompatibleFail(c.ID, glimpse(before.parts.core).fence(c.Fence, c.Source), before.holding(), c.Source, c.Reason, c.Category,
		retryText(&before.x, r.Retried, r.RetryAt.Sub(now)))
	a, err := s.answer(ctx, &call)
	if err != nil {
		return ff.FailExecutionResult{}, s.noteLapse(ctx, c.ID, err)
	}
	if due := a.number(1); r.Retried {
		r.RetryAt = time.UnixMilli(due)
	}
	s.failed(ctx, &before.x, &after, now, r.RetryAt)
	return r, nil
}

// retryText is a policy by which ff_fail_execution plans a retry after a wait; empty
// for none.
func retryText(x *ff.Execution, retry bool, wait time.Duration) string {
	if !retry {
		return ""
	}
	return jsonText(map[string]any{"max_retries": x.RetryCount + 1,
		"backoff": map[string]any{"type": "fixed", "delay_ms": wait.Milliseconds()}})
}

// failed completes a failure: its category, and a retry without a wait is lined up.
func (s *compatible) failed(ctx context.Context, before, after *ff.Execution, now, due time.Time) {
	var follow []valkey.Completed
	if after.FailureCategory != before.FailureCategory {
		follow = append(follow, hset(s.client.B(), keysOf(after.ID).core(), "failure_category", after.FailureCategory))
	}
	switch {
	case after.Terminal():
		follow = append(follow, s.retaining(after, now)...)
	case after.State.Eligibility == ff.NotEligibleUntilTime:
		follow = append(follow, s.dueCommand(due))
	default:
		promote := callPromoteDelayed(after.ID, after.Lane, due)
		follow = append(follow, s.completed(&promote))
	}
	s.follow(ctx, follow...)
}

// DelayExecution parks an execution until a time.
func (s *compatible) DelayExecution(ctx context.Context, c ff.DelayExecution) (ff.DelayExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.DelayExecutionResult{}, err
	}
	g, now, err := s.glimpse(ctx, c.ID, holderFields...)
	if err != nil {
		return ff.DelayExecutionResult{}, err
	}
	until := c.Until
	if c.For > 0 {
		until = now.Add(c.For)
	}
	call := callCompatibleDelay(c.ID, g.fence(c.Fence, c.Source), g.holding(), c.Source, until)
	if _, err := s.answer(ctx, &call); err != nil {
		return ff.DelayExecutionResult{}, s.noteLapse(ctx, c.ID, err)
	}
	if until.After(now) {
		s.tellDue(ctx, until)
	} else {
		promote := callPromoteDelayed(c.ID, g.holding().lane, now)
		s.follow(ctx, s.completed(&promote))
	}
	return ff.DelayExecutionResult{Until: until}, nil
}

// ReleaseExecutions hands leased executions back: they are delayed for no time.
func (s *compatible) ReleaseExecutions(ctx context.Context, c ff.ReleaseExecutions) (ff.ReleaseExecutionsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ReleaseExecutionsResult{}, err
	}
	list, now, err := s.glimpses(ctx, idsOf(c.Leases), holderFields...)
	if err != nil {
		return ff.ReleaseExecutionsResult{}, err
	}
	calls := make([]call, len(c.Leases))
	for i, l := range c.Leases {
		calls[i] = callCompatibleDelay(l.ID, list[i].fence(l.Fence, ""), list[i].holding(), "", now)
	}
	r := ff.ReleaseExecutionsResult{Errs: make([]error, len(c.Leases))}
	var follow []valkey.Completed
	for i, answer := range s.doMulti(ctx, calls) {
		if answer.err != nil {
			return r, answer.err
		}
		id, h := c.Leases[i].ID, list[i].holding()
		if _, err := readReply(calls[i].function, &answer.m); err != nil {
			r.Errs[i] = s.noteLapse(ctx, id, err)
			continue
		}
		promote := callPromoteDelayed(id, h.lane, now)
		follow = append(follow, hset(s.client.B(), keysOf(id).attempt(h.attempt), "suspension_id", "worker_release"), s.completed(&promote))
	}
	s.follow(ctx, follow...)
	return r, nil
}

// RevokeLease takes a lease away from its worker.
func (s *compatible) RevokeLease(ctx context.Context, c ff.RevokeLease) (ff.RevokeLeaseResult, error) {
	if err := c.Validate(); err != nil {
		return ff.RevokeLeaseResult{}, err
	}
	var r ff.RevokeLeaseResult
	var lane ff.LaneID
	_, err := s.commit(ctx, []string{keysOf(c.ID).core()}, func(ctx context.Context, conn valkey.DedicatedClient) (deed, error) {
		before, now, err := s.describeWatched(ctx, conn, c.ID)
		if err != nil {
			return deed{}, err
		}
		x := before.x
		r = ff.RevokeLeaseResult{LeaseID: x.Lease.ID, LeaseEpoch: x.LeaseEpoch}
		if r.Already, _, err = lifecycle.Revoke(&x, &c, now); err != nil || r.Already != "" {
			return deed{}, err
		}
		lane = x.Lane
		call := callRevokeLease(c.ID, x.Lease.ID, x.Lease.Instance, c.Reason)
		return deed{call: &call, after: []valkey.Completed{s.lostCommand(c.ID, x.Lane, x.CreatedAt, x.Priority),
			conn.B().Zrem().Key(tagOf(c.ID.Partition()).attemptTimeout()).Member(c.ID.String()).Build()}}, nil
	})
	if err == nil && r.Already == "" {
		s.wake(ctx, c.ID.Partition(), lane)
	}
	return r, err
}
