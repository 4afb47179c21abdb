package sqlstore_test

import (
	"path/filepath"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

func TestReadEventsWaitsForTheNext(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	submit(t, s, "main", "k")
	x := claim(t, s, "main")
	first := must[ff.ReadEventsResult](t)(s.ReadEvents(ctx, ff.ReadEvents{}))
	if len(first.Events) != 1 || first.Next != first.Events[0].Cursor {
		t.Fatalf("read %+v", first)
	}
	got := make(chan ff.ReadEventsResult)
	go func() {
		r, err := s.ReadEvents(ctx, ff.ReadEvents{After: first.Next, Family: ff.FamilyCompletion, Wait: time.Minute})
		if err != nil {
			t.Error(err)
		}
		got <- r
	}()
	must[ff.CompleteExecutionResult](t)(s.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: x.Ref()}))
	if r := <-got; len(r.Events) != 1 || r.Events[0].Outcome != ff.OutcomeSuccess || r.Events[0].ID != x.Execution.ID {
		t.Errorf("read %+v", r)
	}
	if r := must[ff.ReadEventsResult](t)(s.ReadEvents(ctx, ff.ReadEvents{ID: x.Execution.ID, Limit: 1})); len(r.Events) != 1 {
		t.Errorf("of one execution: %+v", r)
	}
	if _, err := s.ReadEvents(ctx, ff.ReadEvents{After: "elsewhere"}); ff.CodeOf(err) != ff.CodeInvalidInput {
		t.Errorf("a foreign cursor got %v", err)
	}
}

func TestCursorsOfOtherPlacesAreRefused(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	submit(t, s, "main", "k")
	claim(t, s, "main")
	page := must[ff.ReadEventsResult](t)(s.ReadEvents(ctx, ff.ReadEvents{}))
	must[ff.ReadEventsResult](t)(s.ReadEvents(ctx, ff.ReadEvents{After: page.Next}))
	for field, read := range map[string]func() error{
		"after":  func() error { _, err := s.ReadEvents(ctx, ff.ReadEvents{After: page.Next + "0"}); return err },
		"family": func() error { _, err := s.ReadEvents(ctx, ff.ReadEvents{Family: "leases"}); return err },
		"cursor": func() error {
			_, err := s.ListWorkers(ctx, ff.ListWorkers{Namespace: "a", Cursor: "b i1"})
			return err
		},
	} {
		if e, ok := ff.AsError(read()); !ok || e.Code != ff.CodeInvalidInput || e.Field != field {
			t.Errorf("%s: got %v", field, e)
		}
	}
}

func TestEventsOlderThanTheRetentionAreTrimmedAndIdsNeverComeBack(t *testing.T) {
	path, c := filepath.Join(t.TempDir(), "f.db"), newClock()
	s := open(t, path, sqlite.Options{Clock: c.Now, Retention: time.Hour})
	submit(t, s, "main", "k")
	claim(t, s, "main")
	last := must[ff.ReadEventsResult](t)(s.ReadEvents(ctx, ff.ReadEvents{})).Next
	c.add(time.Hour)
	must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepRetention}))
	if r := must[ff.ReadEventsResult](t)(s.ReadEvents(ctx, ff.ReadEvents{})); len(r.Events) != 0 {
		t.Errorf("events left: %+v", r.Events)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, sqlite.Options{Clock: c.Now, Retention: time.Hour})
	must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepLeaseExpiry}))
	if r := must[ff.ReadEventsResult](t)(s.ReadEvents(ctx, ff.ReadEvents{After: last})); len(r.Events) != 1 {
		t.Errorf("after the old cursor: %+v, want the expiry", r)
	}
}
