package sqlstore_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

func TestListingsAreMergedInOrderWithCursors(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	var all []ff.ExecutionID
	for i := range 60 {
		all = append(all, submit(t, s, ff.LaneID(fmt.Sprintf("lane%d", i%3)), fmt.Sprintf("kind%d", i%4)))
	}
	for _, oldest := range []bool{true, false} {
		for _, q := range []ff.ListExecutions{{}, {Lane: "lane1"}, {Kind: "kind2"}, {State: ff.StateWaiting}, {Lane: "lane0", Kind: "kind0"}} {
			want := []ff.ExecutionID{}
			for i, id := range all {
				if (q.Lane == "" || q.Lane == ff.LaneID(fmt.Sprintf("lane%d", i%3))) && (q.Kind == "" || q.Kind == fmt.Sprintf("kind%d", i%4)) {
					want = append(want, id)
				}
			}
			if !oldest {
				slices.Reverse(want)
			}
			q.Oldest, q.Limit = oldest, 7
			got := []ff.ExecutionID{}
			for {
				page := must[ff.ListExecutionsResult](t)(s.ListExecutions(ctx, q))
				for _, x := range page.Executions {
					got = append(got, x.ID)
				}
				if q.Cursor = page.Next; q.Cursor == "" {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%+v: got %d ids, want %d, or in another order", q, len(got), len(want))
			}
		}
	}
}

func TestAnExecutionThatChangesStateStaysInItsLanesListing(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "f.db"), sqlite.Options{Synchronous: sqlite.Off})
	var want []ff.ExecutionID
	want = append(want, submit(t, s, "main", "k"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 1000 {
			r, err := s.Claim(ctx, claimOf("i1", "main"))
			if err != nil || len(r.Claimed) != 1 {
				t.Errorf("claimed %+v, %v", r, err)
				return
			}
			if _, err := s.ReleaseExecutions(ctx, ff.ReleaseExecutions{Leases: []ff.LeaseRef{r.Claimed[0].Ref()}}); err != nil {
				t.Error(err)
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		r := must[ff.ListExecutionsResult](t)(s.ListExecutions(ctx, ff.ListExecutions{Lane: "main"}))
		if len(r.Executions) != len(want) {
			t.Errorf("listed %d executions, want %d", len(r.Executions), len(want))
			<-done
			return
		}
	}
}
