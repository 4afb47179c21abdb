package backendtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

var eventBehaviours = []behaviour{
	{"every change of a lease and every end is an event", eventsOfALife},
	{"events are read in order, each once, by pages", eventPages},
	{"the events of one execution are apart", eventsOfOne},
	{"families are apart and the cursor moves past the others", eventFamilies},
	{"a refused command leaves no event", eventsOfRefusals},
	{"a command that finds the lease lapsed records the lapse", eventOfLapse},
	{"a reader that waits hears of an event within milliseconds", eventWait},
	{"a reader that waits in vain gets an empty page and its cursor", eventWaitEnds},
	{"a reader that waits goes when its context ends", eventContext},
	{"readers see every event of concurrent commands", eventsOfMany},
	{"queries that cannot be are refused", badEventQueries},
}

func (s *subject) events(q ff.ReadEvents) []ff.Event {
	s.Helper()
	for all := []ff.Event(nil); ; {
		r, err := s.ReadEvents(s.Context(), q)
		s.must(err)
		all = append(all, r.Events...)
		if len(r.Events) == 0 {
			return all
		}
		if r.Next == q.After || len(all) > 100_000 {
			s.Fatalf("%d events after %q go on at %q", len(r.Events), q.After, r.Next)
		}
		q.After = r.Next
	}
}

func typesOf(events []ff.Event) []ff.EventType {
	types := make([]ff.EventType, len(events))
	for i := range events {
		types[i] = events[i].Type
	}
	return types
}

func eventsOfALife(s *subject) {
	c := s.start(ff.CreateExecution{})
	id := c.Execution.ID
	_, err := s.DelayExecution(s.Context(), ff.DelayExecution{LeaseRef: c.Ref(), For: time.Second})
	s.must(err)
	s.pass(time.Second)
	s.claim(ff.Claim{})
	s.pass(ttl)
	c = s.claim(ff.Claim{Claimant: who("b")})
	_, err = s.RevokeLease(s.Context(), ff.RevokeLease{ID: id, Reason: "node lost"})
	s.must(err)
	c = s.claim(ff.Claim{Claimant: who("c")})
	s.complete(c)
	_, err = s.ReplayExecution(s.Context(), ff.ReplayExecution{ID: id})
	s.must(err)
	_, err = s.CancelExecution(s.Context(), ff.CancelExecution{ID: id, Reason: "enough"})
	s.must(err)
	events := s.events(ff.ReadEvents{})
	s.equal("the types", typesOf(events), []ff.EventType{ff.EventAcquired, ff.EventReleased, ff.EventAcquired, ff.EventLeaseExpired,
		ff.EventReclaimed, ff.EventRevoked, ff.EventReclaimed, ff.EventCompletion, ff.EventReplayInitiated, ff.EventCompletion})
	a := c.Execution
	done := events[7]
	s.equal("the completion", done, ff.Event{Cursor: done.Cursor, Family: ff.FamilyCompletion, Type: ff.EventCompletion, ID: id, At: s.now(),
		LeaseID: a.Lease.ID, LeaseEpoch: 4, AttemptID: a.CurrentAttemptID, AttemptIndex: 2, Worker: "w", Instance: "c",
		Reason: "completed", Outcome: ff.OutcomeSuccess})
	revoked := events[5]
	if revoked.Family != ff.FamilyLease || revoked.Instance != "b" || revoked.LeaseEpoch != 3 || revoked.Reason != "node lost" {
		s.Errorf("the revocation: %+v", revoked)
	}
	if last := events[9]; last.Outcome != ff.OutcomeCancelled || last.Reason != "enough" {
		s.Errorf("the cancellation: %+v", last)
	}
}

func eventPages(s *subject) {
	for range 20 {
		s.complete(s.start(ff.CreateExecution{}))
	}
	all := s.events(ff.ReadEvents{})
	s.equal("events", len(all), 40)
	cursors := map[ff.EventCursor]bool{}
	for i, e := range all {
		cursors[e.Cursor] = true
		rest := s.events(ff.ReadEvents{After: e.Cursor, Limit: 3})
		if i%7 == 0 {
			s.equal("what follows a cursor", rest, all[i+1:])
		}
	}
	s.equal("distinct cursors", len(cursors), 40)
	if !slices.IsSortedFunc(all, func(a, b ff.Event) int { return a.At.Compare(b.At) }) {
		s.Error("the events are not in the order of their instants")
	}
}

func eventsOfOne(s *subject) {
	var ids []ff.ExecutionID
	for range 3 {
		ids = append(ids, s.start(ff.CreateExecution{}).Execution.ID)
	}
	for _, id := range ids {
		_, err := s.CancelExecution(s.Context(), ff.CancelExecution{ID: id})
		s.must(err)
	}
	events := s.events(ff.ReadEvents{ID: ids[1], Limit: 1})
	s.equal("the types", typesOf(events), []ff.EventType{ff.EventAcquired, ff.EventCompletion})
	for _, e := range events {
		s.equal("the execution", e.ID, ids[1])
	}
	s.equal("events of an execution without any", len(s.events(ff.ReadEvents{ID: s.submit(ff.CreateExecution{})})), 0)
}

func eventFamilies(s *subject) {
	c := s.start(ff.CreateExecution{})
	for range 5 {
		s.start(ff.CreateExecution{})
	}
	s.complete(c)
	s.start(ff.CreateExecution{})
	s.equal("completions", typesOf(s.events(ff.ReadEvents{Family: ff.FamilyCompletion, Limit: 2})), []ff.EventType{ff.EventCompletion})
	s.equal("lease events", len(s.events(ff.ReadEvents{Family: ff.FamilyLease, Limit: 2})), 7)
	r, err := s.ReadEvents(s.Context(), ff.ReadEvents{Family: ff.FamilyCompletion})
	s.must(err)
	s.complete(s.start(ff.CreateExecution{}))
	s.equal("later completions", len(s.events(ff.ReadEvents{Family: ff.FamilyCompletion, After: r.Next})), 1)
}

func eventsOfRefusals(s *subject) {
	c := s.start(ff.CreateExecution{})
	s.complete(c)
	own := ff.ReadEvents{ID: c.Execution.ID}
	before := len(s.events(own))
	for _, command := range holderCommands {
		if err := command.send(s, c.Ref()); err == nil && command.name != "complete" {
			s.Errorf("%s succeeded", command.name)
		}
	}
	_, err := s.CancelExecution(s.Context(), ff.CancelExecution{ID: c.Execution.ID})
	s.refused(err, ff.ErrExecutionNotActive)
	s.equal("events", len(s.events(own)), before)
}

func eventOfLapse(s *subject) {
	c := s.start(ff.CreateExecution{})
	s.Advance(ttl)
	for range 3 {
		_, err := s.CompleteExecution(s.Context(), ff.CompleteExecution{LeaseRef: c.Ref()})
		s.refused(err, ff.ErrLeaseExpired)
	}
	s.sweep(ff.SweepLeaseExpiry)
	s.equal("the types", typesOf(s.events(ff.ReadEvents{ID: c.Execution.ID})), []ff.EventType{ff.EventAcquired, ff.EventLeaseExpired})
}

func eventWait(s *subject) {
	var after ff.EventCursor
	var took []time.Duration
	for range 15 {
		id := s.submit(ff.CreateExecution{})
		read := make(chan ff.ReadEventsResult, 1)
		go func() {
			r, err := s.ReadEvents(s.Context(), ff.ReadEvents{After: after, Wait: time.Minute})
			if err != nil {
				s.Error(err)
			}
			read <- r
		}()
		settle()
		start := time.Now()
		s.claim(ff.Claim{})
		r := <-read
		took = append(took, time.Since(start))
		if len(r.Events) != 1 || r.Events[0].ID != id {
			s.Fatalf("the waiting reader got %+v", r.Events)
		}
		after = r.Next
	}
	slices.Sort(took)
	if median := took[len(took)/2]; median > 50*time.Millisecond {
		s.Errorf("a waiting reader returns %s after the event (median), want a few milliseconds", median)
	}
}

func eventWaitEnds(s *subject) {
	id := s.start(ff.CreateExecution{}).Execution.ID
	all := s.events(ff.ReadEvents{ID: id})
	after := all[len(all)-1].Cursor
	r, err := s.ReadEvents(s.Context(), ff.ReadEvents{ID: id, After: after, Wait: 20 * time.Millisecond})
	s.must(err)
	s.equal("the page", r, ff.ReadEventsResult{Next: after})
}

func eventContext(s *subject) {
	id := s.submit(ff.CreateExecution{})
	ctx, cancel := context.WithTimeout(s.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.ReadEvents(ctx, ff.ReadEvents{ID: id, Wait: time.Minute}); !errors.Is(err, context.DeadlineExceeded) {
		s.Errorf("after the end of the context: %v", err)
	}
}

func eventsOfMany(s *subject) {
	const workers, each = 8, 25
	finished := make(chan map[ff.ExecutionID]int)
	go func() {
		seen := map[ff.ExecutionID]int{}
		q := ff.ReadEvents{Family: ff.FamilyCompletion, Wait: 10 * time.Second}
		for n := 0; n < workers*each; {
			r, err := s.ReadEvents(s.Context(), q)
			if err != nil || len(r.Events) == 0 {
				s.Errorf("after %d events: %d more, %v", n, len(r.Events), err)
				break
			}
			for _, e := range r.Events {
				seen[e.ID]++
				n++
			}
			q.After = r.Next
		}
		finished <- seen
	}()
	inParallel(workers, func(i int) {
		lane := ff.LaneID(fmt.Sprint("lane ", i))
		for range each {
			if _, err := s.CreateExecution(s.Context(), ff.CreateExecution{Lane: lane, Kind: "k"}); err != nil {
				s.Error(err)
				return
			}
			r, err := s.Claim(s.Context(), ff.Claim{Claimant: who("a"), Lanes: []ff.LaneID{lane}})
			if err != nil || len(r.Claimed) != 1 {
				s.Errorf("claimed %d, %v", len(r.Claimed), err)
				return
			}
			if _, err := s.CompleteExecution(s.Context(), ff.CompleteExecution{LeaseRef: r.Claimed[0].Ref()}); err != nil {
				s.Error(err)
			}
		}
	})
	seen := <-finished
	s.equal("executions whose end was seen", len(seen), workers*each)
}

func badEventQueries(s *subject) {
	for _, q := range []ff.ReadEvents{{After: "nonsense"}, {Limit: -1}, {Wait: time.Hour}} {
		_, err := s.ReadEvents(s.Context(), q)
		s.refused(err, ff.ErrInvalidInput)
	}
}
