package worker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/outage"
)

const (
	// renewBatch bounds the leases of one renewal call.
	renewBatch = 500
	// interruptGrace is how long interrupted handlers may take to return before
	// their executions are handed back without them.
	interruptGrace = time.Second
)

// leases are the tasks that the worker holds. One loop renews them all: many
// leases travel in one call.
type leases struct {
	w *Worker

	mu   sync.Mutex
	held map[*Task]time.Time // when to renew next
	// trouble is of the renewals, which one loop makes.
	trouble outage.Outage
	// changed is closed and replaced whenever a task leaves.
	changed chan struct{}
}

func newLeases(w *Worker) *leases {
	return &leases{w: w, held: map[*Task]time.Time{}, changed: make(chan struct{})}
}

// interval is the time between two renewals of a lease (spec 10 §8): at least
// the shortest one, and up to a ninth more so that workers do not renew in step.
func (l *leases) interval() time.Duration {
	shortest := l.shortest()
	return shortest + rand.N(shortest/9+1)
}

// shortest is the shortest interval. The loop sleeps no longer: so it need not
// be woken when a task is added, which is not due before.
func (l *leases) shortest() time.Duration { return l.w.cfg.LeaseTTL * 3 / 10 }

func (l *leases) add(t *Task) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[t] = time.Now().Add(l.interval())
}

func (l *leases) remove(t *Task) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, t)
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *leases) all() []*Task {
	l.mu.Lock()
	defer l.mu.Unlock()
	tasks := make([]*Task, 0, len(l.held))
	for t := range l.held {
		tasks = append(tasks, t)
	}
	return tasks
}

// waitIdle waits until no task is held or ctx ends.
func (l *leases) waitIdle(ctx context.Context) {
	for {
		l.mu.Lock()
		n, changed := len(l.held), l.changed
		l.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// due takes the tasks to renew now, together with those that would follow soon,
// and says when to look again.
func (l *leases) due(now time.Time) (tasks []*Task, next time.Duration) {
	soon := now.Add(l.w.cfg.LeaseTTL / 12)
	next = l.shortest()
	l.mu.Lock()
	defer l.mu.Unlock()
	due := false
	for _, at := range l.held {
		due = due || !at.After(now)
		next = min(next, at.Sub(now))
	}
	if !due {
		return nil, next
	}
	next = l.shortest()
	for t, at := range l.held {
		if !at.After(soon) && len(tasks) < renewBatch {
			tasks = append(tasks, t)
			// A call that fails is tried again soon; one that succeeds sets the
			// next time itself.
			l.held[t] = now.Add(l.w.cfg.LeaseTTL / 12)
		}
		next = min(next, l.held[t].Sub(now))
	}
	return tasks, max(0, next)
}

// renewLoop renews leases until ctx ends.
func (l *leases) renewLoop(ctx context.Context) {
	timer := time.NewTimer(l.shortest())
	defer timer.Stop()
	for {
		tasks, next := l.due(time.Now())
		if len(tasks) > 0 {
			l.renew(ctx, tasks)
			continue
		}
		timer.Reset(max(time.Millisecond, next))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
	}
}

// renew makes one call for many leases. A lease that is lost ends its task; an
// unreachable store does not: the lease's own end will.
func (l *leases) renew(ctx context.Context, tasks []*Task) {
	ctx, cancel := context.WithTimeout(ctx, l.w.cfg.LeaseTTL/3)
	defer cancel()
	c := ff.RenewLeases{TTL: l.w.cfg.LeaseTTL, Leases: make([]ff.LeaseRef, len(tasks))}
	for i, t := range tasks {
		c.Leases[i] = t.ref
	}
	sent := time.Now()
	r, err := l.w.store.RenewLeases(ctx, c)
	l.count(ctx, r, len(tasks), err)
	if err == nil && len(r.Renewals) != len(tasks) {
		err = ff.Errorf(ff.CodeInternal, "the store answered for %d of %d leases", len(r.Renewals), len(tasks))
	}
	if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		l.w.report(&l.trouble, sent, err, "renewing leases fails; trying again", "leases are renewed again", "leases", len(tasks))
	}
	if err != nil {
		l.w.sleep(ctx, l.w.cfg.LeaseTTL/24)
		return
	}
	for i, renewal := range r.Renewals {
		if renewal.Err != nil {
			tasks[i].lose(renewal.Err)
			continue
		}
		tasks[i].renewed(sent.Add(l.w.cfg.LeaseTTL))
		l.mu.Lock()
		if _, held := l.held[tasks[i]]; held {
			l.held[tasks[i]] = time.Now().Add(l.interval())
		}
		l.mu.Unlock()
	}
}

func (l *leases) count(ctx context.Context, r ff.RenewLeasesResult, sent int, err error) {
	failed := 0
	for _, renewal := range r.Renewals {
		if renewal.Err != nil {
			failed++
		}
	}
	if err != nil {
		failed = sent
	}
	for outcome, n := range map[string]int{"ok": sent - failed, "error": failed} {
		if n > 0 {
			l.w.instruments.renewals.Add(ctx, int64(n), metric.WithAttributes(attribute.String("outcome", outcome)))
		}
	}
}

// handBack interrupts the tasks that are left and releases what they do not give
// back themselves.
func (l *leases) handBack(ctx context.Context) error {
	tasks := l.all()
	if len(tasks) == 0 {
		return nil
	}
	for _, t := range tasks {
		t.interrupt(ErrDraining)
	}
	grace, cancel := context.WithTimeout(ctx, interruptGrace)
	l.waitIdle(grace)
	cancel()
	var failed error
	for batch := range slices.Chunk(l.all(), renewBatch) {
		err := l.release(ctx, batch)
		for _, t := range batch {
			t.giveUp(ErrDraining)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("handing back %d executions (their leases will run out): %w", len(batch), err))
			continue
		}
		l.w.log.Info("handed unfinished executions back", "executions", len(batch))
	}
	return failed
}

// release hands executions back in one call, which is repeated when the store
// does not answer. An execution that was handed back by then is not held any
// more, and refusing it does no harm.
func (l *leases) release(ctx context.Context, tasks []*Task) error {
	c := ff.ReleaseExecutions{Reason: "worker_shutdown"}
	for _, t := range tasks {
		c.Leases = append(c.Leases, t.ref)
	}
	_, err := backoff.Retry(ctx, func() (ff.ReleaseExecutionsResult, error) {
		r, err := l.w.store.ReleaseExecutions(ctx, c)
		if err != nil && !unreachable(err) {
			err = backoff.Permanent(err)
		}
		return r, err
	}, backoff.WithBackOff(pauses(20*time.Millisecond, time.Second)), backoff.WithMaxElapsedTime(handBackTimeout/2))
	return err
}
