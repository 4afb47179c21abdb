package backendtest

import (
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// create submits one millisecond after whatever was before, so that no two
// executions are of one age.
func (m *model) create(t *rapid.T) {
	m.advance(time.Millisecond)
	c := ff.CreateExecution{
		Lane: rapid.SampledFrom(m.lanes).Draw(t, "lane"), Kind: rapid.SampledFrom([]string{"k", "l"}).Draw(t, "kind"),
		Priority: rapid.SampledFrom([]int{0, 0, 5, 9000}).Draw(t, "priority"), Creator: "model",
		Delay:   rapid.SampledFrom([]time.Duration{0, 0, 0, time.Second, 10 * time.Second}).Draw(t, "delay"),
		Payload: []byte(rapid.SampledFrom([]string{"", "one", "two"}).Draw(t, "payload")),
	}
	if rapid.IntRange(0, 3).Draw(t, "policy") < 3 {
		c.Policy = drawPolicy(t)
	}
	// Keys are scoped by partition: one lane has them, so that they meet.
	if c.Lane == m.lanes[0] && rapid.Bool().Draw(t, "keyed") {
		c.IdempotencyKey = fmt.Sprintf("run %d key %d", m.run, rapid.IntRange(0, 2).Draw(t, "key"))
	}
	r, err := m.store.CreateExecution(t.Context(), c)
	m.must(err)
	if known, ok := m.keys[c.IdempotencyKey]; ok && known.expiresAt.After(m.now) && !m.byID[known.id].purged {
		m.equal("the duplicate", r, ff.CreateExecutionResult{ID: known.id, State: m.byID[known.id].x.PublicState(), Duplicate: true})
		return
	}
	e := &modelled{x: lifecycle.Create(&c, r.ID, m.now), payload: string(c.Payload), modelledWaits: modelledWaits{keys: map[string]signalKey{}}}
	m.equal("the created", r, ff.CreateExecutionResult{ID: r.ID, State: e.x.PublicState()})
	m.all, m.byID[r.ID] = append(m.all, e), e
	if c.IdempotencyKey != "" {
		m.keys[c.IdempotencyKey] = key{r.ID, m.now.Add(ff.IdempotencyWindow)}
	}
}

func (m *model) claim(t *rapid.T) { m.claimAs(t, m.drawClaim(t)) }

func (m *model) drawClaim(t *rapid.T) ff.Claim {
	c := ff.Claim{Claimant: m.drawClaimant(t), LeaseTTL: drawTTL(t), Max: rapid.IntRange(1, 4).Draw(t, "max")}
	first := rapid.IntRange(0, len(m.lanes)-1).Draw(t, "first lane")
	c.Lanes = append(slices.Clone(m.lanes[first:]), m.lanes[:first]...)[:rapid.IntRange(1, len(m.lanes)).Draw(t, "lanes")]
	return c
}

// claimAs claims from the store.
func (m *model) claimAs(t *rapid.T, c ff.Claim) int {
	r, err := m.store.Claim(t.Context(), c)
	m.must(err)
	return m.claimed(t, c, r)
}

// claimed holds the rules against what the store says it has claimed: the order,
// the reclaims that exceed their limit, the records.
func (m *model) claimed(t *rapid.T, c ff.Claim, r ff.ClaimResult) int {
	got := r.Claimed
	for _, lane := range c.Lanes {
		for _, e := range m.claimable(lane, c.Capabilities) {
			if len(got) == 0 && len(r.Claimed) == c.Max {
				return len(r.Claimed)
			}
			args := lifecycle.ClaimArgs{Claimant: c.Claimant, LeaseTTL: c.LeaseTTL}
			if len(got) > 0 {
				args.LeaseID, args.AttemptID = got[0].Execution.Lease.ID, got[0].Execution.CurrentAttemptID
			}
			resumed := false
			err := e.apply(func(x *ff.Execution) (fx lifecycle.Effects, err error) {
				resumed, fx, err = lifecycle.Claim(x, &args, m.now)
				return fx, err
			})
			if ff.CodeOf(err) == ff.CodeMaxRetriesExhausted {
				continue
			}
			m.must(err)
			if len(got) == 0 {
				t.Fatalf("%s can be claimed and the store did not", e.x.ID)
			}
			m.took(e, got[0], resumed)
			got = got[1:]
		}
	}
	if len(got) > 0 {
		t.Fatalf("the store claimed %s, which the rules do not", got[0].Execution.ID)
	}
	return len(r.Claimed)
}

// took compares a claimed execution.
func (m *model) took(e *modelled, got ff.Claimed, resumed bool) {
	m.t.Helper()
	m.equal("the claimed execution", got.Execution, e.x)
	m.equal("its payload", string(got.Payload), e.payload)
	m.equal("resumed", got.Resumed, resumed)
	e.fences = append(e.fences, got.Ref().Fence)
}

// claimable are the executions of a lane that a claim may take, in its order.
func (m *model) claimable(lane ff.LaneID, offered ff.CapabilitySet) (list []*modelled) {
	for _, e := range m.all {
		if !e.purged && e.x.Lane == lane && lifecycle.Claimable(&e.x) && offered.Satisfies(e.x.Required) {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b *modelled) int { return int(lifecycle.Score(&a.x) - lifecycle.Score(&b.x)) })
	return list
}

func (m *model) grantNext(t *rapid.T) {
	c := ff.GrantNext{Claimant: m.drawClaimant(t), Lane: rapid.SampledFrom(m.lanes).Draw(t, "lane"), TTL: drawTTL(t)}
	r, err := m.store.GrantNext(t.Context(), c)
	m.must(err)
	args := lifecycle.GrantArgs{Claimant: c.Claimant, TTL: c.TTL}
	for _, e := range m.claimable(c.Lane, c.Capabilities) {
		if e.apply(func(x *ff.Execution) (lifecycle.Effects, error) {
			return lifecycle.Effects{}, lifecycle.GrantClaim(x, &args, m.now)
		}) == nil {
			m.equal("the grant", r, ff.GrantResult{ID: e.x.ID, Lane: c.Lane, ExpiresAt: m.now.Add(c.TTL)})
			return
		}
	}
	m.equal("the grant", r, ff.GrantResult{})
}

func (m *model) grantReclaim(t *rapid.T) {
	e := m.pick(t)
	if e == nil {
		return
	}
	c := ff.GrantReclaim{Claimant: m.drawClaimant(t), ID: e.x.ID, TTL: drawTTL(t), Capability: "hash"}
	args := lifecycle.GrantArgs{Claimant: c.Claimant, TTL: c.TTL, Capability: c.Capability}
	_, err := m.store.GrantReclaim(t.Context(), c)
	m.sameFate(err, e.apply(func(x *ff.Execution) (lifecycle.Effects, error) {
		return lifecycle.Effects{}, lifecycle.GrantReclaim(x, &args, m.now)
	}))
}

func (m *model) claimGranted(t *rapid.T) {
	e := m.pick(t)
	if e == nil {
		return
	}
	c := ff.ClaimGranted{Claimant: m.drawClaimant(t), ID: e.x.ID, LeaseTTL: drawTTL(t)}
	r, err := m.store.ClaimGranted(t.Context(), c)
	args := lifecycle.ClaimArgs{Claimant: c.Claimant, LeaseTTL: c.LeaseTTL,
		LeaseID: r.Claimed.Execution.Lease.ID, AttemptID: r.Claimed.Execution.CurrentAttemptID}
	resumed := false
	m.sameFate(err, e.apply(func(x *ff.Execution) (fx lifecycle.Effects, err error) {
		resumed, fx, err = lifecycle.ClaimGranted(x, &args, m.now)
		return fx, err
	}))
	if err == nil {
		m.took(e, r.Claimed, resumed)
	}
}

func (m *model) renew(t *rapid.T) {
	e, ref := m.pickRef(t)
	if e == nil {
		return
	}
	ttl := drawTTL(t)
	r, err := m.store.RenewLeases(t.Context(), ff.RenewLeases{Leases: []ff.LeaseRef{ref}, TTL: ttl})
	m.must(err)
	refused := e.apply(func(x *ff.Execution) (lifecycle.Effects, error) { return lifecycle.Renew(x, ref.Fence, ttl, m.now) })
	m.sameFate(r.Renewals[0].Err, refused)
	if refused == nil {
		m.equal("the end of the lease", r.Renewals[0].ExpiresAt, e.x.Lease.ExpiresAt)
	}
}

func (m *model) progress(t *rapid.T) {
	e, ref := m.pickRef(t)
	if e == nil {
		return
	}
	percent := rapid.IntRange(0, 100).Draw(t, "percent")
	c := ff.UpdateProgress{LeaseRef: ref, Percent: &percent, Message: rapid.SampledFrom([]string{"", "going on"}).Draw(t, "message")}
	err := m.store.UpdateProgress(t.Context(), c)
	m.sameFate(err, e.apply(func(x *ff.Execution) (lifecycle.Effects, error) { return lifecycle.Progress(x, &c, m.now) }))
}

func (m *model) complete(t *rapid.T) {
	e, ref := m.pickRef(t)
	if e == nil {
		return
	}
	c := ff.CompleteExecution{LeaseRef: ref, Result: []byte(rapid.SampledFrom([]string{"", "out"}).Draw(t, "result"))}
	if rapid.IntRange(0, 9).Draw(t, "operator") == 9 {
		c.Fence, c.Source = ff.Fence{}, ff.SourceOperatorOverride
	}
	if rapid.Bool().Draw(t, "next") {
		next := m.drawClaim(t)
		c.Next = &next
	}
	r, err := m.store.CompleteExecution(t.Context(), c)
	repeated := false
	m.sameFate(err, e.apply(func(x *ff.Execution) (fx lifecycle.Effects, err error) {
		repeated, fx, err = lifecycle.Complete(x, &c, m.now)
		return fx, err
	}))
	if err != nil {
		m.equal("the result beside a refusal", r, ff.CompleteExecutionResult{})
		return
	}
	m.equal("the completion", r, ff.CompleteExecutionResult{State: ff.StateCompleted, Repeated: repeated, Next: r.Next})
	if !repeated {
		e.result = string(c.Result)
	}
	if c.Next == nil {
		m.equal("what came without being asked for", r.Next, ff.ClaimResult{})
		return
	}
	m.equal("the instant of the claim", r.Next.Now, m.now)
	m.claimed(t, *c.Next, r.Next)
}

func (m *model) fail(t *rapid.T) {
	e, ref := m.pickRef(t)
	if e == nil {
		return
	}
	c := ff.FailExecution{LeaseRef: ref, Reason: "broken", Category: rapid.SampledFrom([]string{"", "network", "bug"}).Draw(t, "category"),
		NoRetry:    rapid.IntRange(0, 5).Draw(t, "no retry") == 5,
		RetryAfter: rapid.SampledFrom([]time.Duration{0, 0, 2 * time.Second}).Draw(t, "retry after")}
	got, err := m.store.FailExecution(t.Context(), c)
	var want ff.FailExecutionResult
	m.sameFate(err, e.apply(func(x *ff.Execution) (fx lifecycle.Effects, err error) {
		want, fx, err = lifecycle.Fail(x, &c, m.now)
		return fx, err
	}))
	if err == nil {
		m.equal("the failure", got, want)
	}
}

func (m *model) delay(t *rapid.T) {
	e, ref := m.pickRef(t)
	if e == nil {
		return
	}
	c := ff.DelayExecution{LeaseRef: ref, For: rapid.SampledFrom([]time.Duration{0, time.Second, 10 * time.Second}).Draw(t, "for")}
	if c.For == 0 {
		c.Until = m.now.Add(rapid.SampledFrom([]time.Duration{-time.Second, 3 * time.Second}).Draw(t, "until"))
	}
	got, err := m.store.DelayExecution(t.Context(), c)
	var until time.Time
	m.sameFate(err, e.apply(func(x *ff.Execution) (fx lifecycle.Effects, err error) {
		until, fx, err = lifecycle.Delay(x, &c, m.now)
		return fx, err
	}))
	if err == nil {
		m.equal("the delay", got.Until, until)
	}
}

func (m *model) release(t *rapid.T) {
	e, ref := m.pickRef(t)
	if e == nil {
		return
	}
	r, err := m.store.ReleaseExecutions(t.Context(), ff.ReleaseExecutions{Leases: []ff.LeaseRef{ref}, Reason: "drain"})
	m.must(err)
	m.sameFate(r.Errs[0], e.apply(func(x *ff.Execution) (lifecycle.Effects, error) {
		return lifecycle.Release(x, ref.Fence, "drain", m.now)
	}))
}

func (m *model) cancel(t *rapid.T) {
	e := m.pick(t)
	if e == nil {
		return
	}
	c := ff.CancelExecution{ID: e.x.ID, Reason: "enough"}
	if len(e.fences) > 0 && rapid.Bool().Draw(t, "by a holder") {
		c.Fence = one(t, "fence", e.fences)
	}
	r, err := m.store.CancelExecution(t.Context(), c)
	var previous ff.LifecyclePhase
	m.sameFate(err, e.apply(func(x *ff.Execution) (fx lifecycle.Effects, err error) {
		previous, _, fx, err = lifecycle.Cancel(x, &c, m.now)
		return fx, err
	}))
	e.settle(m.now)
	if err == nil {
		m.equal("the cancel", r, ff.CancelExecutionResult{State: ff.StateCancelled, Previous: previous})
	}
}

func (m *model) revoke(t *rapid.T) {
	e := m.pick(t)
	if e == nil {
		return
	}
	c := ff.RevokeLease{ID: e.x.ID, Reason: "node lost", Instance: rapid.SampledFrom([]ff.WorkerInstanceID{"", "i1"}).Draw(t, "instance")}
	r, err := m.store.RevokeLease(t.Context(), c)
	already := ""
	m.sameFate(err, e.apply(func(x *ff.Execution) (fx lifecycle.Effects, err error) {
		already, fx, err = lifecycle.Revoke(x, &c, m.now)
		return fx, err
	}))
	m.equal("already", r.Already, already)
}

func (m *model) priority(t *rapid.T) {
	e := m.pick(t)
	if e == nil {
		return
	}
	c := ff.ChangePriority{ID: e.x.ID, Priority: rapid.IntRange(-1, 9001).Draw(t, "priority")}
	got, err := m.store.ChangePriority(t.Context(), c)
	var want ff.ChangePriorityResult
	m.sameFate(err, e.apply(func(x *ff.Execution) (fx lifecycle.Effects, err error) {
		want.Old, want.New, err = lifecycle.ChangePriority(x, c.Priority, m.now)
		return fx, err
	}))
	m.equal("the priorities", got, want)
}

func (m *model) replay(t *rapid.T) {
	e := m.pick(t)
	if e == nil {
		return
	}
	c := ff.ReplayExecution{ID: e.x.ID, Reason: "again", RequestedBy: "ann"}
	if rapid.Bool().Draw(t, "other payload") {
		c.Payload = []byte("three")
	}
	_, err := m.store.ReplayExecution(t.Context(), c)
	m.sameFate(err, e.apply(func(x *ff.Execution) (lifecycle.Effects, error) { return lifecycle.Replay(x, &c, m.now) }))
	if err == nil {
		e.replayed, e.result = true, ""
		if c.Payload != nil {
			e.payload = string(c.Payload)
		}
	}
}

func (m *model) tag(t *rapid.T) {
	e := m.pick(t)
	if e == nil {
		return
	}
	c := ff.SetExecutionTags{ID: e.x.ID, Tags: map[string]string{
		rapid.SampledFrom([]string{"a.b", "c.d"}).Draw(t, "key"): rapid.SampledFrom([]string{"", "v"}).Draw(t, "value")}}
	_, err := m.store.SetExecutionTags(t.Context(), c)
	m.sameFate(err, e.apply(func(x *ff.Execution) (lifecycle.Effects, error) {
		return lifecycle.Effects{}, lifecycle.SetTags(x, c.Tags, m.now)
	}))
}

func (m *model) letTimePass(t *rapid.T) {
	m.advance(rapid.SampledFrom([]time.Duration{time.Millisecond, 100 * time.Millisecond, time.Second, 5 * time.Second, 30 * time.Second}).Draw(t, "time"))
	if rapid.Bool().Draw(t, "sweep") {
		for _, k := range ff.SweepKinds {
			m.sweep(k)
		}
	}
}

func (m *model) sweepOne(t *rapid.T) {
	m.sweep(rapid.SampledFrom(ff.SweepKinds).Draw(t, "kind"))
}

func (m *model) sweep(kind ff.SweepKind) {
	for more := true; more; {
		r, err := m.store.Sweep(m.t.Context(), ff.Sweep{Kind: kind})
		m.must(err)
		if r.Errors > 0 || r.More && r.Processed == 0 {
			m.t.Fatalf("sweep %s: %+v", kind, r)
		}
		more = r.More
	}
	switch kind {
	case ff.SweepSuspensionTimeout:
		m.timeOutSuspensions()
		return
	case ff.SweepPendingWaitpoints:
		m.expireWaitpoints()
		return
	}
	for _, e := range m.all {
		for !e.purged && m.due(e, kind) {
			m.must(e.apply(func(x *ff.Execution) (fx lifecycle.Effects, err error) {
				_, e.purged, fx = lifecycle.Advance(x, ff.DefaultRetention, m.now)
				return fx, nil
			}))
			e.settle(m.now)
		}
	}
}

func (m *model) due(e *modelled, kind ff.SweepKind) bool {
	due, ok := lifecycle.NextDue(&e.x, ff.DefaultRetention)
	return ok && due.Kind == kind && !due.At.After(m.now)
}
