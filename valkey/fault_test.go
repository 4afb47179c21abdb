package valkey_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/cenkalti/backoff/v5"
	"github.com/rs/zerolog"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/engine"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
	"github.com/flowfabric/flowfabric/worker"
)

// patience is how long a condition may take to come true.
const patience = 30 * time.Second

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s until %s", patience, what)
		}
		<-tick.C
	}
}

// load is submitters and workers that outlive the faults of their Valkey, and what
// was acknowledged to them.
type load struct {
	t       *testing.T
	url     string
	backend *valkey.Store // for submits and checks

	mu            sync.Mutex
	submitted     map[ff.ExecutionID]string
	completed     map[ff.ExecutionID]string // result, which names the epoch
	submits, ends atomic.Int32
	running       atomic.Int32
	gate          chan struct{} // handlers wait for it
}

// newLoad opens a store at url with an engine and workers, each on a store of its
// own, which the end of the test stops.
func newLoad(t *testing.T, url string, workers int) *load {
	t.Helper()
	l := &load{t: t, url: url, submitted: map[ff.ExecutionID]string{}, completed: map[ff.ExecutionID]string{}, gate: make(chan struct{})}
	l.backend = openStore(t, url, valkey.Options{Partitions: fewPartitions})
	e, err := engine.New(l.backend, engine.Options{LeaseExpiry: 200 * time.Millisecond, Delayed: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	l.background("the engine", e.Run)
	for n := range workers {
		l.work(n)
	}
	return l
}

// background runs something until the end of the test.
func (l *load) background(what string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(l.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	l.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			l.t.Errorf("%s: %v", what, err)
		}
	})
}

const loadSlots = 8

func (l *load) work(n int) {
	l.t.Helper()
	w, err := worker.Connect(l.t.Context(), openStore(l.t, l.url, valkey.Options{}), worker.Config{Worker: "load", Instance: ff.WorkerInstanceID(fmt.Sprintf("load-%d", n)),
		Lanes: []ff.LaneID{"default"}, Concurrency: loadSlots, LeaseTTL: 2 * time.Second, PollInterval: time.Second, DrainTimeout: time.Second})
	if err != nil {
		l.t.Fatal(err)
	}
	w.HandleTask("job", func(ctx context.Context, task *worker.Task) ([]byte, error) {
		l.running.Add(1)
		defer l.running.Add(-1)
		select {
		case <-l.gate:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		result := fmt.Sprintf("%s epoch %d", task.ID(), task.Fence().LeaseEpoch)
		if err := task.Complete(ctx, []byte(result)); err != nil {
			return nil, err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if before, again := l.completed[task.ID()]; again {
			l.t.Errorf("%s was completed as %q and %q, both acknowledged", task.ID(), before, result)
		}
		l.completed[task.ID()] = result
		l.ends.Add(1)
		return nil, nil
	})
	l.background("a worker", w.Run)
}

// submit submits n executions from several goroutines. A submit whose answer is
// lost is repeated with its id.
func (l *load) submit(n int) (wait func()) {
	const submitters = 4
	var all sync.WaitGroup
	for s := range submitters {
		all.Go(func() {
			for i := range n / submitters {
				one := ff.CreateExecution{ID: ff.NewExecutionID("default", fewPartitions), Lane: "default", Kind: "job",
					Payload: fmt.Appendf(nil, "%d/%d", s, i), Policy: &ff.ExecutionPolicy{MaxReclaims: 100}}
				if i%2 == 0 {
					// Any partition may have executions of a lane.
					one.ID = ff.MakeExecutionID(uint16(i/2%int(fewPartitions.Flow)), one.ID.UUID())
				}
				if err := l.insist(one); err != nil {
					l.t.Errorf("submitting: %v", err)
					return
				}
				l.mu.Lock()
				l.submitted[one.ID] = string(one.Payload)
				l.mu.Unlock()
				l.submits.Add(1)
			}
		})
	}
	return all.Wait
}

func (l *load) insist(one ff.CreateExecution) error {
	_, err := backoff.Retry(l.t.Context(), func() (ff.CreateExecutionResult, error) {
		r, err := l.backend.CreateExecution(l.t.Context(), one)
		if err != nil && !ff.IsRetryable(err) {
			err = backoff.Permanent(err)
		}
		return r, err
	}, backoff.WithBackOff(backoff.NewConstantBackOff(5*time.Millisecond)), backoff.WithMaxElapsedTime(patience))
	return err
}

// open lets the handlers go on.
func (l *load) open() { close(l.gate) }

// finish waits until all is completed and compares it with what was acknowledged.
func (l *load) finish() {
	l.t.Helper()
	ctx := l.t.Context()
	l.mu.Lock()
	submitted := len(l.submitted)
	l.mu.Unlock()
	eventually(l.t, "all is completed", func() bool {
		lanes, err := l.backend.Lanes(ctx)
		done := 0
		for i := range lanes {
			if lanes[i].Lane == "default" {
				done = lanes[i].Counts[ff.StateCompleted]
			}
		}
		return err == nil && done >= submitted && l.running.Load() == 0
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	epochs := map[uint64]int{}
	for id, payload := range l.submitted {
		x, err := l.backend.Execution(ctx, id)
		if err != nil || x.PublicState() != ff.StateCompleted {
			l.t.Errorf("%s, acknowledged, is %q, %v", id, x.PublicState(), err)
			continue
		}
		epochs[x.LeaseEpoch]++
		if p, err := l.backend.ExecutionPayload(ctx, id); err != nil || string(p.Payload) != payload {
			l.t.Errorf("%s has payload %q, %v; want %q", id, p.Payload, err, payload)
		}
		want, acknowledged := l.completed[id]
		got, err := l.backend.ExecutionResult(ctx, id)
		if err != nil || acknowledged && string(got) != want {
			l.t.Errorf("%s has result %q, %v; the acknowledged one is %q", id, got, err, want)
		}
		if l.t.Failed() {
			return
		}
	}
	l.t.Logf("%d executions, %d acknowledged completions, by the number of leases %v", submitted, len(l.completed), epochs)
	l.checkLeases()
}

// checkLeases reads the whole log of events: a lease begins only after the one
// before it has ended, and epochs grow by one. So no two are valid at once.
func (l *load) checkLeases() {
	l.t.Helper()
	type lease struct {
		epoch uint64
		held  bool
	}
	leases := map[ff.ExecutionID]*lease{}
	var after ff.EventCursor
	for {
		r, err := l.backend.ReadEvents(l.t.Context(), ff.ReadEvents{After: after, Limit: ff.MaxPageLimit})
		if err != nil {
			l.t.Fatal(err)
		}
		if len(r.Events) == 0 {
			break
		}
		after = r.Next
		for _, e := range r.Events {
			h := leases[e.ID]
			if h == nil {
				h = &lease{}
				leases[e.ID] = h
			}
			switch e.Type {
			case ff.EventAcquired, ff.EventReclaimed:
				if h.held || e.LeaseEpoch != h.epoch+1 {
					l.t.Errorf("%s: lease %d begins while lease %d is held: %v", e.ID, e.LeaseEpoch, h.epoch, h.held)
				}
				h.epoch, h.held = e.LeaseEpoch, true
			case ff.EventLeaseExpired, ff.EventReleased, ff.EventRevoked, ff.EventCompletion:
				if !h.held || e.LeaseEpoch != h.epoch {
					l.t.Errorf("%s: lease %d ends by %s while lease %d is held: %v", e.ID, e.LeaseEpoch, e.Type, h.epoch, h.held)
				}
				h.held = false
			}
		}
	}
	if len(leases) != len(l.submitted) {
		l.t.Errorf("%d executions have events, %d were submitted", len(leases), len(l.submitted))
	}
	for id, h := range leases {
		if h.held {
			l.t.Errorf("%s: lease %d never ended", id, h.epoch)
		}
	}
}

// Valkey is killed in the middle of submits, claims and completions. What it has
// answered is in the append-only file, so it must be there after the restart.
func TestNothingAcknowledgedIsLostWhenValkeyIsKilled(t *testing.T) {
	const executions, kills = 800, 5
	server := valkeytest.Start(t, valkeytest.WithAOF())
	l := newLoad(t, server.URL(), 3)
	l.open()
	wait := l.submit(executions)
	for k := range kills {
		// Kills come in the middle of submits, and the last ones of completions.
		eventually(t, "enough is done", func() bool {
			return int(l.submits.Load()) >= executions*(k+1)/(kills+1) || int(l.ends.Load()) >= executions*(k+1)/(kills+1)
		})
		server.Kill()
		server.Restart()
	}
	wait()
	l.finish()
}

// Executions that workers hold while Valkey is away are completed by those workers:
// the leases are in the file too.
func TestHeldExecutionsSurviveValkey(t *testing.T) {
	server := valkeytest.Start(t, valkeytest.WithAOF())
	l := newLoad(t, server.URL(), 2)
	l.submit(100)()
	eventually(t, "the workers hold what they can", func() bool { return l.running.Load() == 2*loadSlots })
	server.Kill()
	server.Restart()
	l.open()
	l.finish()
}

// A call that meets a server without functions loads them and is repeated; whoever
// calls meanwhile waits for that.
func TestNoCallerNoticesThatFunctionsWereFlushed(t *testing.T) {
	const callers, flushes = 16, 12
	server := valkeytest.Start(t)
	s := openStore(t, server.URL(), valkey.Options{Partitions: fewPartitions})
	var calls atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	for n := range callers {
		all.Go(func() {
			who := ff.Claimant{Worker: "w", Instance: ff.WorkerInstanceID(fmt.Sprintf("i-%d", n))}
			lane := ff.LaneID(fmt.Sprintf("lane-%d", n))
			for ctx.Err() == nil && !t.Failed() {
				if err := roundTrip(t.Context(), s, who, lane); err != nil {
					t.Errorf("a caller notices: %v", err)
				}
				calls.Add(1)
			}
		})
	}
	for range flushes {
		before := calls.Load()
		eventually(t, "callers go on", func() bool { return calls.Load() >= before+callers || t.Failed() })
		if err := server.Do("FUNCTION", "FLUSH", "SYNC").Error(); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	all.Wait()
	t.Logf("%d round trips", calls.Load())
}

// roundTrip does with one execution what everybody does.
func roundTrip(ctx context.Context, s ff.Backend, who ff.Claimant, lane ff.LaneID) error {
	created, err := s.CreateExecution(ctx, ff.CreateExecution{Lane: lane, Kind: "k"})
	if err != nil {
		return fmt.Errorf("creating: %w", err)
	}
	r, err := s.Claim(ctx, ff.Claim{Claimant: who, Lanes: []ff.LaneID{lane}})
	if err != nil {
		return fmt.Errorf("claiming: %w", err)
	}
	if len(r.Claimed) != 1 || r.Claimed[0].Execution.ID != created.ID {
		return fmt.Errorf("claimed %d", len(r.Claimed))
	}
	ref := r.Claimed[0].Ref()
	renewed, err := s.RenewLeases(ctx, ff.RenewLeases{Leases: []ff.LeaseRef{ref}, TTL: time.Minute})
	if err == nil {
		err = renewed.Renewals[0].Err
	}
	if err != nil {
		return fmt.Errorf("renewing: %w", err)
	}
	if _, err := s.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: ref, Result: []byte("r")}); err != nil {
		return fmt.Errorf("completing: %w", err)
	}
	if _, err := s.Sweep(ctx, ff.Sweep{Kind: ff.SweepDelayed}); err != nil {
		return fmt.Errorf("sweeping: %w", err)
	}
	x, err := s.Execution(ctx, created.ID)
	if err == nil && x.PublicState() != ff.StateCompleted {
		err = fmt.Errorf("it is %s", x.PublicState())
	}
	return err
}

// proxy is a bad network in front of a Valkey.
type proxy struct {
	*toxiproxy.Proxy
	t *testing.T
}

func newProxy(t *testing.T, upstream string) *proxy {
	t.Helper()
	zerolog.SetGlobalLevel(zerolog.Disabled) // toxics have loggers of their own
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := toxiproxy.NewProxy(api, t.Name(), "127.0.0.1:0", upstream)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return &proxy{p, t}
}

func (p *proxy) url(query string) string { return "valkey://" + p.Listen + query }

// add makes the network bad in one way until the returned function is called.
func (p *proxy) add(kind, stream, attributes string) (remove func()) {
	p.t.Helper()
	name := kind + "-" + stream
	toxic := fmt.Sprintf(`{"name":%q,"type":%q,"stream":%q,"toxicity":1,"attributes":%s}`, name, kind, stream, attributes)
	if _, err := p.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
		p.t.Fatal(err)
	}
	return func() {
		if err := p.Toxics.RemoveToxic(context.Background(), name); err != nil {
			p.t.Errorf("removing %s: %v", name, err)
		}
	}
}

// Workers go on through a bad network, and afterwards within seconds.
func TestWorkersGoOnThroughABadNetwork(t *testing.T) {
	for _, toxic := range []struct {
		name, kind, stream, attributes string
		executions                     int
		times                          int // how often it comes and goes
		dead                           bool
	}{
		{"latency with jitter", "latency", "downstream", `{"latency":30,"jitter":25}`, 200, 1, false},
		{"connections reset", "reset_peer", "downstream", `{"timeout":50}`, 300, 4, true},
		{"connections reset at once", "reset_peer", "upstream", `{"timeout":0}`, 300, 4, true},
		{"answers lost", "timeout", "downstream", `{"timeout":0}`, 200, 1, true},
		{"commands lost", "timeout", "upstream", `{"timeout":0}`, 200, 1, true},
		{"little bandwidth", "bandwidth", "downstream", `{"rate":40}`, 200, 1, false},
	} {
		t.Run(toxic.name, func(t *testing.T) {
			t.Parallel()
			server := valkeytest.Start(t)
			p := newProxy(t, server.Addr)
			l := newLoad(t, p.url("?timeout=500ms"), 2)
			l.open()
			wait := l.submit(toxic.executions)
			for n := range toxic.times {
				eventually(t, "enough is done", func() bool { return int(l.ends.Load()) >= toxic.executions*n/(toxic.times+1)+20 })
				remove := p.add(toxic.kind, toxic.stream, toxic.attributes)
				if toxic.dead {
					// As long as it takes a call to give up, so that all connections did.
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					for n := 0; n < 3; n++ {
						if err := l.backend.Ping(ctx); err == nil {
							t.Error("an answer comes through a dead network")
						}
					}
					cancel()
				} else {
					before := l.ends.Load()
					eventually(t, "workers go on meanwhile", func() bool { return l.ends.Load() >= min(before+10, int32(toxic.executions)) })
				}
				remove()
				healed := time.Now()
				before := l.ends.Load()
				eventually(t, "workers go on afterwards", func() bool { return l.ends.Load() >= min(before+10, int32(toxic.executions)) })
				if took := time.Since(healed); took > 6*time.Second {
					t.Errorf("it took workers %s to go on after the network had healed", took)
				}
			}
			wait()
			l.finish()
		})
	}
}

// calls are those that a store makes, of every kind: functions, reads that the
// client would repeat, pipelines over all partitions, calls that wait.
func calls(s *valkey.Store) map[string]func(context.Context) error {
	id := ff.NewExecutionID("default", fewPartitions)
	ref := ff.LeaseRef{ID: id, Fence: ff.Fence{LeaseID: ff.NewLeaseID(), LeaseEpoch: 1, AttemptID: ff.NewAttemptID()}}
	return map[string]func(context.Context) error{
		"ping": s.Ping,
		"now":  func(ctx context.Context) error { _, err := s.Now(ctx); return err },
		"create": func(ctx context.Context) error {
			_, err := s.CreateExecution(ctx, ff.CreateExecution{Lane: "default", Kind: "k"})
			return err
		},
		"read":   func(ctx context.Context) error { _, err := s.Execution(ctx, id); return err },
		"result": func(ctx context.Context) error { _, err := s.ExecutionResult(ctx, id); return err },
		"claim": func(ctx context.Context) error {
			_, err := s.Claim(ctx, ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{"default"}})
			return err
		},
		"claim that waits": func(ctx context.Context) error {
			_, err := s.Claim(ctx, ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{"nothing"}, Wait: 20 * time.Second})
			return err
		},
		"renew": func(ctx context.Context) error {
			_, err := s.RenewLeases(ctx, ff.RenewLeases{Leases: []ff.LeaseRef{ref}, TTL: time.Minute})
			return err
		},
		"complete": func(ctx context.Context) error {
			_, err := s.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: ref})
			return err
		},
		"list":           func(ctx context.Context) error { _, err := s.ListExecutions(ctx, ff.ListExecutions{}); return err },
		"list partition": func(ctx context.Context) error { _, err := s.ListPartition(ctx, ff.ListPartition{}); return err },
		"lanes":          func(ctx context.Context) error { _, err := s.Lanes(ctx); return err },
		"expired leases": func(ctx context.Context) error {
			_, err := s.ListExpiredLeases(ctx, ff.ListExpiredLeases{})
			return err
		},
		"sweep":     func(ctx context.Context) error { _, err := s.Sweep(ctx, ff.Sweep{Kind: ff.SweepDelayed}); return err },
		"reconcile": func(ctx context.Context) error { _, err := s.Sweep(ctx, ff.Sweep{Kind: ff.SweepIndex}); return err },
		"events":    func(ctx context.Context) error { _, err := s.ReadEvents(ctx, ff.ReadEvents{}); return err },
		"workers":   func(ctx context.Context) error { _, err := s.ListWorkers(ctx, ff.ListWorkers{}); return err },
	}
}

// together makes calls at once and says how long each took.
func together(ctx context.Context, s *valkey.Store, check func(what string, took time.Duration, err error)) {
	var all sync.WaitGroup
	for what, call := range calls(s) {
		all.Go(func() {
			began := time.Now()
			err := call(ctx)
			check(what, time.Since(began), err)
		})
	}
	all.Wait()
}

// A connection through which nothing comes any more is given up after the timeout
// of the URL, whatever waits on it, and also one that is being made.
func TestABlackHoleIsGivenUpAfterTheTimeout(t *testing.T) {
	const timeout = time.Second
	for _, stream := range []string{"upstream", "downstream"} {
		t.Run(stream, func(t *testing.T) {
			t.Parallel()
			server := valkeytest.Start(t)
			p := newProxy(t, server.Addr)
			s := openStore(t, p.url("?timeout=1s"), valkey.Options{Partitions: fewPartitions})
			remove := p.add("timeout", stream, `{"timeout":0}`)
			for _, round := range []string{"an open connection", "a connection that is being made"} {
				together(context.Background(), s, func(what string, took time.Duration, err error) {
					if what == "claim that waits" && took < timeout+25*time.Second {
						return
					}
					if code := ff.CodeOf(err); code != ff.CodeTransport && code != ff.CodeUnavailable || !ff.IsRetryable(err) {
						t.Errorf("%s, %s: %v, want a transport error", round, what, err)
					}
					// Some make a few commands one after another.
					if took > 3*timeout {
						t.Errorf("%s, %s: given up after %s", round, what, took)
					}
				})
			}
			remove()
			eventually(t, "commands come through again", func() bool { return s.Ping(t.Context()) == nil })
		})
	}
}

// Who gives a context with a deadline, or cancels it, gets back control in time,
// on a connection that is open as on one that is being made for somebody else.
func TestCallsEndWithTheirContext(t *testing.T) {
	for _, end := range []string{"deadline", "cancel"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			server := valkeytest.Start(t)
			p := newProxy(t, server.Addr)
			s := openStore(t, p.url("?timeout=2s"), valkey.Options{Partitions: fewPartitions})
			remove := p.add("timeout", "downstream", `{"timeout":0}`)
			began := time.Now()
			for time.Since(began) < 4*time.Second { // past the end of the open connection
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				if end == "cancel" {
					ctx, cancel = context.WithCancel(t.Context())
					time.AfterFunc(200*time.Millisecond, cancel)
				}
				together(ctx, s, func(what string, took time.Duration, err error) {
					if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) && ff.CodeOf(err) != ff.CodeTransport {
						t.Errorf("%s: %v", what, err)
					}
					if took > time.Second {
						t.Errorf("%s ends %s after it began instead of 200ms", what, took)
					}
				})
				cancel()
			}
			remove()
			eventually(t, "commands come through again", func() bool { return s.Ping(t.Context()) == nil })
		})
	}
}

// While no server is there, calls fail after the timeout at the latest.
func TestCallsFailInTimeWhileValkeyIsAway(t *testing.T) {
	server := valkeytest.Start(t)
	s := openStore(t, server.URL()+"?timeout=1s", valkey.Options{Partitions: fewPartitions})
	server.Kill()
	together(context.Background(), s, func(what string, took time.Duration, err error) {
		if code := ff.CodeOf(err); code != ff.CodeTransport && code != ff.CodeUnavailable {
			t.Errorf("%s: %v, want a transport error", what, err)
		}
		if took > 3*time.Second {
			t.Errorf("%s fails after %s", what, took)
		}
	})
	server.Restart()
	eventually(t, "commands come through again", func() bool { return s.Ping(t.Context()) == nil })
}
