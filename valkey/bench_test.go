package valkey_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

// callers is the number of goroutines that send commands, so that they share
// pipelines as in a service.
const callers = 16

var benchPayload = make([]byte, 4096)

func benchStore(b *testing.B) ff.Backend {
	b.Helper()
	s, err := valkey.Open(b.Context(), valkeytest.Start(b).URL(), valkey.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

func parallel(n int, fn func(worker int)) {
	var wg sync.WaitGroup
	for w := range n {
		wg.Go(func() { fn(w) })
	}
	wg.Wait()
}

// each runs fn b.N times from all callers.
func each(b *testing.B, fn func(worker int) error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	start := time.Now()
	parallel(callers, func(w int) {
		for left.Add(-1) >= 0 {
			if err := fn(w); err != nil {
				b.Error(err)
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "calls/s")
}

// filled is a store with n executions that wait.
func filled(b *testing.B, n int) ff.Backend {
	s := benchStore(b)
	for n > 0 {
		some := min(n, 500)
		n -= some
		if _, err := s.CreateExecutions(context.Background(), batchOf(some)); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

func batchOf(n int) ff.CreateExecutions {
	batch := make([]ff.CreateExecution, n)
	for i := range batch {
		batch[i] = ff.CreateExecution{Lane: "main", Kind: "k", Payload: benchPayload}
	}
	return ff.CreateExecutions{Executions: batch}
}

func claimSome(s ff.Backend, worker, n int) ([]ff.Claimed, error) {
	r, err := s.Claim(context.Background(), ff.Claim{Claimant: ff.Claimant{Worker: "w", Instance: ff.WorkerInstanceID(fmt.Sprint("i", worker))},
		Lanes: []ff.LaneID{"main"}, Max: n, LeaseTTL: time.Hour})
	return r.Claimed, err
}

// claimed are n executions with a lease.
func claimed(b *testing.B, s ff.Backend, n int) chan ff.Claimed {
	held := make(chan ff.Claimed, n+ff.MaxClaim)
	for len(held) < n {
		some, err := claimSome(s, 0, ff.MaxClaim)
		if err != nil || len(some) == 0 {
			b.Fatalf("claimed %d of %d, %v", len(held), n, err)
		}
		for _, c := range some {
			held <- c
		}
	}
	return held
}

func BenchmarkSubmit(b *testing.B) {
	s := filled(b, 0)
	each(b, func(int) error {
		_, err := s.CreateExecution(context.Background(), ff.CreateExecution{Lane: "main", Kind: "k", Payload: benchPayload})
		return err
	})
}

func BenchmarkSubmitHundred(b *testing.B) {
	s := filled(b, 0)
	batch := batchOf(100)
	each(b, func(int) error {
		_, err := s.CreateExecutions(context.Background(), batch)
		return err
	})
}

func BenchmarkClaim(b *testing.B) {
	s := filled(b, b.N)
	each(b, func(w int) error {
		_, err := claimSome(s, w, 1)
		return err
	})
}

func BenchmarkClaimOfNothing(b *testing.B) {
	s := filled(b, 0)
	each(b, func(w int) error {
		_, err := claimSome(s, w, 1)
		return err
	})
}

func BenchmarkComplete(b *testing.B) {
	s := filled(b, b.N)
	held := claimed(b, s, b.N)
	each(b, func(int) error {
		c := <-held
		_, err := s.CompleteExecution(context.Background(), ff.CompleteExecution{LeaseRef: c.Ref(), Result: benchPayload[:64]})
		return err
	})
}

func BenchmarkRenewHundred(b *testing.B) {
	s := filled(b, 100)
	held := claimed(b, s, 100)
	var leases []ff.LeaseRef
	for range 100 {
		c := <-held
		leases = append(leases, c.Ref())
	}
	each(b, func(int) error {
		_, err := s.RenewLeases(context.Background(), ff.RenewLeases{Leases: leases, TTL: time.Hour})
		return err
	})
}

func BenchmarkRead(b *testing.B) {
	s := filled(b, 1)
	list, err := s.ListExecutions(context.Background(), ff.ListExecutions{})
	if err != nil {
		b.Fatal(err)
	}
	each(b, func(int) error {
		_, err := s.Execution(context.Background(), list.Executions[0].ID)
		return err
	})
}

// An idle sweep asks all 256 partitions at once.
func BenchmarkIdleSweep(b *testing.B) {
	s := filled(b, 1)
	for i := range b.N {
		if _, err := s.Sweep(context.Background(), ff.Sweep{Kind: ff.SweepKinds[i%2]}); err != nil {
			b.Fatal(err)
		}
	}
}
