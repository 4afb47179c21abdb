package sqlstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

func TestCommandsThatWaitShareOneTransaction(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "f.db"), sqlite.Options{})
	before := must[int64](t)(s.Transactions(ctx))
	release := s.Hold()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, err := s.CreateExecution(ctx, ff.CreateExecution{Lane: "main", Kind: "k"}); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "100 commands wait", func() bool { return s.Queued() == 100 })
	release()
	wg.Wait()
	// The counting commands make batches of their own.
	if n := must[int64](t)(s.Transactions(ctx)) - before; n > 4 {
		t.Errorf("100 commands took %d transactions", n)
	}
}

func TestABrokenCommandFailsAlone(t *testing.T) {
	for _, breaks := range []func(*sqlite.Store) error{
		func(s *sqlite.Store) error { return s.Break(ctx) },
		func(s *sqlite.Store) error { return s.Panic(ctx) },
	} {
		s := open(t, ":memory:", sqlite.Options{})
		release := s.Hold()
		var wg sync.WaitGroup
		var broken error
		for i := range 10 {
			wg.Go(func() {
				if i == 5 {
					broken = breaks(s)
					return
				}
				if _, err := s.CreateExecution(ctx, ff.CreateExecution{Lane: "main", Kind: fmt.Sprint(i)}); err != nil {
					t.Error(err)
				}
			})
		}
		eventually(t, "10 commands wait", func() bool { return s.Queued() == 10 })
		release()
		wg.Wait()
		if ff.CodeOf(broken) != ff.CodeInternal {
			t.Errorf("the broken command got %v", broken)
		}
		lanes := must[[]ff.LaneStatus](t)(s.Lanes(ctx))
		if len(lanes) != 1 || lanes[0].Counts[ff.StateWaiting] != 9 {
			t.Errorf("lanes %+v, want 9 waiting", lanes)
		}
		list := must[ff.ListExecutionsResult](t)(s.ListExecutions(ctx, ff.ListExecutions{}))
		if len(list.Executions) != 9 {
			t.Errorf("%d executions, want 9", len(list.Executions))
		}
		if rows := must[[]string](t)(s.Rows(ctx, "select name from meta where name = 'broken'", 0)); len(rows) > 0 {
			t.Error("the broken command left a row")
		}
	}
}

func TestFaultsThatGoOnAreLoggedOnceInAWhile(t *testing.T) {
	c := newClock()
	var log bytes.Buffer
	s := open(t, ":memory:", sqlite.Options{Clock: c.Now, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for range 100 {
		_ = s.Break(ctx)
	}
	c.add(time.Minute)
	_ = s.Break(ctx)
	// The writer is done with the log when it has run another command.
	if err := s.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 2 || !strings.Contains(log.String(), "unlogged=99") {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
}

func TestABrokenBatchHidesNoWork(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	id := must[ff.CreateExecutionResult](t)(s.CreateExecution(ctx, ff.CreateExecution{Lane: "main", Kind: "k"})).ID
	release := s.Hold()
	var wg sync.WaitGroup
	claimed := make(chan ff.Claimed, 2)
	claim := func() {
		r, err := s.Claim(ctx, ff.Claim{Claimant: ff.Claimant{Worker: "w", Instance: "i"}, Lanes: []ff.LaneID{"main"}})
		if err != nil {
			t.Error(err)
		}
		for _, c := range r.Claimed {
			claimed <- c
		}
	}
	// The first claim takes the only execution, the second finds none, then the
	// batch breaks and all of it is undone.
	for i, send := range []func(){claim, claim, func() { _ = s.Break(ctx) }} {
		wg.Go(send)
		eventually(t, "the command waits", func() bool { return s.Queued() == i+1 })
	}
	release()
	wg.Wait()
	if len(claimed) != 1 {
		t.Fatalf("%d claims got the execution", len(claimed))
	}
	if c := <-claimed; c.Execution.ID != id {
		t.Errorf("claimed %s, want %s", c.Execution.ID, id)
	}
}

func TestKeysGrowAcrossAnUndoneBatchAndAReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	s := open(t, path, sqlite.Options{})
	if err := s.BreakAfterKeys(ctx, 10_000); ff.CodeOf(err) != ff.CodeInternal {
		t.Fatalf("got %v", err)
	}
	want := []ff.ExecutionID{submit(t, s, "main", "k")}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, sqlite.Options{})
	want = append(want, submit(t, s, "main", "k"))
	var got []ff.ExecutionID
	for _, x := range must[ff.ListExecutionsResult](t)(s.ListExecutions(ctx, ff.ListExecutions{Oldest: true})).Executions {
		got = append(got, x.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v in the order of creation", got, want)
	}
}

func TestACallerWhoseContextEndsWithdrawsItsCommand(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	release := s.Hold()
	short, cancel := context.WithCancel(ctx)
	got := make(chan error)
	go func() {
		_, err := s.CreateExecution(short, ff.CreateExecution{Lane: "main", Kind: "k"})
		got <- err
	}()
	eventually(t, "the command waits", func() bool { return s.Queued() == 1 })
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	release()
	if list := must[ff.ListExecutionsResult](t)(s.ListExecutions(ctx, ff.ListExecutions{})); len(list.Executions) != 0 {
		t.Errorf("a withdrawn command was run: %+v", list)
	}
}

func TestAClosedStoreAnswersUnavailable(t *testing.T) {
	for _, path := range []string{":memory:", filepath.Join(t.TempDir(), "f.db")} {
		s := open(t, path, sqlite.Options{})
		waiting := make(chan error)
		go func() {
			c := claimOf("i1", "main")
			c.Wait = time.Minute
			_, err := s.Claim(ctx, c)
			waiting <- err
		}()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-waiting; ff.CodeOf(err) != ff.CodeUnavailable {
			t.Errorf("the waiting claim got %v", err)
		}
		if _, err := s.CreateExecution(ctx, ff.CreateExecution{Lane: "main", Kind: "k"}); ff.CodeOf(err) != ff.CodeUnavailable {
			t.Errorf("a command got %v", err)
		}
		if _, err := s.Execution(ctx, ff.NewExecutionID("main", ff.DefaultPartitionConfig)); ff.CodeOf(err) != ff.CodeUnavailable {
			t.Errorf("a read got %v", err)
		}
	}
}
