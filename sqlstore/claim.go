package sqlstore

import (
	"context"
	"slices"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// safetyPoll is how often a waiting claim looks without having been woken.
const safetyPoll = time.Second

// ready marks the pairs of lane and capability set that may have claimable
// executions, so that a claim asks the index only where there may be work. A
// mark is set when an execution becomes claimable and cleared when a look finds
// none.
type ready map[int64]map[int64]bool

func (r ready) add(at laneCaps) {
	caps := r[at.lane]
	if caps == nil {
		caps = map[int64]bool{}
		r[at.lane] = caps
	}
	caps[at.caps] = true
}

var (
	// selectReady steps from one pair of the index to the next.
	selectReady = statement(`select lane, caps from executions
where claimable = 1 and (lane, caps) > ($1, $2) order by lane, caps limit 1`)
	selectCandidates = statement(`select seq, score from executions
where claimable = 1 and lane = $1 and caps = $2 order by score, seq limit $3`)
)

func (r ready) load(c Conn) error {
	at, found := laneCaps{}, true
	for found {
		found = false
		err := c.Query(selectReady, []Value{integer(at.lane), integer(at.caps)}, func(row Row) error {
			at, found = laneCaps{row.Int(0), row.Int(1)}, true
			r.add(at)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// candidate is an execution that may be claimed.
type candidate struct{ score, seq int64 }

// candidates are up to limit claimable executions of a lane that a set of
// capabilities suffices for, the first to claim first.
func (t *tx) candidates(lane int64, offered ff.CapabilitySet, limit int) ([]candidate, error) {
	var list []candidate
	sources := 0
	for caps := range t.ready[lane] {
		if !offered.Satisfies(t.s.capabilities.set(caps)) {
			continue
		}
		rows := 0
		err := t.query(selectCandidates, []Value{integer(lane), integer(caps), integer(int64(limit + len(t.unreadable)))}, func(r Row) error {
			rows++
			if seq := r.Int(0); !t.unreadable[seq] {
				list = append(list, candidate{r.Int(1), seq})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if rows == 0 {
			delete(t.ready[lane], caps)
			t.spent = append(t.spent, laneCaps{lane, caps})
			continue
		}
		sources++
	}
	if sources > 1 {
		slices.SortFunc(list, func(a, b candidate) int { return comparePairs(a.score, a.seq, b.score, b.seq) })
	}
	return list[:min(limit, len(list))], nil
}

// Claim takes up to Max executions, waiting for the first when told to.
func (s *Store) Claim(ctx context.Context, c ff.Claim) (ff.ClaimResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ClaimResult{}, err
	}
	if c.Wait == 0 {
		return s.claim(ctx, &c)
	}
	end := time.NewTimer(c.Wait)
	defer end.Stop()
	pass := func() {}
	for {
		w := s.claims.Wait(c.Lanes, c.Capabilities.Satisfies)
		r, err := s.claim(ctx, &c)
		if err != nil {
			// The work that woke this claim is there for somebody else.
			pass()
		}
		if err != nil || len(r.Claimed) > 0 {
			w.Stop()
			return r, err
		}
		woken, again, err := s.await(ctx, w.C(), end.C)
		w.Stop()
		if !again {
			return r, err
		}
		if pass = func() {}; woken {
			pass = w.Pass
		}
	}
}

// await waits for a wake-up or the safety poll; again is false when the time is
// over.
func (s *Store) await(ctx context.Context, wake <-chan struct{}, end <-chan time.Time) (woken, again bool, err error) {
	poll := time.NewTimer(safetyPoll)
	defer poll.Stop()
	select {
	case <-wake:
		return true, true, nil
	case <-poll.C:
		return false, true, nil
	case <-end:
		return false, false, nil
	case <-s.writer.quit:
		return false, false, errClosed()
	case <-ctx.Done():
		return false, false, ctx.Err()
	}
}

func (s *Store) claim(ctx context.Context, c *ff.Claim) (ff.ClaimResult, error) {
	return write(ctx, s, func(t *tx) (ff.ClaimResult, error) { return t.claim(c) })
}

func (t *tx) claim(c *ff.Claim) (ff.ClaimResult, error) {
	r := ff.ClaimResult{Now: t.now}
	size := 0
	for _, name := range c.Lanes {
		lane, ok := t.s.names.id(string(name))
		for ok && len(r.Claimed) < c.Max {
			found, err := t.candidates(lane, c.Capabilities, c.Max-len(r.Claimed))
			if err != nil {
				return ff.ClaimResult{}, err
			}
			if len(found) == 0 {
				break
			}
			for _, f := range found {
				// No candidate comes again: it is claimed, has reached its reclaim
				// limit and fails, or is damaged. So the loop ends.
				before := len(r.Claimed)
				if err := t.claimOne(f.seq, c, &r); err != nil {
					return ff.ClaimResult{}, err
				}
				for _, claimed := range r.Claimed[before:] {
					size += len(claimed.Payload)
				}
				if size >= ff.MaxClaimBytes {
					return r, nil
				}
			}
		}
	}
	return r, nil
}

// claimable reads a candidate; nil when it is damaged. One damaged row must not
// keep a whole lane from its workers: it is reported and passed over.
func (t *tx) claimable(seq int64) (*record, error) {
	rec, err := t.bySeq(seq)
	switch {
	case ff.CodeOf(err) == ff.CodeCorruption:
		t.s.log.Error("an execution cannot be read and is passed over by claims", "seq", seq, "err", err)
		t.unreadable[seq] = true
		return nil, nil
	case err == nil && rec == nil:
		return nil, errMissing("the claimable row", seq)
	}
	return rec, err
}

func (t *tx) claimOne(seq int64, c *ff.Claim, r *ff.ClaimResult) error {
	rec, err := t.claimable(seq)
	if err != nil || rec == nil {
		return err
	}
	claimed, err := t.lease(rec, c.Claimant, c.LeaseTTL, lifecycle.Claim)
	switch code := ff.CodeOf(err); {
	case isBroken(err):
		return err
	case code == ff.CodeMaxRetriesExhausted:
		return nil
	case err != nil:
		// The index says claimable and the rule refuses: that is a bug. Nothing of
		// this command may stay.
		return errRefused(rec, err)
	}
	r.Claimed = append(r.Claimed, claimed)
	return nil
}

type claimRule = func(*ff.Execution, *lifecycle.ClaimArgs, time.Time) (bool, lifecycle.Effects, error)

// lease gives an execution to a claimant.
func (t *tx) lease(rec *record, who ff.Claimant, ttl time.Duration, rule claimRule) (c ff.Claimed, err error) {
	args := lifecycle.ClaimArgs{Claimant: who, LeaseID: ff.NewLeaseID(), AttemptID: ff.NewAttemptID(), LeaseTTL: ttl}
	err = t.apply(rec, func(x *ff.Execution) (fx lifecycle.Effects, err error) {
		c.Resumed, fx, err = rule(x, &args, t.now)
		return fx, err
	})
	if err != nil {
		return ff.Claimed{}, err
	}
	c.Execution = rec.x
	c.Payload, err = readBlob(t.c, selectPayload, rec.seq)
	return c, err
}

// GrantNext reserves the next execution of a lane. Executions whose lease was
// lost are taken by Claim and by GrantReclaim, not here.
func (s *Store) GrantNext(ctx context.Context, c ff.GrantNext) (ff.GrantResult, error) {
	if err := c.Validate(); err != nil {
		return ff.GrantResult{}, err
	}
	return write(ctx, s, func(t *tx) (ff.GrantResult, error) {
		lane, ok := s.names.id(string(c.Lane))
		for limit := 1; ok; limit *= 4 {
			found, err := t.candidates(lane, c.Capabilities, limit)
			if err != nil {
				return ff.GrantResult{}, err
			}
			for _, f := range found {
				r, granted, err := t.grantOne(f.seq, &c)
				if err != nil || granted {
					return r, err
				}
			}
			ok = len(found) == limit
		}
		return ff.GrantResult{}, nil
	})
}

func (t *tx) grantOne(seq int64, c *ff.GrantNext) (r ff.GrantResult, granted bool, err error) {
	rec, err := t.claimable(seq)
	if err != nil || rec == nil {
		return r, false, err
	}
	args := lifecycle.GrantArgs{Claimant: c.Claimant, TTL: c.TTL}
	err = t.apply(rec, func(x *ff.Execution) (lifecycle.Effects, error) {
		return lifecycle.Effects{}, lifecycle.GrantClaim(x, &args, t.now)
	})
	if isBroken(err) {
		return r, false, err
	}
	if granted = err == nil; granted {
		r = ff.GrantResult{ID: rec.x.ID, Lane: rec.x.Lane, ExpiresAt: rec.x.Grant.ExpiresAt}
	}
	return r, granted, nil
}

// GrantReclaim reserves an execution whose lease was lost.
func (s *Store) GrantReclaim(ctx context.Context, c ff.GrantReclaim) (ff.GrantResult, error) {
	if err := c.Validate(); err != nil {
		return ff.GrantResult{}, err
	}
	args := lifecycle.GrantArgs{Claimant: c.Claimant, TTL: c.TTL, Capability: c.Capability, RouteJSON: c.RouteJSON, AdmissionSum: c.AdmissionSum}
	return write(ctx, s, func(t *tx) (ff.GrantResult, error) {
		rec, err := t.applyTo(c.ID, func(x *ff.Execution) (lifecycle.Effects, error) {
			return lifecycle.Effects{}, lifecycle.GrantReclaim(x, &args, t.now)
		})
		if err != nil {
			return ff.GrantResult{}, err
		}
		return ff.GrantResult{ID: rec.x.ID, Lane: rec.x.Lane, ExpiresAt: rec.x.Grant.ExpiresAt}, nil
	})
}

// ClaimGranted turns a grant into a lease.
func (s *Store) ClaimGranted(ctx context.Context, c ff.ClaimGranted) (ff.ClaimGrantedResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ClaimGrantedResult{}, err
	}
	return write(ctx, s, func(t *tx) (ff.ClaimGrantedResult, error) {
		rec, err := t.load(c.ID)
		if err != nil {
			return ff.ClaimGrantedResult{}, err
		}
		claimed, err := t.lease(rec, c.Claimant, c.LeaseTTL, lifecycle.ClaimGranted)
		if err != nil {
			return ff.ClaimGrantedResult{}, err
		}
		return ff.ClaimGrantedResult{Claimed: claimed, Now: t.now}, nil
	})
}
