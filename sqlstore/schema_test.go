package sqlstore_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/sqlstore"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

// runEverything makes the store run every kind of update.
func runEverything(t *testing.T, s *sqlite.Store, c *clock) {
	t.Helper()
	policy := ff.DefaultExecutionPolicy()
	policy.Retry = ff.FixedRetry(1, time.Minute)
	for range 3 {
		must[ff.CreateExecutionResult](t)(s.CreateExecution(ctx, ff.CreateExecution{Lane: "a", Kind: "k", Policy: policy, Payload: []byte("p")}))
	}
	x := claim(t, s, "a")
	must[ff.RenewLeasesResult](t)(s.RenewLeases(ctx, ff.RenewLeases{Leases: []ff.LeaseRef{x.Ref()}, TTL: time.Minute}))
	if err := s.UpdateProgress(ctx, ff.UpdateProgress{LeaseRef: x.Ref(), Message: "m"}); err != nil {
		t.Fatal(err)
	}
	must[ff.DelayExecutionResult](t)(s.DelayExecution(ctx, ff.DelayExecution{LeaseRef: x.Ref(), For: time.Second}))
	c.add(time.Second)
	must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepDelayed}))
	x = claim(t, s, "a")
	must[ff.FailExecutionResult](t)(s.FailExecution(ctx, ff.FailExecution{LeaseRef: x.Ref(), Reason: "r", Category: "c"}))
	x = claim(t, s, "a")
	must[ff.CompleteExecutionResult](t)(s.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: x.Ref(), Result: []byte("r")}))
	must[ff.ReplayExecutionResult](t)(s.ReplayExecution(ctx, ff.ReplayExecution{ID: x.Execution.ID, Payload: []byte("q")}))
	must[ff.CancelExecutionResult](t)(s.CancelExecution(ctx, ff.CancelExecution{ID: x.Execution.ID}))
	x = claim(t, s, "a")
	c.add(2 * time.Second)
	must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepLeaseExpiry}))
	c.add(48 * time.Hour)
	must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepRetention}))
}

func TestNoStatementScansATable(t *testing.T) {
	c := newClock()
	s := open(t, filepath.Join(t.TempDir(), "f.db"), sqlite.Options{Clock: c.Now})
	runEverything(t, s, c)
	queries := must[[]string](t)(s.Queries(ctx))
	if len(queries) < 50 {
		t.Fatalf("only %d statements", len(queries))
	}
	for _, q := range queries {
		for _, step := range must[[]string](t)(s.Rows(ctx, "explain query plan "+q, 3)) {
			if strings.HasPrefix(step, "SCAN") && !strings.Contains(step, "CONSTANT") && !strings.HasPrefix(step, "SCAN first") ||
				strings.Contains(step, "TEMP B-TREE") {
				t.Errorf("%s\nin\n%s", step, q)
			}
		}
	}
}

func TestTheWordsInTheFileAreThoseOfTheProgram(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	for dimension, want := range sqlstore.Words() {
		got := must[[]string](t)(s.Rows(ctx, "select word from words where dimension = '"+dimension+"' order by code", 0))
		if !slices.Equal(got, want) {
			t.Errorf("%s: the file has %q, the program %q", dimension, got, want)
		}
	}
}

func TestTheViewsShowWords(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	id := submit(t, s, "main", "k")
	claim(t, s, "main")
	got := must[[]string](t)(s.Rows(ctx, "select execution_id || ' ' || lane || ' ' || public_state || ' ' || ownership from executions_view", 0))
	if want := []string{id.String() + " main active leased"}; !slices.Equal(got, want) {
		t.Errorf("executions_view shows %q, want %q", got, want)
	}
	got = must[[]string](t)(s.Rows(ctx, "select execution_id || ' ' || type from events_view", 0))
	if want := []string{id.String() + " acquired"}; !slices.Equal(got, want) {
		t.Errorf("events_view shows %q, want %q", got, want)
	}
}
