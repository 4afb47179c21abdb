package scheduler_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/scheduler"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open gives a scheduler over an empty store.
func open(t *testing.T, o scheduler.Options) (*sqlite.Store, *scheduler.Scheduler) {
	t.Helper()
	store := storetest.Open(t, sqlite.Options{})
	s, err := scheduler.New(store, o)
	if err != nil {
		t.Fatal(err)
	}
	return store, s
}

// fill submits n executions to each lane.
func fill(t *testing.T, store *sqlite.Store, n int, lanes ...ff.LaneID) {
	t.Helper()
	for _, lane := range lanes {
		var batch ff.CreateExecutions
		for range n {
			batch.Executions = append(batch.Executions, ff.CreateExecution{Lane: lane, Kind: "k"})
		}
		if _, err := store.CreateExecutions(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
}

// claimed counts by lane what n claims of one execution give.
func claimed(t *testing.T, s *scheduler.Scheduler, n int, c ff.Claim) map[ff.LaneID]int {
	t.Helper()
	got := map[ff.LaneID]int{}
	for range n {
		for _, x := range claim(t, s, c) {
			got[x.Execution.Lane]++
		}
	}
	return got
}

func claim(t *testing.T, s *scheduler.Scheduler, c ff.Claim) []ff.Claimed {
	t.Helper()
	r, err := s.Claim(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r.Claimed
}

func who(instance ff.WorkerInstanceID) ff.Claimant {
	return ff.Claimant{Worker: "w", Instance: instance}
}

func TestEachLaneGetsItsShare(t *testing.T) {
	store, s := open(t, scheduler.Options{})
	lanes := []ff.LaneID{"a", "b", "c"}
	fill(t, store, 40, lanes...)
	got := claimed(t, s, 60, ff.Claim{Claimant: who("i"), Lanes: lanes})
	for _, lane := range lanes {
		if got[lane] != 20 {
			t.Errorf("60 claims took %v, want 20 of each lane", got)
		}
	}
}

func TestClaimantsThatTakeTurnsDoNotKeepEachOtherOnOneLane(t *testing.T) {
	store, s := open(t, scheduler.Options{})
	lanes := []ff.LaneID{"a", "b"}
	fill(t, store, 100, lanes...)
	got := map[ff.WorkerInstanceID]map[ff.LaneID]int{"even": {}, "odd": {}}
	for range 20 {
		for instance, byLane := range got {
			for lane, n := range claimed(t, s, 1, ff.Claim{Claimant: who(instance), Lanes: lanes}) {
				byLane[lane] += n
			}
		}
	}
	for instance, byLane := range got {
		if byLane["a"] != 10 || byLane["b"] != 10 {
			t.Errorf("claimant %s got %v, want 10 of each lane", instance, byLane)
		}
	}
}

func TestALaneThatIsEmptyCostsTheOthersNothing(t *testing.T) {
	store, s := open(t, scheduler.Options{})
	fill(t, store, 10, "b")
	if got := claimed(t, s, 10, ff.Claim{Claimant: who("i"), Lanes: []ff.LaneID{"a", "b", "c"}}); got["b"] != 10 {
		t.Errorf("10 claims took %v, want 10 of lane b", got)
	}
}

func TestTheCallersLanesStayAsTheyAre(t *testing.T) {
	_, s := open(t, scheduler.Options{})
	lanes := []ff.LaneID{"a", "b", "c"}
	claimed(t, s, 5, ff.Claim{Claimant: who("i"), Lanes: lanes})
	if lanes[0] != "a" || lanes[1] != "b" || lanes[2] != "c" {
		t.Errorf("the lanes of the caller are now %v", lanes)
	}
}

func TestAStrictOrderServesTheFirstLaneWhileItHasWork(t *testing.T) {
	store, s := open(t, scheduler.Options{Order: scheduler.Strict})
	fill(t, store, 5, "b", "a")
	c := ff.Claim{Claimant: who("i"), Lanes: []ff.LaneID{"b", "a"}}
	if got := claimed(t, s, 5, c); got["b"] != 5 {
		t.Errorf("the first claims took %v, want lane b only", got)
	}
	if got := claimed(t, s, 5, c); got["a"] != 5 {
		t.Errorf("the next claims took %v, want lane a", got)
	}
}

func TestAClaimWaitsForWorkAsTheStoreDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, s := open(t, scheduler.Options{})
		got := make(chan []ff.Claimed)
		start := time.Now()
		go func() {
			got <- claim(t, s, ff.Claim{Claimant: who("i"), Lanes: []ff.LaneID{"a", "b"}, Wait: time.Minute})
		}()
		time.Sleep(10 * time.Second)
		fill(t, store, 1, "b")
		if list := <-got; len(list) != 1 || time.Since(start) != 10*time.Second {
			t.Errorf("claimed %d after %s, want one after 10s", len(list), time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Claim(ctx, ff.Claim{Claimant: who("i"), Lanes: []ff.LaneID{"a"}, Wait: time.Minute}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after the end of the context: %v", err)
		}
	})
}

func TestGrantsPassThrough(t *testing.T) {
	store, s := open(t, scheduler.Options{})
	fill(t, store, 1, "a")
	g, err := s.GrantNext(t.Context(), ff.GrantNext{Claimant: who("i"), Lane: "a", TTL: time.Second})
	if err != nil || g.ID.IsZero() {
		t.Fatalf("granted %+v, %v", g, err)
	}
	r, err := s.ClaimGranted(t.Context(), ff.ClaimGranted{Claimant: who("i"), ID: g.ID})
	if err != nil || r.Claimed.Execution.ID != g.ID {
		t.Errorf("taken up %s, %v", r.Claimed.Execution.ID, err)
	}
}

func TestWhatComesWithCompletionsTakesTurnsAndIsCounted(t *testing.T) {
	reader := metric.NewManualReader()
	store, s := open(t, scheduler.Options{Meter: metric.NewMeterProvider(metric.WithReader(reader)).Meter("test")})
	lanes := []ff.LaneID{"a", "b"}
	fill(t, store, 10, lanes...)
	next := ff.Claim{Claimant: who("i"), Lanes: lanes}
	held := claim(t, s, next)
	got := map[ff.LaneID]int{}
	for range 10 {
		r, err := s.CompleteExecution(t.Context(), ff.CompleteExecution{LeaseRef: held[0].Ref(), Next: &next})
		if err != nil || len(r.Next.Claimed) != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
		held = r.Next.Claimed
		got[held[0].Execution.Lane]++
	}
	if got["a"] != 5 || got["b"] != 5 || lanes[0] != "a" {
		t.Errorf("10 completions took %v and left the lanes %v, want 5 of each lane", got, lanes)
	}
	if _, err := s.CompleteExecution(t.Context(), ff.CompleteExecution{LeaseRef: held[0].Ref()}); err != nil {
		t.Error(err)
	}
	next.Wait = time.Second
	if _, err := s.CompleteExecution(t.Context(), ff.CompleteExecution{LeaseRef: held[0].Ref(), Next: &next}); !errors.Is(err, ff.ErrInvalidInput) {
		t.Errorf("a completion that waits: %v", err)
	}
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	counted := int64(0)
	for _, m := range all.ScopeMetrics[0].Metrics {
		if data, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == "ff_claimed_executions_total" {
			for _, p := range data.DataPoints {
				counted += p.Value
			}
		}
	}
	if counted != 11 {
		t.Errorf("%d executions were counted, want 11", counted)
	}
}

func TestCommandsThatCannotBeAreRefused(t *testing.T) {
	_, s := open(t, scheduler.Options{})
	if _, err := s.Claim(t.Context(), ff.Claim{Claimant: who("i")}); !errors.Is(err, ff.ErrInvalidInput) {
		t.Errorf("a claim without lanes: %v", err)
	}
	if _, err := s.GrantNext(t.Context(), ff.GrantNext{Claimant: who("i"), Lane: "a"}); !errors.Is(err, ff.ErrInvalidInput) {
		t.Errorf("a grant without a length: %v", err)
	}
}

func TestClaimsAreMeasured(t *testing.T) {
	reader := metric.NewManualReader()
	store, s := open(t, scheduler.Options{Meter: metric.NewMeterProvider(metric.WithReader(reader)).Meter("test")})
	fill(t, store, 4, "a")
	lanes := []ff.LaneID{"a"}
	claim(t, s, ff.Claim{Claimant: who("i"), Lanes: lanes, Max: 3})
	claim(t, s, ff.Claim{Claimant: who("i"), Lanes: lanes, Wait: time.Second})
	claim(t, s, ff.Claim{Claimant: who("i"), Lanes: lanes})
	if _, err := s.GrantNext(t.Context(), ff.GrantNext{Claimant: who("i"), Lane: "a", TTL: time.Second}); err != nil {
		t.Fatal(err)
	}
	var got metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, m := range got.ScopeMetrics[0].Metrics {
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			counts[m.Name] = int(data.DataPoints[0].Value)
		case metricdata.Histogram[float64]:
			counts[m.Name] = int(data.DataPoints[0].Count)
			if lane, _ := data.DataPoints[0].Attributes.Value("lane"); lane.AsString() != "a" {
				t.Errorf("%s is labelled with lane %q", m.Name, lane.AsString())
			}
		}
	}
	for name, want := range map[string]int{"ff_claim_from_grant_duration_seconds": 3, "ff_claim_wait_seconds": 1, "ff_claimed_executions_total": 4} {
		if counts[name] != want {
			t.Errorf("%s counts %d, want %d", name, counts[name], want)
		}
	}
}
