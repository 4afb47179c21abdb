package sqlstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/sqlstore"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ctx = context.Background()

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func open(t *testing.T, path string, opts sqlite.Options) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(ctx, path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func must[R any](t *testing.T) func(R, error) R {
	return func(r R, err error) R {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

func submit(t *testing.T, s *sqlite.Store, lane ff.LaneID, kind string) ff.ExecutionID {
	t.Helper()
	return must[ff.CreateExecutionResult](t)(s.CreateExecution(ctx, ff.CreateExecution{Lane: lane, Kind: kind})).ID
}

func claimOf(instance string, lane ff.LaneID) ff.Claim {
	return ff.Claim{Claimant: ff.Claimant{Worker: "w", Instance: ff.WorkerInstanceID(instance)}, Lanes: []ff.LaneID{lane}, LeaseTTL: time.Second}
}

func claim(t *testing.T, s *sqlite.Store, lane ff.LaneID) ff.Claimed {
	t.Helper()
	r := must[ff.ClaimResult](t)(s.Claim(ctx, claimOf("i1", lane)))
	if len(r.Claimed) != 1 {
		t.Fatalf("claimed %d executions of lane %s, want 1", len(r.Claimed), lane)
	}
	return r.Claimed[0]
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("never happened: %s", what)
		}
	}
}

func word[S ~string](rt *rapid.T, label string, list []S) S {
	return rapid.SampledFrom(list).Draw(rt, label)
}

func someText[S ~string](rt *rapid.T, label string) S {
	return S(rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[a-zäß'"\\{} ]{1,20}`)).Draw(rt, label))
}

func someTime(rt *rapid.T, label string) time.Time {
	if rapid.Bool().Draw(rt, label+" unset") {
		return time.Time{}
	}
	return time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(rt, label)).UTC()
}

func someUUID[U ~[16]byte](rt *rapid.T, label string) (id U) {
	copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(rt, label))
	return id
}

func someCount(rt *rapid.T, label string) int { return rapid.IntRange(0, 1<<40).Draw(rt, label) }

func someAttempt(rt *rapid.T) ff.Attempt {
	return ff.Attempt{
		ID: someUUID[ff.AttemptID](rt, "attempt"), Index: someCount(rt, "index"), Type: word(rt, "type", ff.AttemptTypes),
		State: word(rt, "attempt state", ff.AttemptStates), CreatedAt: someTime(rt, "created"), StartedAt: someTime(rt, "started"),
		EndedAt: someTime(rt, "ended"), SuspendedAt: someTime(rt, "suspended"), ResumedAt: someTime(rt, "resumed"),
		Worker: someText[ff.WorkerID](rt, "worker"), Instance: someText[ff.WorkerInstanceID](rt, "instance"),
		LeaseID: someUUID[ff.LeaseID](rt, "lease"), LeaseEpoch: uint64(someCount(rt, "epoch")), Suspension: someText[string](rt, "suspension"),
		FailureReason: someText[string](rt, "reason"), FailureCategory: someText[string](rt, "category"),
		Cause: someText[string](rt, "cause"), RequestedBy: someText[string](rt, "by"), Previous: rapid.IntRange(-1, 9).Draw(rt, "previous"),
	}
}

func someExecution(rt *rapid.T) ff.Execution {
	x := ff.Execution{
		Priority: rapid.IntRange(0, ff.MaxPriority).Draw(rt, "priority"),
		State: ff.StateVector{
			Phase: word(rt, "phase", ff.LifecyclePhases), Ownership: word(rt, "ownership", ff.OwnershipStates),
			Eligibility: word(rt, "eligibility", ff.EligibilityStates), Blocking: word(rt, "blocking", ff.BlockingReasons),
			Outcome: word(rt, "outcome", ff.TerminalOutcomes), Attempt: word(rt, "phase of attempt", ff.AttemptPhases),
		},
		FlowID: someUUID[ff.FlowID](rt, "flow"), BlockingDetail: someText[string](rt, "detail"), Attempt: someAttempt(rt),
		CurrentAttemptID: someUUID[ff.AttemptID](rt, "current"), TotalAttempts: someCount(rt, "attempts"), RetryCount: someCount(rt, "retries"),
		ReplayCount: someCount(rt, "replays"), ReclaimCount: someCount(rt, "reclaims"),
		Lease: ff.Lease{
			ID: someUUID[ff.LeaseID](rt, "lease id"), Worker: someText[ff.WorkerID](rt, "lease worker"),
			Instance: someText[ff.WorkerInstanceID](rt, "lease instance"), AcquiredAt: someTime(rt, "acquired"),
			ExpiresAt: someTime(rt, "expires"), RenewedAt: someTime(rt, "renewed"), RenewBefore: someTime(rt, "renew before"),
		},
		LeaseEpoch: uint64(someCount(rt, "lease epoch")), LeaseExpiredAt: someTime(rt, "expired"), LeaseRevokedAt: someTime(rt, "revoked"),
		LeaseRevokeReason: someText[string](rt, "revoke reason"), PendingRetryReason: someText[string](rt, "retry reason"),
		PendingReplayReason: someText[string](rt, "replay reason"), PendingReplayBy: someText[string](rt, "replay by"),
		PendingPreviousAttempt: rapid.IntRange(-1, 9).Draw(rt, "pending previous"), StartedAt: someTime(rt, "x started"),
		CompletedAt: someTime(rt, "x completed"), LastTransitionAt: someTime(rt, "transition"), LastMutationAt: someTime(rt, "mutation"),
		DelayUntil: someTime(rt, "delay"), Deadline: someTime(rt, "deadline"), AttemptTimeoutAt: someTime(rt, "timeout"),
		CapabilityMismatchAt: someTime(rt, "mismatch"), FailureReason: someText[string](rt, "failure"),
		FailureCategory: someText[string](rt, "failure category"), CancellationReason: someText[string](rt, "cancellation"),
		CancelledBy: someText[ff.CancelSource](rt, "cancelled by"),
		Progress:    ff.Progress{Message: someText[string](rt, "message"), UpdatedAt: someTime(rt, "progress")},
	}
	if rapid.Bool().Draw(rt, "has percent") {
		p := rapid.IntRange(0, 100).Draw(rt, "percent")
		x.Progress.Percent = &p
	}
	if rapid.Bool().Draw(rt, "has tags") {
		x.Tags = rapid.MapOfN(rapid.StringMatching(`[a-z"']{1,5}`), rapid.String().Filter(func(s string) bool { return strings.ToValidUTF8(s, "") == s }), 1, 3).Draw(rt, "tags")
	}
	if rapid.Bool().Draw(rt, "has grant") {
		x.Grant = ff.Grant{Worker: "w", Instance: "i", ExpiresAt: someTime(rt, "grant ends"), CreatedAt: someTime(rt, "granted"),
			Capability: someText[string](rt, "capability"), RouteJSON: someText[string](rt, "route"), AdmissionSum: someText[string](rt, "admission")}
	}
	return x
}

func TestARecordReadsAsItWasSaved(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	caps := must[ff.CapabilitySet](t)(ff.NewCapabilitySet("gpu", "eu"))
	rapid.Check(t, func(rt *rapid.T) {
		policy := ff.DefaultExecutionPolicy()
		policy.Retry = ff.ExponentialRetry(3, time.Second, time.Minute)
		policy.Routing = &ff.RoutingRequirements{RequiredCapabilities: caps}
		created, err := s.CreateExecution(ctx, ff.CreateExecution{
			Lane: "main", Kind: "k", Namespace: "n", Creator: "me", PayloadEncoding: "json", Policy: policy})
		if err != nil {
			rt.Fatal(err)
		}
		before, err := s.Execution(ctx, created.ID)
		if err != nil {
			rt.Fatal(err)
		}
		for range 2 {
			want := someExecution(rt)
			if err := s.Overwrite(ctx, created.ID, want); err != nil {
				rt.Fatal(err)
			}
			want.ID, want.Namespace, want.Lane, want.Kind = before.ID, before.Namespace, before.Lane, before.Kind
			want.Creator, want.PayloadEncoding, want.CreatedAt = "me", "json", before.CreatedAt
			want.Policy, want.Required = policy, caps
			got, err := s.Execution(ctx, created.ID)
			if err != nil {
				rt.Fatal(err)
			}
			opts := cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b ff.ExecutionID) bool { return a == b }),
				cmp.Comparer(func(a, b ff.CapabilitySet) bool { return a == b })}
			if d := cmp.Diff(want, got, opts); d != "" {
				rt.Fatalf("read (-saved +read):\n%s", d)
			}
		}
	})
}

// runEverything makes the store run every kind of update.
func runEverything(t *testing.T, s *sqlite.Store, c *clock) {
	t.Helper()
	policy := ff.DefaultExecutionPolicy()
	policy.Retry = ff.FixedRetry(1, time.Minute)
	for range 3 {
		must[ff.CreateExecutionResult](t)(s.CreateExecution(ctx, ff.CreateExecution{Lane: "a", Kind: "k", Policy: policy, Payload: []byte("p")}))
	}
	x := claim(t, s, "a")
	must[ff.RenewLeasesResult](t)(s.RenewLeases(ctx, ff.RenewLeases{Leases: []ff.LeaseRef{x.Ref()}, TTL: time.Minute}))
	if err := s.UpdateProgress(ctx, ff.UpdateProgress{LeaseRef: x.Ref(), Message: "m"}); err != nil {
		t.Fatal(err)
	}
	must[ff.DelayExecutionResult](t)(s.DelayExecution(ctx, ff.DelayExecution{LeaseRef: x.Ref(), For: time.Second}))
	c.add(time.Second)
	must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepDelayed}))
	x = claim(t, s, "a")
	must[ff.FailExecutionResult](t)(s.FailExecution(ctx, ff.FailExecution{LeaseRef: x.Ref(), Reason: "r", Category: "c"}))
	x = claim(t, s, "a")
	must[ff.CompleteExecutionResult](t)(s.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: x.Ref(), Result: []byte("r")}))
	must[ff.ReplayExecutionResult](t)(s.ReplayExecution(ctx, ff.ReplayExecution{ID: x.Execution.ID, Payload: []byte("q")}))
	must[ff.CancelExecutionResult](t)(s.CancelExecution(ctx, ff.CancelExecution{ID: x.Execution.ID}))
	x = claim(t, s, "a")
	c.add(2 * time.Second)
	must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepLeaseExpiry}))
	c.add(48 * time.Hour)
	must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepRetention}))
}

func TestNoStatementScansATable(t *testing.T) {
	c := newClock()
	s := open(t, filepath.Join(t.TempDir(), "f.db"), sqlite.Options{Clock: c.Now})
	runEverything(t, s, c)
	queries := must[[]string](t)(s.Queries(ctx))
	if len(queries) < 50 {
		t.Fatalf("only %d statements", len(queries))
	}
	for _, q := range queries {
		for _, step := range must[[]string](t)(s.Rows(ctx, "explain query plan "+q, 3)) {
			if strings.HasPrefix(step, "SCAN") && !strings.Contains(step, "CONSTANT") && !strings.HasPrefix(step, "SCAN first") ||
				strings.Contains(step, "TEMP B-TREE") {
				t.Errorf("%s\nin\n%s", step, q)
			}
		}
	}
}

func TestTheWordsInTheFileAreThoseOfTheProgram(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	for dimension, want := range sqlstore.Words() {
		got := must[[]string](t)(s.Rows(ctx, "select word from words where dimension = '"+dimension+"' order by code", 0))
		if !slices.Equal(got, want) {
			t.Errorf("%s: the file has %q, the program %q", dimension, got, want)
		}
	}
}

func TestTheViewsShowWords(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	id := submit(t, s, "main", "k")
	claim(t, s, "main")
	got := must[[]string](t)(s.Rows(ctx, "select execution_id || ' ' || lane || ' ' || public_state || ' ' || ownership from executions_view", 0))
	if want := []string{id.String() + " main active leased"}; !slices.Equal(got, want) {
		t.Errorf("executions_view shows %q, want %q", got, want)
	}
	got = must[[]string](t)(s.Rows(ctx, "select execution_id || ' ' || type from events_view", 0))
	if want := []string{id.String() + " acquired"}; !slices.Equal(got, want) {
		t.Errorf("events_view shows %q, want %q", got, want)
	}
}

func TestCommandsThatWaitShareOneTransaction(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "f.db"), sqlite.Options{})
	before := must[int64](t)(s.Transactions(ctx))
	release := s.Hold()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, err := s.CreateExecution(ctx, ff.CreateExecution{Lane: "main", Kind: "k"}); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "100 commands wait", func() bool { return s.Queued() == 100 })
	release()
	wg.Wait()
	// The counting commands make batches of their own.
	if n := must[int64](t)(s.Transactions(ctx)) - before; n > 4 {
		t.Errorf("100 commands took %d transactions", n)
	}
}

func TestABrokenCommandFailsAlone(t *testing.T) {
	for _, breaks := range []func(*sqlite.Store) error{
		func(s *sqlite.Store) error { return s.Break(ctx) },
		func(s *sqlite.Store) error { return s.Panic(ctx) },
	} {
		s := open(t, ":memory:", sqlite.Options{})
		release := s.Hold()
		var wg sync.WaitGroup
		var broken error
		for i := range 10 {
			wg.Go(func() {
				if i == 5 {
					broken = breaks(s)
					return
				}
				if _, err := s.CreateExecution(ctx, ff.CreateExecution{Lane: "main", Kind: fmt.Sprint(i)}); err != nil {
					t.Error(err)
				}
			})
		}
		eventually(t, "10 commands wait", func() bool { return s.Queued() == 10 })
		release()
		wg.Wait()
		if ff.CodeOf(broken) != ff.CodeInternal {
			t.Errorf("the broken command got %v", broken)
		}
		lanes := must[[]ff.LaneStatus](t)(s.Lanes(ctx))
		if len(lanes) != 1 || lanes[0].Counts[ff.StateWaiting] != 9 {
			t.Errorf("lanes %+v, want 9 waiting", lanes)
		}
		list := must[ff.ListExecutionsResult](t)(s.ListExecutions(ctx, ff.ListExecutions{}))
		if len(list.Executions) != 9 {
			t.Errorf("%d executions, want 9", len(list.Executions))
		}
		if rows := must[[]string](t)(s.Rows(ctx, "select name from meta where name = 'broken'", 0)); len(rows) > 0 {
			t.Error("the broken command left a row")
		}
	}
}

func TestFaultsThatGoOnAreLoggedOnceInAWhile(t *testing.T) {
	c := newClock()
	var log bytes.Buffer
	s := open(t, ":memory:", sqlite.Options{Clock: c.Now, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for range 100 {
		_ = s.Break(ctx)
	}
	c.add(time.Minute)
	_ = s.Break(ctx)
	// The writer is done with the log when it has run another command.
	if err := s.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 2 || !strings.Contains(log.String(), "unlogged=99") {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
}

func TestABrokenBatchHidesNoWork(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	id := must[ff.CreateExecutionResult](t)(s.CreateExecution(ctx, ff.CreateExecution{Lane: "main", Kind: "k"})).ID
	release := s.Hold()
	var wg sync.WaitGroup
	claimed := make(chan ff.Claimed, 2)
	claim := func() {
		r, err := s.Claim(ctx, ff.Claim{Claimant: ff.Claimant{Worker: "w", Instance: "i"}, Lanes: []ff.LaneID{"main"}})
		if err != nil {
			t.Error(err)
		}
		for _, c := range r.Claimed {
			claimed <- c
		}
	}
	// The first claim takes the only execution, the second finds none, then the
	// batch breaks and all of it is undone.
	for i, send := range []func(){claim, claim, func() { _ = s.Break(ctx) }} {
		wg.Go(send)
		eventually(t, "the command waits", func() bool { return s.Queued() == i+1 })
	}
	release()
	wg.Wait()
	if len(claimed) != 1 {
		t.Fatalf("%d claims got the execution", len(claimed))
	}
	if c := <-claimed; c.Execution.ID != id {
		t.Errorf("claimed %s, want %s", c.Execution.ID, id)
	}
}

func TestKeysGrowAcrossAnUndoneBatchAndAReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	s := open(t, path, sqlite.Options{})
	if err := s.BreakAfterKeys(ctx, 10_000); ff.CodeOf(err) != ff.CodeInternal {
		t.Fatalf("got %v", err)
	}
	want := []ff.ExecutionID{submit(t, s, "main", "k")}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, sqlite.Options{})
	want = append(want, submit(t, s, "main", "k"))
	var got []ff.ExecutionID
	for _, x := range must[ff.ListExecutionsResult](t)(s.ListExecutions(ctx, ff.ListExecutions{Oldest: true})).Executions {
		got = append(got, x.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v in the order of creation", got, want)
	}
}

func TestACallerWhoseContextEndsWithdrawsItsCommand(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	release := s.Hold()
	short, cancel := context.WithCancel(ctx)
	got := make(chan error)
	go func() {
		_, err := s.CreateExecution(short, ff.CreateExecution{Lane: "main", Kind: "k"})
		got <- err
	}()
	eventually(t, "the command waits", func() bool { return s.Queued() == 1 })
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	release()
	if list := must[ff.ListExecutionsResult](t)(s.ListExecutions(ctx, ff.ListExecutions{})); len(list.Executions) != 0 {
		t.Errorf("a withdrawn command was run: %+v", list)
	}
}

func TestAClosedStoreAnswersUnavailable(t *testing.T) {
	for _, path := range []string{":memory:", filepath.Join(t.TempDir(), "f.db")} {
		s := open(t, path, sqlite.Options{})
		waiting := make(chan error)
		go func() {
			c := claimOf("i1", "main")
			c.Wait = time.Minute
			_, err := s.Claim(ctx, c)
			waiting <- err
		}()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-waiting; ff.CodeOf(err) != ff.CodeUnavailable {
			t.Errorf("the waiting claim got %v", err)
		}
		if _, err := s.CreateExecution(ctx, ff.CreateExecution{Lane: "main", Kind: "k"}); ff.CodeOf(err) != ff.CodeUnavailable {
			t.Errorf("a command got %v", err)
		}
		if _, err := s.Execution(ctx, ff.NewExecutionID("main", ff.DefaultPartitionConfig)); ff.CodeOf(err) != ff.CodeUnavailable {
			t.Errorf("a read got %v", err)
		}
	}
}

func TestASubmitWakesTheClaimerThatCanTakeIt(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	gpu := must[ff.CapabilitySet](t)(ff.NewCapabilitySet("gpu"))
	able := make(chan ff.ClaimResult)
	poor, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c := claimOf("poor", "main")
		c.Wait = time.Minute
		_, _ = s.Claim(poor, c)
	}()
	go func() {
		c := claimOf("able", "main")
		c.Wait, c.Capabilities = time.Minute, gpu
		r, err := s.Claim(ctx, c)
		if err != nil {
			t.Error(err)
		}
		able <- r
	}()
	policy := ff.DefaultExecutionPolicy()
	policy.Routing = &ff.RoutingRequirements{RequiredCapabilities: gpu}
	created := must[ff.CreateExecutionResult](t)(s.CreateExecution(ctx, ff.CreateExecution{Lane: "main", Kind: "k", Policy: policy}))
	if r := <-able; len(r.Claimed) != 1 || r.Claimed[0].Execution.ID != created.ID {
		t.Errorf("claimed %+v", r)
	}
	cancel()
	<-ended
}

func TestAWokenClaimerThatGivesUpPassesTheWakeUpOn(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	// Whether the first claimer sees its wake-up or its end first is a toss.
	for round := range 20 {
		release := s.Hold()
		short, cancel := context.WithCancel(ctx)
		ended := make(chan struct{})
		got := make(chan ff.ClaimResult, 1)
		secondHold := make(chan func())
		lane := ff.LaneID(fmt.Sprintf("lane%d", round))
		wait := func(ctx context.Context) ff.ClaimResult {
			c := claimOf("i1", lane)
			c.Wait = time.Minute
			r, _ := s.Claim(ctx, c)
			return r
		}
		// All in one batch; the second hold keeps it open until the first claimer,
		// whose first look is in the batch, has been told to end.
		for i, send := range []func(){
			func() { defer close(ended); wait(short) },
			func() { got <- wait(ctx) },
			func() { _, _ = s.CreateExecution(ctx, ff.CreateExecution{Lane: lane, Kind: "k"}) },
			func() { secondHold <- s.Hold() },
		} {
			go send()
			eventually(t, "the command waits", func() bool { return s.Queued() == i+1 })
		}
		release()
		release = <-secondHold
		cancel()
		release()
		start := time.Now()
		if r := <-got; len(r.Claimed) != 1 {
			t.Fatalf("claimed %+v", r)
		}
		if d := time.Since(start); d > 500*time.Millisecond {
			t.Fatalf("the other claimer came by after %s", d)
		}
		<-ended
	}
}

func TestListingsAreMergedInOrderWithCursors(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	var all []ff.ExecutionID
	for i := range 60 {
		all = append(all, submit(t, s, ff.LaneID(fmt.Sprintf("lane%d", i%3)), fmt.Sprintf("kind%d", i%4)))
	}
	for _, oldest := range []bool{true, false} {
		for _, q := range []ff.ListExecutions{{}, {Lane: "lane1"}, {Kind: "kind2"}, {State: ff.StateWaiting}, {Lane: "lane0", Kind: "kind0"}} {
			want := []ff.ExecutionID{}
			for i, id := range all {
				if (q.Lane == "" || q.Lane == ff.LaneID(fmt.Sprintf("lane%d", i%3))) && (q.Kind == "" || q.Kind == fmt.Sprintf("kind%d", i%4)) {
					want = append(want, id)
				}
			}
			if !oldest {
				slices.Reverse(want)
			}
			q.Oldest, q.Limit = oldest, 7
			got := []ff.ExecutionID{}
			for {
				page := must[ff.ListExecutionsResult](t)(s.ListExecutions(ctx, q))
				for _, x := range page.Executions {
					got = append(got, x.ID)
				}
				if q.Cursor = page.Next; q.Cursor == "" {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%+v: got %d ids, want %d, or in another order", q, len(got), len(want))
			}
		}
	}
}

func TestExpiredLeasesAreListedBeforeAndAfterTheyAreMarked(t *testing.T) {
	c := newClock()
	s := open(t, ":memory:", sqlite.Options{Clock: c.Now})
	var want []ff.ExecutionID
	for range 5 {
		submit(t, s, "main", "k")
		want = append(want, claim(t, s, "main").Execution.ID)
		c.add(10 * time.Millisecond)
	}
	c.add(2 * time.Second)
	must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepLeaseExpiry, Limit: 2}))
	var got []ff.ExecutionID
	q := ff.ListExpiredLeases{Limit: 2}
	for {
		page := must[ff.ListExpiredLeasesResult](t)(s.ListExpiredLeases(ctx, q))
		for _, l := range page.Leases {
			got = append(got, l.ID)
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
}

func TestRetentionDeletesEverythingOfAnExecution(t *testing.T) {
	c := newClock()
	s := open(t, ":memory:", sqlite.Options{Clock: c.Now, Retention: time.Hour})
	must[ff.CreateExecutionResult](t)(s.CreateExecution(ctx, ff.CreateExecution{Lane: "main", Kind: "k", Payload: []byte("p"), IdempotencyKey: "key"}))
	x := claim(t, s, "main")
	must[ff.CompleteExecutionResult](t)(s.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: x.Ref(), Result: []byte("r")}))
	idle := must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepRetention}))
	if want := c.Now().Add(time.Hour); idle.Processed != 0 || !idle.Next.Equal(want) {
		t.Errorf("before retention ends: %+v, want nothing done and %s next", idle, want)
	}
	c.add(time.Hour)
	if r := must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepRetention})); r.Processed != 1 || !r.Next.IsZero() {
		t.Errorf("swept %+v", r)
	}
	for _, table := range []string{"executions", "payloads", "results", "attempts", "events", "idempotency"} {
		if rows := must[[]string](t)(s.Rows(ctx, "select count(*) from "+table, 0)); rows[0] != "0" {
			t.Errorf("%s has %s rows left", table, rows[0])
		}
	}
	if lanes := must[[]ff.LaneStatus](t)(s.Lanes(ctx)); len(lanes[0].Counts) != 0 {
		t.Errorf("counts %v", lanes[0].Counts)
	}
}

func TestADeadlineAtTheBeginningOfTimeIsDue(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	id := must[ff.CreateExecutionResult](t)(s.CreateExecution(ctx, ff.CreateExecution{Lane: "main", Kind: "k", Deadline: time.UnixMilli(0)})).ID
	must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepExecutionDeadline}))
	if x := must[ff.Execution](t)(s.Execution(ctx, id)); x.PublicState() != ff.StateExpired {
		t.Errorf("the execution is %s, want expired", x.PublicState())
	}
}

func TestAnExecutionThatChangesStateStaysInItsLanesListing(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "f.db"), sqlite.Options{Synchronous: sqlite.Off})
	var want []ff.ExecutionID
	want = append(want, submit(t, s, "main", "k"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 1000 {
			r, err := s.Claim(ctx, claimOf("i1", "main"))
			if err != nil || len(r.Claimed) != 1 {
				t.Errorf("claimed %+v, %v", r, err)
				return
			}
			if _, err := s.ReleaseExecutions(ctx, ff.ReleaseExecutions{Leases: []ff.LeaseRef{r.Claimed[0].Ref()}}); err != nil {
				t.Error(err)
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		r := must[ff.ListExecutionsResult](t)(s.ListExecutions(ctx, ff.ListExecutions{Lane: "main"}))
		if len(r.Executions) != len(want) {
			t.Errorf("listed %d executions, want %d", len(r.Executions), len(want))
			<-done
			return
		}
	}
}

func TestWatchDueTellsOfSomethingEarlier(t *testing.T) {
	c := newClock()
	s := open(t, ":memory:", sqlite.Options{Clock: c.Now})
	delayed := func(d time.Duration) {
		must[ff.CreateExecutionResult](t)(s.CreateExecution(ctx, ff.CreateExecution{Lane: "main", Kind: "k", Delay: d}))
	}
	due, stop := s.WatchDue(ff.SweepDelayed)
	defer stop()
	delayed(time.Hour)
	<-due
	must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepDelayed}))
	delayed(2 * time.Hour)
	select {
	case <-due:
		t.Error("told of something later")
	default:
	}
	delayed(time.Minute)
	<-due
}

func TestNamesLeasesAndWorkSurviveAReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	s := open(t, path, sqlite.Options{})
	submit(t, s, "main", "k")
	held := claim(t, s, "main")
	second := submit(t, s, "main", "k")
	must[ff.RegisterWorkerResult](t)(s.RegisterWorker(ctx, ff.RegisterWorker{Claimant: ff.Claimant{Worker: "w", Instance: "i1"}, LivenessTTL: time.Minute}))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, sqlite.Options{})
	workers := must[ff.ListWorkersResult](t)(s.ListWorkers(ctx, ff.ListWorkers{}))
	if len(workers.Workers) != 1 || workers.Workers[0].Leases != 1 {
		t.Errorf("workers %+v, want i1 with one lease", workers)
	}
	if got := claim(t, s, "main"); got.Execution.ID != second {
		t.Errorf("claimed %s, want %s", got.Execution.ID, second)
	}
	must[ff.CompleteExecutionResult](t)(s.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: held.Ref()}))
}

func TestAnIdempotencyKeyNamesTheFirstExecutionForItsWindow(t *testing.T) {
	c := newClock()
	s := open(t, ":memory:", sqlite.Options{Clock: c.Now})
	submit := func(namespace ff.Namespace, lane ff.LaneID) ff.CreateExecutionResult {
		return must[ff.CreateExecutionResult](t)(s.CreateExecution(ctx, ff.CreateExecution{
			Namespace: namespace, Lane: lane, Kind: "k", IdempotencyKey: "key"}))
	}
	first := submit("", "main")
	if r := submit("", "main"); !r.Duplicate || r.ID != first.ID || r.State != ff.StateWaiting {
		t.Errorf("repeated: %+v, want a duplicate of %s", r, first.ID)
	}
	if r := submit("other", "main"); r.Duplicate {
		t.Errorf("another namespace: %+v", r)
	}
	// `hot` lives on another partition than `main`.
	if r := submit("", "hot"); r.Duplicate {
		t.Errorf("another partition: %+v", r)
	}
	c.add(ff.IdempotencyWindow)
	if r := submit("", "main"); r.Duplicate {
		t.Errorf("after the window: %+v", r)
	}
}

func TestABatchIsStoredWholeOrNotAtAll(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	id := ff.MakeExecutionID(999, ff.NewExecutionID("main", ff.DefaultPartitionConfig).UUID())
	_, err := s.CreateExecutions(ctx, ff.CreateExecutions{Executions: []ff.CreateExecution{
		{Lane: "main", Kind: "k"}, {ID: id, Lane: "main", Kind: "k"}}})
	if e, ok := ff.AsError(err); !ok || e.Code != ff.CodeInvalidInput || e.Field != "executions[1].execution_id" {
		t.Errorf("got %v", err)
	}
	same := ff.NewExecutionID("main", ff.DefaultPartitionConfig)
	r := must[ff.CreateExecutionsResult](t)(s.CreateExecutions(ctx, ff.CreateExecutions{Executions: []ff.CreateExecution{
		{ID: same, Lane: "main", Kind: "k"}, {ID: same, Lane: "main", Kind: "k"}}}))
	if r.Results[0].Duplicate || !r.Results[1].Duplicate {
		t.Errorf("results %+v", r.Results)
	}
	if list := must[ff.ListExecutionsResult](t)(s.ListExecutions(ctx, ff.ListExecutions{})); len(list.Executions) != 1 {
		t.Errorf("%d executions, want 1", len(list.Executions))
	}
}

func TestAnotherRetentionAfterReopeningCounts(t *testing.T) {
	path, c := filepath.Join(t.TempDir(), "f.db"), newClock()
	s := open(t, path, sqlite.Options{Clock: c.Now, Retention: time.Hour})
	x := submit(t, s, "main", "k")
	must[ff.CancelExecutionResult](t)(s.CancelExecution(ctx, ff.CancelExecution{ID: x}))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, sqlite.Options{Clock: c.Now, Retention: 3 * time.Hour})
	end := c.Now().Add(3 * time.Hour)
	c.add(2 * time.Hour)
	if r := must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepRetention})); r.Processed != 0 || r.More || !r.Next.Equal(end) {
		t.Errorf("swept %+v, want nothing before %s", r, end)
	}
}

func TestReadEventsWaitsForTheNext(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	submit(t, s, "main", "k")
	x := claim(t, s, "main")
	first := must[ff.ReadEventsResult](t)(s.ReadEvents(ctx, ff.ReadEvents{}))
	if len(first.Events) != 1 || first.Next != first.Events[0].Cursor {
		t.Fatalf("read %+v", first)
	}
	got := make(chan ff.ReadEventsResult)
	go func() {
		r, err := s.ReadEvents(ctx, ff.ReadEvents{After: first.Next, Family: ff.FamilyCompletion, Wait: time.Minute})
		if err != nil {
			t.Error(err)
		}
		got <- r
	}()
	must[ff.CompleteExecutionResult](t)(s.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: x.Ref()}))
	if r := <-got; len(r.Events) != 1 || r.Events[0].Outcome != ff.OutcomeSuccess || r.Events[0].ID != x.Execution.ID {
		t.Errorf("read %+v", r)
	}
	if r := must[ff.ReadEventsResult](t)(s.ReadEvents(ctx, ff.ReadEvents{ID: x.Execution.ID, Limit: 1})); len(r.Events) != 1 {
		t.Errorf("of one execution: %+v", r)
	}
	if _, err := s.ReadEvents(ctx, ff.ReadEvents{After: "elsewhere"}); ff.CodeOf(err) != ff.CodeInvalidInput {
		t.Errorf("a foreign cursor got %v", err)
	}
}

func TestCursorsOfOtherPlacesAreRefused(t *testing.T) {
	s := open(t, ":memory:", sqlite.Options{})
	submit(t, s, "main", "k")
	claim(t, s, "main")
	page := must[ff.ReadEventsResult](t)(s.ReadEvents(ctx, ff.ReadEvents{}))
	must[ff.ReadEventsResult](t)(s.ReadEvents(ctx, ff.ReadEvents{After: page.Next}))
	for field, read := range map[string]func() error{
		"after":  func() error { _, err := s.ReadEvents(ctx, ff.ReadEvents{After: page.Next + "0"}); return err },
		"family": func() error { _, err := s.ReadEvents(ctx, ff.ReadEvents{Family: "leases"}); return err },
		"cursor": func() error {
			_, err := s.ListWorkers(ctx, ff.ListWorkers{Namespace: "a", Cursor: "b i1"})
			return err
		},
	} {
		if e, ok := ff.AsError(read()); !ok || e.Code != ff.CodeInvalidInput || e.Field != field {
			t.Errorf("%s: got %v", field, e)
		}
	}
}

func TestEventsOlderThanTheRetentionAreTrimmedAndIdsNeverComeBack(t *testing.T) {
	path, c := filepath.Join(t.TempDir(), "f.db"), newClock()
	s := open(t, path, sqlite.Options{Clock: c.Now, Retention: time.Hour})
	submit(t, s, "main", "k")
	claim(t, s, "main")
	last := must[ff.ReadEventsResult](t)(s.ReadEvents(ctx, ff.ReadEvents{})).Next
	c.add(time.Hour)
	must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepRetention}))
	if r := must[ff.ReadEventsResult](t)(s.ReadEvents(ctx, ff.ReadEvents{})); len(r.Events) != 0 {
		t.Errorf("events left: %+v", r.Events)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, sqlite.Options{Clock: c.Now, Retention: time.Hour})
	must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepLeaseExpiry}))
	if r := must[ff.ReadEventsResult](t)(s.ReadEvents(ctx, ff.ReadEvents{After: last})); len(r.Events) != 1 {
		t.Errorf("after the old cursor: %+v, want the expiry", r)
	}
}

func TestLiveWorkersAreListedWithTheirLeases(t *testing.T) {
	c := newClock()
	s := open(t, ":memory:", sqlite.Options{Clock: c.Now})
	register := func(worker ff.WorkerID, instance ff.WorkerInstanceID, exclusive bool) error {
		_, err := s.RegisterWorker(ctx, ff.RegisterWorker{Claimant: ff.Claimant{Worker: worker, Instance: instance},
			Lanes: []ff.LaneID{"main"}, LivenessTTL: time.Minute, Exclusive: exclusive})
		return err
	}
	for i := range 5 {
		if err := register("w", ff.WorkerInstanceID(fmt.Sprintf("i%d", i)), true); err != nil {
			t.Fatal(err)
		}
	}
	if err := register("w", "i1", true); ff.CodeOf(err) != ff.CodeDuplicateWorkerInstance {
		t.Errorf("an exclusive registration got %v", err)
	}
	if err := register("v", "i1", false); ff.CodeOf(err) != ff.CodeInvalidInput {
		t.Errorf("another worker got %v", err)
	}
	submit(t, s, "main", "k")
	claim(t, s, "main")
	var names []string
	q := ff.ListWorkers{AllNamespaces: true, Limit: 2}
	for {
		r := must[ff.ListWorkersResult](t)(s.ListWorkers(ctx, q))
		for _, w := range r.Workers {
			names = append(names, fmt.Sprintf("%s:%d", w.Instance, w.Leases))
		}
		if q.Cursor = r.Next; q.Cursor == "" {
			break
		}
	}
	if want := []string{"i0:0", "i1:1", "i2:0", "i3:0", "i4:0"}; !slices.Equal(names, want) {
		t.Errorf("workers %v, want %v", names, want)
	}
	c.add(time.Minute)
	if r := must[ff.ListWorkersResult](t)(s.ListWorkers(ctx, ff.ListWorkers{})); len(r.Workers) != 0 {
		t.Errorf("lapsed workers are listed: %+v", r.Workers)
	}
	if r := must[ff.HeartbeatWorkerResult](t)(s.HeartbeatWorker(ctx, ff.HeartbeatWorker{Instance: "i1"})); r.Registered {
		t.Error("a lapsed registration had a heartbeat")
	}
}

func TestGrantsAreKeptForTheGrantee(t *testing.T) {
	c := newClock()
	s := open(t, ":memory:", sqlite.Options{Clock: c.Now})
	id := submit(t, s, "main", "k")
	who := ff.Claimant{Worker: "w", Instance: "i1"}
	g := must[ff.GrantResult](t)(s.GrantNext(ctx, ff.GrantNext{Claimant: who, Lane: "main", TTL: time.Second}))
	if g.ID != id {
		t.Fatalf("granted %+v", g)
	}
	if r := must[ff.ClaimResult](t)(s.Claim(ctx, claimOf("i2", "main"))); len(r.Claimed) != 0 {
		t.Errorf("a granted execution was claimed: %+v", r)
	}
	c.add(2 * time.Second)
	must[ff.SweepResult](t)(s.Sweep(ctx, ff.Sweep{Kind: ff.SweepDelayed}))
	g = must[ff.GrantResult](t)(s.GrantNext(ctx, ff.GrantNext{Claimant: who, Lane: "main", TTL: time.Second}))
	r := must[ff.ClaimGrantedResult](t)(s.ClaimGranted(ctx, ff.ClaimGranted{Claimant: who, ID: g.ID}))
	if r.Claimed.Execution.ID != id || r.Claimed.Execution.LeaseEpoch != 1 {
		t.Errorf("claimed %+v", r)
	}
}
