package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v5"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/worker"
)

// crash is one run against a server process that is killed again and again. The
// worker and the submitters outlive it.
type crash struct {
	store, listen string
	server        *daemon
	backend       ff.Backend
	submitted     sync.Map     // id → payload, once the submit was acknowledged
	completed     sync.Map     // id → result, once the completion was acknowledged
	submits, ends atomic.Int32 // the sizes of the maps
	gate          chan struct{}
}

const (
	crashExecutions = 2000
	crashSubmitters = 8
	crashSlots      = 32
)

func newCrash(t *testing.T) *crash {
	t.Helper()
	c := &crash{store: filepath.Join(t.TempDir(), "ff.db"), gate: make(chan struct{})}
	var base string
	c.server, base = serve(t, c.store, "127.0.0.1:0")
	c.listen = base[len("http://"):]
	remote, err := client.New(base, client.WithRetries(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = remote.Close() })
	c.backend = remote.Backend()
	return c
}

// kill kills the server with SIGKILL and starts it again on the same file and
// port.
func (c *crash) kill(t *testing.T) {
	t.Helper()
	if err := c.server.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.server.wait()
	c.server, _ = serve(t, c.store, c.listen)
}

// work runs a worker whose handlers wait for the gate. Stop ends it.
func (c *crash) work(t *testing.T) (stop func()) {
	t.Helper()
	w, err := worker.Connect(t.Context(), c.backend, worker.Config{Worker: "crash", Lanes: []ff.LaneID{"default"}, Concurrency: crashSlots,
		LeaseTTL: 2 * time.Second, PollInterval: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	w.HandleTask("job", func(ctx context.Context, task *worker.Task) ([]byte, error) {
		select {
		case <-c.gate:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		result := fmt.Sprintf("%s epoch %d", task.ID(), task.Fence().LeaseEpoch)
		if err := task.Complete(ctx, []byte(result)); err != nil {
			return nil, err
		}
		if _, again := c.completed.Swap(task.ID(), result); again {
			t.Errorf("%s was completed twice", task.ID())
		}
		c.ends.Add(1)
		return nil, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	running := make(chan error, 1)
	go func() { running <- w.Run(ctx) }()
	return func() {
		cancel()
		if err := <-running; err != nil {
			t.Errorf("the worker: %v", err)
		}
	}
}

// submitAll submits from several goroutines. A submit whose answer is lost is
// repeated with its id.
func (c *crash) submitAll(t *testing.T) (wait func()) {
	var all sync.WaitGroup
	for s := range crashSubmitters {
		all.Go(func() {
			for i := range crashExecutions / crashSubmitters {
				one := ff.CreateExecution{ID: ff.NewExecutionID("default", ff.DefaultPartitionConfig), Lane: "default", Kind: "job",
					Payload: fmt.Appendf(nil, "%d/%d", s, i)}
				if err := c.submit(t.Context(), one); err != nil {
					t.Errorf("submitting: %v", err)
					return
				}
				c.submitted.Store(one.ID, string(one.Payload))
				c.submits.Add(1)
			}
		})
	}
	return all.Wait
}

func (c *crash) submit(ctx context.Context, one ff.CreateExecution) error {
	_, err := backoff.Retry(ctx, func() (ff.CreateExecutionResult, error) {
		r, err := c.backend.CreateExecution(ctx, one)
		if err != nil && !ff.IsRetryable(err) {
			err = backoff.Permanent(err)
		}
		return r, err
	}, backoff.WithBackOff(backoff.NewConstantBackOff(5*time.Millisecond)), backoff.WithMaxElapsedTime(patience))
	return err
}

func (c *crash) count(t *testing.T, s ff.PublicState) int {
	t.Helper()
	lanes, err := c.backend.Lanes(t.Context())
	if err != nil || len(lanes) != 1 {
		t.Fatalf("lanes %+v, %v", lanes, err)
	}
	return lanes[0].Counts[s]
}

// finish waits for the end and checks everything that was acknowledged.
func (c *crash) finish(t *testing.T, stop func()) {
	t.Helper()
	eventually(t, "everything is completed", func() bool { return c.count(t, ff.StateCompleted) == crashExecutions })
	stop()
	n := 0
	c.submitted.Range(func(id, payload any) bool {
		n++
		checkSurvivor(t, c.backend, id.(ff.ExecutionID), payload.(string), &c.completed)
		return !t.Failed()
	})
	if n != crashExecutions {
		t.Errorf("%d executions were acknowledged", n)
	}
	checkLeases(t, c.backend)
	c.server.stop(t)
}

// The server is killed in the middle of submits, claims and completions.
func TestNothingAcknowledgedIsLostWhenTheServerIsKilled(t *testing.T) {
	const kills = 3
	c := newCrash(t)
	close(c.gate)
	stop := c.work(t)
	wait := c.submitAll(t)
	for k := range kills {
		eventually(t, "enough is submitted", func() bool { return int(c.submits.Load()) >= crashExecutions*(k+1)/(kills+1) })
		c.kill(t)
	}
	wait()
	c.finish(t, stop)
}

// The server is killed while all executions are in flight and the worker holds
// as many as it can, then in the middle of their completions.
func TestExecutionsInFlightSurviveTheServer(t *testing.T) {
	const kills = 3
	c := newCrash(t)
	stop := c.work(t)
	c.submitAll(t)()
	eventually(t, "the worker holds what it can", func() bool { return c.count(t, ff.StateActive) == crashSlots })
	if waiting := c.count(t, ff.StateWaiting); waiting != crashExecutions-crashSlots {
		t.Errorf("%d executions wait before the first kill", waiting)
	}
	c.kill(t)
	close(c.gate)
	for k := range kills {
		eventually(t, "enough is completed", func() bool { return int(c.ends.Load()) >= crashExecutions*(k+1)/(kills+1) })
		c.kill(t)
	}
	c.finish(t, stop)
}

func checkSurvivor(t *testing.T, b ff.Backend, id ff.ExecutionID, payload string, completed *sync.Map) {
	t.Helper()
	x, err := b.Execution(t.Context(), id)
	if err != nil || x.PublicState() != ff.StateCompleted {
		t.Errorf("%s, acknowledged, is %s, %v", id, x.PublicState(), err)
		return
	}
	if p, err := b.ExecutionPayload(t.Context(), id); err != nil || string(p.Payload) != payload {
		t.Errorf("%s has payload %q, %v; want %q", id, p.Payload, err, payload)
	}
	want, acknowledged := completed.Load(id)
	got, err := b.ExecutionResult(t.Context(), id)
	if err != nil || acknowledged && string(got) != want {
		t.Errorf("%s has result %q, %v; the acknowledged one is %q", id, got, err, want)
	}
}

// checkLeases reads the whole event log: a lease begins only after the one
// before it has ended, and epochs grow by one.
func checkLeases(t *testing.T, b ff.Backend) {
	t.Helper()
	type lease struct {
		epoch uint64
		held  bool
	}
	leases := map[ff.ExecutionID]*lease{}
	var after ff.EventCursor
	for {
		r, err := b.ReadEvents(t.Context(), ff.ReadEvents{After: after, Limit: ff.MaxPageLimit})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Events) == 0 {
			break
		}
		after = r.Next
		for _, e := range r.Events {
			l := leases[e.ID]
			if l == nil {
				l = &lease{}
				leases[e.ID] = l
			}
			switch e.Type {
			case ff.EventAcquired, ff.EventReclaimed:
				if l.held || e.LeaseEpoch != l.epoch+1 {
					t.Errorf("%s: lease %d begins while lease %d is held: %v", e.ID, e.LeaseEpoch, l.epoch, l.held)
				}
				l.epoch, l.held = e.LeaseEpoch, true
			case ff.EventLeaseExpired, ff.EventReleased, ff.EventRevoked, ff.EventCompletion:
				if !l.held || e.LeaseEpoch != l.epoch {
					t.Errorf("%s: lease %d ends by %s while lease %d is held: %v", e.ID, e.LeaseEpoch, e.Type, l.epoch, l.held)
				}
				l.held = false
			}
		}
	}
	for id, l := range leases {
		if l.held {
			t.Errorf("%s: lease %d never ended", id, l.epoch)
		}
	}
}
