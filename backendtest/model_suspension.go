package backendtest

import (
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// modelledWaits are the suspensions of one execution: the latest, and all waitpoints.
type modelledWaits struct {
	latest     *lifecycle.Suspended
	waitpoints []*lifecycle.Waitpoint
	signals    []ff.Signal
	keys       map[string]signalKey
}

type signalKey struct {
	id        ff.SignalID
	expiresAt time.Time
}

// settle closes what has ended with the execution or its suspension, as stores do.
func (e *modelled) settle(now time.Time) {
	lifecycle.CloseAbandoned(&e.x, e.latest, now)
	if e.latest == nil || e.latest.Open() {
		return
	}
	for _, w := range e.waitpoints {
		if w.SuspensionID == e.latest.ID {
			lifecycle.Settle(e.latest, w)
		}
	}
}

// modelKeys are the secrets of every store that the model drives, so that the rules make
// the same tokens.
var modelKeys = &lifecycle.Keyring{Current: "model", Secrets: map[string]lifecycle.Secret{"model": {Hex: otherSecret}}}

func (m *model) installSecret() {
	m.t.Helper()
	_, err := m.store.RotateWaitpointSecret(m.t.Context(), ff.RotateWaitpointSecret{KeyID: modelKeys.Current, Secret: otherSecret})
	m.must(err)
}

var modelConditions = []func() ff.ResumeCondition{
	func() ff.ResumeCondition { return ff.AwaitSignal("go") },
	func() ff.ResumeCondition { return ff.AwaitSignal("") },
	ff.OperatorOnly,
	func() ff.ResumeCondition { return ff.AwaitCount(2, ff.DistinctSources) },
	func() ff.ResumeCondition { return ff.AwaitCount(2, ff.DistinctSignals).Named("go") },
	func() ff.ResumeCondition {
		return ff.AllOf(ff.AwaitSignal("go").At("a"), ff.AwaitSignal("").At("b"))
	},
	func() ff.ResumeCondition {
		return ff.AllOf(ff.AwaitCount(2, ff.DistinctWaitpoints, "a", "b"), ff.AllOf(ff.AwaitSignal("go").At("a"), ff.AwaitCount(1, ff.DistinctSources, "b")))
	},
}

func drawSuspend(t *rapid.T, ref ff.LeaseRef) ff.SuspendExecution {
	c := ff.SuspendExecution{LeaseRef: ref, SuspensionID: ff.NewSuspensionID(), Condition: one(t, "condition", modelConditions)(),
		Reason:      rapid.SampledFrom(ff.SuspensionReasons).Draw(t, "reason"),
		ResumeDelay: rapid.SampledFrom([]time.Duration{0, 0, 4 * time.Second}).Draw(t, "resume delay")}
	for _, key := range c.Condition.WaitpointKeys() {
		c.Waitpoints = append(c.Waitpoints, ff.WaitpointBinding{ID: ff.NewWaitpointID(), Key: key})
	}
	if rapid.Bool().Draw(t, "with a timeout") {
		c.TimeoutAfter = rapid.SampledFrom([]time.Duration{2 * time.Second, 25 * time.Second}).Draw(t, "timeout")
		c.OnTimeout = rapid.SampledFrom(ff.TimeoutBehaviors).Draw(t, "behaviour")
	}
	return c
}

func (m *model) suspend(t *rapid.T) {
	e, ref := m.pickRef(t)
	if e == nil {
		return
	}
	c := drawSuspend(t, ref)
	if w := e.pendingWaitpoint(); w != nil && len(c.Waitpoints) == 0 && rapid.Bool().Draw(t, "take up a waitpoint") {
		c.Waitpoints = []ff.WaitpointBinding{{ID: w.ID, Pending: true}}
	} else if len(c.Waitpoints) == 0 {
		c.Waitpoints = []ff.WaitpointBinding{{ID: ff.NewWaitpointID()}}
	}
	got, err := m.store.SuspendExecution(t.Context(), c)
	m.must(c.Validate()) // Fills in what the store has filled in of its copy.
	var out lifecycle.SuspendOutput
	m.sameFate(err, e.apply(func(x *ff.Execution) (fx lifecycle.Effects, err error) {
		out, fx, err = lifecycle.Suspend(x, e.suspendInput(&c), &c, m.now)
		return fx, err
	}))
	m.equal("the suspension", got, out.Result)
	if err != nil {
		return
	}
	e.latest = out.Suspension
	if !c.Waitpoints[0].Pending {
		e.waitpoints = append(e.waitpoints, out.Waitpoints...)
	}
	e.settle(m.now)
}

func (e *modelled) suspendInput(c *ff.SuspendExecution) *lifecycle.SuspendInput {
	in := &lifecycle.SuspendInput{Last: e.latest, Keys: modelKeys}
	if b := c.Waitpoints[0]; b.Pending {
		in.Known = e.waitpoints
		for _, sig := range e.signals {
			if sig.WaitpointID == b.ID {
				in.Buffered = append(in.Buffered, sig)
			}
		}
	}
	return in
}

func (e *modelled) pendingWaitpoint() *lifecycle.Waitpoint {
	for _, w := range e.waitpoints {
		if w.State == ff.WaitpointPending {
			return w
		}
	}
	return nil
}

func (m *model) createWaitpoint(t *rapid.T) {
	e, ref := m.pickRef(t)
	if e == nil {
		return
	}
	c := ff.CreateWaitpoint{LeaseRef: ref, WaitpointID: ff.NewWaitpointID(), TTL: rapid.SampledFrom([]time.Duration{2 * time.Second, time.Minute}).Draw(t, "ttl")}
	got, err := m.store.CreateWaitpoint(t.Context(), c)
	m.must(c.Validate())
	var w *lifecycle.Waitpoint
	m.sameFate(err, e.apply(func(x *ff.Execution) (fx lifecycle.Effects, err error) {
		w, fx, err = lifecycle.CreateWaitpoint(x, nil, &c, modelKeys, m.now)
		return fx, err
	}))
	if err != nil {
		return
	}
	m.equal("the waitpoint", got, ff.CreateWaitpointResult{IssuedWaitpoint: ff.IssuedWaitpoint{ID: w.ID, Key: w.Key, Token: w.Token}, ExpiresAt: w.ExpiresAt})
	e.waitpoints = append(e.waitpoints, w)
}

// pickWaitpoint chooses a waitpoint, mostly an open one.
func (m *model) pickWaitpoint(t *rapid.T) (*modelled, *lifecycle.Waitpoint) {
	type at struct {
		e *modelled
		w *lifecycle.Waitpoint
	}
	var all, open []at
	for _, e := range m.all {
		for _, w := range e.waitpoints {
			if e.purged {
				continue
			}
			all = append(all, at{e, w})
			if w.Open() {
				open = append(open, at{e, w})
			}
		}
	}
	if len(open) > 0 && rapid.IntRange(0, 5).Draw(t, "of any state") > 0 {
		all = open
	}
	if len(all) == 0 {
		return nil, nil
	}
	picked := one(t, "waitpoint", all)
	return picked.e, picked.w
}

func (m *model) signal(t *rapid.T) {
	e, w := m.pickWaitpoint(t)
	if e == nil {
		return
	}
	c := ff.DeliverSignal{ID: e.x.ID, WaitpointID: w.ID, SignalID: ff.NewSignalID(), Token: w.Token,
		Name:           rapid.SampledFrom([]string{"go", "go", "stop"}).Draw(t, "name"),
		SourceIdentity: rapid.SampledFrom([]string{"ann", "bob"}).Draw(t, "source"),
		IdempotencyKey: rapid.SampledFrom([]string{"", "", "k1", "k2"}).Draw(t, "key"),
		ResumeDelay:    rapid.SampledFrom([]time.Duration{0, 0, 2 * time.Second}).Draw(t, "resume delay")}
	if rapid.IntRange(0, 9).Draw(t, "forged") == 9 {
		c.Token += "0"
	}
	got, err := m.store.DeliverSignal(t.Context(), c)
	m.must(c.Validate())
	key := w.ID.String() + c.IdempotencyKey
	in := &lifecycle.SignalInput{Waitpoint: w, Suspension: e.latest, Accepted: len(e.signals), Keys: modelKeys}
	if first, ok := e.keys[key]; ok && c.IdempotencyKey != "" && first.expiresAt.After(m.now) {
		in.First = first.id
	}
	var sig *ff.Signal
	m.sameFate(err, e.apply(func(x *ff.Execution) (fx lifecycle.Effects, err error) {
		sig, fx, err = lifecycle.Deliver(x, in, &c, m.now)
		return fx, err
	}))
	switch {
	case err != nil:
		m.equal("the answer beside a refusal", got, ff.DeliverSignalResult{})
	case sig == nil:
		m.equal("the duplicate", got, ff.DeliverSignalResult{SignalID: in.First, Duplicate: true})
	default:
		m.equal("the signal", got, ff.DeliverSignalResult{SignalID: c.SignalID, Effect: sig.Effect})
		e.signals = append(e.signals, *sig)
		if c.IdempotencyKey != "" {
			e.keys[key] = signalKey{c.SignalID, m.now.Add(c.DedupWindow)}
		}
		e.settle(m.now)
	}
}

func (m *model) resumeByOperator(t *rapid.T) {
	e := m.pick(t)
	if e == nil {
		return
	}
	c := ff.ResumeExecution{ID: e.x.ID, Delay: rapid.SampledFrom([]time.Duration{0, 3 * time.Second}).Draw(t, "delay")}
	got, err := m.store.ResumeExecution(t.Context(), c)
	m.sameFate(err, e.apply(func(x *ff.Execution) (lifecycle.Effects, error) { return lifecycle.Resume(x, e.latest, &c, m.now) }))
	if err == nil {
		m.equal("the resumption", got, ff.ResumeExecutionResult{State: e.x.PublicState()})
		e.settle(m.now)
	}
}

func (m *model) closeWaitpoint(t *rapid.T) {
	e, w := m.pickWaitpoint(t)
	if e == nil {
		return
	}
	got, err := m.store.CloseWaitpoint(t.Context(), ff.CloseWaitpoint{ID: e.x.ID, WaitpointID: w.ID, Reason: "model"})
	already, refused := lifecycle.CloseWaitpoint(w, "model", m.now)
	m.sameFate(err, refused)
	m.equal("already closed", got.AlreadyClosed, already)
}

// timeOutSuspensions and expireWaitpoints are what sweeps do.
func (m *model) timeOutSuspensions() {
	for _, e := range m.all {
		if e.purged || !m.due(e, ff.SweepSuspensionTimeout) {
			continue
		}
		m.must(e.apply(func(x *ff.Execution) (lifecycle.Effects, error) {
			_, fx := lifecycle.TimeOutSuspension(x, e.latest, m.now)
			return fx, nil
		}))
		e.settle(m.now)
	}
}

func (m *model) expireWaitpoints() {
	for _, e := range m.all {
		for _, w := range e.waitpoints {
			if w.State == ff.WaitpointPending && !w.ExpiresAt.After(m.now) {
				_, err := lifecycle.CloseWaitpoint(w, ff.ClosedNeverCommitted, m.now)
				m.must(err)
			}
		}
	}
}

// checkWaits compares the suspension, the waitpoints and the signals of an execution.
func (m *model) checkWaits(e *modelled) {
	ctx := m.t.Context()
	latest, err := m.store.Suspension(ctx, e.x.ID)
	m.must(err)
	want := ff.Suspension{}
	if e.latest != nil {
		want = e.latest.Suspension
	}
	m.equal("the latest suspension", latest, want)
	r, err := m.store.ListWaitpoints(ctx, ff.ListWaitpoints{ID: e.x.ID, Closed: true, Limit: ff.MaxPageLimit})
	m.must(err)
	waitpoints := make([]ff.Waitpoint, 0, len(e.waitpoints))
	for _, w := range e.waitpoints {
		waitpoints = append(waitpoints, w.Waitpoint)
	}
	slices.SortFunc(waitpoints, func(a, b ff.Waitpoint) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	m.equal("the waitpoints", r.Waitpoints, waitpoints)
	list, err := m.store.ListSignals(ctx, ff.ListSignals{ID: e.x.ID, Limit: ff.MaxPageLimit})
	m.must(err)
	m.equal("the signals", list.Signals, e.signals)
}
