package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/worker"
)

// The server process is killed with SIGKILL in the middle of submits, claims and
// completions, and started again on the same file: what it acknowledged stays,
// everything ends, and no execution ever had two valid leases.
func TestNothingAcknowledgedIsLostWhenTheServerIsKilled(t *testing.T) {
	const executions, submitters, kills = 2000, 8, 3
	store := filepath.Join(t.TempDir(), "ff.db")
	server, base := serve(t, store, "127.0.0.1:0")
	listen := base[len("http://"):]
	c, err := client.New(base, client.WithRetries(100))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := c.Backend()

	// Workers that outlive the server.
	w, err := worker.Connect(t.Context(), b, worker.Config{Worker: "crash", Lanes: []ff.LaneID{"default"}, Concurrency: 32, LeaseTTL: 2 * time.Second, PollInterval: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var completed sync.Map // id → what the handler that completed it returned
	w.HandleTask("job", func(ctx context.Context, task *worker.Task) ([]byte, error) {
		result := fmt.Appendf(nil, "%s epoch %d", task.ID(), task.Fence().LeaseEpoch)
		if err := task.Complete(ctx, result); err != nil {
			return nil, err
		}
		completed.Store(task.ID(), string(result))
		return nil, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	running := make(chan error, 1)
	go func() { running <- w.Run(ctx) }()

	var submitted sync.Map
	var count atomic.Int32
	var submitting sync.WaitGroup
	for s := range submitters {
		submitting.Go(func() {
			for i := range executions / submitters {
				// One id per execution: the client repeats a submit whose answer is lost.
				id := ff.NewExecutionID("default", ff.DefaultPartitionConfig)
				_, err := b.CreateExecution(t.Context(), ff.CreateExecution{ID: id, Lane: "default", Kind: "job", Payload: fmt.Appendf(nil, "%d/%d", s, i)})
				if err != nil {
					t.Errorf("submitting: %v", err)
					return
				}
				submitted.Store(id, fmt.Sprintf("%d/%d", s, i))
				count.Add(1)
			}
		})
	}
	for k := range kills {
		eventually(t, "enough is submitted", func() bool { return int(count.Load()) >= executions*(k+1)/(kills+1) })
		if err := server.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = server.wait()
		server, _ = serve(t, store, listen)
	}
	submitting.Wait()

	var left int
	eventually(t, "everything is completed", func() bool {
		lanes, err := b.Lanes(t.Context())
		if err != nil || len(lanes) != 1 {
			return false
		}
		left = executions - lanes[0].Counts[ff.StateCompleted]
		return left == 0
	})
	cancel()
	if err := <-running; err != nil {
		t.Errorf("the worker: %v", err)
	}
	n := 0
	submitted.Range(func(id, payload any) bool {
		n++
		checkSurvivor(t, b, id.(ff.ExecutionID), payload.(string), &completed)
		return !t.Failed()
	})
	if n != executions {
		t.Errorf("%d executions were acknowledged", n)
	}
	checkLeases(t, b)
	server.stop(t)
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
