package sqlstore_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

func TestASubmitWakesTheClaimerThatCanTakeIt(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	gpu := must[ff.CapabilitySet](t)(ff.NewCapabilitySet("gpu"))
	able := make(chan ff.ClaimResult)
	poor, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c := claimOf("poor", "main")
		c.Wait = time.Minute
		_, _ = s.Claim(poor, c)
	}()
	go func() {
		c := claimOf("able", "main")
		c.Wait, c.Capabilities = time.Minute, gpu
		r, err := s.Claim(ctx, c)
		if err != nil {
			t.Error(err)
		}
		able <- r
	}()
	policy := ff.DefaultExecutionPolicy()
	policy.Routing = &ff.RoutingRequirements{RequiredCapabilities: gpu}
	created := must[ff.CreateExecutionResult](t)(s.CreateExecution(ctx, ff.CreateExecution{Lane: "main", Kind: "k", Policy: policy}))
	if r := <-able; len(r.Claimed) != 1 || r.Claimed[0].Execution.ID != created.ID {
		t.Errorf("claimed %+v", r)
	}
	cancel()
	<-ended
}

func TestAWokenClaimerThatGivesUpPassesTheWakeUpOn(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	// Whether the first claimer sees its wake-up or its end first is a toss.
	for round := range 20 {
		release := s.Hold()
		short, cancel := context.WithCancel(ctx)
		ended := make(chan struct{})
		got := make(chan ff.ClaimResult, 1)
		secondHold := make(chan func())
		lane := ff.LaneID(fmt.Sprintf("lane%d", round))
		wait := func(ctx context.Context) ff.ClaimResult {
			c := claimOf("i1", lane)
			c.Wait = time.Minute
			r, _ := s.Claim(ctx, c)
			return r
		}
		// All in one batch; the second hold keeps it open until the first claimer,
		// whose first look is in the batch, has been told to end.
		for i, send := range []func(){
			func() { defer close(ended); wait(short) },
			func() { got <- wait(ctx) },
			func() { _, _ = s.CreateExecution(ctx, ff.CreateExecution{Lane: lane, Kind: "k"}) },
			func() { secondHold <- s.Hold() },
		} {
			go send()
			eventually(t, "the command waits", func() bool { return s.Queued() == i+1 })
		}
		release()
		release = <-secondHold
		cancel()
		release()
		start := time.Now()
		if r := <-got; len(r.Claimed) != 1 {
			t.Fatalf("claimed %+v", r)
		}
		if d := time.Since(start); d > 500*time.Millisecond {
			t.Fatalf("the other claimer came by after %s", d)
		}
		<-ended
	}
}

func TestGrantsAreKeptForTheGrantee(t *testing.T) {
	c := newClock()
	s := open(t, ":memory:", sqlite.Options{Clock: c.Now})
	id := submit(t, s, "main", "k")
	who := ff.Claimant{Worker: "w", Instance: "i1"}
	g := must[ff.GrantResult](t)(s.GrantNext(ctx, ff.GrantNext{Claimant: who, Lane: "main", TTL: time.Second}))
	if g.ID != id {
		t.Fatalf("granted %+v", g)
	}
	if r := must[ff.ClaimResult](t)(s.Claim(ctx, claimOf("i2", "main"))); len(r.Claimed) != 0 {
		t.Errorf("a granted execution was claimed: %+v", r)
	}
	c.add(2 * time.Second)
	must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepDelayed}))
	g = must[ff.GrantResult](t)(s.GrantNext(ctx, ff.GrantNext{Claimant: who, Lane: "main", TTL: time.Second}))
	r := must[ff.ClaimGrantedResult](t)(s.ClaimGranted(ctx, ff.ClaimGranted{Claimant: who, ID: g.ID}))
	if r.Claimed.Execution.ID != id || r.Claimed.Execution.LeaseEpoch != 1 {
		t.Errorf("claimed %+v", r)
	}
}

func TestADamagedExecutionDoesNotStopItsLane(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{Logger: slog.New(slog.DiscardHandler)})
	damaged := submit(t, s, "main", "k")
	others := []ff.ExecutionID{submit(t, s, "main", "k"), submit(t, s, "main", "k"), submit(t, s, "main", "k")}
	if err := s.Damage(ctx, "update executions set policy = '{broken' where seq = (select min(seq) from executions)"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Execution(ctx, damaged); ff.CodeOf(err) != ff.CodeCorruption || !strings.Contains(err.Error(), damaged.String()) {
		t.Errorf("reading it: %v", err)
	}
	c := claimOf("i", "main")
	c.Max = 2
	for _, want := range [][]ff.ExecutionID{others[:2], others[2:], nil} {
		r := must[ff.ClaimResult](t)(s.Claim(ctx, c))
		var got []ff.ExecutionID
		for _, one := range r.Claimed {
			got = append(got, one.Execution.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("claimed %v, want %v", got, want)
		}
	}
	if list := must[ff.ListExecutionsResult](t)(s.ListExecutions(ctx, ff.ListExecutions{})); len(list.Executions) != 3 {
		t.Errorf("%d executions are listed, want the 3 that can be read", len(list.Executions))
	}
	// A repaired row can be read again.
	if err := s.Damage(ctx, "update executions set policy = '' where seq = (select min(seq) from executions)"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Execution(ctx, damaged); err != nil {
		t.Errorf("after the repair: %v", err)
	}
}

func TestAClaimStopsAtItsLimitOfBytes(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	large := make([]byte, ff.MaxPayloadBytes)
	const n = ff.MaxClaimBytes/ff.MaxPayloadBytes + 2
	for range n {
		must[ff.CreateExecutionResult](t)(s.CreateExecution(ctx, ff.CreateExecution{Lane: "main", Kind: "k", Payload: large}))
	}
	c := claimOf("i", "main")
	c.Max = n
	if r := must[ff.ClaimResult](t)(s.Claim(ctx, c)); len(r.Claimed) != n-2 {
		t.Errorf("%d executions were claimed, want %d", len(r.Claimed), n-2)
	}
	if r := must[ff.ClaimResult](t)(s.Claim(ctx, c)); len(r.Claimed) != 2 {
		t.Errorf("then %d executions were claimed, want 2", len(r.Claimed))
	}
}
