package sqlstore_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ctx = context.Background()

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func open(t *testing.T, path string, opts sqlite.Options) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(ctx, path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func must[R any](t *testing.T) func(R, error) R {
	return func(r R, err error) R {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

func submit(t *testing.T, s *sqlite.Store, lane ff.LaneID, kind string) ff.ExecutionID {
	t.Helper()
	return must[ff.CreateExecutionResult](t)(s.CreateExecution(ctx, ff.CreateExecution{Lane: lane, Kind: kind})).ID
}

func claimOf(instance string, lane ff.LaneID) ff.Claim {
	return ff.Claim{Claimant: ff.Claimant{Worker: "w", Instance: ff.WorkerInstanceID(instance)}, Lanes: []ff.LaneID{lane}, LeaseTTL: time.Second}
}

func claim(t *testing.T, s *sqlite.Store, lane ff.LaneID) ff.Claimed {
	t.Helper()
	r := must[ff.ClaimResult](t)(s.Claim(ctx, claimOf("i1", lane)))
	if len(r.Claimed) != 1 {
		t.Fatalf("claimed %d executions of lane %s, want 1", len(r.Claimed), lane)
	}
	return r.Claimed[0]
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("never happened: %s", what)
		}
	}
}

func TestExpiredLeasesAreListedBeforeAndAfterTheyAreMarked(t *testing.T) {
	c := newClock()
	s := open(t, ":memory:", sqlite.Options{Clock: c.Now})
	var want []ff.ExecutionID
	for range 5 {
		submit(t, s, "main", "k")
		want = append(want, claim(t, s, "main").Execution.ID)
		c.add(10 * time.Millisecond)
	}
	c.add(2 * time.Second)
	must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepLeaseExpiry, Limit: 2}))
	var got []ff.ExecutionID
	q := ff.ListExpiredLeases{Limit: 2}
	for {
		page := must[ff.ListExpiredLeasesResult](t)(s.ListExpiredLeases(ctx, q))
		for _, l := range page.Leases {
			got = append(got, l.ID)
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
}

func TestNamesLeasesAndWorkSurviveAReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	s := open(t, path, sqlite.Options{})
	submit(t, s, "main", "k")
	held := claim(t, s, "main")
	second := submit(t, s, "main", "k")
	must[ff.RegisterWorkerResult](t)(s.RegisterWorker(ctx, ff.RegisterWorker{Claimant: ff.Claimant{Worker: "w", Instance: "i1"}, LivenessTTL: time.Minute}))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, sqlite.Options{})
	workers := must[ff.ListWorkersResult](t)(s.ListWorkers(ctx, ff.ListWorkers{}))
	if len(workers.Workers) != 1 || workers.Workers[0].Leases != 1 {
		t.Errorf("workers %+v, want i1 with one lease", workers)
	}
	if got := claim(t, s, "main"); got.Execution.ID != second {
		t.Errorf("claimed %s, want %s", got.Execution.ID, second)
	}
	must[ff.CompleteExecutionResult](t)(s.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: held.Ref()}))
}

func TestAnIdempotencyKeyNamesTheFirstExecutionForItsWindow(t *testing.T) {
	c := newClock()
	s := open(t, ":memory:", sqlite.Options{Clock: c.Now})
	submit := func(namespace ff.Namespace, lane ff.LaneID) ff.CreateExecutionResult {
		return must[ff.CreateExecutionResult](t)(s.CreateExecution(ctx, ff.CreateExecution{
			Namespace: namespace, Lane: lane, Kind: "k", IdempotencyKey: "key"}))
	}
	first := submit("", "main")
	if r := submit("", "main"); !r.Duplicate || r.ID != first.ID || r.State != ff.StateWaiting {
		t.Errorf("repeated: %+v, want a duplicate of %s", r, first.ID)
	}
	if r := submit("other", "main"); r.Duplicate {
		t.Errorf("another namespace: %+v", r)
	}
	// `hot` lives on another partition than `main`.
	if r := submit("", "hot"); r.Duplicate {
		t.Errorf("another partition: %+v", r)
	}
	c.add(ff.IdempotencyWindow)
	if r := submit("", "main"); r.Duplicate {
		t.Errorf("after the window: %+v", r)
	}
}

func TestABatchIsStoredWholeOrNotAtAll(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	id := ff.MakeExecutionID(999, ff.NewExecutionID("main", ff.DefaultPartitionConfig).UUID())
	_, err := s.CreateExecutions(ctx, ff.CreateExecutions{Executions: []ff.CreateExecution{
		{Lane: "main", Kind: "k"}, {ID: id, Lane: "main", Kind: "k"}}})
	if e, ok := ff.AsError(err); !ok || e.Code != ff.CodeInvalidInput || e.Field != "executions[1].execution_id" {
		t.Errorf("got %v", err)
	}
	same := ff.NewExecutionID("main", ff.DefaultPartitionConfig)
	r := must[ff.CreateExecutionsResult](t)(s.CreateExecutions(ctx, ff.CreateExecutions{Executions: []ff.CreateExecution{
		{ID: same, Lane: "main", Kind: "k"}, {ID: same, Lane: "main", Kind: "k"}}}))
	if r.Results[0].Duplicate || !r.Results[1].Duplicate {
		t.Errorf("results %+v", r.Results)
	}
	if list := must[ff.ListExecutionsResult](t)(s.ListExecutions(ctx, ff.ListExecutions{})); len(list.Executions) != 1 {
		t.Errorf("%d executions, want 1", len(list.Executions))
	}
}

func TestLiveWorkersAreListedWithTheirLeases(t *testing.T) {
	c := newClock()
	s := open(t, ":memory:", sqlite.Options{Clock: c.Now})
	register := func(worker ff.WorkerID, instance ff.WorkerInstanceID, exclusive bool) error {
		_, err := s.RegisterWorker(ctx, ff.RegisterWorker{Claimant: ff.Claimant{Worker: worker, Instance: instance},
			Lanes: []ff.LaneID{"main"}, LivenessTTL: time.Minute, Exclusive: exclusive})
		return err
	}
	for i := range 5 {
		if err := register("w", ff.WorkerInstanceID(fmt.Sprintf("i%d", i)), true); err != nil {
			t.Fatal(err)
		}
	}
	if err := register("w", "i1", true); ff.CodeOf(err) != ff.CodeDuplicateWorkerInstance {
		t.Errorf("an exclusive registration got %v", err)
	}
	if err := register("v", "i1", false); ff.CodeOf(err) != ff.CodeInvalidInput {
		t.Errorf("another worker got %v", err)
	}
	submit(t, s, "main", "k")
	claim(t, s, "main")
	var names []string
	q := ff.ListWorkers{AllNamespaces: true, Limit: 2}
	for {
		r := must[ff.ListWorkersResult](t)(s.ListWorkers(ctx, q))
		for _, w := range r.Workers {
			names = append(names, fmt.Sprintf("%s:%d", w.Instance, w.Leases))
		}
		if q.Cursor = r.Next; q.Cursor == "" {
			break
		}
	}
	if want := []string{"i0:0", "i1:1", "i2:0", "i3:0", "i4:0"}; !slices.Equal(names, want) {
		t.Errorf("workers %v, want %v", names, want)
	}
	c.add(time.Minute)
	if r := must[ff.ListWorkersResult](t)(s.ListWorkers(ctx, ff.ListWorkers{})); len(r.Workers) != 0 {
		t.Errorf("lapsed workers are listed: %+v", r.Workers)
	}
	if r := must[ff.HeartbeatWorkerResult](t)(s.HeartbeatWorker(ctx, ff.HeartbeatWorker{Instance: "i1"})); r.Registered {
		t.Error("a lapsed registration had a heartbeat")
	}
}
