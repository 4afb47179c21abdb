package worker_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/backend"
	"github.com/flowfabric/flowfabric/engine"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/worker"
)

// The environment of a process that this test binary starts of itself: the URL of the store,
// what it does, and after which call of that it dies, 0 for never.
const (
	mortalStore = "FLOWFABRIC_TEST_STORE"
	mortalWork  = "FLOWFABRIC_TEST_WORK"
	mortalLife  = "FLOWFABRIC_TEST_LIFE"
)

// What a process does: it suspends all executions, signals to all, or completes all.
const (
	doSuspend  = "suspend"
	doSignal   = "signal"
	doComplete = "complete"
)

const mortalExecutions = 40

// mortal is a store whose process is killed with SIGKILL right after the store has
// committed one of the calls, before anybody learns of it.
type mortal struct {
	ff.Backend
	work string
	// mu keeps the other calls from returning while the process is dying.
	mu   sync.Mutex
	life int
}

func (m *mortal) age(work string) {
	if work != m.work {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.life--; m.life != 0 {
		return
	}
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	panic(fmt.Sprint("still alive: ", err))
}

func (m *mortal) SuspendExecution(ctx context.Context, c ff.SuspendExecution) (ff.SuspendExecutionResult, error) {
	r, err := m.Backend.SuspendExecution(ctx, c)
	m.age(doSuspend)
	return r, err
}

func (m *mortal) DeliverSignal(ctx context.Context, c ff.DeliverSignal) (ff.DeliverSignalResult, error) {
	r, err := m.Backend.DeliverSignal(ctx, c)
	m.age(doSignal)
	return r, err
}

func (m *mortal) Claim(ctx context.Context, c ff.Claim) (ff.ClaimResult, error) {
	r, err := m.Backend.Claim(ctx, c)
	m.resumed(r.Claimed)
	return r, err
}

func (m *mortal) CompleteExecution(ctx context.Context, c ff.CompleteExecution) (ff.CompleteExecutionResult, error) {
	r, err := m.Backend.CompleteExecution(ctx, c)
	m.resumed(r.Next.Claimed)
	return r, err
}

func (m *mortal) resumed(claimed []ff.Claimed) {
	for i := range claimed {
		if claimed[i].Resumed {
			m.age(doComplete)
		}
	}
}

// beMortal is the process: it ends when all its work is done, if it lives that long.
func beMortal() int {
	err := func() (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		store, err := backend.Open(ctx, os.Getenv(mortalStore), backend.Options{})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, store.Close()) }()
		m := &mortal{Backend: store, work: os.Getenv(mortalWork)}
		if m.life, err = strconv.Atoi(os.Getenv(mortalLife)); err != nil {
			return err
		}
		if m.work == doSignal {
			return m.signalAll(ctx)
		}
		return m.runAll(ctx)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// runAll runs a worker and the loops until nothing is left to do.
func (m *mortal) runAll(ctx context.Context) error {
	loops, err := engine.New(m.Backend, engine.Options{})
	if err != nil {
		return err
	}
	w, err := worker.Connect(ctx, m, worker.Config{Worker: "mortal", Lanes: []ff.LaneID{"default"}, Concurrency: 8, LeaseTTL: time.Second})
	if err != nil {
		return err
	}
	w.HandleTask("deploy", func(ctx context.Context, t *worker.Task) ([]byte, error) {
		answers, err := t.Await(ctx, "approval", worker.WaitForSignal("approved"))
		return fmt.Appendf(nil, "%q", namesOf(answers)), err
	})
	group, running := errgroup.WithContext(ctx)
	running, stop := context.WithCancel(running)
	group.Go(func() error { return loops.Run(running) })
	group.Go(func() error { return w.Run(running) })
	group.Go(func() error { defer stop(); return m.idle(running) })
	return group.Wait()
}

// idle waits until every execution is where the work of this process ends.
func (m *mortal) idle(ctx context.Context) error {
	want := ff.StateSuspended
	if m.work == doComplete {
		want = ff.StateCompleted
	}
	for after := ff.EventCursor(""); ; {
		lanes, err := m.Lanes(ctx)
		if err != nil || lanes[0].Counts[want] == mortalExecutions {
			return err
		}
		r, err := m.ReadEvents(ctx, ff.ReadEvents{After: after, Wait: 50 * time.Millisecond})
		if err != nil {
			return err
		}
		after = r.Next
	}
}

// signalAll sends one signal to each execution and says, line by line, what the store
// has acknowledged. Whoever sends again has the same idempotency keys.
func (m *mortal) signalAll(ctx context.Context) error {
	list, err := m.ListExecutions(ctx, ff.ListExecutions{Limit: ff.MaxPageLimit})
	if err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(8)
	for i := range list.Executions {
		group.Go(func() error { return m.approve(ctx, list.Executions[i].ID) })
	}
	return group.Wait()
}

func (m *mortal) approve(ctx context.Context, id ff.ExecutionID) error {
	known, err := m.ListWaitpoints(ctx, ff.ListWaitpoints{ID: id, Closed: true})
	if err != nil || len(known.Waitpoints) != 1 {
		return fmt.Errorf("%s has %d waitpoints, %w", id, len(known.Waitpoints), err)
	}
	ref := ff.WaitpointRef{ID: id, WaitpointID: known.Waitpoints[0].ID}
	token, err := m.WaitpointToken(ctx, ref)
	if err != nil {
		return err
	}
	r, err := m.DeliverSignal(ctx, ff.DeliverSignal{ID: id, WaitpointID: ref.WaitpointID, Token: token, Name: "approved", IdempotencyKey: "by ann"})
	if r.Duplicate || ff.CodeOf(err) == ff.CodeTargetNotSignalable {
		fmt.Println("before", id) // what it has sent before has resumed the execution
		return nil
	}
	if err == nil {
		fmt.Println("now", id)
	}
	return err
}

// live runs a process until it dies, or has done its work when life is 0, and returns
// the lines that it printed.
func live(t *testing.T, url, work string, life int) (said []string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), mortalStore+"="+url, mortalWork+"="+work, mortalLife+"="+strconv.Itoa(life))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said = append(said, lines.Text())
	}
	if err := cmd.Wait(); (life > 0) != (err != nil && err.Error() == "signal: killed") {
		t.Fatalf("the process that does %q %d times: %v: %s", work, life, err, stderr.String())
	}
	return said
}

// Processes are killed with SIGKILL between a suspension and its acknowledgement,
// between a signal and its acknowledgement, and between the signal and the handler that
// it resumes, while others of their calls are under way.
func TestWaitsSurviveProcessesThatAreKilled(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { waitsSurvive(t, "sqlite:"+filepath.Join(t.TempDir(), "ff.db")) })
	t.Run("Valkey", func(t *testing.T) { waitsSurvive(t, valkeytest.Start(t).URL()) })
}

func waitsSurvive(t *testing.T, url string) {
	store, err := backend.Open(t.Context(), url, backend.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []ff.ExecutionID
	for range mortalExecutions {
		p := ff.DefaultExecutionPolicy()
		p.MaxReclaims = 1000
		ids = append(ids, submit(t, store, ff.CreateExecution{Kind: "deploy", Policy: p}))
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	live(t, url, doSuspend, 1)
	live(t, url, doSuspend, mortalExecutions/2)
	live(t, url, doSuspend, 0)

	acknowledged := live(t, url, doSignal, mortalExecutions/2)
	again := live(t, url, doSignal, 0)
	for _, line := range acknowledged {
		if id := strings.TrimPrefix(line, "now "); !slices.Contains(again, "before "+id) {
			t.Errorf("the signal to %s was acknowledged before the kill and lost", id)
		}
	}
	if len(again) != mortalExecutions {
		t.Errorf("%d signals were sent again, want %d", len(again), mortalExecutions)
	}

	live(t, url, doComplete, 1)
	live(t, url, doComplete, mortalExecutions/2)
	live(t, url, doComplete, 0)

	if store, err = backend.Open(t.Context(), url, backend.Options{}); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		checkWaited(t, store, id)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

// checkWaited checks that an execution has waited once, was signalled to once, resumed
// once and completed once.
func checkWaited(t *testing.T, b ff.Backend, id ff.ExecutionID) {
	t.Helper()
	result, err := b.ExecutionResult(t.Context(), id)
	if want := `["approved "]`; err != nil || string(result) != want {
		t.Errorf("%s has result %q, %v, want %s", id, result, err, want)
	}
	signals, err := b.ListSignals(t.Context(), ff.ListSignals{ID: id})
	if err != nil || len(signals.Signals) != 1 || signals.Signals[0].Effect != ff.EffectResumed {
		t.Errorf("%s has signals %+v, %v, want one", id, signals.Signals, err)
	}
	events, err := b.ReadEvents(t.Context(), ff.ReadEvents{ID: id, Limit: ff.MaxPageLimit})
	if err != nil {
		t.Fatal(err)
	}
	count := map[ff.EventType]int{}
	for i := range events.Events {
		count[events.Events[i].Type]++
	}
	if count[ff.EventSignal] != 1 || count[ff.EventResumed] != 1 || count[ff.EventCompletion] != 1 {
		t.Errorf("%s has events %v, want one signal, one resumption, one completion", id, count)
	}
}
