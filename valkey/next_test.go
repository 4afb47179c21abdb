package valkey_test

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/valkey"
)

// held submits n executions to a lane and claims the first.
func (d *damaged) held(t *testing.T, lane ff.LaneID, n int) ff.Claimed {
	t.Helper()
	d.at(t, lane, waiting, n)
	r, err := d.Claim(t.Context(), ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{lane}, LeaseTTL: time.Minute})
	if err != nil || len(r.Claimed) != 1 {
		t.Fatalf("claimed %+v, %v", r, err)
	}
	return r.Claimed[0]
}

func (d *damaged) completeNext(t *testing.T, c ff.Claimed, lanes ...ff.LaneID) ff.CompleteExecutionResult {
	t.Helper()
	r, err := d.CompleteExecution(t.Context(), ff.CompleteExecution{LeaseRef: c.Ref(), Result: []byte("out"),
		Next: &ff.Claim{Claimant: claimant, Lanes: lanes, LeaseTTL: time.Minute}})
	if err != nil || r.State != ff.StateCompleted || r.Repeated {
		t.Fatalf("completed %+v, %v", r, err)
	}
	if x, err := d.Execution(t.Context(), c.Execution.ID); err != nil || x.PublicState() != ff.StateCompleted {
		t.Fatalf("it is %s, %v", x.PublicState(), err)
	}
	return r
}

var callsOfFunctions = regexp.MustCompile(`cmdstat_fcall:calls=(\d+)`)

// calls is how many functions the server has been asked for.
func (d *damaged) calls(t *testing.T) int {
	t.Helper()
	text, err := d.server.Do("INFO", "commandstats").ToString()
	if err != nil {
		t.Fatal(err)
	}
	m := callsOfFunctions.FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no calls of functions in %s", text)
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// otherLane is a lane whose executions are on another partition, or on the same one.
func otherLane(lane ff.LaneID, same bool) ff.LaneID {
	for i := 0; ; i++ {
		other := ff.LaneID(fmt.Sprintf("%s-other-%d", lane, i))
		if (fewPartitions.LanePartition(other) == fewPartitions.LanePartition(lane)) == same {
			return other
		}
	}
}

func TestACompletionClaimsInTheSameCallWhereThePartitionIsTheSame(t *testing.T) {
	d := newDamaged(t)
	for _, c := range []struct {
		name  string
		lanes func(lane ff.LaneID) []ff.LaneID
		calls int
		next  func(lane ff.LaneID) ff.LaneID
	}{
		{"its lane", func(l ff.LaneID) []ff.LaneID { return []ff.LaneID{l} }, 1, func(l ff.LaneID) ff.LaneID { return l }},
		{"its lane first", func(l ff.LaneID) []ff.LaneID { return []ff.LaneID{l, "x"} }, 1, func(l ff.LaneID) ff.LaneID { return l }},
		{"another lane there", func(l ff.LaneID) []ff.LaneID { return []ff.LaneID{otherLane(l, true), l} }, 1,
			func(l ff.LaneID) ff.LaneID { return otherLane(l, true) }},
		{"a lane elsewhere", func(l ff.LaneID) []ff.LaneID { return []ff.LaneID{otherLane(l, false), l} }, 2,
			func(l ff.LaneID) ff.LaneID { return otherLane(l, false) }},
		{"a lane elsewhere that is empty", func(l ff.LaneID) []ff.LaneID { return []ff.LaneID{otherLane(l, false) + "-empty", l} }, 3,
			func(l ff.LaneID) ff.LaneID { return l }},
	} {
		t.Run(c.name, func(t *testing.T) {
			lane := d.lane()
			first := d.held(t, lane, 2)
			d.at(t, otherLane(lane, true), waiting, 1)
			d.at(t, otherLane(lane, false), waiting, 1)
			before := d.calls(t)
			r, err := d.CompleteExecution(t.Context(), ff.CompleteExecution{LeaseRef: first.Ref(), Next: &ff.Claim{Claimant: claimant, Lanes: c.lanes(lane)}})
			if err != nil || len(r.Next.Claimed) != 1 || r.Next.Claimed[0].Execution.Lane != c.next(lane) {
				t.Fatalf("completed %+v, %v", r, err)
			}
			if n := d.calls(t) - before; n > c.calls {
				t.Errorf("it took %d calls, want %d", n, c.calls)
			}
		})
	}
}

// Within a server nothing is undone: a claim that breaks must not make a completion
// that is stored look refused.
func TestAClaimThatBreaksLeavesItsCompletion(t *testing.T) {
	d := newDamaged(t)
	lane := d.lane()
	first := d.held(t, lane, 2)
	lostKey := fmt.Sprintf("ffx:idx:{fp:%d}:lane:%s:lost", first.Execution.ID.Partition(), lane)
	d.do(t, "SET", lostKey, "damaged")
	if r := d.completeNext(t, first, lane); len(r.Next.Claimed) != 0 || !r.Next.Now.IsZero() {
		t.Errorf("claimed %+v", r.Next)
	}
	if _, err := d.Claim(t.Context(), ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{lane}}); ff.CodeOf(err) != ff.CodeCorruption {
		t.Errorf("a claim alone: %v", err)
	}
	d.do(t, "DEL", lostKey)
	if r, err := d.Claim(t.Context(), ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{lane}}); err != nil || len(r.Claimed) != 1 {
		t.Errorf("after the repair: %+v, %v", r, err)
	}
}

// An older library, which a program of an earlier version may have loaded with force,
// takes the completion and knows nothing of the claim.
func TestALibraryThatDoesNotClaimWithCompletionsIsHelped(t *testing.T) {
	d := newDamaged(t)
	lane := d.lane()
	first := d.held(t, lane, 2)
	const chained = "if keys[2] and reply[1] == 1 then"
	if !strings.Contains(valkey.Extensions(), chained) {
		t.Fatal("the library has no claims with completions")
	}
	d.do(t, "FUNCTION", "LOAD", "REPLACE", strings.Replace(valkey.Extensions(), chained, "if false then", 1))
	before := d.calls(t)
	if r := d.completeNext(t, first, lane); len(r.Next.Claimed) != 1 {
		t.Errorf("claimed %+v", r.Next)
	}
	if n := d.calls(t) - before; n != 3 { // the completion, the claim, and the reading of the test
		t.Errorf("%d calls", n)
	}
}

// The worker gives up before the server answers: the completion may be stored, and
// what came with it must not wait for the end of its lease.
func TestWhatCameWithACompletionWhoseCallerIsGoneIsHandedBack(t *testing.T) {
	d := newDamaged(t)
	lane := d.lane()
	first := d.held(t, lane, 2)
	d.server.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := d.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: first.Ref(), Next: &ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{lane}, LeaseTTL: time.Hour}})
	d.server.Resume()
	if err == nil {
		t.Error("a server that stands still has answered")
	}
	r, err := d.Claim(t.Context(), ff.Claim{Claimant: ff.Claimant{Worker: "w", Instance: "other"}, Lanes: []ff.LaneID{lane}, Wait: 20 * time.Second})
	if err != nil || len(r.Claimed) != 1 || r.Claimed[0].Execution.TotalAttempts != 1 {
		t.Errorf("claimed %+v, %v", r, err)
	}
}
