package backendtest

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// runsPerStore bounds the runs that share a store: a long soak would otherwise
// measure listings of very many lanes.
const runsPerStore = 40

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
		{"append", 3, m.appendFrames},
		{"delay", 1, m.delay}, {"progress", 1, m.progress},
		{"suspend", 3, m.suspend}, {"signal", 4, m.signal}, {"create waitpoint", 1, m.createWaitpoint}, {"resume", 1, m.resumeByOperator},
		{"close waitpoint", 1, m.closeWaitpoint}, {"change priority", 1, m.priority}, {"tag", 1, m.tag}, {"cancel", 1, m.cancel},
	} {
		for range a.weight {
			actions[fmt.Sprintf("%02d %s", len(actions), a.name)] = a.do
		}
	}
	return actions
}

// modelled is what the rules say about one execution.
type modelled struct {
	x ff.Execution
	modelledWaits
	superseded []ff.Attempt
	events     []ff.Event
	// fences are those of all its leases, the latest last.
	fences  []ff.Fence
	payload string
	result  string
	// streams are those of its attempts that were appended to.
	streams map[int]*modelStream
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
	// grantsVanish and noLog are what the store lacks: lapsed grants do not wait for
	// the sweep; there is no log of all events.
	grantsVanish, noLog bool
}

func newModel(t *rapid.T, store Store, run int64) *model {
	m := &model{t: t, store: store, run: run, byID: map[ff.ExecutionID]*modelled{}, keys: map[string]key{}}
	for i := range 3 {
		m.lanes = append(m.lanes, ff.LaneID(fmt.Sprintf("run %d lane %d", run, i)))
	}
	_, m.grantsVanish = store.Lacks["a lapsed grant is refused and the execution is open again"]
	_, m.noLog = store.Lacks["every change of a lease and every end is an event"]
	m.installSecret()
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
	for _, e := range m.all {
		if m.grantsVanish && !e.x.Grant.Live(now) {
			e.x.Grant = ff.Grant{}
		}
	}
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
