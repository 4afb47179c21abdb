package backendtest

import (
	"fmt"
	"slices"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

var listBehaviours = []behaviour{
	{"executions are listed newest first, or oldest first on request", listOrder},
	{"filters combine", listFilters},
	{"pages neither repeat nor skip while executions are added", listWhileAdding},
	{"a page of a state follows the executions that change state", listStateChanges},
	{"a listing gives whole records", listRecords},
	{"listings that cannot be are refused", badListings},
	{"a partition lists its ids in ascending pages", listPartition},
	{"lanes are listed by name with their counts", lanes},
	{"counts equal a recount whatever happened", countsAfterEverything},
}

// paged reads all pages of a listing and checks that only the last one has no
// cursor and that none is empty in between.
func paged[T any](s *subject, page func(cursor string) ([]T, string)) (all []T) {
	s.Helper()
	for cursor := ""; ; {
		items, next := page(cursor)
		all = append(all, items...)
		if next == "" {
			return all
		}
		if len(items) == 0 || next == cursor || len(all) > 100_000 {
			s.Fatalf("a page of %d items after %q goes on at %q", len(items), cursor, next)
		}
		cursor = next
	}
}

func (s *subject) list(q ff.ListExecutions) []ff.ExecutionID {
	s.Helper()
	return paged(s, func(cursor string) ([]ff.ExecutionID, string) {
		q.Cursor = cursor
		r, err := s.ListExecutions(s.Context(), q)
		s.must(err)
		return idsOf(r.Executions), r.Next
	})
}

func idsOf(list []ff.Execution) []ff.ExecutionID {
	ids := make([]ff.ExecutionID, len(list))
	for i := range list {
		ids[i] = list[i].ID
	}
	return ids
}

func listOrder(s *subject) {
	s.equal("an empty store", len(s.list(ff.ListExecutions{})), 0)
	var want []ff.ExecutionID
	for range 15 {
		want = append(want, s.submit(ff.CreateExecution{}))
	}
	for _, limit := range []int{0, 1, 5, 14, 15, 16} {
		s.equal(fmt.Sprintf("oldest first by %d", limit), s.list(ff.ListExecutions{Oldest: true, Limit: limit}), want)
	}
	newest := slices.Clone(want)
	slices.Reverse(newest)
	s.equal("newest first", s.list(ff.ListExecutions{Limit: 4}), newest)
	s.equal("newest first of a lane", s.list(ff.ListExecutions{Lane: mainLane, Limit: 4}), newest)
	r, err := s.ListExecutions(s.Context(), ff.ListExecutions{Limit: 15})
	s.must(err)
	s.equal("the cursor of a page that is just full", r.Next, "")
}

func listFilters(s *subject) {
	type shape struct {
		lane      ff.LaneID
		kind      string
		namespace ff.Namespace
	}
	var shapes []shape
	made := map[ff.ExecutionID]shape{}
	for _, lane := range []ff.LaneID{"a", "b"} {
		for _, kind := range []string{"x", "y"} {
			for _, ns := range []ff.Namespace{"", "red"} {
				shapes = append(shapes, shape{lane, kind, ns})
			}
		}
	}
	var order []ff.ExecutionID
	for i := range 3 * len(shapes) {
		sh := shapes[i%len(shapes)]
		id := s.submit(ff.CreateExecution{Lane: sh.lane, Kind: sh.kind, Namespace: sh.namespace})
		made[id], order = sh, append(order, id)
	}
	for _, id := range order[:8] {
		_, err := s.CancelExecution(s.Context(), ff.CancelExecution{ID: id})
		s.must(err)
	}
	for _, q := range []ff.ListExecutions{
		{Lane: "a"}, {Kind: "y"}, {Namespace: "red"}, {State: ff.StateCancelled}, {State: ff.StateActive}, {Lane: "none"},
		{Lane: "b", Kind: "x"}, {Lane: "a", State: ff.StateWaiting}, {Kind: "x", Namespace: "red", State: ff.StateCancelled},
		{Lane: "b", Kind: "y", Namespace: "red", State: ff.StateWaiting},
	} {
		var want []ff.ExecutionID
		for i, id := range order {
			sh := made[id]
			state := ff.StateWaiting
			if i < 8 {
				state = ff.StateCancelled
			}
			if (q.Lane == "" || q.Lane == sh.lane) && (q.Kind == "" || q.Kind == sh.kind) &&
				(q.Namespace == "" || q.Namespace == sh.namespace) && (q.State == "" || q.State == state) {
				want = append(want, id)
			}
		}
		q.Oldest, q.Limit = true, 2
		s.equal(fmt.Sprintf("listing %+v", q), s.list(q), want)
	}
}

func listWhileAdding(s *subject) {
	for _, oldest := range []bool{true, false} {
		lane := ff.LaneID(fmt.Sprintf("oldest %t", oldest))
		var before []ff.ExecutionID
		for range 20 {
			before = append(before, s.submit(ff.CreateExecution{Lane: lane}))
		}
		q := ff.ListExecutions{Lane: lane, Oldest: oldest, Limit: 3}
		seen := map[ff.ExecutionID]int{}
		added := 0
		got := paged(s, func(cursor string) ([]ff.ExecutionID, string) {
			q.Cursor = cursor
			r, err := s.ListExecutions(s.Context(), q)
			s.must(err)
			if added < 10 {
				added++
				s.submit(ff.CreateExecution{Lane: lane})
			}
			return idsOf(r.Executions), r.Next
		})
		for _, id := range got {
			seen[id]++
		}
		for _, id := range before {
			s.equal(fmt.Sprintf("%s: how often %s was listed", lane, id), seen[id], 1)
		}
		if len(seen) != len(got) {
			s.Errorf("%s: %d of %d listed are repeated", lane, len(got)-len(seen), len(got))
		}
	}
}

func listStateChanges(s *subject) {
	var ids []ff.ExecutionID
	for range 12 {
		ids = append(ids, s.submit(ff.CreateExecution{}))
	}
	q := ff.ListExecutions{State: ff.StateWaiting, Oldest: true, Limit: 4}
	first, err := s.ListExecutions(s.Context(), q)
	s.must(err)
	for _, id := range []ff.ExecutionID{ids[0], ids[5]} {
		_, err := s.CancelExecution(s.Context(), ff.CancelExecution{ID: id})
		s.must(err)
	}
	q.Cursor, q.Limit = first.Next, 100
	rest, err := s.ListExecutions(s.Context(), q)
	s.must(err)
	s.equal("the rest", idsOf(rest.Executions), append([]ff.ExecutionID{ids[4]}, ids[6:]...))
	s.equal("the cancelled", s.list(ff.ListExecutions{State: ff.StateCancelled, Oldest: true}), []ff.ExecutionID{ids[0], ids[5]})
}

func listRecords(s *subject) {
	c := s.start(ff.CreateExecution{Tags: map[string]string{"a.b": "c"}, Policy: ff.DefaultExecutionPolicy()})
	r, err := s.ListExecutions(s.Context(), ff.ListExecutions{})
	s.must(err)
	s.equal("the listed", r.Executions, []ff.Execution{c.Execution})
}

func badListings(s *subject) {
	s.submit(ff.CreateExecution{})
	for _, q := range []ff.ListExecutions{
		{State: "sleeping"}, {Lane: "ü"}, {Kind: "\xff"}, {Limit: -1}, {Limit: ff.MaxPageLimit + 1}, {Cursor: "nonsense"}, {Lane: mainLane, Cursor: "' or 1=1"},
	} {
		_, err := s.ListExecutions(s.Context(), q)
		s.refused(err, ff.ErrInvalidInput)
	}
	_, err := s.ListPartition(s.Context(), ff.ListPartition{Limit: -1})
	s.refused(err, ff.ErrInvalidInput)
}

func listPartition(s *subject) {
	var want []ff.ExecutionID
	for range 15 {
		want = append(want, s.submit(ff.CreateExecution{}))
	}
	slices.SortFunc(want, ff.ExecutionID.Compare)
	var sizes []int
	q := ff.ListPartition{Partition: want[0].Partition(), Limit: 5}
	var got []ff.ExecutionID
	for more := true; more; more = !q.After.IsZero() {
		r, err := s.ListPartition(s.Context(), q)
		s.must(err)
		got, sizes = append(got, r.IDs...), append(sizes, len(r.IDs))
		q.After = r.Next
	}
	s.equal("the ids", got, want)
	s.equal("the page sizes", sizes, []int{5, 5, 5})
	for what, partition := range map[string]uint16{"another partition": (q.Partition + 1) % 2, "a partition that does not exist": 65_000} {
		empty, err := s.ListPartition(s.Context(), ff.ListPartition{Partition: partition})
		s.must(err)
		s.equal(what, empty, ff.ListPartitionResult{})
	}
}

func lanes(s *subject) {
	list, err := s.Lanes(s.Context())
	s.must(err)
	s.equal("an empty store", len(list), 0)
	s.Advance(time.Millisecond)
	first := s.now().Add(time.Millisecond)
	s.submit(ff.CreateExecution{Lane: "beta"})
	s.submit(ff.CreateExecution{Lane: "beta"})
	s.submit(ff.CreateExecution{Lane: "beta", Delay: time.Hour})
	s.start(ff.CreateExecution{Lane: "alpha"})
	list, err = s.Lanes(s.Context())
	s.must(err)
	s.equal("the lanes", list, []ff.LaneStatus{
		{Lane: "alpha", Counts: map[ff.PublicState]int{ff.StateActive: 1}},
		{Lane: "beta", Counts: map[ff.PublicState]int{ff.StateWaiting: 2, ff.StateDelayed: 1}, Oldest: first},
	})
	s.claim(ff.Claim{Lanes: []ff.LaneID{"beta"}})
	list, err = s.Lanes(s.Context())
	s.must(err)
	s.equal("the oldest after a claim", list[1].Oldest, first.Add(time.Millisecond))
}

// countsEqualRecount compares the counts of all lanes with what the listing
// finds.
func (s *subject) countsEqualRecount() {
	s.Helper()
	recount := map[ff.LaneID]map[ff.PublicState]int{}
	paged(s, func(cursor string) ([]ff.Execution, string) {
		r, err := s.ListExecutions(s.Context(), ff.ListExecutions{Limit: ff.MaxPageLimit, Cursor: cursor})
		s.must(err)
		for _, x := range r.Executions {
			if recount[x.Lane] == nil {
				recount[x.Lane] = map[ff.PublicState]int{}
			}
			recount[x.Lane][x.PublicState()]++
		}
		return r.Executions, r.Next
	})
	list, err := s.Lanes(s.Context())
	s.must(err)
	counts := map[ff.LaneID]map[ff.PublicState]int{}
	for _, l := range list {
		if len(l.Counts) > 0 {
			counts[l.Lane] = l.Counts
		}
	}
	s.equal("the counts", counts, recount)
}

func countsAfterEverything(s *subject) {
	s.submit(ff.CreateExecution{Lane: "waiting"})
	s.submit(ff.CreateExecution{Delay: time.Second})
	done := s.start(ff.CreateExecution{})
	s.complete(done)
	s.countsEqualRecount()
	s.fail(s.start(ff.CreateExecution{}), ff.FailExecution{})
	s.fail(s.start(retrying(ff.FixedRetry(1, time.Minute))), ff.FailExecution{})
	s.countsEqualRecount()
	s.lose(ff.CreateExecution{})
	s.countsEqualRecount()
	for range 3 {
		s.claimUpTo(ff.Claim{})
		s.countsEqualRecount()
	}
	_, err := s.ReplayExecution(s.Context(), ff.ReplayExecution{ID: done.Execution.ID})
	s.must(err)
	s.countsEqualRecount()
	s.pass(10 * ff.DefaultRetention)
	s.countsEqualRecount()
}
