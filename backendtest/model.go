package backendtest

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// runsPerStore bounds the runs that share a store: a long soak would otherwise
// measure listings of very many lanes.
const runsPerStore = 250

// exerciseModel drives a store with random commands and compares it with the
// rules of package lifecycle: after every command each record of the run is what
// the rules make of it. Runs share a store, each in lanes of its own, so that the
// work of earlier runs stays around as it would in production.
func exerciseModel(t *testing.T, open func(*testing.T) Store) {
	var store Store
	run := int64(0)
	rapid.Check(t, func(r *rapid.T) {
		if run%runsPerStore == 0 {
			store = open(t)
		}
		run++
		m := newModel(r, store, run)
		for range 3 {
			m.create(r)
		}
		r.Repeat(m.actions())
		m.drain()
	})
}

// actions are the commands, common ones first and several times: rapid prefers
// what comes first, and executions shall live through many leases before they
// end.
func (m *model) actions() map[string]func(*rapid.T) {
	actions := map[string]func(*rapid.T){"": m.check}
	for _, a := range []struct {
		name   string
		weight int
		do     func(*rapid.T)
	}{
		{"claim", 5, m.claim}, {"let time pass", 3, m.letTimePass}, {"fail", 4, m.fail}, {"release", 1, m.release}, {"sweep", 1, m.sweepOne},
		{"create", 2, m.create}, {"grant next", 1, m.grantNext}, {"claim granted", 1, m.claimGranted}, {"revoke", 1, m.revoke},
		{"complete", 2, m.complete}, {"grant reclaim", 1, m.grantReclaim}, {"replay", 2, m.replay}, {"renew", 1, m.renew},
		{"delay", 1, m.delay}, {"progress", 1, m.progress}, {"change priority", 1, m.priority}, {"tag", 1, m.tag}, {"cancel", 1, m.cancel},
	} {
		for range a.weight {
			actions[fmt.Sprintf("%02d %s", len(actions), a.name)] = a.do
		}
	}
	return actions
}

// modelled is what the rules say about one execution.
type modelled struct {
	x          ff.Execution
	superseded []ff.Attempt
	events     []ff.Event
	// fences are those of all its leases, the latest last.
	fences  []ff.Fence
	payload string
	result  string
	// purged says that retention has deleted it.
	purged bool
	// seen is the last record read from the store, replayed that it was replayed
	// since.
	seen     ff.Execution
	replayed bool
}

type key struct {
	id        ff.ExecutionID
	expiresAt time.Time
}

type model struct {
	t     *rapid.T
	store Store
	run   int64
	lanes []ff.LaneID
	all   []*modelled
	byID  map[ff.ExecutionID]*modelled
	keys  map[string]key
	now   time.Time
}

func newModel(t *rapid.T, store Store, run int64) *model {
	m := &model{t: t, store: store, run: run, byID: map[ff.ExecutionID]*modelled{}, keys: map[string]key{}}
	for i := range 3 {
		m.lanes = append(m.lanes, ff.LaneID(fmt.Sprintf("run %d lane %d", run, i)))
	}
	m.readClock()
	return m
}

func (m *model) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *model) equal(what string, got, want any) {
	m.t.Helper()
	if reflect.DeepEqual(got, want) {
		return // Nearly always, and much cheaper than a difference.
	}
	if d := cmp.Diff(want, got, sameRecord); d != "" {
		m.t.Fatalf("%s (-rules +store):\n%s", what, d)
	}
}

// sameFate compares the error of the store with that of the rules.
func (m *model) sameFate(store, rules error) {
	m.t.Helper()
	if got, want := ff.CodeOf(store), ff.CodeOf(rules); got != want {
		m.t.Fatalf("the store answers %q (%v), the rules %q (%v)", got, store, want, rules)
	}
}

func (m *model) readClock() {
	now, err := m.store.Now(m.t.Context())
	m.must(err)
	m.now = now
}

func (m *model) advance(d time.Duration) {
	m.store.Advance(d)
	m.readClock()
}

// apply lets a rule change an execution as a store does: a refusal that has
// recorded something changes it, another leaves it as it was.
func (e *modelled) apply(rule func(x *ff.Execution) (lifecycle.Effects, error)) error {
	x := e.x
	fx, err := rule(&x)
	if err != nil && len(fx.Events) == 0 {
		return err
	}
	e.x = x
	if fx.Superseded != nil {
		e.superseded = append(e.superseded, *fx.Superseded)
	}
	e.events = append(e.events, fx.Events...)
	return err
}

// pick chooses an execution that is still there; nil when there is none.
func (m *model) pick(t *rapid.T) *modelled {
	var there []*modelled
	for _, e := range m.all {
		if !e.purged {
			there = append(there, e)
		}
	}
	if len(there) == 0 {
		return nil
	}
	return one(t, "execution", there)
}

// one draws an item by its index, which keeps the log of a failure short.
func one[T any](t *rapid.T, what string, list []T) T {
	return list[rapid.IntRange(0, len(list)-1).Draw(t, what)]
}

// pickRef chooses an execution that was leased, and mostly its latest fence.
func (m *model) pickRef(t *rapid.T) (*modelled, ff.LeaseRef) {
	var leased, held []*modelled
	for _, e := range m.all {
		if len(e.fences) > 0 && !e.purged {
			leased = append(leased, e)
			if e.x.State.Phase == ff.PhaseActive {
				held = append(held, e)
			}
		}
	}
	if len(leased) == 0 {
		return nil, ff.LeaseRef{}
	}
	if len(held) > 0 && rapid.IntRange(0, 3).Draw(t, "of any phase") > 0 {
		leased = held
	}
	e := one(t, "execution", leased)
	f := e.fences[len(e.fences)-1]
	switch rapid.IntRange(0, 9).Draw(t, "fence") {
	case 0:
		f = one(t, "old fence", e.fences)
	case 1:
		f.LeaseEpoch++
	case 2:
		f.AttemptID = ff.NewAttemptID()
	}
	return e, ff.LeaseRef{ID: e.x.ID, Fence: f}
}

var modelCapabilities = [][]string{nil, nil, nil, {"gpu"}, {"gpu", "fast"}}

func (m *model) drawClaimant(t *rapid.T) ff.Claimant {
	return ff.Claimant{
		Worker:       rapid.SampledFrom([]ff.WorkerID{"w1", "w2"}).Draw(t, "worker"),
		Instance:     rapid.SampledFrom([]ff.WorkerInstanceID{"i1", "i2"}).Draw(t, "instance"),
		Capabilities: capabilitySet(rapid.SampledFrom(modelCapabilities).Draw(t, "offered")...),
	}
}

func drawTTL(t *rapid.T) time.Duration {
	return rapid.SampledFrom([]time.Duration{600 * time.Millisecond, 6 * time.Second, 42 * time.Second}).Draw(t, "ttl")
}

func drawPolicy(t *rapid.T) *ff.ExecutionPolicy {
	p := ff.DefaultExecutionPolicy()
	p.MaxReclaims = rapid.SampledFrom([]int{3, 1, 0}).Draw(t, "max reclaims")
	p.MaxReplays = rapid.IntRange(0, 2).Draw(t, "max replays")
	switch rapid.IntRange(0, 3).Draw(t, "retry") {
	case 0:
		p.Retry = ff.FixedRetry(2, rapid.SampledFrom([]time.Duration{0, time.Second}).Draw(t, "backoff"))
	case 1:
		p.Retry = ff.ExponentialRetry(3, 333*time.Millisecond, 2*time.Second)
		p.Retry.Backoff.Jitter, p.Retry.Backoff.Multiplier = true, 1.7
	case 2:
		p.Retry = ff.FixedRetry(1, time.Second)
		p.Retry.RetryableCategories = []string{"network", "timeout"}
	}
	if rapid.Bool().Draw(t, "timeouts") {
		p.Timeout = &ff.TimeoutPolicy{
			Attempt:  rapid.SampledFrom([]time.Duration{0, 3 * time.Second}).Draw(t, "attempt timeout"),
			Deadline: rapid.SampledFrom([]time.Duration{0, 20 * time.Second, time.Minute}).Draw(t, "deadline"),
		}
	}
	if need := rapid.SampledFrom(modelCapabilities).Draw(t, "required"); need != nil {
		p.Routing = &ff.RoutingRequirements{RequiredCapabilities: capabilitySet(need...)}
	}
	if rapid.IntRange(0, 3).Draw(t, "short retention") == 0 {
		p.Stream = &ff.StreamPolicy{RetentionTTL: 15 * time.Second}
	}
	return p
}

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
	e := &modelled{x: lifecycle.Create(&c, r.ID, m.now), payload: string(c.Payload)}
	m.equal("the created", r, ff.CreateExecutionResult{ID: r.ID, State: e.x.PublicState()})
	m.all, m.byID[r.ID] = append(m.all, e), e
	if c.IdempotencyKey != "" {
		m.keys[c.IdempotencyKey] = key{r.ID, m.now.Add(ff.IdempotencyWindow)}
	}
}

func (m *model) claim(t *rapid.T) {
	c := ff.Claim{Claimant: m.drawClaimant(t), LeaseTTL: drawTTL(t), Max: rapid.IntRange(1, 4).Draw(t, "max")}
	first := rapid.IntRange(0, len(m.lanes)-1).Draw(t, "first lane")
	c.Lanes = append(slices.Clone(m.lanes[first:]), m.lanes[:first]...)[:rapid.IntRange(1, len(m.lanes)).Draw(t, "lanes")]
	m.claimAs(t, c)
}

// claimAs claims from the store what it says it claims next, and holds the rules
// against it: the order, the reclaims that exceed their limit, the records.
func (m *model) claimAs(t *rapid.T, c ff.Claim) int {
	r, err := m.store.Claim(t.Context(), c)
	m.must(err)
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
	r, err := m.store.CompleteExecution(t.Context(), c)
	repeated := false
	m.sameFate(err, e.apply(func(x *ff.Execution) (fx lifecycle.Effects, err error) {
		repeated, fx, err = lifecycle.Complete(x, &c, m.now)
		return fx, err
	}))
	if err == nil {
		m.equal("the completion", r, ff.CompleteExecutionResult{State: ff.StateCompleted, Repeated: repeated})
		if !repeated {
			e.result = string(c.Result)
		}
	}
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
	for _, e := range m.all {
		for !e.purged && m.due(e, kind) {
			m.must(e.apply(func(x *ff.Execution) (fx lifecycle.Effects, err error) {
				_, e.purged, fx = lifecycle.Advance(x, ff.DefaultRetention, m.now)
				return fx, nil
			}))
		}
	}
}

func (m *model) due(e *modelled, kind ff.SweepKind) bool {
	due, ok := lifecycle.NextDue(&e.x, ff.DefaultRetention)
	return ok && due.Kind == kind && !due.At.After(m.now)
}

// check compares every record of the run and what is derived from it.
func (m *model) check(*rapid.T) {
	counts := map[ff.LaneID]map[ff.PublicState]int{}
	for _, lane := range m.lanes {
		var want []ff.Execution
		for _, e := range m.all {
			if !e.purged && e.x.Lane == lane {
				want = append(want, e.x)
			}
		}
		got := m.list(ff.ListExecutions{Lane: lane})
		m.equal("the records of "+string(lane), got, want)
		for i := range got {
			m.invariants(m.byID[got[i].ID], &got[i])
			if counts[lane] == nil {
				counts[lane] = map[ff.PublicState]int{}
			}
			counts[lane][got[i].PublicState()]++
		}
	}
	m.checkCounts(counts)
}

func (m *model) list(q ff.ListExecutions) []ff.Execution {
	m.t.Helper()
	q.Oldest, q.Limit = true, ff.MaxPageLimit
	r, err := m.store.ListExecutions(m.t.Context(), q)
	m.must(err)
	return r.Executions
}

// invariants are what holds whatever the rules say.
func (m *model) invariants(e *modelled, x *ff.Execution) {
	m.t.Helper()
	before := &e.seen
	switch {
	case x.State.Validate() != nil:
		m.t.Fatal(x.State.Validate())
	case x.TotalAttempts < before.TotalAttempts, x.LeaseEpoch < before.LeaseEpoch, x.TotalAttempts > 0 && x.Attempt.Index != x.TotalAttempts-1:
		m.t.Fatalf("attempts or epochs of %s went back: %+v after %+v", x.ID, x, before)
	case before.Terminal() && !x.Terminal() && !e.replayed:
		m.t.Fatalf("%s was %s and is %s without a replay", x.ID, before.PublicState(), x.PublicState())
	case (x.State.Ownership == ff.OwnershipLeased) != (x.State.Phase == ff.PhaseActive && x.State.Attempt == ff.AttemptRunning):
		m.t.Fatalf("%s is leased without running, or runs without a lease: %+v", x.ID, x.State)
	case x.State.Phase != ff.PhaseActive && !x.Lease.ID.IsZero():
		m.t.Fatalf("%s has a lease and is %s", x.ID, x.PublicState())
	}
	e.seen, e.replayed = *x, false
}

func (m *model) checkCounts(want map[ff.LaneID]map[ff.PublicState]int) {
	m.t.Helper()
	list, err := m.store.Lanes(m.t.Context())
	m.must(err)
	for _, l := range list {
		if slices.Contains(m.lanes, l.Lane) {
			m.equal("the counts of "+string(l.Lane), l.Counts, want[l.Lane])
			delete(want, l.Lane)
		}
	}
	m.equal("lanes without counts", want, map[ff.LaneID]map[ff.PublicState]int{})
}

// drain ends a run: histories are compared, listings agree, and everything that
// the rules call claimable is reached by claims.
func (m *model) drain() {
	m.checkHistories()
	for _, lane := range m.lanes {
		m.checkListings(lane)
		want := m.claimable(lane, capabilitySet("gpu", "fast"))
		c := ff.Claim{Claimant: who("drain", "gpu", "fast"), Lanes: []ff.LaneID{lane}, Max: 7, LeaseTTL: time.Minute}
		for m.claimAs(m.t, c) > 0 {
		}
		for _, e := range want {
			if lifecycle.Claimable(&e.x) {
				m.t.Fatalf("%s is claimable and no claim reaches it", e.x.ID)
			}
		}
	}
	m.check(m.t)
}

func (m *model) checkHistories() {
	ctx := m.t.Context()
	for _, e := range m.all {
		x, err := m.store.Execution(ctx, e.x.ID)
		if e.purged {
			m.sameFate(err, ff.ErrExecutionNotFound)
			continue
		}
		m.must(err)
		m.equal("the record", x, e.x)
		want := e.superseded
		if e.x.TotalAttempts > 0 {
			want = append(want[:len(want):len(want)], e.x.Attempt)
		}
		attempts, err := m.store.Attempts(ctx, e.x.ID)
		m.must(err)
		m.equal("the attempts", attempts, want)
		events, err := m.store.ReadEvents(ctx, ff.ReadEvents{ID: e.x.ID, Limit: ff.MaxPageLimit})
		m.must(err)
		for i := range events.Events {
			events.Events[i].Cursor = ""
		}
		m.equal("the events", events.Events, e.events)
		input, err := m.store.ExecutionPayload(ctx, e.x.ID)
		m.must(err)
		m.equal("the payload", string(input.Payload), e.payload)
		result, err := m.store.ExecutionResult(ctx, e.x.ID)
		m.must(err)
		m.equal("the result", string(result), e.result)
	}
}

// checkListings compares the listing of each public state, which stores keep
// apart from the record.
func (m *model) checkListings(lane ff.LaneID) {
	for _, state := range ff.PublicStates {
		want := []ff.ExecutionID{}
		for _, e := range m.all {
			if !e.purged && e.x.Lane == lane && e.x.PublicState() == state {
				want = append(want, e.x.ID)
			}
		}
		m.equal("the listing of "+string(state), idsOf(m.list(ff.ListExecutions{Lane: lane, State: state})), want)
	}
}
