package backendtest

import (
	"fmt"
	"sync"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

var nextBehaviours = []behaviour{
	{"a completion claims what comes next", completesAndClaims},
	{"a completion with nothing at hand is a completion", nothingNext},
	{"a completion that is refused claims nothing", refusedClaimsNothing},
	{"a completion that is repeated claims again", repeatedClaimsAgain},
	{"what comes next is the highest priority, then the oldest", nextOrder},
	{"lanes come next in the given order, also without that of the execution", nextLanes},
	{"an execution on another partition than its lane is completed and work comes next", nextElsewhere},
	{"what comes next may be a lost execution, or one that is parked no more", nextLost},
	{"what comes next is what the worker can run", nextCapabilities},
	{"claims that cannot come next are refused with the field", badNext},
	{"sixteen workers that take the next with each completion take none twice", nobodyTakesTwice},
}

// completeNext completes and claims for instance b from the lane main unless given.
func (s *subject) completeNext(c ff.Claimed, next ff.Claim) ff.CompleteExecutionResult {
	s.Helper()
	next = filledClaim(next)
	before := next
	r, err := s.CompleteExecution(s.Context(), ff.CompleteExecution{LeaseRef: c.Ref(), Result: []byte("out"), Next: &next})
	s.must(err)
	s.equal("the caller's claim", next, before)
	s.equal("the completion", ff.CompleteExecutionResult{State: r.State}, ff.CompleteExecutionResult{State: ff.StateCompleted})
	s.equal("the instant of the claim", r.Next.Now, s.now())
	s.wantState(c.Execution.ID, ff.StateCompleted)
	return r
}

func filledClaim(c ff.Claim) ff.Claim {
	if c.Worker == "" {
		c.Claimant = who("b")
	}
	if c.Lanes == nil {
		c.Lanes = []ff.LaneID{mainLane}
	}
	return c
}

func claimedIDs(list []ff.Claimed) (ids []ff.ExecutionID) {
	for i := range list {
		ids = append(ids, list[i].Execution.ID)
	}
	return ids
}

func completesAndClaims(s *subject) {
	first := s.start(ff.CreateExecution{})
	id := s.submit(ff.CreateExecution{Payload: []byte("in"), Tags: map[string]string{"a.b": "c"}})
	s.Advance(time.Second)
	now := s.now()
	r := s.completeNext(first, ff.Claim{LeaseTTL: ttl})
	if len(r.Next.Claimed) != 1 || r.Repeated {
		s.Fatalf("completed and claimed %+v", r)
	}
	c := r.Next.Claimed[0]
	x := c.Execution
	if x.ID != id || c.Resumed || string(c.Payload) != "in" || x.CurrentAttemptID.IsZero() {
		s.Errorf("claimed %+v", c)
	}
	s.equal("the lease", x.Lease, ff.Lease{ID: x.Lease.ID, Worker: "w", Instance: "b", AcquiredAt: now, ExpiresAt: now.Add(ttl),
		RenewedAt: now, RenewBefore: now.Add(ttl * 2 / 3)})
	s.equal("the record read", s.read(id), x)
	result, err := s.ExecutionResult(s.Context(), first.Execution.ID)
	s.must(err)
	s.equal("the result of the first", string(result), "out")
	s.countsEqualRecount()
	s.must(s.renew(c.Ref(), ttl).Err)
	s.complete(c)
}

func nothingNext(s *subject) {
	s.submit(ff.CreateExecution{Lane: "other"})
	s.submit(ff.CreateExecution{Delay: time.Hour})
	first := s.start(ff.CreateExecution{})
	s.equal("claimed", len(s.completeNext(first, ff.Claim{}).Next.Claimed), 0)
	second := s.start(ff.CreateExecution{})
	s.equal("claimed of lanes nobody knows", len(s.completeNext(second, ff.Claim{Lanes: []ff.LaneID{"unknown", mainLane}, Max: 5}).Next.Claimed), 0)
}

func refusedClaimsNothing(s *subject) {
	c, lapsed, done := s.start(ff.CreateExecution{}), s.start(ff.CreateExecution{Lane: "lapsed"}), s.start(ff.CreateExecution{Lane: "done"})
	s.must(s.renew(c.Ref(), time.Hour).Err)
	_, err := s.CancelExecution(s.Context(), ff.CancelExecution{ID: done.Execution.ID})
	s.must(err)
	s.Advance(ttl)
	waiting := s.submit(ff.CreateExecution{})
	stale, missing := c.Ref(), c.Ref()
	stale.Fence.LeaseEpoch++
	missing.ID = ff.MakeExecutionID(0, c.Execution.Lease.ID.UUID())
	for _, refused := range []struct {
		ref  ff.LeaseRef
		want *ff.Error
	}{
		{stale, ff.ErrStaleLease}, {missing, ff.ErrExecutionNotFound}, {lapsed.Ref(), ff.ErrLeaseExpired}, {done.Ref(), ff.ErrExecutionNotActive},
	} {
		next := filledClaim(ff.Claim{})
		r, err := s.CompleteExecution(s.Context(), ff.CompleteExecution{LeaseRef: refused.ref, Next: &next})
		s.refused(err, refused.want)
		s.equal("the result beside "+string(refused.want.Code), r, ff.CompleteExecutionResult{})
		s.wantState(waiting, ff.StateWaiting)
	}
	s.equal("claimed at last", claimedIDs(s.completeNext(c, ff.Claim{}).Next.Claimed), []ff.ExecutionID{waiting})
}

func repeatedClaimsAgain(s *subject) {
	c := s.start(ff.CreateExecution{})
	want := []ff.ExecutionID{s.submit(ff.CreateExecution{}), s.submit(ff.CreateExecution{}), {}}
	for i := range want {
		next := filledClaim(ff.Claim{})
		r, err := s.CompleteExecution(s.Context(), ff.CompleteExecution{LeaseRef: c.Ref(), Next: &next})
		s.must(err)
		var got ff.ExecutionID
		if len(r.Next.Claimed) == 1 {
			got = r.Next.Claimed[0].Execution.ID
		}
		s.equal(fmt.Sprintf("claimed with completion %d", i), got, want[i])
		s.equal("repeated", r.Repeated, i > 0)
	}
	other := c.Ref()
	other.Fence.LeaseEpoch++
	waiting := s.submit(ff.CreateExecution{})
	next := filledClaim(ff.Claim{})
	_, err := s.CompleteExecution(s.Context(), ff.CompleteExecution{LeaseRef: other, Next: &next})
	s.refused(err, ff.ErrExecutionNotActive)
	s.wantState(waiting, ff.StateWaiting)
}

func nextOrder(s *subject) {
	c := s.start(ff.CreateExecution{})
	var want []ff.ExecutionID
	for _, p := range []int{9000, 100, 0} {
		for range 3 {
			want = append(want, s.submit(ff.CreateExecution{Priority: p}))
		}
	}
	want = append([]ff.ExecutionID{want[8]}, want[:8]...)
	_, err := s.ChangePriority(s.Context(), ff.ChangePriority{ID: want[0], Priority: 9000})
	s.must(err)
	want[0], want[1], want[2], want[3] = want[1], want[2], want[3], want[0] // as old as it was
	var got []ff.ExecutionID
	for _, n := range []int{0, 1, 3, 100} {
		list := s.completeNext(c, ff.Claim{Max: n}).Next.Claimed
		got, c = append(got, claimedIDs(list)...), list[len(list)-1]
	}
	s.equal("the order", got, want)
}

func nextLanes(s *subject) {
	a1, a2, a3 := s.start(ff.CreateExecution{Lane: "a"}), s.start(ff.CreateExecution{Lane: "a"}), s.start(ff.CreateExecution{Lane: "a"})
	waitingA := s.submit(ff.CreateExecution{Lane: "a", Priority: 9000})
	b1, b2 := s.submit(ff.CreateExecution{Lane: "b"}), s.submit(ff.CreateExecution{Lane: "b"})
	without := s.completeNext(a1, ff.Claim{Lanes: []ff.LaneID{"empty", "b"}})
	s.equal("without the lane", claimedIDs(without.Next.Claimed), []ff.ExecutionID{b1})
	later := s.completeNext(a2, ff.Claim{Lanes: []ff.LaneID{"b", "a"}})
	s.equal("the first lane first", claimedIDs(later.Next.Claimed), []ff.ExecutionID{b2})
	b3 := s.submit(ff.CreateExecution{Lane: "b"})
	both := s.completeNext(a3, ff.Claim{Lanes: []ff.LaneID{"a", "b"}, Max: 5})
	s.equal("more than the lane has", claimedIDs(both.Next.Claimed), []ff.ExecutionID{waitingA, b3})
}

func nextElsewhere(s *subject) {
	info, err := s.Info(s.Context())
	s.must(err)
	p := (info.Partitions.LanePartition(mainLane) + 1) % info.Partitions.Flow
	c := s.start(ff.CreateExecution{ID: ff.MakeExecutionID(p, ff.NewLeaseID().UUID())})
	id := s.submit(ff.CreateExecution{})
	s.equal("claimed", claimedIDs(s.completeNext(c, ff.Claim{}).Next.Claimed), []ff.ExecutionID{id})
}

func nextLost(s *subject) {
	exhausted, lost := s.start(reclaimable(0)), s.start(ff.CreateExecution{})
	parked := s.start(ff.CreateExecution{})
	s.pass(ttl - time.Second)
	_, err := s.DelayExecution(s.Context(), ff.DelayExecution{LeaseRef: parked.Ref(), For: time.Second})
	s.must(err)
	c := s.start(ff.CreateExecution{Lane: "other"})
	s.pass(time.Second)
	got := s.completeNext(c, ff.Claim{Max: 5}).Next.Claimed
	s.equal("claimed", claimedIDs(got), []ff.ExecutionID{lost.Execution.ID, parked.Execution.ID})
	s.failedByReclaims(exhausted.Execution.ID, 0)
	s.reclaimed(lost, got[0])
	s.resumed(parked, got[1])
}

func nextCapabilities(s *subject) {
	first, second := s.start(ff.CreateExecution{}), s.start(ff.CreateExecution{})
	urgent := requiring("gpu")
	urgent.Priority = 9000
	hidden, plain := s.submit(urgent), s.submit(ff.CreateExecution{})
	s.equal("claimed without", claimedIDs(s.completeNext(first, ff.Claim{Max: 5}).Next.Claimed), []ff.ExecutionID{plain})
	s.equal("claimed with", claimedIDs(s.completeNext(second, ff.Claim{Claimant: who("c", "gpu")}).Next.Claimed), []ff.ExecutionID{hidden})
}

func badNext(s *subject) {
	c := s.start(ff.CreateExecution{})
	waiting := s.submit(ff.CreateExecution{})
	lanes := []ff.LaneID{mainLane}
	for field, next := range map[string]ff.Claim{
		"next.worker_id":          {Claimant: ff.Claimant{Instance: "a"}, Lanes: lanes},
		"next.worker_instance_id": {Claimant: ff.Claimant{Worker: "w"}, Lanes: lanes},
		"next.lanes":              {Claimant: who("a")},
		"next.lanes[0].lane_id":   {Claimant: who("a"), Lanes: []ff.LaneID{""}},
		"next.max":                {Claimant: who("a"), Lanes: lanes, Max: ff.MaxClaim + 1},
		"next.wait":               {Claimant: who("a"), Lanes: lanes, Wait: time.Millisecond},
		"next.lease_ttl_ms":       {Claimant: who("a"), Lanes: lanes, LeaseTTL: time.Millisecond},
	} {
		_, err := s.CompleteExecution(s.Context(), ff.CompleteExecution{LeaseRef: c.Ref(), Next: &next})
		if e, ok := ff.AsError(err); !ok || e.Code != ff.CodeInvalidInput || e.Field != field {
			s.Errorf("bad %s: %v", field, err)
		}
	}
	s.equal("the record", s.read(c.Execution.ID), c.Execution)
	s.wantState(waiting, ff.StateWaiting)
}

func nobodyTakesTwice(s *subject) {
	const total = 600
	batch := ff.CreateExecutions{Executions: make([]ff.CreateExecution, total)}
	for i := range batch.Executions {
		batch.Executions[i] = ff.CreateExecution{Lane: ff.LaneID(fmt.Sprintf("lane %d", i%2)), Kind: "k", Priority: i % 3}
	}
	_, err := s.CreateExecutions(s.Context(), batch)
	s.must(err)
	var mu sync.Mutex
	claims := map[ff.ExecutionID]int{}
	inParallel(16, func(i int) {
		claim := ff.Claim{Claimant: who(ff.WorkerInstanceID(fmt.Sprint(i))), Lanes: []ff.LaneID{"lane 0", "lane 1"}, Max: 1 + i%3}
		r, err := s.Claim(s.Context(), claim)
		if err != nil {
			s.Error(err)
		}
		for held := r.Claimed; len(held) > 0; {
			c := held[0]
			mu.Lock()
			claims[c.Execution.ID]++
			mu.Unlock()
			r, err := s.CompleteExecution(s.Context(), ff.CompleteExecution{LeaseRef: c.Ref(), Next: &claim})
			if err != nil {
				s.Error(err)
			}
			held = append(held[1:], r.Next.Claimed...)
		}
	})
	s.equal("distinct executions", len(claims), total)
	for id, n := range claims {
		if n != 1 {
			s.Errorf("%s was claimed %d times", id, n)
		}
	}
	s.countsEqualRecount()
	r, err := s.ListExecutions(s.Context(), ff.ListExecutions{State: ff.StateCompleted, Limit: ff.MaxPageLimit})
	s.must(err)
	s.equal("completed executions", len(r.Executions), total)
}
