// Package backendtest is the conformance suite of stores: what every
// [flowfabric.Backend] does, whatever it stores its records in. A store passes
// all of it. The behaviours are in files by subject, named as in the root
// package; a model test (model.go) compares a store with the rules of package
// lifecycle under random commands.
//
//	func TestConformance(t *testing.T) {
//		backendtest.Exercise(t, func(t *testing.T) backendtest.Store { … })
//	}
//
// The model test does as many steps as the flags of pgregory.net/rapid say; a
// soak of an hour is
//
//	go test ./sqlstore/sqlite -run Conformance/model -timeout 2h -rapid.checks=50000 -rapid.steps=100
package backendtest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	ff "github.com/flowfabric/flowfabric"
)

// Store is an empty store to be tested, with the default retention. Its clock
// stands still except for Advance, so that every instant can be predicted;
// whoever opened it closes it with t.Cleanup.
type Store struct {
	ff.Backend
	// Advance moves the clock forward.
	Advance func(time.Duration)
	// Reopen closes the store and opens what it had stored. It is nil for a store
	// that keeps nothing beyond its own life.
	Reopen func(*testing.T) ff.Backend
	// Lacks names behaviours that the store cannot have, each with the reason. One
	// that it has after all fails the test.
	Lacks map[string]string
}

// behaviour is one thing that every store does.
type behaviour struct {
	name  string
	check func(*subject)
}

// areas are the behaviours by subject, in the order in which they build on one
// another.
var areas = []struct {
	name       string
	behaviours []behaviour
}{
	{"execution", executionBehaviours},
	{"idempotency", idempotencyBehaviours},
	{"cancel", cancelBehaviours},
	{"claim", claimBehaviours},
	{"grant", grantBehaviours},
	{"reclaim", reclaimBehaviours},
	{"lease", leaseBehaviours},
	{"fence", fenceBehaviours},
	{"next", nextBehaviours},
	{"retry", retryBehaviours},
	{"stream", streamBehaviours},
	{"summary", summaryBehaviours},
	{"tail", tailBehaviours},
	{"sweep", sweepBehaviours},
	{"suspension", suspensionBehaviours},
	{"waitpoint", waitpointBehaviours},
	{"signal", signalBehaviours},
	{"list", listBehaviours},
	{"event", eventBehaviours},
	{"worker", workerBehaviours},
	{"store", storeBehaviours},
}

// Exercise runs the whole suite. Open is called for each behaviour and gives an
// empty store each time.
func Exercise(t *testing.T, open func(*testing.T) Store) {
	for _, area := range areas {
		t.Run(area.name, func(t *testing.T) {
			for _, b := range area.behaviours {
				t.Run(b.name, func(t *testing.T) { exercise(t, open(t), b) })
			}
		})
	}
	t.Run("model", func(t *testing.T) { exerciseModel(t, open) })
}

// subject is the store under test with short forms of what most behaviours do.
type subject struct {
	testing.TB
	Store
	t *testing.T
}

// main is the lane of behaviours that need no more than one, and ttl their
// lease.
const (
	mainLane ff.LaneID = "main"
	ttl                = 10 * time.Second
)

// who is a claimant: instance "a" of worker "w" offers the given capabilities.
func who(instance ff.WorkerInstanceID, capabilities ...string) ff.Claimant {
	return ff.Claimant{Worker: "w", Instance: instance, Capabilities: capabilitySet(capabilities...)}
}

func capabilitySet(tokens ...string) ff.CapabilitySet {
	set, err := ff.NewCapabilitySet(tokens...)
	if err != nil {
		panic(err)
	}
	return set
}

// submit creates an execution, one millisecond after whatever was before, so
// that ages differ. The lane is main and the kind k unless given.
func (s *subject) submit(c ff.CreateExecution) ff.ExecutionID {
	s.Helper()
	s.Advance(time.Millisecond)
	r, err := s.CreateExecution(s.Context(), filled(c))
	s.must(err)
	if r.Duplicate {
		s.Fatalf("create of %q is a duplicate of %s", c.ID, r.ID)
	}
	return r.ID
}

func filled(c ff.CreateExecution) ff.CreateExecution {
	if c.Lane == "" {
		c.Lane = mainLane
	}
	if c.Kind == "" {
		c.Kind = "k"
	}
	return c
}

// policed is a submit with a policy that change has made.
func policed(change func(*ff.ExecutionPolicy)) ff.CreateExecution {
	p := ff.DefaultExecutionPolicy()
	change(p)
	return ff.CreateExecution{Policy: p}
}

// requiring is a submit that needs capabilities.
func requiring(tokens ...string) ff.CreateExecution {
	return policed(func(p *ff.ExecutionPolicy) {
		p.Routing = &ff.RoutingRequirements{RequiredCapabilities: capabilitySet(tokens...)}
	})
}

// claimUpTo claims for instance a, with the lease ttl unless given.
func (s *subject) claimUpTo(c ff.Claim) []ff.Claimed {
	s.Helper()
	if c.Worker == "" {
		c.Claimant = who("a")
	}
	if c.Lanes == nil {
		c.Lanes = []ff.LaneID{mainLane}
	}
	if c.LeaseTTL == 0 {
		c.LeaseTTL = ttl
	}
	r, err := s.Claim(s.Context(), c)
	s.must(err)
	return r.Claimed
}

// claim claims exactly one.
func (s *subject) claim(c ff.Claim) ff.Claimed {
	s.Helper()
	got := s.claimUpTo(c)
	if len(got) != 1 {
		s.Fatalf("claimed %d executions, want 1", len(got))
	}
	return got[0]
}

// start submits an execution and claims it.
func (s *subject) start(c ff.CreateExecution) ff.Claimed {
	s.Helper()
	id := s.submit(c)
	got := s.claim(ff.Claim{Claimant: who("a", required(c)...), Lanes: []ff.LaneID{filled(c).Lane}})
	if got.Execution.ID != id {
		s.Fatalf("claimed %s, want %s", got.Execution.ID, id)
	}
	return got
}

func (s *subject) nothingToClaim() {
	s.Helper()
	if got := s.claimUpTo(ff.Claim{}); len(got) > 0 {
		s.Fatalf("claimed %s (%s), want nothing", got[0].Execution.ID, got[0].Execution.PublicState())
	}
}

func (s *subject) complete(c ff.Claimed) {
	s.Helper()
	_, err := s.CompleteExecution(s.Context(), ff.CompleteExecution{LeaseRef: c.Ref()})
	s.must(err)
}

func (s *subject) read(id ff.ExecutionID) ff.Execution {
	s.Helper()
	x, err := s.Execution(s.Context(), id)
	s.must(err)
	return x
}

func (s *subject) attempts(id ff.ExecutionID) []ff.Attempt {
	s.Helper()
	list, err := s.Attempts(s.Context(), id)
	s.must(err)
	return list
}

func (s *subject) wantState(id ff.ExecutionID, want ff.PublicState) ff.Execution {
	s.Helper()
	x := s.read(id)
	if got := x.PublicState(); got != want {
		s.Fatalf("execution %s is %s, want %s", id, got, want)
	}
	return x
}

// sweep does all that is due of the kinds and gives how many executions changed.
func (s *subject) sweep(kinds ...ff.SweepKind) (processed int) {
	s.Helper()
	for _, k := range kinds {
		for more := true; more; {
			r, err := s.Sweep(s.Context(), ff.Sweep{Kind: k})
			s.must(err)
			if r.Errors > 0 || r.More && r.Processed == 0 {
				s.Fatalf("sweep %s: %+v", k, r)
			}
			processed, more = processed+r.Processed, r.More
		}
	}
	return processed
}

// pass moves the clock and does all that is due then.
func (s *subject) pass(d time.Duration) {
	s.Helper()
	s.Advance(d)
	s.sweep(ff.SweepKinds...)
}

func (s *subject) now() time.Time {
	s.Helper()
	now, err := s.Now(s.Context())
	s.must(err)
	return now
}

func (s *subject) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// refused checks the code of a refusal.
func (s *subject) refused(err error, want *ff.Error) {
	s.Helper()
	if got := ff.CodeOf(err); got != want.Code {
		s.Errorf("refused with %q (%v), want %q", got, err, want.Code)
	}
}

func (s *subject) equal(what string, got, want any) {
	s.Helper()
	if d := cmp.Diff(want, got, sameRecord); d != "" {
		s.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// sameRecord compares what stores give back: instants by the millisecond, empty
// and missing collections alike.
var sameRecord = cmp.Options{
	cmp.Comparer(func(a, b time.Time) bool { return a.IsZero() == b.IsZero() && a.UnixMilli() == b.UnixMilli() }),
	cmp.Comparer(func(a, b ff.ExecutionID) bool { return a == b }),
	cmp.Comparer(func(a, b ff.CapabilitySet) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

func required(c ff.CreateExecution) []string {
	if c.Policy == nil || c.Policy.Routing == nil {
		return nil
	}
	return c.Policy.Routing.RequiredCapabilities.Tokens()
}
