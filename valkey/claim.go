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

// ways are how claims are done: by the extensions, or by the compatible functions.
type ways struct {
	claim func(ctx context.Context, at place, t *taking) error
	find  func(ctx context.Context, lanes []ff.LaneID) (found bool, err error)
	// poll is how often who waits looks without having been woken.
	poll time.Duration
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
	places, err := s.markPlaces(ctx, c.Lanes)
	if err != nil {
		return r, err
	}
	keys := make([]string, len(places))
	for i, at := range places {
		keys[i] = tagOf(at.partition).waiting(at.lane)
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
	poll := time.NewTimer(s.ways.poll)
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

// place is one lane on one partition.
type place struct {
	lane      ff.LaneID
	partition uint16
}

// places are where a claim looks: lane by lane the partitions that may have work,
// which take turns. There is at least one for each lane.
func (s *Store) places(lanes []ff.LaneID) []place {
	all := make([]place, 0, len(lanes))
	for _, lane := range lanes {
		list := s.wakeups.likely(lane, s.partitions)
		first := 0
		if len(list) > 1 {
			first = rand.IntN(len(list))
		}
		for i := range list {
			all = append(all, place{lane, list[(first+i)%len(list)]})
		}
	}
	return all
}

// taking is a claim under way: what it has, and how many bytes of input it may
// still take.
type taking struct {
	c    *ff.Claim
	r    ff.ClaimResult
	room int
}

func newTaking(c *ff.Claim) *taking { return &taking{c: c, room: ff.MaxClaimBytes} }

// left is how many more executions to take.
func (t *taking) left() int {
	if t.room <= 0 {
		return 0
	}
	return t.c.Max - len(t.r.Claimed)
}

// claimLikely claims from the partitions that may have work.
func (s *Store) claimLikely(ctx context.Context, c *ff.Claim) (ff.ClaimResult, error) {
	t := newTaking(c)
	err := s.claimFrom(ctx, s.places(c.Lanes), t)
	return t.r, err
}

// claimFrom claims from one place after the other until the claim has enough.
func (s *Store) claimFrom(ctx context.Context, places []place, t *taking) error {
	for _, at := range places {
		if t.left() == 0 {
			return nil
		}
		if err := s.ways.claim(ctx, at, t); err != nil {
			return err
		}
	}
	return nil
}

// claimAnywhere is claimLikely, and when that finds nothing it looks which
// partitions have work at all.
func (s *Store) claimAnywhere(ctx context.Context, c *ff.Claim) (ff.ClaimResult, error) {
	r, err := s.claimLikely(ctx, c)
	if err != nil || len(r.Claimed) > 0 {
		return r, err
	}
	found, err := s.ways.find(ctx, c.Lanes)
	if err != nil || !found {
		return r, err
	}
	return s.claimLikely(ctx, c)
}

// findWork hints at every partition with work in one of the lanes.
func (s *Store) findWork(ctx context.Context, lanes []ff.LaneID) (found bool, err error) {
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
			s.wakeups.hint(places[i].lane, places[i].partition)
			found = true
		}
	}
	return found, nil
}

var errClaimAnswer = ff.NewError(ff.CodeInternal, "ffx_claim answered something unexpected")

// callsPerClaim bounds the calls of a claim at a place of which none gives anything.
const callsPerClaim = 32

// claimAt claims at a place until the claim has enough or everything was looked at.
// A call looks at a bounded number of executions; the next goes on behind those that
// the claimant may not have. When there are many of them the claim stops, and the
// next looks at the first ones and goes on from there. The first call may have been
// made: answer is its answer.
func (s *Store) claimAt(ctx context.Context, at place, t *taking, answer reply) error {
	before, skipped, v := len(t.r.Claimed), [2]int64{}, view{at, t.c.Capabilities.CSV()}
	more := true
	for calls := 0; more && t.left() > 0 && calls < callsPerClaim; calls++ {
		var err error
		if answer == nil {
			call := callClaim(at, t.c, t.left(), t.room, skipped)
			answer, err = s.claimAnswer(ctx, &call)
		}
		if err == nil {
			more, err = s.take(at, t, answer)
		}
		if err != nil {
			if len(t.r.Claimed) > 0 {
				return nil // what was claimed is the caller's; the error comes again
			}
			return err
		}
		skipped = [2]int64{answer.number(2), answer.number(3)}
		if calls == 0 && more {
			far := s.wakeups.lookedTo(v)
			skipped = [2]int64{max(skipped[0], far[0]), max(skipped[1], far[1])}
		}
		answer = nil
	}
	if more && t.left() == 0 {
		return nil
	}
	s.wakeups.lookOn(v, skipped, !more)
	if !more && len(t.r.Claimed) == before {
		s.wakeups.unhint(at.lane, at.partition)
	}
	return nil
}

func (s *Store) claimAnswer(ctx context.Context, c *call) (reply, error) {
	m, err := s.claimCall(ctx, c)
	if err != nil {
		return nil, err
	}
	list, err := m.ToArray()
	if err != nil {
		return nil, errClaimAnswer
	}
	return list, nil
}

// take reads what a call has claimed and reports whether there is more to look at.
func (s *Store) take(at place, t *taking, answer reply) (more bool, err error) {
	if len(answer) == 1 {
		return false, ff.Errorf(ff.CodeCorruption, "a claim met data that it cannot read: %s", answer.text(0))
	}
	if len(answer) != 6 {
		return false, errClaimAnswer
	}
	t.r.Now, more = time.UnixMilli(answer.number(0)), answer.number(1) == 1
	if n := answer.number(4); n > 0 {
		s.log.Error("executions cannot be read and are passed over by claims", "partition", at.partition, "lane", at.lane, "count", n)
	}
	list, err := answer[5].ToArray()
	if err != nil {
		return false, ff.Errorf(ff.CodeInternal, "ffx_claim: %w", err)
	}
	for i := range list {
		got, err := claimedOf(&list[i], t.c.Claimant, t.c.LeaseTTL, t.r.Now)
		if err != nil {
			s.log.Error("a claimed execution cannot be read; its lease will lapse", "partition", at.partition, "lane", at.lane, "err", err)
			more = true // it took the place of another
			continue
		}
		t.r.Claimed = append(t.r.Claimed, got)
		t.room -= len(got.Payload)
	}
	return more, nil
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
		v, skipped, more := view{place{c.Lane, p}, c.Capabilities.CSV()}, int64(0), true
		for calls := 0; more && calls < callsPerClaim; calls++ {
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
			if calls == 0 && more {
				skipped = max(skipped, s.wakeups.lookedTo(v)[0])
			}
		}
		s.wakeups.lookOn(v, [2]int64{skipped}, !more)
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
