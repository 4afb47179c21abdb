package sqlstore_test

import (
	"path/filepath"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

func TestRetentionDeletesEverythingOfAnExecution(t *testing.T) {
	c := newClock()
	s := open(t, ":memory:", sqlite.Options{Clock: c.Now, Retention: time.Hour})
	must[ff.CreateExecutionResult](t)(s.CreateExecution(ctx, ff.CreateExecution{Lane: "main", Kind: "k", Payload: []byte("p"), IdempotencyKey: "key"}))
	x := claim(t, s, "main")
	appendSome(t, s, x, 2, ff.NewFrame{Mode: ff.FrameSummary, Payload: []byte(`{"a":1}`)})
	must[ff.CompleteExecutionResult](t)(s.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: x.Ref(), Result: []byte("r")}))
	idle := must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepRetention}))
	if want := c.Now().Add(time.Hour); idle.Processed != 0 || !idle.Next.Equal(want) {
		t.Errorf("before retention ends: %+v, want nothing done and %s next", idle, want)
	}
	c.add(time.Hour)
	if r := must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepRetention})); r.Processed != 1 || !r.Next.IsZero() {
		t.Errorf("swept %+v", r)
	}
	for _, table := range []string{"executions", "payloads", "results", "attempts", "events", "idempotency", "streams", "frames", "summaries"} {
		if rows := must[[]string](t)(s.Rows(ctx, "select count(*) from "+table, 0)); rows[0] != "0" {
			t.Errorf("%s has %s rows left", table, rows[0])
		}
	}
	if lanes := must[[]ff.LaneStatus](t)(s.Lanes(ctx)); len(lanes[0].Counts) != 0 {
		t.Errorf("counts %v", lanes[0].Counts)
	}
}

func TestADeadlineAtTheBeginningOfTimeIsDue(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	id := must[ff.CreateExecutionResult](t)(s.CreateExecution(ctx, ff.CreateExecution{Lane: "main", Kind: "k", Deadline: time.UnixMilli(0)})).ID
	must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepExecutionDeadline}))
	if x := must[ff.Execution](t)(s.Execution(ctx, id)); x.PublicState() != ff.StateExpired {
		t.Errorf("the execution is %s, want expired", x.PublicState())
	}
}

func TestWatchDueTellsOfSomethingEarlier(t *testing.T) {
	c := newClock()
	s := open(t, ":memory:", sqlite.Options{Clock: c.Now})
	delayed := func(d time.Duration) {
		must[ff.CreateExecutionResult](t)(s.CreateExecution(ctx, ff.CreateExecution{Lane: "main", Kind: "k", Delay: d}))
	}
	due, stop := s.WatchDue(ff.SweepDelayed)
	defer stop()
	delayed(time.Hour)
	<-due
	must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepDelayed}))
	delayed(2 * time.Hour)
	select {
	case <-due:
		t.Error("told of something later")
	default:
	}
	delayed(time.Minute)
	<-due
}

func TestAnotherRetentionAfterReopeningCounts(t *testing.T) {
	path, c := filepath.Join(t.TempDir(), "f.db"), newClock()
	s := open(t, path, sqlite.Options{Clock: c.Now, Retention: time.Hour})
	x := submit(t, s, "main", "k")
	must[ff.CancelExecutionResult](t)(s.CancelExecution(ctx, ff.CancelExecution{ID: x}))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, sqlite.Options{Clock: c.Now, Retention: 3 * time.Hour})
	end := c.Now().Add(3 * time.Hour)
	c.add(2 * time.Hour)
	if r := must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepRetention})); r.Processed != 0 || r.More || !r.Next.Equal(end) {
		t.Errorf("swept %+v, want nothing before %s", r, end)
	}
}
