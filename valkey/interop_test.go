package valkey_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

// interop is a store and a peer on one server whose clock the test moves.
type interop struct {
	*testing.T
	clock *valkeytest.Clock
	store *valkey.Store
	peer  *peer
}

func newInterop(t *testing.T) *interop {
	clock := valkeytest.NewClock(t)
	server := valkeytest.Start(t, valkeytest.WithClock(clock))
	return &interop{T: t, clock: clock, peer: newPeer(t, server), store: openStore(t, server.URL(), valkey.Options{Partitions: fewPartitions})}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (n *interop) wait(d time.Duration) { n.clock.Advance(d) }

func (n *interop) record(id string) ff.Execution {
	n.Helper()
	return must[ff.Execution](n)(n.store.Execution(n.Context(), n.parse(id)))
}

func (n *interop) parse(id string) ff.ExecutionID {
	n.Helper()
	return must[ff.ExecutionID](n)(ff.ParseExecutionID(id))
}

// create stores an execution of ours.
func (n *interop) create(c ff.CreateExecution) string {
	n.Helper()
	c.Lane, c.Kind = "alpha", "job"
	return must[ff.CreateExecutionResult](n)(n.store.CreateExecution(n.Context(), c)).ID.String()
}

// claim is ours; it must take exactly this execution.
func (n *interop) claim(id string) ff.Claimed {
	n.Helper()
	r := must[ff.ClaimResult](n)(n.store.Claim(n.Context(), ff.Claim{Claimant: us, Lanes: []ff.LaneID{"alpha"}, Max: 10, LeaseTTL: 2 * time.Second}))
	if len(r.Claimed) != 1 || r.Claimed[0].Execution.ID.String() != id {
		n.Fatalf("claimed %d executions, want %s", len(r.Claimed), id)
	}
	return r.Claimed[0]
}

func (n *interop) nothing() {
	n.Helper()
	r := must[ff.ClaimResult](n)(n.store.Claim(n.Context(), ff.Claim{Claimant: us, Lanes: []ff.LaneID{"alpha"}, Max: 10}))
	if len(r.Claimed) != 0 {
		n.Fatalf("claimed %v", r.Claimed[0].Execution.ID)
	}
}

func (n *interop) sweep(kinds ...ff.SweepKind) {
	n.Helper()
	for _, k := range kinds {
		if r := must[ff.SweepResult](n)(n.store.Sweep(n.Context(), ff.Sweep{Kind: k})); r.Errors > 0 {
			n.Fatalf("sweep %s: %+v", k, r)
		}
	}
}

func (n *interop) is(id string, want ff.PublicState) ff.Execution {
	n.Helper()
	x := n.record(id)
	if x.PublicState() != want {
		n.Fatalf("%s is %s to us, want %s", id, x.PublicState(), want)
	}
	n.peer.see(id, string(want))
	return x
}

func (n *interop) policy(text string) *ff.ExecutionPolicy {
	n.Helper()
	return must[*ff.ExecutionPolicy](n)(ff.ParseExecutionPolicy([]byte(text)))
}

// home is the partition of lane alpha.
var home = int(fewPartitions.LanePartition("alpha"))

// TestWeWorkOnWhatAPeerCreates: after each of our transitions the peer reads the
// record as strictly as the reference does.
func TestWeWorkOnWhatAPeerCreates(t *testing.T) {
	n := newInterop(t)
	p := n.peer
	c := peerCreate{lane: "alpha", namespace: "ns", payload: "in\x00put", policy: retrying, partition: home, key: "order-7", tags: map[string]string{"a.b": "c"},
		deadline: p.now() + 3600000}
	id, state := p.create(&c)
	if state != "waiting" {
		t.Fatal(state)
	}
	x := n.is(id, ff.StateWaiting)
	if x.Namespace != "ns" || x.Creator != "rust-client" || x.Tags["a.b"] != "c" || x.Policy.MaxReplays != 3 || x.Deadline.UnixMilli() != c.deadline {
		t.Errorf("read %+v", x)
	}
	got := n.claim(id)
	if string(got.Payload) != "in\x00put" || got.Execution.Deadline.UnixMilli() != c.deadline || got.Resumed {
		t.Errorf("claimed %q %+v", got.Payload, got.Execution)
	}
	seen := p.see(id, "active")
	for field, want := range map[string]string{"current_worker_id": "go", "current_worker_instance_id": "go-1", "current_lease_epoch": "1", "current_attempt_index": "0",
		"total_attempt_count": "1", "current_lease_id": got.Execution.Lease.ID.String(), "lease_expires_at": num(got.Execution.Lease.ExpiresAt.UnixMilli())} {
		if seen[field] != want {
			t.Errorf("the peer reads %s %q, want %q", field, seen[field], want)
		}
	}
	if a := p.hash(p.attempt(id, "0")); a["attempt_type"] != "initial" || a["attempt_state"] != "started" || a["worker_id"] != "go" {
		t.Errorf("the peer reads the attempt %v", a)
	}
	n.wait(time.Second)
	must[ff.RenewLeasesResult](t)(n.store.RenewLeases(t.Context(), ff.RenewLeases{Leases: []ff.LeaseRef{got.Ref()}, TTL: 5 * time.Second}))
	if at := p.see(id, "active")["lease_expires_at"]; at != num(p.now()+5000) {
		t.Errorf("renewed until %s", at)
	}
	half := 50
	if err := n.store.UpdateProgress(t.Context(), ff.UpdateProgress{LeaseRef: got.Ref(), Percent: &half, Message: "half"}); err != nil {
		t.Fatal(err)
	}
	if x := p.see(id, "active"); x["progress_pct"] != "50" || x["progress_message"] != "half" {
		t.Errorf("progress %q %q", x["progress_pct"], x["progress_message"])
	}
	r := must[ff.FailExecutionResult](t)(n.store.FailExecution(t.Context(), ff.FailExecution{LeaseRef: got.Ref(), Reason: "boom", Category: "bug"}))
	if x := p.see(id, "delayed"); x["delay_until"] != num(r.RetryAt.UnixMilli()) || x["current_attempt_id"] != "" || x["retry_count"] != "1" {
		t.Errorf("after our failure: %v", x)
	}
	n.wait(time.Second)
	p.scanDelayed(home, "alpha")
	got = n.claim(id)
	if got.Execution.Attempt.Type != ff.AttemptRetry || got.Execution.Attempt.Previous != 0 {
		t.Errorf("claimed %+v", got.Execution.Attempt)
	}
	must[ff.DelayExecutionResult](t)(n.store.DelayExecution(t.Context(), ff.DelayExecution{LeaseRef: got.Ref(), For: 10 * time.Second}))
	p.see(id, "delayed")
	n.wait(10 * time.Second)
	n.sweep(ff.SweepDelayed)
	p.see(id, "waiting")
	got = n.claim(id)
	if !got.Resumed || got.Execution.Attempt.Index != 1 {
		t.Errorf("claimed %+v", got.Execution)
	}
	must[ff.CompleteExecutionResult](t)(n.store.CompleteExecution(t.Context(), ff.CompleteExecution{LeaseRef: got.Ref(), Result: []byte("out\xff")}))
	if x := p.see(id, "completed"); x["completed_at"] != num(p.now()) || x["current_lease_id"] != "" {
		t.Errorf("after our completion: %v", x)
	}
	if out := p.text("GET", p.key(id, "result")); out != "out\xff" {
		t.Errorf("the peer reads the result %q", out)
	}
	// A key of either is known to both.
	if first, how := p.create(&c); how != "DUPLICATE" || first != id {
		t.Errorf("created %s %s again", first, how)
	}
	if r := must[ff.CreateExecutionResult](t)(n.store.CreateExecution(t.Context(), ff.CreateExecution{Lane: "alpha", Kind: "job", Namespace: "ns", IdempotencyKey: "order-7"})); !r.Duplicate || r.ID.String() != id {
		t.Errorf("we created %v", r)
	}
	ours := n.create(ff.CreateExecution{Namespace: "ns", IdempotencyKey: "order-8"})
	c.key = "order-8"
	if first, how := p.create(&c); how != "DUPLICATE" || first != ours {
		t.Errorf("the peer created %s %s again", first, how)
	}
}

func TestWeClaimWhatAPeerDelaysAtCreation(t *testing.T) {
	n := newInterop(t)
	id, state := n.peer.create(&peerCreate{lane: "alpha", partition: home, delayUntil: n.peer.now() + 5000})
	if state != "delayed" {
		t.Fatal(state)
	}
	n.is(id, ff.StateDelayed)
	n.nothing()
	n.wait(5 * time.Second)
	n.sweep(ff.SweepIndex, ff.SweepDelayed)
	n.claim(id)
	// The deadline of a peer is ours too.
	id, _ = n.peer.create(&peerCreate{lane: "alpha", partition: home, deadline: n.peer.now() + 5000, delayUntil: n.peer.now() + 3600000})
	n.wait(5 * time.Second)
	n.sweep(ff.SweepExecutionDeadline)
	n.is(id, ff.StateExpired)
	if x := n.peer.see(id, "expired"); x["failure_reason"] != "execution_deadline" {
		t.Errorf("expired with %q", x["failure_reason"])
	}
}

func TestAPeerWorksOnWhatWeCreate(t *testing.T) {
	n := newInterop(t)
	p := n.peer
	id := n.create(ff.CreateExecution{Payload: []byte("in"), Policy: n.policy(timed), Priority: 2, Tags: map[string]string{"a.b": "c"}, Delay: time.Second})
	p.see(id, "delayed")
	n.wait(time.Second)
	p.scanDelayed(home, "alpha")
	p.see(id, "waiting")
	l := p.must(id, "alpha", 2000)
	x := n.is(id, ff.StateActive)
	if x.Lease.Worker != "rust" || x.Lease.ID.String() != l.lease || x.Attempt.Type != ff.AttemptInitial || x.Lease.ExpiresAt.UnixMilli() != p.now()+2000 {
		t.Errorf("the peer claimed; we read %+v", x)
	}
	if in := p.text("GET", p.key(id, "payload")); in != "in" {
		t.Errorf("the peer reads %q", in)
	}
	n.nothing()
	p.good(p.renew(l))
	p.good(p.progress(l, "30", "there"))
	if x := n.record(id); x.Progress.Percent == nil || *x.Progress.Percent != 30 || x.Progress.Message != "there" {
		t.Errorf("progress %+v", x.Progress)
	}
	if r := p.good(p.fail(l, "boom", "transient")); r[1] != num(p.now()+100) {
		t.Errorf("the policy of ours gives %v, now %d: %s", r, p.now(), p.text("GET", p.key(id, "policy")))
	}
	x = n.is(id, ff.StateDelayed)
	if x.FailureReason != "boom" || x.FailureCategory != "transient" || x.RetryCount != 1 || x.DelayUntil.UnixMilli() != p.now()+100 {
		t.Errorf("after its failure we read %+v", x)
	}
	n.wait(100 * time.Millisecond)
	n.sweep(ff.SweepDelayed)
	l = p.must(id, "alpha", 2000)
	if l.index != "1" || l.epoch != "2" {
		t.Errorf("claimed %+v", l)
	}
	p.good(p.delay(l, p.now()+500))
	n.is(id, ff.StateDelayed)
	n.wait(500 * time.Millisecond)
	n.sweep(ff.SweepDelayed)
	// We go on with the attempt that it parked, and it with the one that we release.
	got := n.claim(id)
	if !got.Resumed || got.Execution.CurrentAttemptID.String() != l.attempt {
		t.Errorf("resumed %+v", got.Execution)
	}
	if r := must[ff.ReleaseExecutionsResult](t)(n.store.ReleaseExecutions(t.Context(), ff.ReleaseExecutions{Leases: []ff.LeaseRef{got.Ref()}})); r.Errs[0] != nil {
		t.Fatal(r.Errs[0])
	}
	p.see(id, "waiting")
	l = p.must(id, "alpha", 2000)
	if l.index != "1" || l.epoch != "4" || l.attempt != got.Execution.CurrentAttemptID.String() {
		t.Errorf("the peer resumed %+v", l)
	}
	if x := n.record(id); !x.AttemptTimeoutAt.IsZero() {
		t.Errorf("the peer claims without a timeout; we read %v", x.AttemptTimeoutAt)
	}
	p.good(p.complete(l, "out"))
	n.is(id, ff.StateCompleted)
	if out := must[[]byte](t)(n.store.ExecutionResult(t.Context(), n.parse(id))); string(out) != "out" {
		t.Errorf("we read the result %q", out)
	}
	list := must[[]ff.Attempt](t)(n.store.Attempts(t.Context(), n.parse(id)))
	if len(list) != 2 || list[0].State != ff.AttemptEndedFailure || list[0].FailureCategory != "transient" || list[1].State != ff.AttemptEndedSuccess ||
		list[1].Type != ff.AttemptRetry || list[1].Cause != "boom" {
		t.Errorf("attempts %+v", list)
	}
}

func TestLostLeasesAreTakenOverBothWays(t *testing.T) {
	for name, lose := range map[string]func(*interop, string){
		"lapsed, marked by the peer": func(n *interop, id string) {
			n.wait(3 * time.Second)
			n.peer.scanLeases(home)
			n.sweep(ff.SweepLeaseExpiry)
		},
		"lapsed, marked by us":              func(n *interop, id string) { n.wait(3 * time.Second); n.sweep(ff.SweepLeaseExpiry) },
		"lapsed and marked, swept by index": func(n *interop, id string) { n.wait(3 * time.Second); n.peer.scanLeases(home); n.sweep(ff.SweepIndex) },
		"revoked by the peer":               func(n *interop, id string) { n.peer.good(n.peer.revoke(id, "operator")); n.sweep(ff.SweepIndex) },
		"revoked by us": func(n *interop, id string) {
			must[ff.RevokeLeaseResult](n)(n.store.RevokeLease(n.Context(), ff.RevokeLease{ID: n.parse(id), Reason: "operator"}))
		},
	} {
		t.Run(name+", taken over by us", func(t *testing.T) {
			n := newInterop(t)
			id, _ := n.peer.create(&peerCreate{lane: "alpha", partition: home})
			l := n.peer.must(id, "alpha", 2000)
			lose(n, id)
			n.is(id, ff.StateActive)
			got := n.claim(id)
			if a := got.Execution.Attempt; a.Type != ff.AttemptReclaim || a.Index != 1 || a.Previous != 0 {
				t.Errorf("took over %+v", a)
			}
			if r := n.peer.complete(l, "late"); r[1] != "stale_lease" {
				t.Errorf("the former holder gets %q", r)
			}
			must[ff.CompleteExecutionResult](t)(n.store.CompleteExecution(t.Context(), ff.CompleteExecution{LeaseRef: got.Ref()}))
			n.peer.see(id, "completed")
		})
		t.Run(name+", taken over by the peer", func(t *testing.T) {
			n := newInterop(t)
			id := n.create(ff.CreateExecution{})
			got := n.claim(id)
			lose(n, id)
			if r := n.peer.good(n.peer.reclaimGrant(id, "", 1000)); r[1] != num(n.peer.now()+1000) {
				t.Errorf("granted %q", r)
			}
			n.nothing() // it is reserved
			if _, err := n.store.GrantReclaim(t.Context(), ff.GrantReclaim{Claimant: us, ID: n.parse(id), TTL: time.Second}); ff.CodeOf(err) != ff.CodeGrantAlreadyExists {
				t.Errorf("we grant too: %v", err)
			}
			l, r := n.peer.reclaim(id, 2000)
			if l == nil || l.index != "1" || l.epoch != "2" {
				t.Fatalf("reclaimed %+v %q", l, r)
			}
			if _, err := n.store.CompleteExecution(t.Context(), ff.CompleteExecution{LeaseRef: got.Ref()}); ff.CodeOf(err) != ff.CodeStaleLease {
				t.Errorf("we complete late: %v", err)
			}
			n.nothing()
			n.peer.good(n.peer.complete(l, ""))
			n.is(id, ff.StateCompleted)
			list := must[[]ff.Attempt](t)(n.store.Attempts(t.Context(), n.parse(id)))
			if len(list) != 2 || list[0].State != ff.AttemptInterruptedReclaimed || list[1].Type != ff.AttemptReclaim {
				t.Errorf("attempts %+v", list)
			}
		})
	}
}

func TestGrantsOfEitherAreRespected(t *testing.T) {
	n := newInterop(t)
	p := n.peer
	id, _ := p.create(&peerCreate{lane: "alpha", partition: home})
	p.good(p.grant(id, "alpha", "", 1000))
	n.nothing()
	if x := n.record(id); x.Grant.Worker != "rust" || x.Grant.ExpiresAt.UnixMilli() != p.now()+1000 {
		t.Errorf("we read the grant %+v", x.Grant)
	}
	n.wait(1001 * time.Millisecond)
	got := n.claim(id) // the peer's has lapsed
	must[ff.ReleaseExecutionsResult](t)(n.store.ReleaseExecutions(t.Context(), ff.ReleaseExecutions{Leases: []ff.LeaseRef{got.Ref()}}))

	g := must[ff.GrantResult](t)(n.store.GrantNext(t.Context(), ff.GrantNext{Claimant: us, Lane: "alpha", TTL: time.Second}))
	if g.ID.String() != id {
		t.Fatalf("granted %v", g)
	}
	if r := p.grant(id, "alpha", "", 1000); r[1] != "grant_already_exists" {
		t.Errorf("the peer grants too: %q", r)
	}
	if _, r := p.claimGranted(id, "alpha", 1000); r[1] != "invalid_claim_grant" {
		t.Errorf("the peer claims with our grant: %q", r)
	}
	n.wait(1001 * time.Millisecond)
	p.must(id, "alpha", 1000) // ours has lapsed, and nobody has swept

	// Also for a library that takes any grant that is there for one in force.
	other := n.create(ff.CreateExecution{})
	must[ff.GrantResult](t)(n.store.GrantNext(t.Context(), ff.GrantNext{Claimant: us, Lane: "alpha", TTL: time.Second}))
	n.wait(1001 * time.Millisecond)
	n.sweep(ff.SweepDelayed)
	if kind := p.text("TYPE", p.key(other, "claim_grant")); kind != "none" {
		t.Errorf("our lapsed grant is still there after a sweep: %s", kind)
	}
}

func TestWhatPeersDoToExecutionsIsSeen(t *testing.T) {
	n := newInterop(t)
	p := n.peer
	create := func() string { id, _ := p.create(&peerCreate{lane: "alpha", partition: home}); return id }
	cancelled, expired, blocked, moved := create(), create(), create(), create()
	p.good(p.cancel(cancelled, "no more", "operator_override", "", ""))
	if x := n.is(cancelled, ff.StateCancelled); x.CancellationReason != "no more" || x.CancelledBy != ff.SourceOperatorOverride {
		t.Errorf("cancelled: %+v", x)
	}
	p.good(p.expire(expired, "execution_deadline"))
	if x := n.is(expired, ff.StateExpired); x.FailureReason != "execution_deadline" || x.FailureCategory != "timeout" {
		t.Errorf("expired: %+v", x)
	}
	p.good(p.block(blocked, "alpha", "budget", "waiting_for_budget"))
	n.is(blocked, ff.StateRateLimited)
	p.good(p.priority(moved, 7))
	p.good(p.tag(moved, "team.name", "x"))
	if x := n.is(moved, ff.StateWaiting); x.Priority != 7 || x.Tags["team.name"] != "x" {
		t.Errorf("moved: %+v", x)
	}
	held := p.must(moved, "alpha", 60000)
	p.good(p.cancel(moved, "stop", "worker", held.lease, held.epoch))
	n.is(moved, ff.StateCancelled)
	p.good(p.replay(cancelled))
	if x := n.is(cancelled, ff.StateWaiting); x.ReplayCount != 1 || x.CancellationReason != "" || x.CancelledBy != "" {
		t.Errorf("replayed: %+v", x)
	}
	n.sweep(ff.SweepIndex)
	lanes := must[[]ff.LaneStatus](t)(n.store.Lanes(t.Context()))
	if len(lanes) != 1 || fmt.Sprint(lanes[0].Counts) != "map[cancelled:1 expired:1 rate_limited:1 waiting:1]" {
		t.Errorf("lanes %+v", lanes)
	}
	for state, want := range map[ff.PublicState]string{ff.StateCancelled: moved, ff.StateExpired: expired, ff.StateRateLimited: blocked, ff.StateWaiting: cancelled} {
		r := must[ff.ListExecutionsResult](t)(n.store.ListExecutions(t.Context(), ff.ListExecutions{State: state}))
		if len(r.Executions) != 1 || r.Executions[0].ID.String() != want {
			t.Errorf("listed %s: %v", state, r.Executions)
		}
	}
	got := n.claim(cancelled)
	if got.Execution.Attempt.Type != ff.AttemptReplay {
		t.Errorf("claimed %+v", got.Execution.Attempt)
	}
	p.good(p.unblock(blocked, "alpha", "budget", "waiting_for_budget"))
	n.claim(blocked)
}

// TestEventsOfBothAreOneLog: what the peer's functions leave in the lease history
// and what ours leave in the log are one list.
func TestEventsOfBothAreOneLog(t *testing.T) {
	n := newInterop(t)
	p := n.peer
	tick := func() { n.wait(10 * time.Millisecond) }
	id := n.create(ff.CreateExecution{Policy: n.policy(retrying)})
	l := p.must(id, "alpha", 2000)
	tick()
	p.good(p.delay(l, p.now()))
	tick()
	n.sweep(ff.SweepDelayed)
	got := n.claim(id)
	tick()
	must[ff.FailExecutionResult](t)(n.store.FailExecution(t.Context(), ff.FailExecution{LeaseRef: got.Ref(), Reason: "bang"}))
	n.wait(time.Second)
	p.scanDelayed(home, "alpha")
	p.must(id, "alpha", 2000)
	n.wait(3 * time.Second)
	p.scanLeases(home)
	tick()
	p.good(p.reclaimGrant(id, "", 1000))
	if l, r := p.reclaim(id, 2000); l == nil {
		t.Fatal(r)
	}
	tick()
	p.good(p.revoke(id, "drain"))
	n.sweep(ff.SweepIndex)
	tick()
	got = n.claim(id)
	tick()
	p.good(p.cancel(id, "stop", "operator_override", "", ""))
	tick()
	p.good(p.replay(id))
	tick()
	l = p.must(id, "alpha", 2000)
	tick()
	p.good(p.complete(l, ""))
	tick()
	must[ff.ReplayExecutionResult](t)(n.store.ReplayExecution(t.Context(), ff.ReplayExecution{ID: n.parse(id), Reason: "again"}))
	tick()
	p.good(p.cancel(id, "enough", "operator_override", "", "")) // nobody holds it: no entry
	want := []string{"acquired 1 0", "released 1 0 worker_delay", "acquired 2 0 claim_resumed", "released 2 0 failed_retry_scheduled", "acquired 3 1",
		"expired 3 1", "reclaimed 4 2", "revoked 4 2 drain", "reclaimed 5 3", "completion 5 3 cancelled cancelled", "replay_initiated 0 0 normal",
		"acquired 6 4", "completion 6 4 completed success", "replay_initiated 0 4 normal", "completion 0 4 enough cancelled"}
	check := func(limit int) {
		var have []string
		after := ff.EventCursor("")
		for {
			r := must[ff.ReadEventsResult](t)(n.store.ReadEvents(t.Context(), ff.ReadEvents{ID: n.parse(id), After: after, Limit: limit}))
			if len(r.Events) == 0 {
				break
			}
			for _, e := range r.Events {
				have = append(have, strings.TrimSpace(strings.Join(strings.Fields(fmt.Sprintf("%s %d %d %s %s", e.Type, e.LeaseEpoch, e.AttemptIndex, e.Reason, e.Outcome)), " ")))
				if e.ID.String() != id || e.Cursor == "" {
					t.Errorf("event %+v", e)
				}
			}
			after = r.Next
		}
		if !slices.Equal(have, want) {
			t.Errorf("in pages of %d:\n%s\nwant\n%s", limit, strings.Join(have, "\n"), strings.Join(want, "\n"))
		}
	}
	check(1)
	check(4)
	check(100)
	r := must[ff.ReadEventsResult](t)(n.store.ReadEvents(t.Context(), ff.ReadEvents{ID: n.parse(id), Family: ff.FamilyCompletion}))
	if len(r.Events) != 3 {
		t.Errorf("%d completions", len(r.Events))
	}
}

// TestOneSweepFindsWhatAPeerChangedAmongMany: not only the page of executions that
// a sweep of the indexes looks at each time.
func TestOneSweepFindsWhatAPeerChangedAmongMany(t *testing.T) {
	n := newInterop(t)
	p := n.peer
	var many ff.CreateExecutions
	for range 900 {
		many.Executions = append(many.Executions, ff.CreateExecution{Lane: "alpha", Kind: "job"})
	}
	var ids []string
	for range 4 {
		for _, r := range must[ff.CreateExecutionsResult](t)(n.store.CreateExecutions(t.Context(), many)).Results {
			ids = append(ids, r.ID.String())
		}
	}
	n.sweep(ff.SweepIndex)
	n.wait(time.Second)
	for i := 5; i < len(ids); i += 400 {
		p.must(ids[i], "alpha", 3600000)
		p.good(p.revoke(ids[i], "drain"))
		p.good(p.cancel(ids[i+1], "stop", "operator_override", "", ""))
	}
	n.sweep(ff.SweepIndex) // the counts of the indexes are right, and tell nothing
	for i := 5; i < len(ids); i += 400 {
		if p.text("ZSCORE", "ffx:idx:"+tagOfID(ids[0])+":lane:alpha:lost", ids[i]) == "" {
			t.Errorf("the lost execution %d is not found", i)
		}
		if p.text("ZSCORE", "ffx:idx:"+tagOfID(ids[0])+":lane:alpha:outcome:cancelled", ids[i+1]) == "" {
			t.Errorf("the cancelled execution %d is not found", i+1)
		}
	}
	id, _ := p.create(&peerCreate{lane: "alpha", partition: home})
	p.good(p.cancel(ids[2], "stop", "operator_override", "", ""))
	n.sweep(ff.SweepIndex)
	if p.text("ZSCORE", "ffx:idx:"+tagOfID(id)+":created", id) == "" {
		t.Error("the created execution is not found")
	}
	if counts := must[[]ff.LaneStatus](t)(n.store.Lanes(t.Context()))[0].Counts; counts[ff.StateCancelled] != 10 || counts[ff.StateActive] != 9 || counts[ff.StateWaiting] != 3582 {
		t.Errorf("counts %v", counts)
	}
}

func TestPoliciesThatOnlyPeersWriteAreRead(t *testing.T) {
	n := newInterop(t)
	for _, text := range []string{`{}`, `5`, `[]`, `"x"`, `{"retry_policy":{}}`, `{"max_reclaim_count":1000000,"unknown":{"a":1}}`,
		`{"priority":-3,"retry_policy":{"max_retries":4294967295,"backoff":{"type":"exponential","initial_delay_ms":18446744073709551615,"max_delay_ms":18446744073709551615,"multiplier":0.0,"jitter":true},"retryable_categories":["a","a"]},"max_signals_per_execution":0}`,
		`{"priority":2147483647,"timeout_policy":{"max_reclaim_count":0},"suspension_policy":{"timeout_behavior":"what"},"fallback_policy":{"tiers":[]},"stream_policy":{"durability_mode":"x","retention_maxlen":0,"retention_ttl_ms":18446744073709551615}}`,
		`{"routing_requirements":{"required_capabilities":["b","a","a"],"preferred_locality":"eu"}}`} {
		id, _ := n.peer.create(&peerCreate{lane: "alpha", partition: home, policy: text})
		x, err := n.store.Execution(t.Context(), n.parse(id))
		if err != nil {
			t.Errorf("policy %s: %v", text, err)
			continue
		}
		caps, _ := ff.ParseCapabilityCSV("a,b")
		r, err := n.store.Claim(t.Context(), ff.Claim{Claimant: ff.Claimant{Worker: "go", Instance: "go-1", Capabilities: caps}, Lanes: []ff.LaneID{"alpha"}, Max: 10})
		if err != nil || len(r.Claimed) != 1 {
			t.Errorf("policy %s: claimed %d of it, %v (state %s)", text, len(r.Claimed), err, x.PublicState())
			continue
		}
		if _, err := n.store.FailExecution(t.Context(), ff.FailExecution{LeaseRef: r.Claimed[0].Ref(), Reason: "boom"}); err != nil {
			t.Errorf("policy %s: failing: %v", text, err)
		}
		if _, err := n.peer.describe(id); err != nil {
			t.Errorf("policy %s: %v", text, err)
		}
	}
	n.sweep(ff.SweepKinds...)
}

// TestWorkOfPeersIsFoundInTime: a claim that waits hears of it at once when our
// library is there, and looks often enough when nobody publishes.
func TestWorkOfPeersIsFoundInTime(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		for _, away := range []bool{false, true} {
			t.Run(fmt.Sprintf("quiet %v, another partition %v", quiet, away), func(t *testing.T) {
				server := valkeytest.Start(t)
				p := newPeer(t, server)
				limit := 700 * time.Millisecond // less than until the next look that nobody asked for
				if quiet {
					p.text("FUNCTION", "LOAD", standIn("34"))
					limit = 1300 * time.Millisecond
					if away {
						limit = 3300 * time.Millisecond
					}
				}
				store := openStore(t, server.URL(), valkey.Options{Partitions: fewPartitions})
				partition := home
				if away {
					partition = (home + 1) % int(fewPartitions.Flow)
				}
				claimed := make(chan time.Time, 1)
				go func() {
					r, err := store.Claim(t.Context(), ff.Claim{Claimant: us, Lanes: []ff.LaneID{"alpha"}, Wait: 10 * time.Second})
					if err == nil && len(r.Claimed) == 1 {
						claimed <- time.Now()
					}
					close(claimed)
				}()
				mark := fmt.Sprintf("ffx:idx:{fp:%d}:lane:alpha:waiting", home)
				for p.text("GET", mark) == "" && t.Context().Err() == nil {
					time.Sleep(time.Millisecond)
				}
				begin := time.Now()
				p.create(&peerCreate{lane: "alpha", partition: partition})
				at, ok := <-claimed
				if !ok {
					t.Fatal("the claim found nothing")
				}
				if d := at.Sub(begin); d > limit {
					t.Errorf("found after %v, want %v", d, limit)
				}
			})
		}
	}
}

// standIn is a library like the reference's: ours without our mark and our messages.
func standIn(version string) string {
	text := strings.Replace(valkey.Library(), "-- flowfabric for Go, build ", "-- somebody's build ", 1)
	text = strings.Replace(text, "'"+valkey.LibraryVersion+"'", "'"+version+"'", 1)
	return strings.ReplaceAll(text, "redis.call('PUBLISH', 'ffx:wake',", "tostring(")
}

// installed is the code of each library on a server.
func installed(p *peer) map[string]string {
	p.t.Helper()
	list, err := p.do("FUNCTION", "LIST", "WITHCODE").ToArray()
	if err != nil {
		p.t.Fatal(err)
	}
	out := map[string]string{}
	for i := range list {
		m, err := list[i].AsMap()
		if err != nil {
			p.t.Fatal(err)
		}
		name, code := m["library_name"], m["library_code"]
		key, _ := name.ToString()
		out[key], _ = code.ToString()
	}
	return out
}

func TestLibrariesOfOthers(t *testing.T) {
	server := valkeytest.Start(t)
	p := newPeer(t, server)
	open := func(o valkey.Options) string {
		var log bytes.Buffer
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		o.Partitions = fewPartitions
		s := must[ff.Backend](t)(valkey.Open(t.Context(), server.URL(), o))
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		return log.String()
	}
	loads := func() string {
		for line := range strings.Lines(p.text("INFO", "commandstats")) {
			if rest, ok := strings.CutPrefix(line, "cmdstat_function|load:calls="); ok {
				n, _, _ := strings.Cut(rest, ",")
				return n
			}
		}
		return "0"
	}
	ours, extensions := valkey.Library(), valkey.Extensions()
	newer := strings.Replace(extensions, fmt.Sprintf("local VERSION = '%d'", valkey.ExtensionsVersion), fmt.Sprintf("local VERSION = '%d'", valkey.ExtensionsVersion+1), 1)
	for _, c := range []struct {
		name   string
		before []string
		want   map[string]string
		log    string
	}{
		{"nothing", nil, map[string]string{"flowfabric": ours, "flowfabric_go": extensions}, ""},
		{"the reference's", []string{standIn("34")}, map[string]string{"flowfabric": standIn("34"), "flowfabric_go": extensions}, ""},
		{"an older one", []string{standIn("33")}, map[string]string{"flowfabric": ours, "flowfabric_go": extensions}, ""},
		{"a newer one", []string{standIn("35")}, map[string]string{"flowfabric": standIn("35"), "flowfabric_go": extensions}, "newer function library"},
		{"newer extensions", []string{ours, newer}, map[string]string{"flowfabric": ours, "flowfabric_go": newer}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Not the asynchronous one: Valkey 8.0 dies when functions are loaded meanwhile.
			p.text("FUNCTION", "FLUSH", "SYNC")
			for _, code := range c.before {
				p.text("FUNCTION", "LOAD", code)
			}
			if log := open(valkey.Options{}); c.log != "" && !strings.Contains(log, c.log) {
				t.Errorf("the log has no %q: %s", c.log, log)
			}
			for name, code := range installed(p) {
				if code != c.want[name] {
					t.Errorf("%s begins with %.120q, want %.120q", name, code, c.want[name])
				}
			}
			n := loads()
			for range 20 {
				open(valkey.Options{})
				open(valkey.Options{})
			}
			if loads() != n {
				t.Errorf("loaded again: %s times, then %s", n, loads())
			}
		})
	}
}

func TestPartitionConfigurationOfTheStore(t *testing.T) {
	server := valkeytest.Start(t)
	p := newPeer(t, server)
	openWith := func(cfg ff.PartitionConfig) (ff.PartitionConfig, error) {
		s, err := valkey.Open(t.Context(), server.URL(), valkey.Options{Partitions: cfg})
		if err != nil {
			return ff.PartitionConfig{}, err
		}
		defer s.Close()
		info, err := s.Info(t.Context())
		return info.Partitions, err
	}
	for _, c := range []struct {
		name   string
		stored map[string]string
		given  ff.PartitionConfig
		want   ff.PartitionConfig
		err    string
	}{
		{"empty", nil, ff.PartitionConfig{}, ff.PartitionConfig{Flow: 256, Budget: 32, Quota: 32}, ""},
		{"empty, given", nil, ff.PartitionConfig{Flow: 4, Budget: 2, Quota: 3}, ff.PartitionConfig{Flow: 4, Budget: 2, Quota: 3}, ""},
		{"taken as stored", map[string]string{"num_flow_partitions": "8", "num_budget_partitions": "4", "num_quota_partitions": "2"}, ff.PartitionConfig{},
			ff.PartitionConfig{Flow: 8, Budget: 4, Quota: 2}, ""},
		{"equal", map[string]string{"num_flow_partitions": "8", "num_budget_partitions": "4", "num_quota_partitions": "2"}, ff.PartitionConfig{Flow: 8, Budget: 4, Quota: 2},
			ff.PartitionConfig{Flow: 8, Budget: 4, Quota: 2}, ""},
		{"another flow count", map[string]string{"num_flow_partitions": "8", "num_budget_partitions": "4", "num_quota_partitions": "2"}, ff.PartitionConfig{Flow: 9},
			ff.PartitionConfig{}, "partition_mismatch: num_flow_partitions: stored=8, config=9"},
		{"another quota count", map[string]string{"num_flow_partitions": "8", "num_budget_partitions": "4", "num_quota_partitions": "2"}, ff.PartitionConfig{Quota: 3},
			ff.PartitionConfig{}, "partition_mismatch: num_quota_partitions: stored=2, config=3"},
		{"garbage", map[string]string{"num_flow_partitions": "eight", "num_budget_partitions": "4", "num_quota_partitions": "2"}, ff.PartitionConfig{},
			ff.PartitionConfig{}, `num_flow_partitions is "eight"`},
		{"zero", map[string]string{"num_flow_partitions": "8", "num_budget_partitions": "0", "num_quota_partitions": "2"}, ff.PartitionConfig{},
			ff.PartitionConfig{}, `num_budget_partitions is "0"`},
		{"too large", map[string]string{"num_flow_partitions": "65536", "num_budget_partitions": "4", "num_quota_partitions": "2"}, ff.PartitionConfig{},
			ff.PartitionConfig{}, `num_flow_partitions is "65536"`},
		{"partly there", map[string]string{"num_flow_partitions": "8"}, ff.PartitionConfig{}, ff.PartitionConfig{}, `num_budget_partitions is ""`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.text("FLUSHALL")
			for k, v := range c.stored {
				p.do("HSET", "ff:config:partitions", k, v)
			}
			got, err := openWith(c.given)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("got %v, want an error with %q", err, c.err)
				}
				if after := p.hash("ff:config:partitions"); len(after) != len(c.stored) {
					t.Errorf("a refused opening wrote %v", after)
				}
				return
			}
			if err != nil || got != c.want {
				t.Fatalf("got %+v, %v, want %+v", got, err, c.want)
			}
			want := map[string]string{"num_flow_partitions": strconv.Itoa(int(c.want.Flow)), "num_budget_partitions": strconv.Itoa(int(c.want.Budget)),
				"num_quota_partitions": strconv.Itoa(int(c.want.Quota))}
			if have := p.connect("default"); fmt.Sprint(have) != fmt.Sprint(want) {
				t.Errorf("the peer reads %v, want %v", have, want)
			}
		})
	}
}
