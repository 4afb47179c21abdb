package sqlstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// RenewLeases extends many leases in one command.
func (s *Store) RenewLeases(ctx context.Context, c ff.RenewLeases) (ff.RenewLeasesResult, error) {
	if err := c.Validate(); err != nil {
		return ff.RenewLeasesResult{}, err
	}
	return write(ctx, s, func(t *tx) (ff.RenewLeasesResult, error) {
		renewals := make([]ff.Renewal, len(c.Leases))
		for i, l := range c.Leases {
			r := &renewals[i]
			r.ID = l.ID
			rec, err := t.applyTo(l.ID, func(x *ff.Execution) (lifecycle.Effects, error) {
				return lifecycle.Renew(x, l.Fence, c.TTL, t.now)
			})
			if isBroken(err) {
				return ff.RenewLeasesResult{}, err
			}
			if r.Err = err; err == nil {
				r.ExpiresAt = rec.x.Lease.ExpiresAt
			}
		}
		return ff.RenewLeasesResult{Renewals: renewals}, nil
	})
}

// applyTo loads a record and applies a rule.
func (t *tx) applyTo(id ff.ExecutionID, rule func(*ff.Execution) (lifecycle.Effects, error)) (*record, error) {
	rec, err := t.load(id)
	if err != nil {
		return nil, err
	}
	return rec, t.apply(rec, rule)
}

// isBroken tells an error of the database from a refusal by the rules.
func isBroken(err error) bool {
	if err == nil {
		return false
	}
	_, refused := ff.AsError(err)
	return !refused
}

// UpdateProgress stores how far an attempt is.
func (s *Store) UpdateProgress(ctx context.Context, c ff.UpdateProgress) error {
	if err := c.Validate(); err != nil {
		return err
	}
	_, err := write(ctx, s, func(t *tx) (struct{}, error) {
		_, err := t.applyTo(c.ID, func(x *ff.Execution) (lifecycle.Effects, error) { return lifecycle.Progress(x, &c, t.now) })
		return struct{}{}, err
	})
	return err
}

// CompleteExecution ends an execution with success, and claims the next in the same
// transaction when told to.
func (s *Store) CompleteExecution(ctx context.Context, c ff.CompleteExecution) (ff.CompleteExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.CompleteExecutionResult{}, err
	}
	if c.Next == nil {
		return write(ctx, s, func(t *tx) (ff.CompleteExecutionResult, error) { return t.complete(&c) })
	}
	claiming := false
	r, err := write(ctx, s, func(t *tx) (ff.CompleteExecutionResult, error) {
		claiming = false
		r, err := t.complete(&c)
		if err != nil {
			return r, err
		}
		claiming = true
		if r.Next, err = t.claim(c.Next); err != nil {
			return ff.CompleteExecutionResult{}, errClaimBroke(err)
		}
		claiming = false
		return r, nil
	})
	if err == nil || !claiming {
		return r, err
	}
	// Half a claim must not stay, and the transaction was undone with it. The
	// completion does not depend on the claim.
	s.log.Error("a claim that came with a completion failed; completing without it", "execution", c.ID, "err", err)
	c.Next = nil
	return s.CompleteExecution(ctx, c)
}

// errClaimBroke breaks the transaction, also where the claim alone would be a
// refusal.
func errClaimBroke(err error) error {
	return fmt.Errorf("claiming after a completion: %s", err.Error())
}

func (t *tx) complete(c *ff.CompleteExecution) (r ff.CompleteExecutionResult, err error) {
	rec, err := t.applyTo(c.ID, func(x *ff.Execution) (fx lifecycle.Effects, err error) {
		r.Repeated, fx, err = lifecycle.Complete(x, c, t.now)
		return fx, err
	})
	if err != nil {
		return ff.CompleteExecutionResult{}, err
	}
	r.State = rec.x.PublicState()
	if r.Repeated || len(c.Result) == 0 {
		return r, nil
	}
	return r, t.exec(insertResult, integer(rec.seq), borrow(c.Result))
}

// FailExecution ends an attempt with a failure.
func (s *Store) FailExecution(ctx context.Context, c ff.FailExecution) (ff.FailExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.FailExecutionResult{}, err
	}
	return write(ctx, s, func(t *tx) (r ff.FailExecutionResult, err error) {
		_, err = t.applyTo(c.ID, func(x *ff.Execution) (fx lifecycle.Effects, err error) {
			r, fx, err = lifecycle.Fail(x, &c, t.now)
			return fx, err
		})
		r.RetryAt = round(r.RetryAt)
		return r, err
	})
}

// DelayExecution parks an execution until a time.
func (s *Store) DelayExecution(ctx context.Context, c ff.DelayExecution) (ff.DelayExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.DelayExecutionResult{}, err
	}
	c.Until = round(c.Until)
	return write(ctx, s, func(t *tx) (r ff.DelayExecutionResult, err error) {
		_, err = t.applyTo(c.ID, func(x *ff.Execution) (fx lifecycle.Effects, err error) {
			r.Until, fx, err = lifecycle.Delay(x, &c, t.now)
			return fx, err
		})
		r.Until = round(r.Until)
		return r, err
	})
}

// ReleaseExecutions hands leased executions back, all in one command.
func (s *Store) ReleaseExecutions(ctx context.Context, c ff.ReleaseExecutions) (ff.ReleaseExecutionsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ReleaseExecutionsResult{}, err
	}
	return write(ctx, s, func(t *tx) (ff.ReleaseExecutionsResult, error) {
		errs := make([]error, len(c.Leases))
		for i, l := range c.Leases {
			_, errs[i] = t.applyTo(l.ID, func(x *ff.Execution) (lifecycle.Effects, error) {
				return lifecycle.Release(x, l.Fence, c.Reason, t.now)
			})
			if isBroken(errs[i]) {
				return ff.ReleaseExecutionsResult{}, errs[i]
			}
		}
		return ff.ReleaseExecutionsResult{Errs: errs}, nil
	})
}

// RevokeLease takes a lease away from its worker.
func (s *Store) RevokeLease(ctx context.Context, c ff.RevokeLease) (ff.RevokeLeaseResult, error) {
	if err := c.Validate(); err != nil {
		return ff.RevokeLeaseResult{}, err
	}
	return write(ctx, s, func(t *tx) (r ff.RevokeLeaseResult, err error) {
		rec, err := t.applyTo(c.ID, func(x *ff.Execution) (fx lifecycle.Effects, err error) {
			r.Already, fx, err = lifecycle.Revoke(x, &c, t.now)
			return fx, err
		})
		if err != nil {
			return ff.RevokeLeaseResult{}, err
		}
		r.LeaseID, r.LeaseEpoch = rec.x.Lease.ID, rec.x.LeaseEpoch
		return r, nil
	})
}

const lapsedColumns = "seq, partition, uuid, lease_id, lease_epoch, lease_instance, lease_expires_at, attempt_index"

// Lapsed leases are in two indexes: those that were marked, and those whose loop
// has not come by yet, which are few and due for something. The partial index
// needs the code of its ownership word in the text: 3 is
// lease_expired_reclaimable, 2 is leased.
var (
	selectMarkedLeases = statement("select " + lapsedColumns + ` from executions
where ownership = 3 and (lease_expires_at, seq) > ($1, $2) and lease_expires_at <= $3
order by lease_expires_at, seq limit $4`)
	selectOverdueLeases = statement("select " + lapsedColumns + ` from executions
where due_kind = $1 and due_at <= $2 and ownership = 2
and (lease_expires_at, seq) > ($3, $4) and lease_expires_at <= $2`)
)

type lapsedLease struct {
	at, seq int64
	lease   ff.ExpiredLease
}

// ListExpiredLeases lists leases that lapsed and that nobody took over, in the
// order of their ends.
func (s *Store) ListExpiredLeases(ctx context.Context, c ff.ListExpiredLeases) (ff.ListExpiredLeasesResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ListExpiredLeasesResult{}, err
	}
	after, err := parsePair(c.Cursor)
	if err != nil {
		return ff.ListExpiredLeasesResult{}, err
	}
	if c.AsOf.IsZero() {
		c.AsOf = s.now()
	}
	limit := ff.PageLimit(c.Limit)
	return read(ctx, s, func(conn Conn) (ff.ListExpiredLeasesResult, error) {
		found, err := lapsedLeases(conn, c.AsOf, after, limit+1)
		if err != nil {
			return ff.ListExpiredLeasesResult{}, err
		}
		slices.SortFunc(found, func(a, b lapsedLease) int {
			return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.seq, b.seq))
		})
		var r ff.ListExpiredLeasesResult
		if len(found) > limit {
			found = found[:limit]
			r.Next = pair{found[limit-1].at, found[limit-1].seq}.String()
		}
		for _, f := range found {
			r.Leases = append(r.Leases, f.lease)
		}
		return r, nil
	})
}

func lapsedLeases(c Conn, asOf time.Time, after pair, limit int) (found []lapsedLease, err error) {
	collect := func(r Row) error {
		found = append(found, lapsedLease{at: r.Int(6), seq: r.Int(0), lease: ff.ExpiredLease{
			ID:      ff.MakeExecutionID(uint16(r.Int(1)), readUUID(r, 2)),
			LeaseID: ff.LeaseID(readUUID(r, 3)), LeaseEpoch: uint64(r.Int(4)),
			Instance: ff.WorkerInstanceID(r.Text(5)), ExpiresAt: readInstant(r, 6), AttemptIndex: int(r.Int(7)),
		}})
		return nil
	}
	until := instant(asOf)
	for _, kind := range []ff.SweepKind{ff.SweepLeaseExpiry, ff.SweepAttemptTimeout, ff.SweepExecutionDeadline} {
		args := []Value{integer(sweepKinds.code(kind)), until, integer(after.first), integer(after.second)}
		if err := c.Query(selectOverdueLeases, args, collect); err != nil {
			return nil, err
		}
	}
	args := []Value{integer(after.first), integer(after.second), until, integer(int64(limit))}
	return found, c.Query(selectMarkedLeases, args, collect)
}

// pair is a cursor of two numbers.
type pair struct{ first, second int64 }

func (p pair) String() string {
	return strconv.FormatInt(p.first, 10) + "-" + strconv.FormatInt(p.second, 10)
}

// parsePair reads a cursor; the empty one is before everything.
func parsePair(cursor string) (pair, error) {
	if cursor == "" {
		return pair{first: -1 << 62}, nil
	}
	a, b, ok := strings.Cut(cursor, "-")
	first, err1 := strconv.ParseInt(a, 10, 64)
	second, err2 := strconv.ParseInt(b, 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return pair{}, ff.BadCursor(cursor)
	}
	return pair{first, second}, nil
}
