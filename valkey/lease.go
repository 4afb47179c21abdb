package valkey

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// RenewLeases extends many leases in one call, on a cluster in one per partition.
func (s *Store) RenewLeases(ctx context.Context, c ff.RenewLeases) (ff.RenewLeasesResult, error) {
	if err := c.Validate(); err != nil {
		return ff.RenewLeasesResult{}, err
	}
	r := ff.RenewLeasesResult{Renewals: make([]ff.Renewal, len(c.Leases))}
	err := s.eachLease(ctx, c.Leases, "ffx_renew", millis(c.TTL), func(i int, a reply, err error) {
		r.Renewals[i] = ff.Renewal{ID: c.Leases[i].ID, Err: err}
		if err == nil {
			r.Renewals[i].ExpiresAt = time.UnixMilli(a.number(0))
		}
	})
	return r, err
}

// ReleaseExecutions hands leased executions back.
func (s *Store) ReleaseExecutions(ctx context.Context, c ff.ReleaseExecutions) (ff.ReleaseExecutionsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ReleaseExecutionsResult{}, err
	}
	r := ff.ReleaseExecutionsResult{Errs: make([]error, len(c.Leases))}
	err := s.eachLease(ctx, c.Leases, "ffx_release", c.Reason, func(i int, _ reply, err error) { r.Errs[i] = err })
	return r, err
}

// eachLease calls a function about several leases and hands on what it answers for
// each. An error is one of the whole call.
func (s *Store) eachLease(ctx context.Context, leases []ff.LeaseRef, function, first string, each func(int, reply, error)) error {
	groups := s.groups(len(leases), func(i int) uint16 { return leases[i].ID.Partition() })
	calls := make([]call, len(groups))
	for i, group := range groups {
		some := make([]ff.LeaseRef, len(group))
		for j, at := range group {
			some[j] = leases[at]
		}
		calls[i] = batchCall(function, first, some)
	}
	for i, r := range s.doMulti(ctx, calls) {
		if r.err != nil {
			return r.err
		}
		list, err := r.m.ToArray()
		if err != nil || len(list) != len(groups[i]) {
			return ff.Errorf(ff.CodeInternal, "%s answered something unexpected", function)
		}
		for j, at := range groups[i] {
			a, err := readReply(function, &list[j])
			each(at, a, err)
		}
	}
	return nil
}

// UpdateProgress stores how far an attempt is.
func (s *Store) UpdateProgress(ctx context.Context, c ff.UpdateProgress) error {
	if err := c.Validate(); err != nil {
		return err
	}
	call := callProgress(&c)
	_, err := s.answer(ctx, &call)
	return err
}

// CompleteExecution ends an execution with success.
func (s *Store) CompleteExecution(ctx context.Context, c ff.CompleteExecution) (ff.CompleteExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.CompleteExecutionResult{}, err
	}
	if c.Next != nil {
		return s.completeAndClaim(ctx, &c)
	}
	call := callComplete(&c)
	r, err := s.answer(ctx, &call)
	if err != nil {
		return ff.CompleteExecutionResult{}, err
	}
	return completed(r), nil
}

func completed(r reply) ff.CompleteExecutionResult {
	return ff.CompleteExecutionResult{State: ff.StateCompleted, Repeated: r.text(0) == "repeated"}
}

// completeAndClaim makes one call when the claim begins on the partition of the
// execution, as it does for a worker that goes on in its lane. What is missing then
// is claimed where it is likely to be. An error of the claim is not one of the
// completion.
func (s *Store) completeAndClaim(ctx context.Context, c *ff.CompleteExecution) (ff.CompleteExecutionResult, error) {
	places := s.places(c.Next.Lanes)
	first := places[0]
	together := first.partition == c.ID.Partition()
	call := callComplete(c)
	if together {
		call = callCompleteAndClaim(c, first.lane)
	}
	m, err := s.claimCall(ctx, &call)
	if err != nil {
		return ff.CompleteExecutionResult{}, err
	}
	a, err := readReply(call.function, &m)
	if err != nil {
		return ff.CompleteExecutionResult{}, err
	}
	t := newTaking(c.Next)
	if claim := a[1:]; together && len(claim) > 0 {
		places = places[1:]
		err = s.claimAt(ctx, first, t, claim)
	}
	if err == nil {
		err = s.claimFrom(ctx, places, t)
	}
	r := completed(a)
	if err == nil {
		r.Next = t.r
	} else if ctx.Err() == nil {
		s.log.Warn("a claim that came with a completion failed", "execution", c.ID, "err", err)
	}
	return r, nil
}

// FailExecution ends an attempt with a failure.
func (s *Store) FailExecution(ctx context.Context, c ff.FailExecution) (ff.FailExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.FailExecutionResult{}, err
	}
	call := callFail(&c)
	a, err := s.answer(ctx, &call)
	if err != nil {
		return ff.FailExecutionResult{}, err
	}
	r := ff.FailExecutionResult{State: ff.PublicState(a.text(1)), Retried: a.text(2) != "", Repeated: a.text(0) == "repeated"}
	if n := a.number(2); n > 0 {
		r.RetryAt = time.UnixMilli(n)
	}
	return r, nil
}

// DelayExecution parks an execution until a time.
func (s *Store) DelayExecution(ctx context.Context, c ff.DelayExecution) (ff.DelayExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.DelayExecutionResult{}, err
	}
	call := callDelay(&c)
	r, err := s.answer(ctx, &call)
	if err != nil {
		return ff.DelayExecutionResult{}, err
	}
	return ff.DelayExecutionResult{Until: time.UnixMilli(r.number(0))}, nil
}

// RevokeLease takes a lease away from its worker.
func (s *Store) RevokeLease(ctx context.Context, c ff.RevokeLease) (ff.RevokeLeaseResult, error) {
	if err := c.Validate(); err != nil {
		return ff.RevokeLeaseResult{}, err
	}
	call := callRevoke(&c)
	a, err := s.answer(ctx, &call)
	if err != nil {
		return ff.RevokeLeaseResult{}, err
	}
	f := &fields{hash: "execution " + c.ID.String(), m: map[string]string{"current_lease_id": a.text(2), "current_lease_epoch": a.text(3)}}
	r := ff.RevokeLeaseResult{Already: a.text(1), LeaseID: parsed(f, "current_lease_id", ff.ParseLeaseID), LeaseEpoch: f.epoch("current_lease_epoch")}
	return r, f.err
}

// ListExpiredLeases lists leases that lapsed and that nobody took over, in the
// order of their ends.
func (s *Store) ListExpiredLeases(ctx context.Context, c ff.ListExpiredLeases) (ff.ListExpiredLeasesResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ListExpiredLeasesResult{}, err
	}
	after, err := parseListCursor(c.Cursor)
	if err != nil {
		return ff.ListExpiredLeasesResult{}, err
	}
	if c.AsOf.IsZero() {
		if c.AsOf, err = s.Now(ctx); err != nil {
			return ff.ListExpiredLeasesResult{}, err
		}
	}
	limit := ff.PageLimit(c.Limit)
	var r ff.ListExpiredLeasesResult
	var places []entry // of the leases: what the records say may differ
	for {
		found, more, err := s.lapsedEntries(ctx, c.AsOf, after, limit+1)
		if err != nil {
			return ff.ListExpiredLeasesResult{}, err
		}
		leases, at, err := s.lapsedLeases(ctx, found)
		if err != nil {
			return ff.ListExpiredLeasesResult{}, err
		}
		r.Leases, places = append(r.Leases, leases...), append(places, at...)
		if len(r.Leases) > limit {
			r.Leases = r.Leases[:limit]
			r.Next = places[limit-1].cursor()
			return r, nil
		}
		if !more {
			return r, nil
		}
		after = found[len(found)-1]
	}
}

// lapsedEntries are the next entries of the indexes of all partitions.
func (s *Store) lapsedEntries(ctx context.Context, asOf time.Time, after entry, limit int) (found []entry, more bool, err error) {
	lowest := "-inf"
	if after.id != "" {
		lowest = "(" + after.score
	}
	var commands []valkey.Completed
	for p := range s.partitions.Flow {
		index := tagOf(p).leaseExpiry()
		commands = append(commands, s.client.B().Zrangebyscore().Key(index).Min(lowest).Max(ms(asOf)).Withscores().Limit(0, int64(limit)).Build())
		if after.id != "" { // leases claimed together end together: the rest of them
			commands = append(commands, s.client.B().Zrangebyscore().Key(index).Min(after.score).Max(after.score).Withscores().Build())
		}
	}
	for _, r := range s.client.DoMulti(ctx, commands...) {
		list, err := r.AsZScores()
		if err != nil {
			return nil, false, s.lift(ctx, err)
		}
		more = more || len(list) >= limit
		for _, z := range list {
			if e := (entry{strconv.FormatFloat(z.Score, 'f', -1, 64), z.Member}); after.id == "" || e.compare(after) > 0 {
				found = append(found, e)
			}
		}
	}
	slices.SortFunc(found, entry.compare)
	if len(found) > limit {
		return found[:limit], true, nil
	}
	return found, more && len(found) > 0, nil
}

// lapsedLeases reads the leases of entries, and gives the entries of those; what is
// no lapsed lease is left out.
func (s *Store) lapsedLeases(ctx context.Context, found []entry) (list []ff.ExpiredLease, at []entry, err error) {
	var ids []ff.ExecutionID
	var entries []entry
	var commands []valkey.Completed
	for _, e := range found {
		id, err := ff.ParseExecutionID(e.id)
		if err != nil {
			s.log.Error("an index has something that is no execution", "value", e.id)
			continue
		}
		ids, entries = append(ids, id), append(entries, e)
		commands = append(commands, s.client.B().Hmget().Key(keysOf(id).core()).Field("ownership_state", "current_lease_id", "current_lease_epoch",
			"current_attempt_index", "current_worker_instance_id", "lease_expires_at").Build())
	}
	if len(commands) == 0 {
		return nil, nil, nil
	}
	for i, r := range s.client.DoMulti(ctx, commands...) {
		v, err := r.ToArray()
		if err = s.lift(ctx, err); ff.CodeOf(err) == ff.CodeCorruption {
			s.log.Error("an execution cannot be read and is left out", "execution", ids[i], "err", err)
			continue
		} else if err != nil {
			return nil, nil, err
		}
		a := reply(v)
		f := &fields{hash: "execution " + ids[i].String(), m: map[string]string{"lease": a.text(1), "epoch": a.text(2), "index": a.text(3), "at": a.text(5)}}
		l := ff.ExpiredLease{ID: ids[i], LeaseID: parsed(f, "lease", ff.ParseLeaseID), LeaseEpoch: f.epoch("epoch"),
			AttemptIndex: f.count("index"), Instance: ff.WorkerInstanceID(a.text(4)), ExpiresAt: f.instant("at")}
		switch o := ff.OwnershipState(a.text(0)); {
		case f.err != nil:
			s.log.Error("a lapsed lease cannot be read and is left out", "execution", ids[i], "err", f.err)
		case !l.LeaseID.IsZero() && (o == ff.OwnershipLeased || o == ff.OwnershipLeaseExpired):
			list, at = append(list, l), append(at, entries[i])
		}
	}
	return list, at, nil
}
