package valkey_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

// many is more than one call of a sweep looks at.
const many = 2600

// crowd is a store of one partition, with a clock that the test moves.
type crowd struct {
	*testing.T
	*valkey.Store
	server *valkeytest.Server
	clock  *valkeytest.Clock
}

func newCrowd(t *testing.T, o valkey.Options) *crowd {
	t.Helper()
	clock := valkeytest.NewClock(t)
	server := valkeytest.Start(t, valkeytest.WithClock(clock))
	o.Partitions = onePartition
	return &crowd{T: t, Store: openStore(t, server.URL(), o), server: server, clock: clock}
}

// create makes n executions like one.
func (c *crowd) create(n int, like ff.CreateExecution) (ids []ff.ExecutionID) {
	c.Helper()
	for len(ids) < n {
		batch := make([]ff.CreateExecution, min(n-len(ids), 500))
		for i := range batch {
			batch[i] = like
			batch[i].Kind = "k"
		}
		r, err := c.CreateExecutions(c.Context(), ff.CreateExecutions{Executions: batch})
		if err != nil {
			c.Fatal(err)
		}
		for _, x := range r.Results {
			ids = append(ids, x.ID)
		}
	}
	return ids
}

// lease makes n executions of a lane and claims them all.
func (c *crowd) lease(lane ff.LaneID, n int, ttl time.Duration) {
	c.Helper()
	c.create(n, ff.CreateExecution{Lane: lane})
	for n > 0 {
		r, err := c.Claim(c.Context(), ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{lane}, Max: min(n, 100), LeaseTTL: ttl})
		if err != nil || len(r.Claimed) == 0 {
			c.Fatalf("%d are left to claim, got %d: %v", n, len(r.Claimed), err)
		}
		n -= len(r.Claimed)
	}
}

// end makes n executions that have ended.
func (c *crowd) end(n int, like ff.CreateExecution) (ids []ff.ExecutionID) {
	c.Helper()
	ids = c.create(n, like)
	for _, id := range ids {
		if _, err := c.CancelExecution(c.Context(), ff.CancelExecution{ID: id}); err != nil {
			c.Fatal(err)
		}
	}
	return ids
}

func (c *crowd) number(command string, args ...string) int64 {
	c.Helper()
	n, err := c.server.Do(command, args...).AsInt64()
	if err != nil {
		c.Fatal(err)
	}
	return n
}

func (c *crowd) lost(lane ff.LaneID) int64 {
	c.Helper()
	return c.number("ZCARD", fmt.Sprintf("ffx:idx:{fp:0}:lane:%s:lost", lane))
}

// sweep sweeps as a loop does: on while there is more.
func (c *crowd) sweep(kind ff.SweepKind) (processed int) {
	c.Helper()
	for {
		r, err := c.Sweep(c.Context(), ff.Sweep{Kind: kind})
		if err != nil || r.Errors > 0 {
			c.Fatalf("%+v, %v", r, err)
		}
		if processed += r.Processed; !r.More || r.Processed == 0 {
			return processed
		}
	}
}

// All workers of a lane crash, and nobody takes over what they held.
func TestLeasesThatLapseTogetherAreAllKnownAtOnce(t *testing.T) {
	c := newCrowd(t, valkey.Options{})
	c.lease("crashed", many, time.Minute)
	c.clock.Advance(30 * time.Second)
	c.lease("later", many, time.Minute)
	c.clock.Advance(31 * time.Second)
	if n := c.sweep(ff.SweepLeaseExpiry); n != many || c.lost("crashed") != many {
		t.Errorf("of %d leases that lapsed together %d were found and %d can be claimed", many, n, c.lost("crashed"))
	}
	c.clock.Advance(30 * time.Second)
	if n := c.sweep(ff.SweepLeaseExpiry); n != many || c.lost("later") != many {
		t.Errorf("of %d leases behind as many that had lapsed %d were found and %d can be claimed", many, n, c.lost("later"))
	}
}

// The entries of what nobody takes over stay in the index. A server that starts has
// to pass by them.
func TestALapsedLeaseBehindThousandsThatNobodyTakesOverIsFoundByTheFirstSweep(t *testing.T) {
	c := newCrowd(t, valkey.Options{})
	c.lease("crashed", 2*many, time.Minute)
	c.clock.Advance(time.Minute)
	c.sweep(ff.SweepLeaseExpiry)
	c.lease("busy", 3, time.Minute)
	c.clock.Advance(time.Minute)
	other := openStore(t, c.server.URL(), valkey.Options{})
	r, err := other.Sweep(t.Context(), ff.Sweep{Kind: ff.SweepLeaseExpiry})
	if err != nil || r.Processed != 3 || r.More {
		t.Errorf("%+v, %v", r, err)
	}
}

// While a sweep goes through leases that lapsed together others claim: what leaves
// the index must not move the rest out of sight.
func TestClaimsBetweenTheSweepsOfLeasesThatLapsedTogetherHideNone(t *testing.T) {
	c := newCrowd(t, valkey.Options{})
	c.lease("crashed", many, time.Minute)
	c.clock.Advance(time.Minute)
	processed := 0
	for range 40 {
		r, err := c.Sweep(t.Context(), ff.Sweep{Kind: ff.SweepLeaseExpiry, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		if processed += r.Processed; !r.More {
			break
		}
		if _, err := c.Claim(t.Context(), ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{"crashed"}, Max: 70, LeaseTTL: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	if processed != many {
		t.Errorf("%d of %d lapsed leases were found", processed, many)
	}
}

func TestRetentionDeletesWhatIsDueBehindThousandsThatAreKeptLonger(t *testing.T) {
	c := newCrowd(t, valkey.Options{Retention: time.Second})
	kept := ff.DefaultExecutionPolicy()
	kept.Stream = &ff.StreamPolicy{RetentionTTL: time.Hour}
	c.end(many, ff.CreateExecution{Lane: "main", Policy: kept})
	c.clock.Advance(time.Second)
	due := c.end(40, ff.CreateExecution{Lane: "main"})
	c.clock.Advance(time.Second)
	if n := c.sweep(ff.SweepRetention); n != len(due) {
		t.Errorf("%d of %d were deleted", n, len(due))
	}
	c.server.Do("CONFIG", "RESETSTAT")
	if n := c.sweep(ff.SweepRetention); n != 0 {
		t.Errorf("%d too many were deleted", n)
	}
	if n := c.calls("fcall"); n != 1 {
		t.Errorf("a sweep that has nothing to do makes %d calls, want one look", n)
	}
	c.end(1, ff.CreateExecution{Lane: "main"})
	c.clock.Advance(time.Hour)
	if n := c.sweep(ff.SweepRetention); n != many+1 {
		t.Errorf("%d of %d were deleted in the end", n, many+1)
	}
	if n := c.number("SCARD", "ff:idx:{fp:0}:all_executions"); n != 0 {
		t.Errorf("%d are left", n)
	}
}

// calls is how often the server has executed a command since CONFIG RESETSTAT.
func (c *crowd) calls(command string) int {
	c.Helper()
	text, err := c.server.Do("INFO", "commandstats").ToString()
	if err != nil {
		c.Fatal(err)
	}
	_, rest, found := strings.Cut(text, "cmdstat_"+command+":calls=")
	if !found {
		return 0
	}
	digits, _, _ := strings.Cut(rest, ",")
	n, err := strconv.Atoi(digits)
	if err != nil {
		c.Fatal(err)
	}
	return n
}

// The clock of a replica that takes over may be behind.
func TestALeaseIsFoundLapsedAfterTheClockHasGoneBack(t *testing.T) {
	c := newCrowd(t, valkey.Options{})
	c.lease("main", 1, time.Second)
	c.clock.Advance(time.Hour)
	if n := c.sweep(ff.SweepLeaseExpiry); n != 1 {
		t.Fatalf("%d leases were found", n)
	}
	c.clock.Advance(-30 * time.Minute)
	c.lease("other", 1, time.Second)
	c.clock.Advance(2 * time.Second)
	if n := c.sweep(ff.SweepLeaseExpiry); n != 1 || c.lost("other") != 1 {
		t.Errorf("%d leases were found after the clock had gone back", n)
	}
}

// The list of the attempts is lost: they are deleted all the same, however many.
func TestRetentionLeavesNoAttemptBehind(t *testing.T) {
	c := newCrowd(t, valkey.Options{Retention: time.Second})
	const attempts = 130
	policy := ff.DefaultExecutionPolicy()
	policy.Retry = ff.FixedRetry(attempts, 0)
	id := c.create(1, ff.CreateExecution{Lane: "main", Policy: policy})[0]
	for i := range attempts {
		r, err := c.Claim(t.Context(), ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{"main"}, LeaseTTL: time.Minute})
		if err != nil || len(r.Claimed) != 1 {
			t.Fatalf("claimed %d, %v", len(r.Claimed), err)
		}
		if _, err := c.FailExecution(t.Context(), ff.FailExecution{LeaseRef: r.Claimed[0].Ref(), Reason: "r", NoRetry: i == attempts-1}); err != nil {
			t.Fatal(err)
		}
	}
	c.number("DEL", key(id, "attempts"))
	c.clock.Advance(time.Second)
	if n := c.sweep(ff.SweepRetention); n != 1 {
		t.Fatalf("%d were deleted", n)
	}
	left, err := c.server.Do("KEYS", "*"+id.UUID().String()+"*").AsStrSlice()
	if err != nil || len(left) != 0 {
		t.Errorf("%d keys are left: %q, %v", len(left), left, err)
	}
}

// Nothing has ended, so that retention has nothing to delete: the log is trimmed all the
// same, and what an execution knows of its own events does not grow for ever.
func TestTheEventsOfAnExecutionThatNeverEndsAreTrimmed(t *testing.T) {
	c := newCrowd(t, valkey.Options{Retention: time.Hour})
	const leases = 1500
	id := c.create(1, ff.CreateExecution{Lane: "main"})[0]
	for range leases {
		r, err := c.Claim(t.Context(), ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{"main"}, LeaseTTL: time.Minute})
		if err != nil || len(r.Claimed) != 1 {
			t.Fatalf("claimed %d, %v", len(r.Claimed), err)
		}
		if _, err := c.ReleaseExecutions(t.Context(), ff.ReleaseExecutions{Leases: []ff.LeaseRef{r.Claimed[0].Ref()}}); err != nil {
			t.Fatal(err)
		}
	}
	if n := c.number("STRLEN", "ffx:exec:{fp:0}:"+id.String()+":events"); n == 0 || n > 41_000 {
		t.Errorf("the list of the events of an execution has %d bytes", n)
	}
	latest, err := c.ReadEvents(t.Context(), ff.ReadEvents{ID: id, Limit: ff.MaxPageLimit})
	if err != nil || len(latest.Events) < 1000 {
		t.Errorf("%d events are known, %v", len(latest.Events), err)
	}
	log := "ffx:part:{fp:0}:events"
	c.sweep(ff.SweepRetention)
	if n := c.number("XLEN", log); n != 2*leases {
		t.Fatalf("the log has %d events before retention is over", n)
	}
	c.clock.Advance(2 * time.Hour)
	c.sweep(ff.SweepRetention)
	if n := c.number("XLEN", log); n > 200 {
		t.Errorf("the log has %d events after", n)
	}
}
