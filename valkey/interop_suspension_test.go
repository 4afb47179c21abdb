package valkey_test

import (
	"strconv"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// peerWait is where an execution of a peer waits.
type peerWait struct{ id, suspension, waitpoint, key, token string }

func (p *peer) waitpoint(id, waitpoint string) string {
	return "ff:wp:" + tagOfID(id) + ":" + waitpoint
}
func (p *peer) secrets(id string) string { return "ff:sec:" + tagOfID(id) + ":waitpoint_hmac" }
func (p *peer) noop(id string) string    { return "ff:noop:" + tagOfID(id) }

const (
	plainCondition = `{"condition_type":"signal_set","required_signal_names":["go"],"signal_match_mode":"any","minimum_signal_count":1,"timeout_behavior":"fail","allow_operator_override":true}`
	bothCondition  = `{"condition_type":"signal_set","required_signal_names":["a","b"],"signal_match_mode":"all","minimum_signal_count":2,"timeout_behavior":"fail","allow_operator_override":true}`
	treeCondition  = `{"v":1,"composite":true,"tree":{"kind":"AllOf","path":"","members":[{"kind":"Single","path":"members[0]","waitpoint_key":"wk","matcher":{"kind":"ByName","name":"go"}},{"kind":"Count","path":"members[1]","n":1,"count_kind":"DistinctSources","waitpoints":["wk"]}]}}`
	peerPolicy     = `{"resume_target":"runnable","close_waitpoint_on_resume":true,"consume_matched_signals":true,"retain_signal_buffer_until_closed":true}`
)

// suspend suspends at a waitpoint; ahead names one that exists.
func (p *peer) suspend(l *peerLease, condition string, timeout int64, behaviour, ahead string) peerWait {
	p.t.Helper()
	id, waitpoint, pending := l.id, p.uuid(), ""
	if ahead != "" {
		waitpoint, pending = ahead, "1"
	}
	at, point := "", p.waitpoint(id, waitpoint)
	if timeout > 0 {
		at = num(p.now() + timeout)
	}
	r := p.good(p.fcall("ff_suspend_execution", []string{p.key(id, "core"), p.attempt(id, l.index), p.key(id, "lease:current"), p.key(id, "lease:history"),
		p.index(id, "lease_expiry"), p.leases(id, l.instance), p.key(id, "suspension:current"), point, point + ":signals", p.index(id, "suspension_timeout"),
		p.index(id, "pending_waitpoint_expiry"), p.laneIndex(id, l.lane, "active"), p.laneIndex(id, l.lane, "suspended"), p.key(id, "waitpoints"),
		point + ":condition", p.index(id, "attempt_timeout"), p.secrets(id), p.noop(id)},
		id, l.index, l.attempt, l.lease, l.epoch, p.uuid(), waitpoint, "wk", "waiting_for_signal", "worker", at, condition, peerPolicy, "", pending, behaviour,
		"1000", "", "0", "0"))
	return peerWait{id, r[0], r[1], r[2], r[3]}
}

func (p *peer) signalArgs(w peerWait, name string) []string {
	return []string{p.uuid(), w.id, w.waitpoint, name, "external", "user", "ann", "{}", "json", "", "", "waitpoint", "", "86400000", "0", "1000", "10000", w.token}
}

// deliver answers the effect.
func (p *peer) deliver(w peerWait, lane, name string) string {
	p.t.Helper()
	args := p.signalArgs(w, name)
	signal, point := "ff:signal:"+tagOfID(w.id)+":"+args[0], p.waitpoint(w.id, w.waitpoint)
	return p.good(p.fcall("ff_deliver_signal", []string{p.key(w.id, "core"), point + ":condition", point + ":signals", p.key(w.id, "signals"), signal,
		signal + ":payload", p.noop(w.id), point, p.key(w.id, "suspension:current"), p.laneIndex(w.id, lane, "eligible"),
		p.laneIndex(w.id, lane, "suspended"), p.laneIndex(w.id, lane, "delayed"), p.index(w.id, "suspension_timeout"), p.secrets(w.id),
		"ff:part:" + tagOfID(w.id) + ":signal_delivery"}, args...))[1]
}

func (p *peer) buffer(w peerWait, name string) string {
	p.t.Helper()
	args := p.signalArgs(w, name)
	signal, point := "ff:signal:"+tagOfID(w.id)+":"+args[0], p.waitpoint(w.id, w.waitpoint)
	return p.good(p.fcall("ff_buffer_signal_for_pending_waitpoint", []string{p.key(w.id, "core"), point + ":condition", point + ":signals",
		p.key(w.id, "signals"), signal, signal + ":payload", p.noop(w.id), point, p.secrets(w.id)}, args...))[1]
}

func (p *peer) createWaitpoint(l *peerLease, ttl int64) peerWait {
	p.t.Helper()
	id := p.uuid()
	r := p.good(p.fcall("ff_create_pending_waitpoint", []string{p.key(l.id, "core"), p.waitpoint(l.id, id), p.index(l.id, "pending_waitpoint_expiry"), p.secrets(l.id)},
		l.id, l.index, id, "wk", num(p.now()+ttl)))
	return peerWait{id: l.id, waitpoint: r[0], key: r[1], token: r[2]}
}

func (p *peer) timeOut(id string) []string {
	p.t.Helper()
	x := p.core(id, "lane_id", "current_attempt_index", "current_waitpoint_id")
	point := p.waitpoint(id, x[2])
	return p.good(p.fcall("ff_expire_suspension", []string{p.key(id, "core"), p.key(id, "suspension:current"), point, point + ":condition", p.attempt(id, x[1]),
		p.meta(id, x[1]), p.index(id, "suspension_timeout"), p.laneIndex(id, x[0], "suspended"), p.laneIndex(id, x[0], "terminal"),
		p.laneIndex(id, x[0], "eligible"), p.laneIndex(id, x[0], "delayed"), p.key(id, "lease:history")}, id))
}

func (p *peer) rotate(partitions int, kid, secret string) {
	p.t.Helper()
	for i := range partitions {
		p.good(p.fcall("ff_rotate_waitpoint_hmac_secret", []string{"ff:sec:{fp:" + strconv.Itoa(i) + "}:waitpoint_hmac"}, kid, secret, "60000"))
	}
}

const peerSecret = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

// held is an execution that we have claimed, peerHolds one that the peer has.
func (n *interop) held() ff.Claimed {
	n.Helper()
	return n.claim(n.create(ff.CreateExecution{}))
}

func (n *interop) peerHolds() *peerLease {
	n.Helper()
	return n.peer.must(n.create(ff.CreateExecution{}), "alpha", 60_000)
}

func (n *interop) signal(w peerWait, name string) ff.SignalEffect {
	n.Helper()
	point := must[ff.WaitpointID](n)(ff.ParseWaitpointID(w.waitpoint))
	r := must[ff.DeliverSignalResult](n)(n.store.DeliverSignal(n.Context(), ff.DeliverSignal{ID: n.parse(w.id), WaitpointID: point, Name: name,
		Token: ff.WaitpointToken(w.token), SourceType: "user", SourceIdentity: "bob"}))
	return r.Effect
}

// closed checks that the latest suspension was closed in that way, by as many signals.
func (n *interop) closed(id, reason string, signals int) {
	n.Helper()
	x := must[ff.Suspension](n)(n.store.Suspension(n.Context(), n.parse(id)))
	if x.Open() || x.CloseReason != reason || len(x.ResumedBy) != signals {
		n.Errorf("the suspension: %+v, want it closed with %q by %d signals", x, reason, signals)
	}
	list := must[ff.ListSignalsResult](n)(n.store.ListSignals(n.Context(), ff.ListSignals{ID: n.parse(id), Resumed: true}))
	if len(list.Signals) != signals {
		n.Errorf("%d signals have resumed it, want %d", len(list.Signals), signals)
	}
	points := must[ff.ListWaitpointsResult](n)(n.store.ListWaitpoints(n.Context(), ff.ListWaitpoints{ID: n.parse(id)}))
	if len(points.Waitpoints) > 0 {
		n.Errorf("waitpoints are open: %+v", points.Waitpoints)
	}
}

func TestSignalsResumeWhatAPeerSuspends(t *testing.T) {
	n := newInterop(t)
	p := n.peer
	p.rotate(int(fewPartitions.Flow), "k1", peerSecret)
	for condition, names := range map[string][]string{plainCondition: {"go"}, bothCondition: {"a", "b"}, treeCondition: {"go"}} {
		w := p.suspend(n.peerHolds(), condition, 60_000, "fail", "")
		x := n.is(w.id, ff.StateSuspended)
		if x.SuspensionID.String() != w.suspension || x.WaitpointID.String() != w.waitpoint || x.SuspensionTimeoutAt.UnixMilli() != p.now()+60_000 {
			t.Errorf("the peer suspended it; we read %+v", x)
		}
		if got := n.signal(w, "other"); condition != treeCondition && got != ff.EffectNone {
			t.Errorf("another signal: %s", got)
		}
		for i, name := range names {
			want := ff.EffectAppended
			if i == len(names)-1 {
				want = ff.EffectResumed
			}
			if got := n.signal(w, name); got != want {
				t.Errorf("signal %s: %s, want %s", name, got, want)
			}
		}
		signals := len(names)
		if condition == treeCondition {
			signals++ // the other one was a source
		}
		n.closed(w.id, ff.ClosedResumed, signals)
		n.is(w.id, ff.StateWaiting)
		if got := n.claim(w.id); !got.Resumed || got.Execution.Attempt.Index != 0 {
			t.Errorf("resumed %+v", got.Execution)
		}
	}
}

func TestSignalsOfAPeerResumeWhatWeSuspend(t *testing.T) {
	n := newInterop(t)
	p := n.peer
	p.rotate(int(fewPartitions.Flow), "k1", peerSecret)
	for _, c := range []ff.ResumeCondition{ff.AwaitSignal("go"), ff.AllOf(ff.AwaitSignal("go"), ff.AwaitCount(1, ff.DistinctSources))} {
		held := n.held()
		r := must[ff.SuspendExecutionResult](t)(n.store.SuspendExecution(t.Context(), ff.SuspendExecution{LeaseRef: held.Ref(), Condition: c, TimeoutAfter: time.Minute}))
		w := peerWait{id: held.Execution.ID.String(), waitpoint: r.Waitpoints[0].ID.String(), token: r.Waitpoints[0].Token.Reveal()}
		p.see(w.id, "suspended")
		if got := p.deliver(w, "alpha", "go"); got != string(ff.EffectResumed) {
			t.Errorf("the peer's signal: %s", got)
		}
		p.see(w.id, "waiting")
		n.closed(w.id, ff.ClosedResumed, 1)
		p.good(p.grant(w.id, "alpha", "", 5000))
		l, answer := p.claimResumed(w.id, "alpha", 60_000)
		if l == nil || l.attempt != held.Execution.CurrentAttemptID.String() {
			t.Fatalf("the peer claims %+v, %v", l, answer)
		}
		p.good(p.complete(l, "done"))
		n.is(w.id, ff.StateCompleted)
	}
}

func TestSignalsThatCameAheadCountBothWays(t *testing.T) {
	n := newInterop(t)
	p := n.peer
	p.rotate(int(fewPartitions.Flow), "k1", peerSecret)

	// A waitpoint of a peer, with a signal of each, and a suspension of ours.
	l := n.peerHolds()
	w := p.createWaitpoint(l, 60_000)
	if got := p.buffer(w, "other"); got != string(ff.EffectBuffered) {
		t.Errorf("the peer's early signal: %s", got)
	}
	if got := n.signal(w, "go"); got != ff.EffectBuffered {
		t.Errorf("our early signal: %s", got)
	}
	if got := p.suspend(l, plainCondition, 0, "fail", w.waitpoint); got.token != w.token {
		t.Errorf("the peer suspends at %+v", got)
	}
	n.is(w.id, ff.StateActive)

	// And the other way round.
	held := n.held()
	made := must[ff.CreateWaitpointResult](t)(n.store.CreateWaitpoint(t.Context(), ff.CreateWaitpoint{LeaseRef: held.Ref(), TTL: time.Minute}))
	w = peerWait{id: held.Execution.ID.String(), waitpoint: made.ID.String(), token: made.Token.Reveal()}
	p.buffer(w, "go")
	r := must[ff.SuspendExecutionResult](t)(n.store.SuspendExecution(t.Context(), ff.SuspendExecution{LeaseRef: held.Ref(), Condition: ff.AwaitSignal("go"),
		Waitpoints: []ff.WaitpointBinding{{ID: made.ID, Pending: true}}}))
	if !r.Satisfied {
		t.Errorf("the peer's signal does not count: %+v", r)
	}
	n.closed(w.id, ff.ClosedResumed, 1)

	// What nobody takes up is closed, also when a peer has made it.
	l = n.peerHolds()
	w = p.createWaitpoint(l, 1000)
	n.wait(time.Second)
	n.sweep(ff.SweepPendingWaitpoints)
	list := must[ff.ListWaitpointsResult](t)(n.store.ListWaitpoints(t.Context(), ff.ListWaitpoints{ID: n.parse(l.id), Closed: true}))
	if len(list.Waitpoints) != 1 || list.Waitpoints[0].CloseReason != ff.ClosedNeverCommitted {
		t.Errorf("the waitpoints after their time: %+v", list.Waitpoints)
	}
}

func TestSuspensionsEndBothWays(t *testing.T) {
	n := newInterop(t)
	p := n.peer
	p.rotate(int(fewPartitions.Flow), "k1", peerSecret)
	for behaviour, want := range map[string]ff.PublicState{"fail": ff.StateFailed, "cancel": ff.StateCancelled, "expire": ff.StateExpired,
		"auto_resume_with_timeout_signal": ff.StateWaiting, "escalate": ff.StateSuspended} {
		theirs := p.suspend(n.peerHolds(), plainCondition, 1000, behaviour, "")
		held := n.held()
		must[ff.SuspendExecutionResult](t)(n.store.SuspendExecution(t.Context(), ff.SuspendExecution{LeaseRef: held.Ref(), Condition: ff.AwaitSignal("go"),
			TimeoutAfter: time.Second, OnTimeout: ff.TimeoutBehavior(behaviour)}))
		ours := held.Execution.ID.String()
		n.wait(time.Second)
		p.timeOut(ours)
		n.sweep(ff.SweepSuspensionTimeout)
		n.is(theirs.id, want)
		n.is(ours, want)
		p.see(theirs.id, string(want))
		if want == ff.StateSuspended {
			for _, id := range []string{theirs.id, ours} {
				if r := must[ff.ResumeExecutionResult](t)(n.store.ResumeExecution(t.Context(), ff.ResumeExecution{ID: n.parse(id)})); r.State != ff.StateWaiting {
					t.Errorf("resumed by an operator: %+v", r)
				}
				n.closed(id, ff.ClosedResumed, 0)
			}
		}
		for _, id := range []string{theirs.id, ours} { // nothing is left to claim
			_, err := n.store.CancelExecution(t.Context(), ff.CancelExecution{ID: n.parse(id), Reason: "r"})
			if code := ff.CodeOf(err); err != nil && code != ff.CodeExecutionNotActive {
				t.Error(err)
			}
		}
	}
	// Whoever cancels closes the suspension of the other.
	theirs := p.suspend(n.peerHolds(), plainCondition, 0, "fail", "")
	must[ff.CancelExecutionResult](t)(n.store.CancelExecution(t.Context(), ff.CancelExecution{ID: n.parse(theirs.id), Reason: "r"}))
	n.closed(theirs.id, ff.ClosedCancelled, 0)
	held := n.held()
	must[ff.SuspendExecutionResult](t)(n.store.SuspendExecution(t.Context(), ff.SuspendExecution{LeaseRef: held.Ref(), Condition: ff.OperatorOnly()}))
	p.good(p.cancel(held.Execution.ID.String(), "r", "operator_override", "", ""))
	n.closed(held.Execution.ID.String(), ff.ClosedCancelled, 0)
	n.sweep(ff.SweepKinds...)
}

func TestASecretOfEitherIsThatOfBoth(t *testing.T) {
	n := newInterop(t)
	p := n.peer
	held := n.held() // the first suspension makes the first secret
	r := must[ff.SuspendExecutionResult](t)(n.store.SuspendExecution(t.Context(), ff.SuspendExecution{LeaseRef: held.Ref(), Condition: ff.AwaitSignal("go")}))
	ours := peerWait{id: held.Execution.ID.String(), waitpoint: r.Waitpoints[0].ID.String(), token: r.Waitpoints[0].Token.Reveal()}
	p.rotate(int(fewPartitions.Flow), "k2", peerSecret)
	secrets := must[ff.WaitpointSecrets](t)(n.store.WaitpointSecrets(t.Context()))
	if secrets.Current != "k2" || len(secrets.Verifying) != 1 || secrets.Verifying[0].KeyID != r.Waitpoints[0].Token.KeyID() {
		t.Errorf("after the peer's rotation: %+v", secrets)
	}
	theirs := p.suspend(n.peerHolds(), plainCondition, 0, "fail", "")
	must[ff.RotateWaitpointSecretResult](t)(n.store.RotateWaitpointSecret(t.Context(), ff.RotateWaitpointSecret{KeyID: "k3", Secret: peerSecret + "00", Grace: time.Minute}))
	if got := p.deliver(ours, "alpha", "go"); got != string(ff.EffectResumed) {
		t.Errorf("our token after the rotations: %s", got)
	}
	if got := n.signal(theirs, "go"); got != ff.EffectResumed {
		t.Errorf("the peer's token after our rotation: %s", got)
	}
	if got := p.list("HMGET", p.secrets(ours.id), "current_kid", "secret:k3"); got[0] != "k3" || got[1] != peerSecret+"00" {
		t.Errorf("the peer finds the current secret %q", got[0])
	}
}
