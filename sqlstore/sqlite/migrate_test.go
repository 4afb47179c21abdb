package sqlite_test

import (
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

// unpacked is a copy of a file of testdata.
func unpacked(t *testing.T, name string) string {
	t.Helper()
	packed, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = packed.Close() }()
	r, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "f.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// version1.db.gz was made by a program that knew only the first migration: three
// executions in the lanes done, active and waiting, the active one leased for an hour
// by instance a.
func TestAFileOfTheFirstVersionIsUpgraded(t *testing.T) {
	ctx, clock, path := context.Background(), newManualClock(), unpacked(t, "version1.db.gz")
	clock.advance(time.Minute)
	for range 2 { // The second time it is a file of this version.
		s, err := sqlite.Open(ctx, path, sqlite.Options{Clock: clock.now})
		if err != nil {
			t.Fatal(err)
		}
		checkFirstVersion(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func checkFirstVersion(t *testing.T, s *sqlite.Store) {
	t.Helper()
	ctx := context.Background()
	list, err := s.ListExecutions(ctx, ff.ListExecutions{Oldest: true})
	if err != nil {
		t.Fatal(err)
	}
	states := map[ff.LaneID]ff.PublicState{}
	for _, x := range list.Executions {
		states[x.Lane] = x.PublicState()
		input, err := s.ExecutionPayload(ctx, x.ID)
		if err != nil || string(input.Payload) != "input of "+string(x.Lane) {
			t.Errorf("the input of %s: %q, %v", x.Lane, input.Payload, err)
		}
		if x.Lane == "active" {
			appendToFirstVersion(t, s, &x)
		}
	}
	want := map[ff.LaneID]ff.PublicState{"done": ff.StateCompleted, "active": ff.StateActive, "waiting": ff.StateWaiting}
	if d := cmp.Diff(want, states); d != "" {
		t.Errorf("the states (-want +got):\n%s", d)
	}
}

func appendToFirstVersion(t *testing.T, s *sqlite.Store, x *ff.Execution) {
	t.Helper()
	ctx := context.Background()
	lease := ff.LeaseRef{ID: x.ID, Fence: ff.Fence{LeaseID: x.Lease.ID, LeaseEpoch: x.LeaseEpoch, AttemptID: x.CurrentAttemptID}}
	r, err := s.AppendFrames(ctx, ff.AppendFrames{LeaseRef: lease, Frames: []ff.NewFrame{{Payload: []byte("new")}}})
	if err != nil {
		t.Fatal(err)
	}
	page, err := s.ReadFrames(ctx, ff.ReadFrames{StreamRef: ff.StreamRef{ID: x.ID}})
	if err != nil || int64(len(page.Frames)) != r.Count {
		t.Errorf("%d frames of %d, %v", len(page.Frames), r.Count, err)
	}
}
