package valkey_test

import (
	"errors"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

// pair is two stores on one server: what one does, the other goes on with.
type pair struct {
	*testing.T
	clock    *valkeytest.Clock
	one, two ff.Backend
}

func check[R any](r R, err error) func(*pair) R {
	return func(p *pair) R {
		p.Helper()
		if err != nil {
			p.Fatal(err)
		}
		return r
	}
}

func (p *pair) submit(b ff.Backend, c ff.CreateExecution) ff.ExecutionID {
	p.Helper()
	c.Lane, c.Kind = "main", "k"
	p.clock.Advance(time.Millisecond)
	return check(b.CreateExecution(p.Context(), c))(p).ID
}

func (p *pair) claim(b ff.Backend, id ff.ExecutionID) ff.Claimed {
	p.Helper()
	r := check(b.Claim(p.Context(), ff.Claim{Claimant: ff.Claimant{Worker: "w", Instance: "i"}, Lanes: []ff.LaneID{"main"}, LeaseTTL: 10 * time.Second}))(p)
	if len(r.Claimed) != 1 || r.Claimed[0].Execution.ID != id {
		p.Fatalf("claimed %d executions, want %s", len(r.Claimed), id)
	}
	p.same(id)
	return r.Claimed[0]
}

// same reads an execution with both.
func (p *pair) same(id ff.ExecutionID) ff.Execution {
	p.Helper()
	x, y := check(p.one.Execution(p.Context(), id))(p), check(p.two.Execution(p.Context(), id))(p)
	if x.State != y.State || x.LeaseEpoch != y.LeaseEpoch || x.Attempt != y.Attempt || x.Deadline != y.Deadline || x.AttemptTimeoutAt != y.AttemptTimeoutAt {
		p.Errorf("the two read it as\n%+v\n%+v", x, y)
	}
	return x
}

func (p *pair) sweep(b ff.Backend, kind ff.SweepKind, want int) {
	p.Helper()
	if r := check(b.Sweep(p.Context(), ff.Sweep{Kind: kind}))(p); r.Processed != want || r.Errors > 0 {
		p.Fatalf("sweep %s: %+v, want %d processed", kind, r, want)
	}
}

func TestStoresWithAndWithoutExtensionsShareAServer(t *testing.T) {
	clock := valkeytest.NewClock(t)
	server := valkeytest.Start(t, valkeytest.WithClock(clock))
	for what, story := range map[string]func(*pair){"leases": sharedLeases, "retries": sharedRetries, "grants": sharedGrants, "the end": sharedEnd} {
		for _, uses := range [][2]string{{"required", "off"}, {"off", "required"}} {
			t.Run(what+" "+uses[0], func(t *testing.T) {
				if err := server.Do("FLUSHALL").Error(); err != nil {
					t.Fatal(err)
				}
				p := &pair{T: t, clock: clock}
				p.one = openBackend(t, server.URL()+"?extensions="+uses[0], valkey.Options{Partitions: fewPartitions})
				p.two = openBackend(t, server.URL()+"?extensions="+uses[1], valkey.Options{Partitions: fewPartitions})
				story(p)
			})
		}
	}
}

// sharedLeases parks, loses and takes over what the other holds.
func sharedLeases(p *pair) {
	ctx := p.Context()
	id := p.submit(p.one, ff.CreateExecution{Payload: []byte("in"), Priority: 7})
	c := p.claim(p.two, id)
	ref := c.Ref()
	check(p.one.RenewLeases(ctx, ff.RenewLeases{Leases: []ff.LeaseRef{ref}, TTL: 20 * time.Second}))(p)
	check(p.one.ReleaseExecutions(ctx, ff.ReleaseExecutions{Leases: []ff.LeaseRef{ref}}))(p)
	if c = p.claim(p.two, id); !c.Resumed {
		p.Error("the parked attempt does not go on")
	}
	for i, lose := range []func(){
		func() { p.clock.Advance(10 * time.Second); p.sweep(p.one, ff.SweepLeaseExpiry, 1) },
		func() { p.clock.Advance(10 * time.Second); p.sweep(p.two, ff.SweepLeaseExpiry, 1) },
		func() { check(p.one.RevokeLease(ctx, ff.RevokeLease{ID: id}))(p) },
		func() { check(p.two.RevokeLease(ctx, ff.RevokeLease{ID: id}))(p) },
		func() {
			p.clock.Advance(10 * time.Second)
			for _, b := range []ff.Backend{p.one, p.two} {
				if _, err := b.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: c.Ref()}); !errors.Is(err, ff.ErrLeaseExpired) {
					p.Errorf("a late completion: %v", err)
				}
			}
		},
	} {
		lose()
		b := p.two
		if i%2 == 1 {
			b = p.one
		}
		c = p.claim(b, id)
	}
	check(p.one.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: c.Ref(), Result: []byte("out")}))(p)
	again := check(p.two.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: c.Ref()}))(p)
	if x := p.same(id); !again.Repeated || x.ReclaimCount != 5 || x.TotalAttempts != 6 {
		p.Errorf("repeated %t, %d takeovers, %d attempts", again.Repeated, x.ReclaimCount, x.TotalAttempts)
	}
}

// sharedRetries fails, times out and replays what the other ran.
func sharedRetries(p *pair) {
	ctx, policy := p.Context(), ff.DefaultExecutionPolicy()
	policy.Retry, policy.Timeout = ff.FixedRetry(3, time.Second), &ff.TimeoutPolicy{Attempt: 5 * time.Second, Deadline: time.Hour}
	id := p.submit(p.one, ff.CreateExecution{Policy: policy})
	c := p.claim(p.two, id)
	check(p.one.FailExecution(ctx, ff.FailExecution{LeaseRef: c.Ref(), Reason: "broken"}))(p)
	p.clock.Advance(time.Second)
	p.sweep(p.two, ff.SweepDelayed, 1)
	p.claim(p.one, id)
	p.clock.Advance(5 * time.Second)
	p.sweep(p.two, ff.SweepAttemptTimeout, 1)
	p.clock.Advance(time.Second)
	p.sweep(p.one, ff.SweepDelayed, 1)
	c = p.claim(p.two, id)
	check(p.two.FailExecution(ctx, ff.FailExecution{LeaseRef: c.Ref(), NoRetry: true}))(p)
	check(p.one.ReplayExecution(ctx, ff.ReplayExecution{ID: id, Reason: "again", Payload: []byte("new")}))(p)
	if c = p.claim(p.two, id); string(c.Payload) != "new" || c.Execution.Attempt.Cause != "again" {
		p.Errorf("replayed: %+v", c)
	}
	check(p.one.DelayExecution(ctx, ff.DelayExecution{LeaseRef: c.Ref(), For: 2 * time.Hour}))(p)
	p.clock.Advance(time.Hour)
	p.sweep(p.two, ff.SweepExecutionDeadline, 1)
	if x := p.same(id); x.PublicState() != ff.StateExpired {
		p.Errorf("it is %s after its deadline", x.PublicState())
	}
}

// sharedGrants takes up what the other granted.
func sharedGrants(p *pair) {
	ctx, who := p.Context(), ff.Claimant{Worker: "w", Instance: "i"}
	id := p.submit(p.one, ff.CreateExecution{})
	for _, b := range []ff.Backend{p.two, p.one} {
		g := check(b.GrantNext(ctx, ff.GrantNext{Claimant: who, Lane: "main", TTL: time.Second}))(p)
		if g.ID != id {
			p.Fatalf("granted %v, want %s", g, id)
		}
		p.clock.Advance(time.Second + time.Millisecond)
		p.sweep(b, ff.SweepDelayed, 1)
	}
	check(p.two.GrantNext(ctx, ff.GrantNext{Claimant: who, Lane: "main", TTL: time.Second}))(p)
	check(p.one.ClaimGranted(ctx, ff.ClaimGranted{Claimant: who, ID: id}))(p)
	check(p.two.RevokeLease(ctx, ff.RevokeLease{ID: id}))(p)
	check(p.one.GrantReclaim(ctx, ff.GrantReclaim{Claimant: who, ID: id, TTL: time.Second}))(p)
	c := check(p.two.ClaimGranted(ctx, ff.ClaimGranted{Claimant: who, ID: id}))(p)
	check(p.one.CancelExecution(ctx, ff.CancelExecution{ID: id, Fence: c.Claimed.Ref().Fence}))(p)
	p.same(id)
}

// sharedEnd deletes what the other ended, with all keys.
func sharedEnd(p *pair) {
	ctx := p.Context()
	policy := ff.DefaultExecutionPolicy()
	policy.Stream = &ff.StreamPolicy{RetentionTTL: time.Minute}
	for _, submit := range []ff.CreateExecution{{Tags: map[string]string{"a.b": "c"}}, {Policy: policy, Payload: []byte("in")}} {
		id := p.submit(p.one, submit)
		c := p.claim(p.two, id)
		check(p.two.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: c.Ref(), Result: []byte("out")}))(p)
	}
	p.sweep(p.one, ff.SweepRetention, 0)
	p.clock.Advance(time.Minute)
	p.sweep(p.one, ff.SweepRetention, 1)
	p.clock.Advance(ff.DefaultRetention)
	p.sweep(p.one, ff.SweepRetention, 1)
	for _, b := range []ff.Backend{p.one, p.two} {
		if r := check(b.ListExecutions(ctx, ff.ListExecutions{}))(p); len(r.Executions) > 0 {
			p.Errorf("%d executions are still listed", len(r.Executions))
		}
	}
}

// A peer has marked leases as lost, which tells nobody. What no worker takes over must
// not hide what another waits for.
func TestALostLeaseBehindHundredsThatNobodyTakesOverIsFoundWithoutExtensions(t *testing.T) {
	clock := valkeytest.NewClock(t)
	server := valkeytest.Start(t, valkeytest.WithClock(clock))
	b := without(server.URL())(t)
	peer := newPeer(t, server)
	hold := func(lane string) string {
		id, _ := peer.create(&peerCreate{lane: lane, partition: 1})
		peer.must(id, lane, 1000)
		return id
	}
	for range 450 {
		hold("idle")
	}
	clock.Advance(time.Second)
	wanted := hold("busy")
	clock.Advance(2 * time.Second)
	for range 10 {
		peer.scanLeases(1)
	}
	peer.mark(wanted)
	r, err := b.Claim(t.Context(), ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{"busy"}, LeaseTTL: time.Minute})
	if err != nil || len(r.Claimed) != 1 || r.Claimed[0].Execution.ID.String() != wanted {
		t.Errorf("claimed %d, %v; want %s", len(r.Claimed), err, wanted)
	}
}
