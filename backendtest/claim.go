package backendtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

var claimBehaviours = []behaviour{
	{"a claim gives a lease and starts the first attempt", claimStarts},
	{"an empty lane gives nothing", emptyLane},
	{"the highest priority goes first, then the oldest", claimOrder},
	{"lanes are served in the given order", laneOrder},
	{"a claim takes no more than asked for", claimMax},
	{"delayed, active and ended executions are not claimed", notClaimable},
	{"capabilities must cover what is required", capabilitiesCover},
	{"what a worker cannot run does not stand in its way", capabilitiesSkip},
	{"claims that cannot be are refused with the field", badClaims},
	{"sixteen workers claim two thousand executions and none twice", nobodyClaimsTwice},
	{"a waiting claim returns within milliseconds after a submit", waitWakes},
	{"whatever makes an execution claimable wakes a waiting claim", everythingWakes},
	{"of many waiting claims each gets one", manyWaiters},
	{"a waiting claim without luck returns empty after its time", waitEnds},
	{"a waiting claim is not given what its worker cannot run", waitCapabilities},
	{"a waiting claim returns when its context ends", waitContext},
}

func claimStarts(s *subject) {
	id := s.submit(ff.CreateExecution{Payload: []byte("in"), Tags: map[string]string{"a.b": "c"}})
	s.Advance(time.Second)
	r, err := s.Claim(s.Context(), ff.Claim{Claimant: who("a"), Lanes: []ff.LaneID{mainLane}, LeaseTTL: ttl})
	s.must(err)
	now := s.now()
	c := r.Claimed[0]
	x := c.Execution
	if !r.Now.Equal(now) || c.Resumed || string(c.Payload) != "in" || x.ID != id || x.Lease.ID.IsZero() || x.CurrentAttemptID.IsZero() {
		s.Errorf("claimed at %s (want %s): %+v", r.Now, now, c)
	}
	s.equal("the lease", x.Lease, ff.Lease{ID: x.Lease.ID, Worker: "w", Instance: "a", AcquiredAt: now, ExpiresAt: now.Add(ttl),
		RenewedAt: now, RenewBefore: now.Add(ttl * 2 / 3)})
	s.equal("the state", x.State, ff.StateVector{Phase: ff.PhaseActive, Ownership: ff.OwnershipLeased,
		Eligibility: ff.EligibilityNotApplicable, Blocking: ff.BlockingNone, Outcome: ff.OutcomeNone, Attempt: ff.AttemptRunning})
	want := ff.Attempt{ID: x.CurrentAttemptID, Type: ff.AttemptInitial, State: ff.AttemptStarted, CreatedAt: now, StartedAt: now,
		Worker: "w", Instance: "a", LeaseID: x.Lease.ID, LeaseEpoch: 1, Previous: -1}
	s.equal("the attempts", s.attempts(id), []ff.Attempt{want})
	s.equal("the record read", s.read(id), x)
}

func emptyLane(s *subject) {
	s.submit(ff.CreateExecution{Lane: "other"})
	s.nothingToClaim()
	s.equal("claimed of a lane nobody knows", len(s.claimUpTo(ff.Claim{Lanes: []ff.LaneID{"unknown"}, Max: 5})), 0)
}

func claimOrder(s *subject) {
	var want []ff.ExecutionID
	for _, p := range []int{1000, 100, 10} {
		for range 3 {
			want = append(want, s.submit(ff.CreateExecution{Priority: p}))
		}
	}
	// Later submits of a higher priority overtake.
	for _, p := range []int{5000, 9000} {
		want = slices.Insert(want, 0, s.submit(ff.CreateExecution{Priority: p}))
	}
	var got []ff.ExecutionID
	for _, n := range []int{1, 2, 5, 10} {
		for _, c := range s.claimUpTo(ff.Claim{Max: n}) {
			got = append(got, c.Execution.ID)
		}
	}
	s.equal("the order", got, want)
}

func laneOrder(s *subject) {
	a1, b1 := s.submit(ff.CreateExecution{Lane: "a"}), s.submit(ff.CreateExecution{Lane: "b", Priority: 9})
	b2 := s.submit(ff.CreateExecution{Lane: "b"})
	var got []ff.ExecutionID
	for range 3 {
		got = append(got, s.claim(ff.Claim{Lanes: []ff.LaneID{"b", "empty", "a"}}).Execution.ID)
	}
	s.equal("one by one", got, []ff.ExecutionID{b1, b2, a1})
	a2, b3 := s.submit(ff.CreateExecution{Lane: "a"}), s.submit(ff.CreateExecution{Lane: "b"})
	got = nil
	for _, c := range s.claimUpTo(ff.Claim{Lanes: []ff.LaneID{"b", "a"}, Max: 5}) {
		got = append(got, c.Execution.ID)
	}
	s.equal("together", got, []ff.ExecutionID{b3, a2})
}

func claimMax(s *subject) {
	for range 10 {
		s.submit(ff.CreateExecution{})
	}
	for _, c := range []struct{ limit, want int }{{0, 1}, {4, 4}, {256, 5}, {256, 0}} {
		s.equal(fmt.Sprintf("claimed of at most %d", c.limit), len(s.claimUpTo(ff.Claim{Max: c.limit})), c.want)
	}
}

func notClaimable(s *subject) {
	s.submit(ff.CreateExecution{Delay: time.Hour})
	s.start(ff.CreateExecution{})
	s.complete(s.start(ff.CreateExecution{}))
	cancelled := s.submit(ff.CreateExecution{})
	_, err := s.CancelExecution(s.Context(), ff.CancelExecution{ID: cancelled})
	s.must(err)
	s.nothingToClaim()
}

func capabilitiesCover(s *subject) {
	for _, c := range []struct {
		required, offered []string
		want              int
	}{
		{nil, nil, 1}, {nil, []string{"gpu"}, 1}, {[]string{"gpu", "cuda"}, []string{"gpu", "cuda"}, 1},
		{[]string{"gpu"}, []string{"cuda", "gpu", "fpga"}, 1}, {[]string{"gpu", "cuda"}, []string{"gpu"}, 0},
		{[]string{"gpu"}, []string{"gpus"}, 0}, {[]string{"gpu"}, nil, 0},
	} {
		submit := requiring(c.required...)
		submit.Lane = ff.LaneID(fmt.Sprintf("%v for %v", c.offered, c.required))
		s.submit(submit)
		got := s.claimUpTo(ff.Claim{Claimant: who("a", c.offered...), Lanes: []ff.LaneID{submit.Lane}})
		s.equal(string(submit.Lane), len(got), c.want)
	}
}

func capabilitiesSkip(s *subject) {
	urgent := requiring("gpu")
	urgent.Priority = 9000
	var hidden []ff.ExecutionID
	for range 50 {
		hidden = append(hidden, s.submit(urgent))
	}
	plain := s.submit(ff.CreateExecution{})
	s.equal("claimed without capabilities", s.claim(ff.Claim{Max: 5}).Execution.ID, plain)
	got := s.claimUpTo(ff.Claim{Claimant: who("b", "gpu"), Max: 100})
	s.equal("claimed with them", len(got), len(hidden))
}

func badClaims(s *subject) {
	lanes := []ff.LaneID{mainLane}
	for field, c := range map[string]ff.Claim{
		"worker_id":          {Claimant: ff.Claimant{Instance: "a"}, Lanes: lanes},
		"worker_instance_id": {Claimant: ff.Claimant{Worker: "w"}, Lanes: lanes},
		"lanes":              {Claimant: who("a")},
		"lanes[0].lane_id":   {Claimant: who("a"), Lanes: []ff.LaneID{""}},
		"max":                {Claimant: who("a"), Lanes: lanes, Max: ff.MaxClaim + 1},
		"wait":               {Claimant: who("a"), Lanes: lanes, Wait: 2 * time.Minute},
		"lease_ttl_ms":       {Claimant: who("a"), Lanes: lanes, LeaseTTL: time.Millisecond},
	} {
		_, err := s.Claim(s.Context(), c)
		if e, ok := ff.AsError(err); !ok || e.Code != ff.CodeInvalidInput || e.Field != field {
			s.Errorf("bad %s: %v", field, err)
		}
	}
}

func nobodyClaimsTwice(s *subject) {
	const total = 2000
	batch := ff.CreateExecutions{Executions: make([]ff.CreateExecution, total/2)}
	for i := range batch.Executions {
		batch.Executions[i] = ff.CreateExecution{Lane: ff.LaneID(fmt.Sprintf("lane %d", i%2)), Kind: "k", Priority: i % 3}
	}
	for range 2 {
		_, err := s.CreateExecutions(s.Context(), batch)
		s.must(err)
	}
	var mu sync.Mutex
	claims := map[ff.ExecutionID]int{}
	inParallel(16, func(i int) {
		claim := ff.Claim{Claimant: who(ff.WorkerInstanceID(fmt.Sprint(i))), Lanes: []ff.LaneID{"lane 0", "lane 1"}, Max: 1 + i%7}
		for {
			r, err := s.Claim(s.Context(), claim)
			if err != nil || len(r.Claimed) == 0 {
				if err != nil {
					s.Error(err)
				}
				return
			}
			for _, c := range r.Claimed {
				mu.Lock()
				claims[c.Execution.ID]++
				mu.Unlock()
				if i%2 == 0 {
					if _, err := s.CompleteExecution(s.Context(), ff.CompleteExecution{LeaseRef: c.Ref()}); err != nil {
						s.Error(err)
					}
				}
			}
		}
	})
	s.equal("distinct executions", len(claims), total)
	for id, n := range claims {
		if n != 1 {
			s.Errorf("%s was claimed %d times", id, n)
		}
	}
	s.countsEqualRecount()
}

// prompt is far more than a wake-up takes on a busy machine, and less than the
// interval at which stores poll for safety.
const prompt = 800 * time.Millisecond

// settle lets a call that was just begun in another goroutine come to the point
// where it waits. What is tested holds without it too, but would then often find
// its work at once.
func settle() { <-time.After(3 * time.Millisecond) }

// waiting runs a claim that waits, and gives what it claimed.
func (s *subject) waiting(c ff.Claim) <-chan []ff.Claimed {
	claimed := make(chan []ff.Claimed, 1)
	c.Claimant, c.LeaseTTL = who("waiting"), ttl
	if c.Lanes == nil {
		c.Lanes = []ff.LaneID{mainLane}
	}
	go func() {
		r, err := s.Claim(s.Context(), c)
		if err != nil && !errors.Is(err, context.Canceled) {
			s.Error(err)
		}
		claimed <- r.Claimed
	}()
	settle()
	return claimed
}

func waitWakes(s *subject) {
	var took []time.Duration
	for range 25 {
		claimed := s.waiting(ff.Claim{Wait: 10 * time.Second})
		start := time.Now()
		id := s.submit(ff.CreateExecution{})
		got := <-claimed
		took = append(took, time.Since(start))
		if len(got) != 1 || got[0].Execution.ID != id {
			s.Fatalf("the waiting claim got %+v, want %s", got, id)
		}
	}
	slices.Sort(took)
	s.Logf("from the submit to the return of the waiting claim: median %s, longest %s", took[len(took)/2], took[len(took)-1])
	if median := took[len(took)/2]; median > 50*time.Millisecond {
		s.Errorf("a waiting claim returns %s after the submit (median), want a few milliseconds", median)
	}
}

func everythingWakes(s *subject) {
	for _, c := range []struct {
		name    string
		prepare func(lane ff.LaneID) (wake func() error)
	}{
		{"release", func(lane ff.LaneID) func() error {
			c := s.start(ff.CreateExecution{Lane: lane})
			return func() error {
				_, err := s.ReleaseExecutions(s.Context(), ff.ReleaseExecutions{Leases: []ff.LeaseRef{c.Ref()}})
				return err
			}
		}},
		{"a retry without backoff", func(lane ff.LaneID) func() error {
			submit := policed(func(p *ff.ExecutionPolicy) { p.Retry = ff.FixedRetry(1, 0) })
			submit.Lane = lane
			c := s.start(submit)
			return func() error { _, err := s.FailExecution(s.Context(), ff.FailExecution{LeaseRef: c.Ref()}); return err }
		}},
		{"revocation", func(lane ff.LaneID) func() error {
			c := s.start(ff.CreateExecution{Lane: lane})
			return func() error { _, err := s.RevokeLease(s.Context(), ff.RevokeLease{ID: c.Execution.ID}); return err }
		}},
		{"replay", func(lane ff.LaneID) func() error {
			c := s.start(ff.CreateExecution{Lane: lane})
			s.complete(c)
			return func() error {
				_, err := s.ReplayExecution(s.Context(), ff.ReplayExecution{ID: c.Execution.ID})
				return err
			}
		}},
		{"promotion", func(lane ff.LaneID) func() error {
			s.submit(ff.CreateExecution{Lane: lane, Delay: time.Second})
			return func() error { s.pass(time.Second); return nil }
		}},
		{"a lapsed lease", func(lane ff.LaneID) func() error {
			s.start(ff.CreateExecution{Lane: lane})
			return func() error { s.pass(ttl); return nil }
		}},
		{"a lapsed grant", func(lane ff.LaneID) func() error {
			s.submit(ff.CreateExecution{Lane: lane})
			_, err := s.GrantNext(s.Context(), ff.GrantNext{Claimant: who("a"), Lane: lane, TTL: time.Second})
			s.must(err)
			return func() error { s.pass(time.Second); return nil }
		}},
	} {
		lane := ff.LaneID(c.name)
		wake := c.prepare(lane)
		claimed := s.waiting(ff.Claim{Lanes: []ff.LaneID{"idle", lane}, Wait: 10 * time.Second})
		start := time.Now()
		s.must(wake())
		if got := <-claimed; len(got) != 1 || got[0].Execution.Lane != lane {
			s.Errorf("%s: the waiting claim got %+v", c.name, got)
		}
		if took := time.Since(start); took > prompt {
			s.Errorf("%s: the waiting claim returned after %s", c.name, took)
		}
	}
}

func manyWaiters(s *subject) {
	const n = 8
	var waiters [n]<-chan []ff.Claimed
	for i := range waiters {
		waiters[i] = s.waiting(ff.Claim{Wait: 10 * time.Second})
	}
	start := time.Now()
	for range n {
		s.submit(ff.CreateExecution{})
	}
	seen := map[ff.ExecutionID]bool{}
	for _, w := range waiters {
		for _, c := range <-w {
			seen[c.Execution.ID] = true
		}
	}
	s.equal("distinct executions", len(seen), n)
	if took := time.Since(start); took > prompt {
		s.Errorf("%d waiting claims took %s", n, took)
	}
}

func waitEnds(s *subject) {
	const wait = 50 * time.Millisecond
	start := time.Now()
	got := s.claimUpTo(ff.Claim{Wait: wait})
	if took := time.Since(start); len(got) > 0 || took < wait {
		s.Errorf("claimed %d after %s, want none after %s", len(got), took, wait)
	}
}

func waitCapabilities(s *subject) {
	claimed := s.waiting(ff.Claim{Wait: 100 * time.Millisecond})
	id := s.submit(requiring("gpu"))
	if got := <-claimed; len(got) > 0 {
		s.Errorf("claimed %s, which needs a gpu", got[0].Execution.ID)
	}
	s.wantState(id, ff.StateWaiting)
}

func waitContext(s *subject) {
	ctx, cancel := context.WithTimeout(s.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := s.Claim(ctx, ff.Claim{Claimant: who("a"), Lanes: []ff.LaneID{mainLane}, Wait: 10 * time.Second})
	if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took > 50*time.Millisecond+prompt {
		s.Errorf("after %s: %v", took, err)
	}
	s.submit(ff.CreateExecution{})
	s.claim(ff.Claim{})
}

var grantBehaviours = []behaviour{
	{"a grant reserves the next execution of a lane", grantReserves},
	{"grants come in the order of claims", grantOrder},
	{"a grant is taken up once, by any process of the worker", grantTakenUp},
	{"a grant of another worker is refused", grantOfOthers},
	{"a lapsed grant is refused and the execution is open again", grantLapses},
	{"a grant needs the capabilities", grantCapabilities},
	{"an execution without a grant is not taken up", claimWithoutGrant},
	{"a grant ends with the execution", grantEnds},
	{"of concurrent grants each reserves another execution", concurrentGrants},
	{"grants that cannot be are refused with the field", badGrants},
}

func (s *subject) grant(c ff.GrantNext) ff.GrantResult {
	s.Helper()
	if c.Worker == "" {
		c.Claimant = who("a")
	}
	if c.Lane == "" {
		c.Lane = mainLane
	}
	if c.TTL == 0 {
		c.TTL = 5 * time.Second
	}
	r, err := s.GrantNext(s.Context(), c)
	s.must(err)
	return r
}

func (s *subject) claimGranted(id ff.ExecutionID, c ff.Claimant) (ff.Claimed, error) {
	r, err := s.ClaimGranted(s.Context(), ff.ClaimGranted{Claimant: c, ID: id, LeaseTTL: ttl})
	return r.Claimed, err
}

func grantReserves(s *subject) {
	s.equal("the grant on an empty lane", s.grant(ff.GrantNext{}), ff.GrantResult{})
	id := s.submit(ff.CreateExecution{Payload: []byte("in")})
	s.equal("the grant", s.grant(ff.GrantNext{}), ff.GrantResult{ID: id, Lane: mainLane, ExpiresAt: s.now().Add(5 * time.Second)})
	s.wantState(id, ff.StateWaiting)
	s.nothingToClaim()
	s.equal("the second grant", s.grant(ff.GrantNext{}), ff.GrantResult{})
	c, err := s.claimGranted(id, who("a"))
	s.must(err)
	if c.Execution.ID != id || c.Execution.Attempt.Index != 0 || c.Execution.LeaseEpoch != 1 || string(c.Payload) != "in" || c.Resumed {
		s.Errorf("taken up: %+v", c)
	}
	s.equal("the record", s.read(id), c.Execution)
}

func grantOrder(s *subject) {
	low := s.submit(ff.CreateExecution{Priority: 10})
	high, next := s.submit(ff.CreateExecution{Priority: 1000}), s.submit(ff.CreateExecution{Priority: 100})
	for _, want := range []ff.ExecutionID{high, next, low, {}} {
		s.equal("the next granted", s.grant(ff.GrantNext{}).ID, want)
	}
}

func grantTakenUp(s *subject) {
	id := s.submit(ff.CreateExecution{})
	s.grant(ff.GrantNext{})
	c, err := s.claimGranted(id, who("sibling"))
	s.must(err)
	s.equal("the holder", c.Execution.Lease.Instance, ff.WorkerInstanceID("sibling"))
	_, err = s.claimGranted(id, who("a"))
	s.refused(err, ff.ErrLeaseConflict)
	_, err = s.ReleaseExecutions(s.Context(), ff.ReleaseExecutions{Leases: []ff.LeaseRef{c.Ref()}})
	s.must(err)
	_, err = s.claimGranted(id, who("a"))
	s.refused(err, ff.ErrInvalidClaimGrant)
}

func grantOfOthers(s *subject) {
	id := s.submit(ff.CreateExecution{})
	s.grant(ff.GrantNext{})
	_, err := s.claimGranted(id, ff.Claimant{Worker: "other", Instance: "a"})
	s.refused(err, ff.ErrInvalidClaimGrant)
	_, err = s.claimGranted(id, who("a"))
	s.must(err)
}

func grantLapses(s *subject) {
	id := s.submit(ff.CreateExecution{})
	s.grant(ff.GrantNext{TTL: time.Second})
	s.Advance(time.Second + time.Millisecond)
	_, err := s.claimGranted(id, who("a"))
	s.refused(err, ff.ErrClaimGrantExpired)
	s.sweep(ff.SweepDelayed)
	_, err = s.claimGranted(id, who("a"))
	s.refused(err, ff.ErrInvalidClaimGrant)
	s.equal("the claimed", s.claim(ff.Claim{}).Execution.ID, id)
}

func grantCapabilities(s *subject) {
	urgent := requiring("gpu")
	urgent.Priority = 9
	for range 5 {
		s.submit(urgent)
	}
	plain := s.submit(ff.CreateExecution{})
	s.equal("granted without capabilities", s.grant(ff.GrantNext{}).ID, plain)
	id := s.grant(ff.GrantNext{Claimant: who("a", "gpu")}).ID
	_, err := s.claimGranted(id, who("a"))
	s.refused(err, ff.ErrCapabilityMismatch)
	_, err = s.claimGranted(id, who("a", "gpu"))
	s.must(err)
}

func claimWithoutGrant(s *subject) {
	waiting := s.submit(ff.CreateExecution{})
	delayed := s.submit(ff.CreateExecution{Delay: time.Hour})
	for id, want := range map[ff.ExecutionID]*ff.Error{waiting: ff.ErrInvalidClaimGrant, delayed: ff.ErrExecutionNotLeaseable} {
		_, err := s.claimGranted(id, who("a"))
		s.refused(err, want)
	}
}

func grantEnds(s *subject) {
	id := s.submit(ff.CreateExecution{})
	s.grant(ff.GrantNext{})
	_, err := s.CancelExecution(s.Context(), ff.CancelExecution{ID: id})
	s.must(err)
	_, err = s.claimGranted(id, who("a"))
	s.refused(err, ff.ErrExecutionNotLeaseable)
	_, err = s.ReplayExecution(s.Context(), ff.ReplayExecution{ID: id})
	s.must(err)
	s.equal("claimed after the replay", s.claim(ff.Claim{}).Execution.ID, id)
}

func concurrentGrants(s *subject) {
	const n = 50
	for range n {
		s.submit(ff.CreateExecution{})
	}
	var granted atomic.Int64
	var seen sync.Map
	inParallel(8, func(i int) {
		for {
			r, err := s.GrantNext(s.Context(), ff.GrantNext{Claimant: who(ff.WorkerInstanceID(fmt.Sprint(i))), Lane: mainLane, TTL: ttl})
			if err != nil || r.ID.IsZero() {
				if err != nil {
					s.Error(err)
				}
				return
			}
			if _, twice := seen.LoadOrStore(r.ID, true); twice {
				s.Errorf("%s was granted twice", r.ID)
			}
			granted.Add(1)
		}
	})
	s.equal("granted executions", granted.Load(), int64(n))
}

func badGrants(s *subject) {
	for field, c := range map[string]ff.GrantNext{
		"lane_id":      {Claimant: who("a"), TTL: ttl},
		"worker_id":    {Lane: mainLane, TTL: ttl},
		"grant_ttl_ms": {Claimant: who("a"), Lane: mainLane, TTL: time.Hour},
	} {
		_, err := s.GrantNext(s.Context(), c)
		if e, ok := ff.AsError(err); !ok || e.Code != ff.CodeInvalidInput || e.Field != field {
			s.Errorf("bad %s: %v", field, err)
		}
	}
}

var reclaimBehaviours = []behaviour{
	{"an execution whose lease lapsed is claimed as a new attempt", reclaimLapsed},
	{"an execution whose lease was revoked is claimed as a new attempt", reclaimRevoked},
	{"a reclaim needs the capabilities", reclaimCapabilities},
	{"a reclaim beyond the limit fails the execution", reclaimLimit},
	{"a granted reclaim beyond the limit fails the execution", grantedReclaimLimit},
	{"a reclaim can be granted", grantReclaim},
	{"only a lost lease can be granted for reclaim", grantReclaimOthers},
	{"epochs and attempt indexes only grow", epochsGrow},
}

// lose starts an execution and lets its lease lapse.
func (s *subject) lose(c ff.CreateExecution) ff.Claimed {
	s.Helper()
	c.Lane = filled(c).Lane
	lost := s.start(c)
	s.pass(ttl)
	return lost
}

func reclaimLapsed(s *subject) {
	lost := s.lose(ff.CreateExecution{})
	x := s.wantState(lost.Execution.ID, ff.StateActive)
	s.equal("the ownership", x.State.Ownership, ff.OwnershipLeaseExpired)
	s.reclaimed(lost, s.claim(ff.Claim{Claimant: who("b")}))
}

func reclaimRevoked(s *subject) {
	lost := s.start(ff.CreateExecution{})
	_, err := s.RevokeLease(s.Context(), ff.RevokeLease{ID: lost.Execution.ID, Reason: "node lost"})
	s.must(err)
	s.reclaimed(lost, s.claim(ff.Claim{Claimant: who("b")}))
}

func (s *subject) reclaimed(lost, got ff.Claimed) {
	s.Helper()
	x := got.Execution
	if x.ID != lost.Execution.ID || x.LeaseEpoch != 2 || x.ReclaimCount != 1 || got.Resumed || x.Lease.Instance != "b" {
		s.Errorf("reclaimed: %+v", x)
	}
	list := s.attempts(x.ID)
	if len(list) != 2 || list[0].State != ff.AttemptInterruptedReclaimed || list[0].EndedAt.IsZero() ||
		list[1].Type != ff.AttemptReclaim || list[1].State != ff.AttemptStarted || list[1].Index != 1 || list[1].Previous != 0 {
		s.Errorf("attempts: %+v", list)
	}
	_, err := s.CompleteExecution(s.Context(), ff.CompleteExecution{LeaseRef: lost.Ref()})
	s.refused(err, ff.ErrStaleLease)
	s.complete(got)
}

func reclaimCapabilities(s *subject) {
	lost := s.lose(requiring("gpu"))
	s.nothingToClaim()
	_, err := s.GrantReclaim(s.Context(), ff.GrantReclaim{Claimant: who("b"), ID: lost.Execution.ID, TTL: ttl})
	s.refused(err, ff.ErrCapabilityMismatch)
	s.equal("the ownership", s.read(lost.Execution.ID).State.Ownership, ff.OwnershipLeaseExpired)
	s.claim(ff.Claim{Claimant: who("b", "gpu")})
}

// reclaimable is a submit that may be taken over a number of times.
func reclaimable(limit int) ff.CreateExecution {
	return policed(func(p *ff.ExecutionPolicy) { p.MaxReclaims = limit })
}

func reclaimLimit(s *subject) {
	c := s.lose(reclaimable(2))
	for range 2 {
		c = s.claim(ff.Claim{})
		s.pass(ttl)
	}
	next := s.submit(ff.CreateExecution{})
	s.equal("claimed instead", s.claim(ff.Claim{}).Execution.ID, next)
	s.failedByReclaims(c.Execution.ID, 2)
}

func (s *subject) failedByReclaims(id ff.ExecutionID, limit int) {
	s.Helper()
	x := s.wantState(id, ff.StateFailed)
	if x.FailureReason != "max_reclaims_exceeded" || x.ReclaimCount != limit || !x.Lease.ID.IsZero() || x.TotalAttempts != limit+1 {
		s.Errorf("failed record: %+v", x)
	}
	last := s.attempts(id)[limit]
	s.equal("the last attempt", last.State, ff.AttemptEndedFailure)
	s.countsEqualRecount()
}

func grantedReclaimLimit(s *subject) {
	id := s.lose(reclaimable(0)).Execution.ID
	_, err := s.GrantReclaim(s.Context(), ff.GrantReclaim{Claimant: who("b"), ID: id, TTL: ttl})
	s.must(err)
	_, err = s.claimGranted(id, who("b"))
	s.refused(err, ff.ErrMaxRetriesExhausted)
	s.failedByReclaims(id, 0)
}

func grantReclaim(s *subject) {
	lost := s.lose(ff.CreateExecution{})
	g := ff.GrantReclaim{Claimant: who("b"), ID: lost.Execution.ID, TTL: 5 * time.Second, Capability: "h", RouteJSON: "{}", AdmissionSum: "ok"}
	r, err := s.GrantReclaim(s.Context(), g)
	s.must(err)
	s.equal("the grant", r, ff.GrantResult{ID: g.ID, Lane: mainLane, ExpiresAt: s.now().Add(5 * time.Second)})
	s.equal("the stored grant", s.read(g.ID).Grant, ff.Grant{Worker: "w", Instance: "b", CreatedAt: s.now(), ExpiresAt: r.ExpiresAt,
		Capability: "h", RouteJSON: "{}", AdmissionSum: "ok"})
	s.nothingToClaim()
	_, err = s.GrantReclaim(s.Context(), g)
	s.refused(err, ff.ErrGrantAlreadyExists)
	got, err := s.claimGranted(g.ID, who("b"))
	s.must(err)
	s.reclaimed(lost, got)
}

func grantReclaimOthers(s *subject) {
	waiting := s.submit(ff.CreateExecution{Lane: "other"})
	active := s.start(ff.CreateExecution{}).Execution.ID
	done := s.start(ff.CreateExecution{})
	s.complete(done)
	for _, id := range []ff.ExecutionID{waiting, active, done.Execution.ID} {
		_, err := s.GrantReclaim(s.Context(), ff.GrantReclaim{Claimant: who("b"), ID: id, TTL: ttl})
		s.refused(err, ff.ErrExecutionNotReclaimable)
	}
}

func epochsGrow(s *subject) {
	c := s.start(ff.CreateExecution{})
	for i := range 5 {
		s.pass(ttl)
		next := s.claim(ff.Claim{})
		if next.Execution.LeaseEpoch != c.Execution.LeaseEpoch+1 || next.Execution.Attempt.Index != i+1 ||
			next.Execution.Lease.ID == c.Execution.Lease.ID || next.Execution.CurrentAttemptID == c.Execution.CurrentAttemptID {
			s.Errorf("takeover %d: %+v", i, next.Execution)
		}
		c = next
	}
}
