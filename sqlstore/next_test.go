package sqlstore_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

// A claim breaks in the middle: of what it wrote nothing stays, and the completion
// does. The other commands of the transaction are not harmed.
func TestAClaimThatBreaksLeavesItsCompletion(t *testing.T) {
	var log bytes.Buffer
	s := open(t, ":memory:", sqlite.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	submit(t, s, "main", "k")
	held := claim(t, s, "main")
	next := submit(t, s, "main", "k")
	if err := s.Damage(ctx, "create trigger broken before insert on events when new.type = 1 begin select raise(abort, 'on purpose'); end"); err != nil {
		t.Fatal(err)
	}
	c := claimOf("i1", "main")
	release := s.Hold()
	var all sync.WaitGroup
	var r ff.CompleteExecutionResult
	var err error
	all.Go(func() {
		r, err = s.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: held.Ref(), Result: []byte("out"), Next: &c})
	})
	all.Go(func() {
		if _, err := s.CreateExecution(ctx, ff.CreateExecution{Lane: "other", Kind: "k"}); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "2 commands wait", func() bool { return s.Queued() == 2 })
	release()
	all.Wait()
	if err != nil || r.State != ff.StateCompleted || r.Repeated || len(r.Next.Claimed) != 0 || !r.Next.Now.IsZero() {
		t.Errorf("completed %+v, %v", r, err)
	}
	for id, want := range map[ff.ExecutionID]ff.PublicState{held.Execution.ID: ff.StateCompleted, next: ff.StateWaiting} {
		if x := must[ff.Execution](t)(s.Execution(ctx, id)); x.PublicState() != want {
			t.Errorf("%s is %s, want %s", id, x.PublicState(), want)
		}
	}
	if result := must[[]byte](t)(s.ExecutionResult(ctx, held.Execution.ID)); string(result) != "out" {
		t.Errorf("result %q", result)
	}
	if !strings.Contains(log.String(), "a claim that came with a completion failed") {
		t.Errorf("the log has nothing of it: %s", log.String())
	}
	if err := s.Damage(ctx, "drop trigger broken"); err != nil {
		t.Fatal(err)
	}
	if got := claim(t, s, "main"); got.Execution.ID != next {
		t.Errorf("claimed %s after the repair, want %s", got.Execution.ID, next)
	}
}
