package valkey

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// Claim takes up to Max executions, waiting for the first when told to. Within a
// partition the order is that of the rules; partitions take turns.
func (s *Store) Claim(ctx context.Context, c ff.Claim) (ff.ClaimResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ClaimResult{}, err
	}
	if c.Wait == 0 {
		if s.wakeups.lookedLately(c.Lanes) {
			return s.claimLikely(ctx, &c)
		}
		return s.claimAnywhere(ctx, &c)
	}
	s.wakeups.start(ctx)
	end := time.NewTimer(c.Wait)
	defer end.Stop()
	looked := time.Time{}
	for {
		w := s.wakeups.claims.Wait(c.Lanes, nil)
		r, err := s.claimWaiting(ctx, &c, &looked)
		if err != nil || len(r.Claimed) > 0 {
			if err == nil {
				// There may be more than this claim took: another may look.
				s.wakeups.passOn(c.Lanes)
			}
			w.Stop()
			return r, err
		}
		again, err := s.await(ctx, w.C(), end.C)
		w.Stop()
		if !again {
			return r, err
		}
	}
}

// claimWaiting is one round of a claim that waits: it looks where work is likely,
// now and then everywhere, and leaves marks where it would hear of work.
func (s *Store) claimWaiting(ctx context.Context, c *ff.Claim, looked *time.Time) (ff.ClaimResult, error) {
	if time.Since(*looked) >= fullLook {
		*looked = time.Now()
		return s.claimMarked(ctx, c, s.claimAnywhere)
	}
	return s.claimMarked(ctx, c, s.claimLikely)
}

type claimWay = func(context.Context, *ff.Claim) (ff.ClaimResult, error)

func (s *Store) claimMarked(ctx context.Context, c *ff.Claim, look claimWay) (ff.ClaimResult, error) {
	r, err := look(ctx, c)
	if err != nil || len(r.Claimed) > 0 {
		return r, err
	}
	keys := make([]string, 0, len(c.Lanes)*int(s.partitions.Flow))
	for _, lane := range c.Lanes {
		for p := range s.partitions.Flow {
			keys = append(keys, tagOf(p).waiting(lane))
		}
	}
	fresh, err := s.wakeups.mark(ctx, keys)
	if err != nil || !fresh {
		return r, err
	}
	return s.claimAnywhere(ctx, c)
}

// await waits for a wake-up or the safety poll; again is false when the time is
// over.
func (s *Store) await(ctx context.Context, woken <-chan struct{}, end <-chan time.Time) (again bool, err error) {
	poll := time.NewTimer(safetyPoll)
	defer poll.Stop()
	select {
	case <-woken:
	case <-poll.C:
	case <-end:
		return false, nil
	case <-s.quit:
		return false, errClosed
	case <-ctx.Done():
		return false, ctx.Err()
	}
	return true, nil
}

// claimLikely claims from the partitions that may have work.
func (s *Store) claimLikely(ctx context.Context, c *ff.Claim) (ff.ClaimResult, error) {
	var r ff.ClaimResult
	room := ff.MaxClaimBytes
	for _, lane := range c.Lanes {
		list := s.wakeups.likely(lane, s.partitions)
		first := 0
		if len(list) > 1 {
			first = rand.IntN(len(list))
		}
		for i := range list {
			if len(r.Claimed) >= c.Max || room <= 0 {
				return r, nil
			}
			p := list[(first+i)%len(list)]
			before := len(r.Claimed)
			if err := s.claimFrom(ctx, p, lane, c, &room, &r); err != nil {
				if before > 0 {
					return r, nil // what was claimed is the caller's; the error comes again
				}
				return r, err
			}
			if len(r.Claimed) == before && len(r.Claimed) < c.Max {
				s.wakeups.unhint(lane, p)
			}
		}
	}
	return r, nil
}

// claimAnywhere is claimLikely, and when that finds nothing it looks which
// partitions have work at all.
func (s *Store) claimAnywhere(ctx context.Context, c *ff.Claim) (ff.ClaimResult, error) {
	r, err := s.claimLikely(ctx, c)
	if err != nil || len(r.Claimed) > 0 {
		return r, err
	}
	found, err := s.findWork(ctx, c.Lanes)
	if err != nil || !found {
		return r, err
	}
	return s.claimLikely(ctx, c)
}

// findWork hints at every partition with work in one of the lanes.
func (s *Store) findWork(ctx context.Context, lanes []ff.LaneID) (found bool, err error) {
	type place struct {
		lane ff.LaneID
		p    uint16
	}
	var places []place
	var commands []valkey.Completed
	for _, lane := range lanes {
		home := s.partitions.LanePartition(lane)
		for p := range s.partitions.Flow {
			if p == home {
				continue // claimLikely always looks there
			}
			places = append(places, place{lane, p})
			commands = append(commands, s.client.B().Exists().Key(tagOf(p).lane(lane, laneEligible), tagOf(p).lost(lane)).Build())
		}
	}
	if len(commands) == 0 {
		return false, nil
	}
	for i, r := range s.client.DoMulti(ctx, commands...) {
		n, err := r.AsInt64()
		if err != nil {
			return false, s.lift(ctx, err)
		}
		if n > 0 {
			s.wakeups.hint(places[i].lane, places[i].p)
			found = true
		}
	}
	return found, nil
}

// claimFrom claims from one lane of one partition. A call looks at a bounded number
// of executions; it goes on behind those that the claimant may not have.
func (s *Store) claimFrom(ctx context.Context, p uint16, lane ff.LaneID, c *ff.Claim, room *int, r *ff.ClaimResult) error {
	var skipped [2]int64
	for more := true; more && len(r.Claimed) < c.Max && *room > 0; {
		limit := c.Max - len(r.Claimed)
		call := callClaim(p, lane, c, limit, *room, skipped)
		m, err := s.claimCall(ctx, &call)
		if err != nil {
			return err
		}
		list, err := m.ToArray()
		if err != nil || len(list) != 6 {
			return ff.NewError(ff.CodeInternal, "ffx_claim answered something unexpected")
		}
		a := reply(list)
		r.Now = time.UnixMilli(a.number(0))
		more, skipped = a.number(1) == 1, [2]int64{a.number(2), a.number(3)}
		if n := a.number(4); n > 0 {
			s.log.Error("executions cannot be read and are passed over by claims", "partition", p, "lane", lane, "count", n)
		}
		claimed, err := a[5].ToArray()
		if err != nil {
			return ff.Errorf(ff.CodeInternal, "ffx_claim: %w", err)
		}
		for i := range claimed {
			if got, err := claimedOf(&claimed[i], c.Claimant, c.LeaseTTL, r.Now); err != nil {
				s.log.Error("a claimed execution cannot be read; its lease will lapse", "partition", p, "lane", lane, "err", err)
				more = true // it took the place of another
			} else {
				r.Claimed = append(r.Claimed, got)
				*room -= len(got.Payload)
			}
		}
	}
	return nil
}

// claimParts is how many parts a claim gives for an execution.
const claimParts = 9

var errClaimShape = ff.NewError(ff.CodeInternal, "a claim of another shape than expected")

// claimedOf makes the record after a claim from that before it, by the rule.
func claimedOf(m *valkey.ValkeyMessage, who ff.Claimant, ttl time.Duration, now time.Time) (c ff.Claimed, err error) {
	list, err := m.ToArray()
	if err != nil || len(list) != claimParts {
		return c, errClaimShape
	}
	a := reply(list)
	id, err := ff.ParseExecutionID(a.text(0))
	if err != nil {
		return c, ff.Errorf(ff.CodeCorruption, "the index has %.60q, which is no execution", a.text(0))
	}
	p := parts{policy: a.text(3)}
	values, err := list[4].ToArray()
	if err == nil {
		p.core, err = coreOf(values)
	}
	if err == nil {
		p.tags, err = pairsOf(&list[5])
	}
	if err == nil {
		p.attempt, err = pairsOf(&list[6])
	}
	if err != nil {
		return c, ff.Errorf(ff.CodeCorruption, "execution %s cannot be read: %w", id, err)
	}
	args := lifecycle.ClaimArgs{Claimant: who, LeaseTTL: ttl}
	if args.LeaseID, err = ff.ParseLeaseID(a.text(7)); err != nil {
		return c, err
	}
	if args.AttemptID, err = ff.ParseAttemptID(a.text(8)); err != nil {
		return c, err
	}
	x, err := p.before(id, a.text(1))
	if err != nil {
		return c, err
	}
	if c.Resumed, _, err = lifecycle.Claim(&x, &args, now); err != nil {
		return c, fmt.Errorf("execution %s was claimed although the rules refuse it: %w", id, err)
	}
	c.Execution, c.Payload = x, []byte(a.text(2))
	if len(c.Payload) == 0 {
		c.Payload = nil
	}
	return c, nil
}

// before is the record that a claim found. The attempt before comes with it only
// when it goes on.
func (p *parts) before(id ff.ExecutionID, how string) (ff.Execution, error) {
	if how == "resumed" {
		return p.execution(id)
	}
	attempts := p.core["total_attempt_count"]
	p.core["total_attempt_count"] = ""
	x, err := p.execution(id)
	if err != nil {
		return x, err
	}
	f := &fields{hash: "execution " + id.String(), m: map[string]string{"total_attempt_count": attempts, "current_attempt_index": p.core["current_attempt_index"]}}
	x.TotalAttempts, x.Attempt.Index = f.count("total_attempt_count"), f.count("current_attempt_index")
	return x, f.err
}

// GrantNext reserves the next execution of a lane. Executions whose lease was lost
// are taken by Claim and by GrantReclaim, not here.
func (s *Store) GrantNext(ctx context.Context, c ff.GrantNext) (ff.GrantResult, error) {
	if err := c.Validate(); err != nil {
		return ff.GrantResult{}, err
	}
	r, err := s.grantLikely(ctx, &c)
	if err != nil || !r.ID.IsZero() {
		return r, err
	}
	found, err := s.findWork(ctx, []ff.LaneID{c.Lane})
	if err != nil || !found {
		return r, err
	}
	return s.grantLikely(ctx, &c)
}

func (s *Store) grantLikely(ctx context.Context, c *ff.GrantNext) (ff.GrantResult, error) {
	for _, p := range s.wakeups.likely(c.Lane, s.partitions) {
		skipped := int64(0)
		for more := true; more; {
			call := callGrantNext(p, c, skipped)
			m, err := s.do(ctx, &call)
			if err != nil {
				return ff.GrantResult{}, err
			}
			list, err := m.ToArray()
			if err != nil || len(list) != 5 {
				return ff.GrantResult{}, ff.NewError(ff.CodeInternal, "ffx_grant_next answered something unexpected")
			}
			a := reply(list)
			if a.text(3) != "" {
				id, err := ff.ParseExecutionID(a.text(3))
				return ff.GrantResult{ID: id, Lane: c.Lane, ExpiresAt: time.UnixMilli(a.number(4))}, err
			}
			more, skipped = a.number(1) == 1, a.number(2)
		}
	}
	return ff.GrantResult{}, nil
}

// GrantReclaim reserves an execution whose lease was lost.
func (s *Store) GrantReclaim(ctx context.Context, c ff.GrantReclaim) (ff.GrantResult, error) {
	if err := c.Validate(); err != nil {
		return ff.GrantResult{}, err
	}
	call := callGrantReclaim(&c)
	r, err := s.answer(ctx, &call)
	if err != nil {
		return ff.GrantResult{}, err
	}
	return ff.GrantResult{ID: c.ID, Lane: ff.LaneID(r.text(0)), ExpiresAt: time.UnixMilli(r.number(1))}, nil
}

// ClaimGranted turns a grant into a lease.
func (s *Store) ClaimGranted(ctx context.Context, c ff.ClaimGranted) (ff.ClaimGrantedResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ClaimGrantedResult{}, err
	}
	call := callClaimGranted(&c)
	m, err := s.claimCall(ctx, &call)
	if err != nil {
		return ff.ClaimGrantedResult{}, err
	}
	r, err := readReply(call.function, &m)
	if err != nil {
		return ff.ClaimGrantedResult{}, err
	}
	now := time.UnixMilli(r.number(0))
	claimed, err := claimedOf(&r[1], c.Claimant, c.LeaseTTL, now)
	return ff.ClaimGrantedResult{Claimed: claimed, Now: now}, err
}
