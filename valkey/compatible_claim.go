package valkey

import (
	"context"
	"slices"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// A claim grants executions to its claimant and then uses the grants, because the
// functions claim nothing without. The grants of what cannot be claimed in the end
// are taken back.

const (
	// claimGrantTTL is how long a grant is for that is used at once, and ownGrant how
	// long it is certainly still that of the claim.
	claimGrantTTL = 5 * time.Second
	ownGrant      = 4 * time.Second
)

// claimIn claims at a place until the claim has enough or everything was looked at.
func (s *compatible) claimIn(ctx context.Context, at place, t *taking) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if t.r.Now.IsZero() {
		if t.r.Now, err = s.Now(ctx); err != nil {
			return err
		}
	}
	tag, before := tagOf(at.partition), len(t.r.Claimed)
	q := s.queue(t.c.Capabilities, t.c.Max, tag.lane(at.lane, laneEligible), tag.lost(at.lane))
	v := view{at, t.c.Capabilities.CSV()}
	for rounds := 0; !q.ended && t.left() > 0 && rounds < callsPerClaim; rounds++ {
		if rounds == 1 {
			q.goTo(s.wakeups.lookedTo(v))
		}
		list, err := q.next(ctx)
		for len(list) > 0 && err == nil && t.left() > 0 {
			n := fitting(list, t.left(), t.room)
			err = s.claimSome(ctx, q, list[:n], t)
			list = list[n:]
		}
		if err != nil && len(t.r.Claimed) > 0 {
			return nil // what was claimed is the caller's; the error comes again
		}
		if err != nil {
			return err
		}
	}
	if !q.ended && t.left() == 0 {
		return nil
	}
	s.wakeups.lookOn(v, [2]int64(q.skipped), q.ended)
	if q.ended && len(t.r.Claimed) == before {
		s.wakeups.unhint(at.lane, at.partition)
	}
	return nil
}

// fitting is how many of the candidates a claim has room for; at least one.
func fitting(list []candidate, most, room int) int {
	n, bytes := 0, int64(0)
	for n < len(list) && n < most && bytes < int64(room) {
		bytes += list[n].bytes
		n++
	}
	return n
}

// claimSome claims candidates for a caller. When the caller goes, what was claimed is
// handed back, so that it need not wait for its lease to lapse.
func (s *compatible) claimSome(ctx context.Context, q *queue, list []candidate, t *taking) error {
	type answer struct {
		got []ff.Claimed
		err error
	}
	answered := make(chan answer)
	var passed []bool
	if !s.background(func(own context.Context) {
		got, fates, err := s.grantAndUse(own, list, &t.c.Claimant, t.c.LeaseTTL)
		passed, err = fates, endedBy(own, err)
		select {
		case answered <- answer{got, err}:
		case <-ctx.Done():
			s.handBackClaimed(own, got)
		}
	}) {
		return errClosed
	}
	select {
	case a := <-answered:
		for i, is := range passed {
			if is {
				q.pass(&list[i])
			}
		}
		for i := range a.got {
			t.room -= len(a.got[i].Payload)
		}
		t.r.Claimed = append(t.r.Claimed, a.got...)
		return a.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *compatible) handBackClaimed(ctx context.Context, got []ff.Claimed) {
	if len(got) == 0 {
		return
	}
	leases := make([]ff.LeaseRef, len(got))
	for i := range got {
		leases[i] = got[i].Ref()
	}
	if _, err := s.ReleaseExecutions(ctx, ff.ReleaseExecutions{Leases: leases, Reason: "the caller of the claim was gone"}); err != nil {
		s.log.Warn("executions of a claim whose caller was gone could not be released; their leases will lapse", "count", len(leases), "err", err)
	}
}

// grantAndUse grants candidates to the claimant and claims those that it got.
// Passed are those that stay where they are.
func (s *compatible) grantAndUse(ctx context.Context, list []candidate, who *ff.Claimant, ttl time.Duration) (got []ff.Claimed, passed []bool, err error) {
	calls := make([]call, len(list))
	for i := range list {
		if c := &list[i]; lost(&c.x) {
			calls[i] = callIssueReclaimGrant(&ff.GrantReclaim{Claimant: *who, ID: c.id, TTL: claimGrantTTL}, c.x.Lane)
		} else {
			calls[i] = callIssueClaimGrant(c.id, c.x.Lane, who, claimGrantTTL)
		}
	}
	since := time.Now()
	passed = make([]bool, len(list))
	var granted []*grantUse
	var at []int
	for i, answer := range s.doMulti(ctx, calls) {
		if answer.err != nil {
			err = answer.err
		} else if _, refused := readReply(calls[i].function, &answer.m); refused == nil {
			granted, at = append(granted, newGrantUse(&list[i], who, ttl)), append(at, i)
			continue
		}
		passed[i] = true
	}
	if len(granted) == 0 {
		return nil, passed, err
	}
	if err := s.useGrants(ctx, granted); err != nil {
		s.log.Warn("executions could not be claimed", "err", err)
	}
	var unused []valkey.Completed
	for n, k := range granted {
		if k.err == nil {
			got = append(got, k.claimed)
			continue
		}
		passed[at[n]] = ff.CodeOf(k.err) != ff.CodeMaxRetriesExhausted
		unused = append(unused, s.client.B().Del().Key(keysOf(k.c.id).claimGrant()).Build())
	}
	if time.Since(since) < ownGrant {
		s.follow(ctx, unused...)
	}
	return got, passed, err
}

// What findLost looks at in one go: of each partition the next lostPage lapsed leases,
// and up to lostPages of these until one is of the lanes.
const (
	lostPage  = 100
	lostPages = 5
)

// findLost looks for executions whose lease peers have marked as lost, and then for
// work on all partitions. Those that nobody takes over stay in the index: each page is
// what follows the one before, from the beginning again after the last.
func (s *compatible) findLost(ctx context.Context, lanes []ff.LaneID) (bool, error) {
	partitions := make([]uint16, s.partitions.Flow)
	for p := range partitions {
		partitions[p] = uint16(p)
	}
	lost := false
	for n := 0; n < lostPages && len(partitions) > 0 && !lost; n++ {
		ids, more, err := s.nextLapsed(ctx, partitions)
		if err == nil && len(ids) > 0 {
			lost, err = s.hintLost(ctx, ids, lanes)
		}
		if err != nil {
			return false, err
		}
		partitions = more
	}
	found, err := s.findWork(ctx, lanes)
	return found || lost, err
}

// nextLapsed reads the next page of lapsed leases of partitions. More are those that
// have not come to the last.
func (s *compatible) nextLapsed(ctx context.Context, partitions []uint16) (ids []ff.ExecutionID, more []uint16, err error) {
	commands := []valkey.Completed{s.client.B().Time().Build()}
	for _, p := range partitions {
		at := s.rounds.lapsedFrom(p)
		commands = append(commands, s.client.B().Zrange().Key(tagOf(p).leaseExpiry()).Min(itoa(at)).Max(itoa(at+lostPage-1)).Withscores().Build())
	}
	results := s.send(ctx, commands...)
	now, err := instantOf(results[0])
	if err != nil {
		return nil, nil, s.lift(ctx, err)
	}
	for i, r := range results[1:] {
		list, err := r.AsZScores()
		if err != nil {
			return nil, nil, s.lift(ctx, err)
		}
		n := 0
		for n < len(list) && int64(list[n].Score) <= now.UnixMilli() {
			if id, err := ff.ParseExecutionID(list[n].Member); err == nil {
				ids = append(ids, id)
			}
			n++
		}
		if s.rounds.lapsedSeen(partitions[i], n); n == lostPage {
			more = append(more, partitions[i])
		}
	}
	return ids, more, nil
}

// hintLost notes those that were lost, and reports whether any is of the lanes.
func (s *compatible) hintLost(ctx context.Context, ids []ff.ExecutionID, lanes []ff.LaneID) (found bool, err error) {
	noted, err := s.noteLost(ctx, ids)
	for _, n := range noted {
		s.wakeups.hint(n.lane, n.id.Partition())
		found = found || slices.Contains(lanes, n.lane)
	}
	return found, err
}

// GrantNext reserves the next execution of a lane.
func (s *compatible) GrantNext(ctx context.Context, c ff.GrantNext) (ff.GrantResult, error) {
	if err := c.Validate(); err != nil {
		return ff.GrantResult{}, err
	}
	r, err := s.grantFromLikely(ctx, &c)
	if err != nil || !r.ID.IsZero() {
		return r, err
	}
	found, err := s.findWork(ctx, []ff.LaneID{c.Lane})
	if err != nil || !found {
		return r, err
	}
	return s.grantFromLikely(ctx, &c)
}

func (s *compatible) grantFromLikely(ctx context.Context, c *ff.GrantNext) (ff.GrantResult, error) {
	for _, p := range s.wakeups.likely(c.Lane, s.partitions) {
		v, q := view{place{c.Lane, p}, c.Capabilities.CSV()}, s.queue(c.Capabilities, 1, tagOf(p).lane(c.Lane, laneEligible))
		for rounds := 0; !q.ended && rounds < callsPerClaim; rounds++ {
			if rounds == 1 {
				q.goTo(s.wakeups.lookedTo(v))
			}
			list, err := q.next(ctx)
			if err != nil {
				return ff.GrantResult{}, err
			}
			for i := range list {
				call := callIssueClaimGrant(list[i].id, c.Lane, &c.Claimant, c.TTL)
				if _, err := s.answer(ctx, &call); err == nil {
					return s.granted(ctx, list[i].id, c.Lane, c.TTL)
				} else if _, refused := ff.AsError(err); !refused || ff.CodeOf(err) == ff.CodeTransport || ff.CodeOf(err) == ff.CodeUnavailable {
					return ff.GrantResult{}, err
				}
				q.pass(&list[i])
			}
		}
		s.wakeups.lookOn(v, [2]int64{q.skipped[0]}, q.ended)
	}
	return ff.GrantResult{}, nil
}

// granted notes when a grant ends, so that somebody is woken then.
func (s *compatible) granted(ctx context.Context, id ff.ExecutionID, lane ff.LaneID, ttl time.Duration) (ff.GrantResult, error) {
	text, err := s.client.Do(ctx, s.client.B().Hget().Key(keysOf(id).claimGrant()).Field("grant_expires_at").Build()).AsInt64()
	ends := time.UnixMilli(text)
	if err != nil {
		now, err := s.Now(ctx) // it has ended, or was used
		if err != nil {
			return ff.GrantResult{}, err
		}
		ends = now.Add(ttl)
	}
	s.noteGrant(ctx, id, ends)
	return ff.GrantResult{ID: id, Lane: lane, ExpiresAt: ends}, nil
}

func (s *compatible) noteGrant(ctx context.Context, id ff.ExecutionID, ends time.Time) {
	s.follow(ctx, s.client.B().Zadd().Key(tagOf(id.Partition()).grants()).ScoreMember().ScoreMember(float64(ends.UnixMilli()), id.String()).Build(),
		s.dueCommand(ends))
}

// GrantReclaim reserves an execution whose lease was lost.
func (s *compatible) GrantReclaim(ctx context.Context, c ff.GrantReclaim) (ff.GrantResult, error) {
	if err := c.Validate(); err != nil {
		return ff.GrantResult{}, err
	}
	g, _, err := s.glimpse(ctx, c.ID, "lane_id")
	if err != nil {
		return ff.GrantResult{}, err
	}
	lane := g.holding().lane
	call := callIssueReclaimGrant(&c, lane)
	r, err := s.answer(ctx, &call)
	if err != nil {
		return ff.GrantResult{}, err
	}
	ends := time.UnixMilli(r.number(1))
	s.noteGrant(ctx, c.ID, ends)
	return ff.GrantResult{ID: c.ID, Lane: lane, ExpiresAt: ends}, nil
}

// ClaimGranted turns a grant into a lease.
func (s *compatible) ClaimGranted(ctx context.Context, c ff.ClaimGranted) (ff.ClaimGrantedResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ClaimGrantedResult{}, err
	}
	r := s.describe(ctx, []ff.ExecutionID{c.ID})[0]
	if r.err != nil {
		return ff.ClaimGrantedResult{}, r.err
	}
	now, err := s.Now(ctx)
	if err != nil {
		return ff.ClaimGrantedResult{}, err
	}
	k := newGrantUse(&candidate{id: c.ID, parts: r.parts, x: r.x}, &c.Claimant, c.LeaseTTL)
	after := r.x
	args := k.args()
	if _, _, err := lifecycle.ClaimGranted(&after, &args, now); err != nil && ff.CodeOf(err) != ff.CodeMaxRetriesExhausted {
		return ff.ClaimGrantedResult{}, err
	}
	if err := s.useGrants(ctx, []*grantUse{k}); err != nil {
		return ff.ClaimGrantedResult{}, err
	}
	s.follow(ctx, s.client.B().Zrem().Key(tagOf(c.ID.Partition()).grants()).Member(c.ID.String()).Build())
	return ff.ClaimGrantedResult{Claimed: k.claimed, Now: k.now}, k.err
}
