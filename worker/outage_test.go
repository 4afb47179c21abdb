package worker_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
	"github.com/flowfabric/flowfabric/worker"
)

// unsteady is a store that can be out of reach, and counts the calls that it refused.
type unsteady struct {
	ff.Backend
	gone                         atomic.Bool
	heartbeats, renewals, claims atomic.Int64
}

func (u *unsteady) refuse(n *atomic.Int64) error {
	if !u.gone.Load() {
		return nil
	}
	n.Add(1)
	return ff.NewError(ff.CodeTransport, "connection refused")
}

func (u *unsteady) HeartbeatWorker(ctx context.Context, c ff.HeartbeatWorker) (ff.HeartbeatWorkerResult, error) {
	if err := u.refuse(&u.heartbeats); err != nil {
		return ff.HeartbeatWorkerResult{}, err
	}
	return u.Backend.HeartbeatWorker(ctx, c)
}

func (u *unsteady) RenewLeases(ctx context.Context, c ff.RenewLeases) (ff.RenewLeasesResult, error) {
	if err := u.refuse(&u.renewals); err != nil {
		return ff.RenewLeasesResult{}, err
	}
	return u.Backend.RenewLeases(ctx, c)
}

func (u *unsteady) Claim(ctx context.Context, c ff.Claim) (ff.ClaimResult, error) {
	if err := u.refuse(&u.claims); err != nil {
		return ff.ClaimResult{}, err
	}
	return u.Backend.Claim(ctx, c)
}

// diary is a log that can be read while it is written.
type diary struct {
	mu   sync.Mutex
	text strings.Builder
}

func (d *diary) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.Write(p)
}

func (d *diary) count(words string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Count(d.text.String(), words)
}

func TestAnOutageOfTheStoreIsLoggedWhenItBeginsAndEnds(t *testing.T) {
	b := &unsteady{Backend: storetest.Open(t, sqlite.Options{})}
	var log diary
	w := connect(t, b, func(c *worker.Config) {
		c.LeaseTTL, c.Concurrency, c.PollInterval = 500*time.Millisecond, 2, 10*time.Millisecond
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	running, finish := make(chan struct{}), make(chan struct{})
	w.HandleTask("job", func(context.Context, *worker.Task) ([]byte, error) {
		close(running)
		<-finish
		return nil, nil
	})
	submit(t, b, ff.CreateExecution{Kind: "job"})
	run(t, w)
	defer close(finish)
	receive(t, running, "the handler runs")
	b.gone.Store(true)
	until := func(what string, ok func() bool) {
		for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("waited %s until %s", patience, what)
			}
		}
	}
	until("each call was refused several times", func() bool { return b.heartbeats.Load() > 3 && b.renewals.Load() > 1 && b.claims.Load() > 3 })
	b.gone.Store(false)
	for _, c := range []struct{ fails, works string }{
		{"heartbeat fails; trying again", "heartbeats work again"}, {"claiming fails; trying again", "claiming works again"},
	} {
		until(c.works, func() bool { return log.count(c.works) == 1 })
		if n := log.count(c.fails); n != 1 {
			t.Errorf("%q was logged %d times", c.fails, n)
		}
	}
	if n := log.count("renewing leases fails"); n != 1 {
		t.Errorf("the renewals were logged %d times", n)
	}
}
