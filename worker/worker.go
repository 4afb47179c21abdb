// Package worker is the SDK for people who write workers.
//
//	w, err := worker.Connect(ctx, store, worker.Config{Worker: "mailer", Lanes: []flowfabric.LaneID{"mail"}})
//	worker.Handle(w, "send", func(ctx context.Context, in Mail) (Receipt, error) { … })
//	err = w.Run(ctx)
//
// A handler is ordinary code. Its context ends when the work must stop: the
// lease was lost, the execution was cancelled or timed out, or the worker shuts
// down; [context.Cause] says which. What the handler returns decides what becomes
// of the execution: a result completes it, an error fails the attempt and the
// execution's policy decides whether another follows. [Permanent], [RetryAfter],
// [Delay] and [Cancel] are the other ends.
package worker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.opentelemetry.io/otel/metric"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/outage"
	"github.com/flowfabric/flowfabric/scheduler"
)

// Config says who a worker is and how it works. Only Worker and Lanes are
// required.
type Config struct {
	// Worker names the worker: all processes that run the same code.
	Worker ff.WorkerID
	// Instance names this process; the default is made of the host name, the
	// process id and a random part. Two live processes cannot share one.
	Instance ff.WorkerInstanceID
	// Namespace is that of the registration, not a filter on what is claimed. The
	// default is DefaultNamespace.
	Namespace ff.Namespace
	// Lanes are served in turn.
	Lanes        []ff.LaneID
	Capabilities []string
	// LeaseTTL is how long an execution stays with a worker that has gone
	// silent; leases are renewed every third of it. The default is 30 s.
	LeaseTTL time.Duration
	// Concurrency is the number of tasks at a time. The default is 1.
	Concurrency int
	// PollInterval is the safety net: the longest that the worker goes without
	// asking for work when no wake-up reaches it. The default is 10 s.
	PollInterval time.Duration
	// DrainTimeout is how long running tasks may go on when the worker stops;
	// then they are interrupted and handed back. The default is 10 s.
	DrainTimeout time.Duration
	Logger       *slog.Logger
	// Meter gets the metrics of the worker: claims, ends of attempts, renewals,
	// and how often all slots were busy.
	Meter metric.Meter
}

// DefaultNamespace is where workers register when nothing else is said.
const DefaultNamespace ff.Namespace = "default"

const (
	defaultPollInterval = 10 * time.Second
	defaultDrainTimeout = 10 * time.Second
	maxConcurrency      = 100_000
	// handBackTimeout bounds the calls that a stopping worker still makes.
	handBackTimeout = 10 * time.Second
)

func (c *Config) validate() (ff.CapabilitySet, error) {
	if len(c.Lanes) == 0 {
		return ff.CapabilitySet{}, ff.InvalidInput("lanes", "at least one lane is required")
	}
	caps, err := ff.NewCapabilitySet(c.Capabilities...)
	if err != nil {
		return caps, err
	}
	c.Lanes = slices.Clone(c.Lanes)
	if c.Instance == "" {
		c.Instance = newInstance()
	}
	if c.Namespace == "" {
		c.Namespace = DefaultNamespace
	}
	if c.LeaseTTL == 0 {
		c.LeaseTTL = ff.DefaultLeaseTTL
	}
	if c.Concurrency == 0 {
		c.Concurrency = 1
	}
	if c.PollInterval == 0 {
		c.PollInterval = defaultPollInterval
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = defaultDrainTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case c.Concurrency < 0 || c.Concurrency > maxConcurrency:
		return caps, ff.InvalidInput("concurrency", "must be 1 to %d (got %d)", maxConcurrency, c.Concurrency)
	case c.PollInterval < 0 || c.PollInterval > ff.MaxClaimWait:
		return caps, ff.InvalidInput("poll_interval", "must be at most %s (got %s)", ff.MaxClaimWait, c.PollInterval)
	case c.DrainTimeout < 0:
		return caps, ff.InvalidInput("drain_timeout", "must not be negative (got %s)", c.DrainTimeout)
	}
	claim := ff.Claim{Claimant: ff.Claimant{Worker: c.Worker, Instance: c.Instance}, Lanes: c.Lanes, LeaseTTL: c.LeaseTTL}
	return caps, claim.Validate()
}

func newInstance() ff.WorkerInstanceID {
	host, err := os.Hostname()
	if err != nil || ff.WorkerInstanceID(host).Validate() != nil {
		host = "host"
	}
	var random [4]byte
	_, _ = rand.Read(random[:])
	return ff.WorkerInstanceID(fmt.Sprintf("%.128s-%d-%s", host, os.Getpid(), hex.EncodeToString(random[:])))
}

// Worker claims executions and runs handlers. Make one with Connect, and end it
// with Close.
type Worker struct {
	cfg      Config
	claimant ff.Claimant
	store    ff.Backend
	claims   *scheduler.Scheduler
	log      *slog.Logger
	slots    chan struct{}
	leases   *leases

	instruments instruments

	mu         sync.Mutex
	handlers   map[string]Handler
	middleware []Middleware
	// wrapped are the handlers with their middleware, made when first needed.
	wrapped map[string]Handler

	// claiming is held for reading by every claim until its tasks are known. A
	// claim that comes with a completion needs none: the completed task is held
	// until the next is known.
	claiming sync.RWMutex

	// drain is done when no more is claimed; stop ends the background loops.
	drain      context.Context
	startDrain context.CancelFunc
	stop       context.CancelFunc
	loops      sync.WaitGroup
	serving    sync.WaitGroup
	closing    sync.Once
	closeErr   error
}

// ErrDraining is the cause of a task context that ended because the worker
// stops. An error that the handler returns then is no failure: the execution is
// handed back, and another worker goes on with the attempt.
var ErrDraining = errors.New("the worker is shutting down")

// ErrTimeout is the cause of a task context that ended because the attempt
// timeout or the deadline of its execution has passed. The store itself ends the
// attempt then: an error that the handler returns is not stored.
var ErrTimeout = errors.New("the attempt timeout or the deadline of the execution has passed")

// Connect registers a worker with a store. Errors: invalid_input for a bad
// Config, before anything is written; duplicate_worker_instance when another
// live process has the instance id.
func Connect(ctx context.Context, store ff.Backend, cfg Config) (*Worker, error) {
	caps, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	claims, err := scheduler.New(store, scheduler.Options{Meter: cfg.Meter})
	if err != nil {
		return nil, err
	}
	instruments, err := newInstruments(cfg.Meter)
	if err != nil {
		return nil, err
	}
	w := &Worker{
		cfg: cfg, store: store, claims: claims,
		claimant: ff.Claimant{Worker: cfg.Worker, Instance: cfg.Instance, Capabilities: caps},
		log:      cfg.Logger.With("worker_id", cfg.Worker, "worker_instance_id", cfg.Instance),
		slots:    make(chan struct{}, cfg.Concurrency),
		handlers: map[string]Handler{}, instruments: instruments,
	}
	if err := w.register(ctx); err != nil {
		return nil, err
	}
	loops, stop := context.WithCancel(context.WithoutCancel(ctx))
	w.stop = stop
	w.drain, w.startDrain = context.WithCancel(context.WithoutCancel(ctx))
	w.leases = newLeases(w)
	w.loops.Go(func() { w.leases.renewLoop(loops) })
	w.loops.Go(func() { w.heartbeatLoop(loops) })
	if !caps.IsZero() {
		w.log.Info("worker connected", "capabilities", caps.CSV(), "capabilities_hash", caps.Digest())
	}
	return w, nil
}

// livenessTTL is how long the registration outlives the last heartbeat
// (spec 10 §3.1).
func (w *Worker) livenessTTL() time.Duration { return max(time.Second, 2*w.cfg.LeaseTTL) }

func (w *Worker) register(ctx context.Context) error {
	_, err := w.store.RegisterWorker(ctx, ff.RegisterWorker{
		Claimant: w.claimant, Namespace: w.cfg.Namespace, Lanes: w.cfg.Lanes, LivenessTTL: w.livenessTTL(), Exclusive: true,
	})
	if errors.Is(err, ff.ErrDuplicateWorkerInstance) {
		return ff.Errorf(ff.CodeDuplicateWorkerInstance, "duplicate worker_instance_id '%s': another live process holds it; choose another or wait until it has lapsed: %w", w.cfg.Instance, err)
	}
	return err
}

// heartbeatLoop keeps the registration alive and registers again when it has
// lapsed, for example while the store was away.
func (w *Worker) heartbeatLoop(ctx context.Context) {
	tick := time.NewTicker(w.livenessTTL() / 3)
	defer tick.Stop()
	var trouble outage.Outage
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		began := time.Now()
		r, err := w.store.HeartbeatWorker(ctx, ff.HeartbeatWorker{Namespace: w.cfg.Namespace, Instance: w.cfg.Instance})
		if err == nil && !r.Registered {
			err = w.register(ctx)
		}
		if ctx.Err() == nil {
			w.report(&trouble, began, err, "heartbeat fails; trying again", "heartbeats work again")
		}
	}
}

// report logs what a call does when it begins to fail and when it works again,
// not each time.
func (w *Worker) report(o *outage.Outage, began time.Time, err error, fails, works string, attrs ...any) {
	if err != nil {
		if o.Failed() {
			w.log.Warn(fails, append(attrs, "err", err)...)
		} else {
			w.log.Debug(fails, append(attrs, "err", err)...)
		}
		return
	}
	if failed, lasted, ended := o.Worked(began); ended {
		w.log.Info(works, "failed_calls", failed, "lasted", lasted.Round(time.Millisecond))
	}
}

// Instance is the id of this process.
func (w *Worker) Instance() ff.WorkerInstanceID { return w.cfg.Instance }

// Claim waits for a free slot and an execution, and returns it as a task. It is
// for workers that want a loop of their own; Run does it for handlers. The task
// must be ended with one of its methods. Errors: that of ctx, ErrDraining after
// Close, those of the store; it may be called again after an error.
func (w *Worker) Claim(ctx context.Context) (*Task, error) {
	if err := w.acquireSlot(ctx); err != nil {
		return nil, err
	}
	for {
		var task *Task
		_, err := w.claim(ctx, claim{max: 1, wait: w.cfg.PollInterval}, func(t *Task) { task = t })
		if task != nil {
			return task, nil
		}
		if err != nil {
			<-w.slots
			return nil, err
		}
	}
}

// RunOne claims one execution, if there is one now, runs its handler to the end
// and reports whether there was one. It is for tests and for workers that are
// started by a timer. Errors: those of Claim; an error of the handler is not one.
func (w *Worker) RunOne(ctx context.Context) (bool, error) {
	if err := w.acquireSlot(ctx); err != nil {
		return false, err
	}
	var task *Task
	_, err := w.claim(ctx, claim{max: 1, served: true}, func(t *Task) {
		task = t
		w.serving.Add(1)
	})
	if task == nil {
		<-w.slots
		return false, err
	}
	defer w.serving.Done()
	defer func() { <-w.slots }()
	w.serve(task) //nolint:contextcheck // a task has a context of its own
	return true, nil
}

func (w *Worker) acquireSlot(ctx context.Context) error {
	if w.drain.Err() != nil {
		return ErrDraining
	}
	select {
	case w.slots <- struct{}{}:
		return nil
	default:
		w.instruments.atCapacity.Add(ctx, 1)
	}
	select {
	case w.slots <- struct{}{}:
		return nil
	case <-w.drain.Done():
		return ErrDraining
	case <-ctx.Done():
		return ctx.Err()
	}
}

// claim is what the worker asks the store for: up to max executions, for which
// the caller holds slots. Served tasks keep their slot until the handler returns.
type claim struct {
	max    int
	wait   time.Duration
	served bool
}

// request is a claim in the words of the store.
func (w *Worker) request(c claim) ff.Claim {
	return ff.Claim{Claimant: w.claimant, Lanes: w.cfg.Lanes, Max: min(c.max, ff.MaxClaim), LeaseTTL: w.cfg.LeaseTTL, Wait: c.wait}
}

// claim gives each claimed task to take, before Close can overlook it.
func (w *Worker) claim(ctx context.Context, c claim, take func(*Task)) (n int, err error) {
	w.claiming.RLock()
	defer w.claiming.RUnlock()
	if w.drain.Err() != nil {
		return 0, ErrDraining
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.drain, cancel)() //nolint:contextcheck // ends with either
	r, err := w.claims.Claim(ctx, w.request(c))
	if err != nil {
		if w.drain.Err() != nil {
			return 0, ErrDraining
		}
		return 0, err
	}
	got := time.Now()
	for i := range r.Claimed {
		take(newTask(w, &r.Claimed[i], r.Now, got, c.served))
	}
	return len(r.Claimed), nil
}

// pauses are the growing pauses between the tries of a call.
func pauses(first, longest time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = first, longest
	return b
}

// Run claims executions and runs their handlers until ctx ends or Close is
// called; then it drains and closes the worker. A slot whose task is completed asks
// for its next one in the call that completes it. An unreachable store does not
// end it: it tries again with a growing pause. It returns nil after a clean
// stop.
func (w *Worker) Run(ctx context.Context) error {
	pause := pauses(50*time.Millisecond, 5*time.Second)
	var trouble outage.Outage
	for {
		if err := w.acquireSlot(ctx); err != nil {
			break
		}
		held := 1 + w.freeSlots()
		began := time.Now()
		n, err := w.claim(ctx, claim{max: held, wait: w.cfg.PollInterval, served: true}, func(t *Task) { //nolint:contextcheck // a task has a context of its own
			w.serving.Go(func() { w.occupy(t) })
		})
		for range held - n {
			<-w.slots
		}
		if err != nil && (ctx.Err() != nil || errors.Is(err, ErrDraining)) {
			break
		}
		w.report(&trouble, began, err, "claiming fails; trying again", "claiming works again")
		if err == nil {
			pause.Reset()
			continue
		}
		if !w.sleep(ctx, pause.NextBackOff()) {
			break
		}
	}
	return w.Close(context.WithoutCancel(ctx))
}

// freeSlots takes the slots that are free now, as many as one claim can use.
func (w *Worker) freeSlots() (n int) {
	for n < ff.MaxClaim-1 {
		select {
		case w.slots <- struct{}{}:
			n++
		default:
			return n
		}
	}
	return n
}

// sleep reports whether the worker goes on.
func (w *Worker) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-w.drain.Done():
	case <-ctx.Done():
	}
	return false
}

// Close stops the worker: it claims no more, lets running tasks go on for
// DrainTimeout (less when ctx ends before), interrupts what is left, hands it
// back so that other workers take over at once, and removes the registration.
func (w *Worker) Close(ctx context.Context) error {
	w.closing.Do(func() { w.closeErr = w.close(ctx) })
	return w.closeErr
}

func (w *Worker) close(ctx context.Context) error {
	w.startDrain()
	w.awaitClaims()
	patience, cancel := context.WithTimeout(ctx, w.cfg.DrainTimeout)
	w.leases.waitIdle(patience)
	cancel()
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), handBackTimeout)
	defer cancel()
	errBack := w.leases.handBack(ctx)
	w.waitServing(interruptGrace)
	w.stop()
	w.loops.Wait()
	_, err := w.store.MarkWorkerDead(ctx, ff.MarkWorkerDead{Namespace: w.cfg.Namespace, Instance: w.cfg.Instance, Reason: "shutdown"})
	if err != nil {
		err = fmt.Errorf("removing the registration: %w", err)
	}
	return errors.Join(errBack, err)
}

// awaitClaims waits for the claims that were under way when the drain began.
func (w *Worker) awaitClaims() {
	w.claiming.Lock()
	defer w.claiming.Unlock()
}

// waitServing waits for the goroutines of handlers, but not for a handler that
// ignores the end of its context.
func (w *Worker) waitServing(patience time.Duration) {
	ended := make(chan struct{})
	go func() { w.serving.Wait(); close(ended) }()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		w.log.Error("a handler ignores the end of its context; its execution was handed back")
	}
}
