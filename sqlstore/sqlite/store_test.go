package sqlite_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == "work" {
		workForever()
		return
	}
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, path string, opts sqlite.Options) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(context.Background(), path, opts)
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

func claimant(name string) ff.Claimant {
	return ff.Claimant{Worker: "w", Instance: ff.WorkerInstanceID(name)}
}

func TestAnExecutionIsCreatedClaimedAndCompleted(t *testing.T) {
	for _, path := range []string{":memory:", filepath.Join(t.TempDir(), "f.db")} {
		s := open(t, path, sqlite.Options{})
		ctx := context.Background()
		created, err := s.CreateExecution(ctx, ff.CreateExecution{Lane: "main", Kind: "k", Payload: []byte("in"), Tags: map[string]string{"a": "b"}})
		if err != nil {
			t.Fatal(err)
		}
		claimed, err := s.Claim(ctx, ff.Claim{Claimant: claimant("i1"), Lanes: []ff.LaneID{"main"}, Max: 3})
		if err != nil || len(claimed.Claimed) != 1 {
			t.Fatalf("claimed %v, %v", claimed, err)
		}
		c := claimed.Claimed[0]
		if string(c.Payload) != "in" || c.Execution.ID != created.ID || c.Execution.Tags["a"] != "b" {
			t.Fatalf("claimed %+v", c)
		}
		r, err := s.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: c.Ref(), Result: []byte("out")})
		if err != nil || r.State != ff.StateCompleted {
			t.Fatalf("completed %v, %v", r, err)
		}
		result, err := s.ExecutionResult(ctx, created.ID)
		if err != nil || string(result) != "out" {
			t.Fatalf("result %q, %v", result, err)
		}
		lanes, err := s.Lanes(ctx)
		if err != nil || len(lanes) != 1 || lanes[0].Counts[ff.StateCompleted] != 1 {
			t.Fatalf("lanes %v, %v", lanes, err)
		}
		events, err := s.ReadEvents(ctx, ff.ReadEvents{})
		if err != nil || len(events.Events) != 2 {
			t.Fatalf("events %v, %v", events, err)
		}
		again, err := s.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: c.Ref(), Result: []byte("out")})
		if err != nil || !again.Repeated {
			t.Fatalf("repeated %v, %v", again, err)
		}
	}
}
