package backendtest

import (
	"slices"
	"time"

	"pgregory.net/rapid"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// check compares every record of the run and what is derived from it.
func (m *model) check(*rapid.T) {
	counts := map[ff.LaneID]map[ff.PublicState]int{}
	for _, lane := range m.lanes {
		var want []ff.Execution
		for _, e := range m.all {
			if !e.purged && e.x.Lane == lane {
				want = append(want, e.x)
			}
		}
		got := m.list(ff.ListExecutions{Lane: lane})
		m.equal("the records of "+string(lane), got, want)
		for i := range got {
			m.invariants(m.byID[got[i].ID], &got[i])
			if counts[lane] == nil {
				counts[lane] = map[ff.PublicState]int{}
			}
			counts[lane][got[i].PublicState()]++
		}
	}
	m.checkCounts(counts)
}

func (m *model) list(q ff.ListExecutions) []ff.Execution {
	m.t.Helper()
	q.Oldest, q.Limit = true, ff.MaxPageLimit
	r, err := m.store.ListExecutions(m.t.Context(), q)
	m.must(err)
	return r.Executions
}

// invariants are what holds whatever the rules say.
func (m *model) invariants(e *modelled, x *ff.Execution) {
	m.t.Helper()
	before := &e.seen
	switch {
	case x.State.Validate() != nil:
		m.t.Fatal(x.State.Validate())
	case x.TotalAttempts < before.TotalAttempts, x.LeaseEpoch < before.LeaseEpoch, x.TotalAttempts > 0 && x.Attempt.Index != x.TotalAttempts-1:
		m.t.Fatalf("attempts or epochs of %s went back: %+v after %+v", x.ID, x, before)
	case before.Terminal() && !x.Terminal() && !e.replayed:
		m.t.Fatalf("%s was %s and is %s without a replay", x.ID, before.PublicState(), x.PublicState())
	case (x.State.Ownership == ff.OwnershipLeased) != (x.State.Phase == ff.PhaseActive && x.State.Attempt == ff.AttemptRunning):
		m.t.Fatalf("%s is leased without running, or runs without a lease: %+v", x.ID, x.State)
	case x.State.Phase != ff.PhaseActive && !x.Lease.ID.IsZero():
		m.t.Fatalf("%s has a lease and is %s", x.ID, x.PublicState())
	}
	e.seen, e.replayed = *x, false
}

func (m *model) checkCounts(want map[ff.LaneID]map[ff.PublicState]int) {
	m.t.Helper()
	list, err := m.store.Lanes(m.t.Context())
	m.must(err)
	for _, l := range list {
		if slices.Contains(m.lanes, l.Lane) {
			m.equal("the counts of "+string(l.Lane), l.Counts, want[l.Lane])
			delete(want, l.Lane)
		}
	}
	m.equal("lanes without counts", want, map[ff.LaneID]map[ff.PublicState]int{})
}

// drain ends a run: histories are compared, listings agree, and everything that
// the rules call claimable is reached by claims.
func (m *model) drain() {
	m.checkHistories()
	for _, lane := range m.lanes {
		m.checkListings(lane)
		want := m.claimable(lane, capabilitySet("gpu", "fast"))
		c := ff.Claim{Claimant: who("drain", "gpu", "fast"), Lanes: []ff.LaneID{lane}, Max: 7, LeaseTTL: time.Minute}
		for m.claimAs(m.t, c) > 0 {
		}
		for _, e := range want {
			if lifecycle.Claimable(&e.x) {
				m.t.Fatalf("%s is claimable and no claim reaches it", e.x.ID)
			}
		}
	}
	m.check(m.t)
}

func (m *model) checkHistories() {
	ctx := m.t.Context()
	for _, e := range m.all {
		x, err := m.store.Execution(ctx, e.x.ID)
		if e.purged {
			m.sameFate(err, ff.ErrExecutionNotFound)
			continue
		}
		m.must(err)
		m.equal("the record", x, e.x)
		want := e.superseded
		if e.x.TotalAttempts > 0 {
			want = append(want[:len(want):len(want)], e.x.Attempt)
		}
		attempts, err := m.store.Attempts(ctx, e.x.ID)
		m.must(err)
		m.equal("the attempts", attempts, want)
		m.checkEvents(e)
		m.checkStreams(e)
		m.checkWaits(e)
		input, err := m.store.ExecutionPayload(ctx, e.x.ID)
		m.must(err)
		m.equal("the payload", string(input.Payload), e.payload)
		result, err := m.store.ExecutionResult(ctx, e.x.ID)
		m.must(err)
		m.equal("the result", string(result), e.result)
	}
}

// checkEvents compares the events of one execution.
func (m *model) checkEvents(e *modelled) {
	if m.noLog {
		return
	}
	events, err := m.store.ReadEvents(m.t.Context(), ff.ReadEvents{ID: e.x.ID, Limit: ff.MaxPageLimit})
	m.must(err)
	for i := range events.Events {
		events.Events[i].Cursor = ""
	}
	m.equal("the events", events.Events, e.events)
}

// checkListings compares the listing of each public state, which stores keep
// apart from the record.
func (m *model) checkListings(lane ff.LaneID) {
	for _, state := range ff.PublicStates {
		want := []ff.ExecutionID{}
		for _, e := range m.all {
			if !e.purged && e.x.Lane == lane && e.x.PublicState() == state {
				want = append(want, e.x.ID)
			}
		}
		m.equal("the listing of "+string(state), idsOf(m.list(ff.ListExecutions{Lane: lane, State: state})), want)
	}
}
