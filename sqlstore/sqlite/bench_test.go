package sqlite_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

// callers is the number of goroutines that send commands, so that they share
// commits as in a service.
const callers = 16

var benchPayload = make([]byte, 4096)

func BenchmarkLifecycle(b *testing.B) {
	for _, sync := range []sqlite.Synchronous{sqlite.Full, sqlite.Off} {
		b.Run(string(sync), func(b *testing.B) { benchmarkLifecycle(b, sync) })
	}
}

func parallel(n int, fn func(worker int)) {
	var wg sync.WaitGroup
	for w := range n {
		wg.Go(func() { fn(w) })
	}
	wg.Wait()
}

// benchmarkLifecycle submits everything, then claims and completes everything.
func benchmarkLifecycle(b *testing.B, sync sqlite.Synchronous) {
	s := open(b, filepath.Join(b.TempDir(), "f.db"), sqlite.Options{Synchronous: sync})
	var done atomic.Int64
	start := time.Now()
	each(b, func(int) error { return submitOne(s) })
	submitted := time.Since(start)
	b.StartTimer()
	parallel(callers, func(w int) {
		for done.Load() < int64(b.N) {
			claimed, err := claimSome(s, w, 1)
			if err != nil {
				b.Error(err)
			}
			for _, c := range claimed {
				if _, err := s.CompleteExecution(context.Background(), ff.CompleteExecution{LeaseRef: c.Ref()}); err != nil {
					b.Error(err)
				}
				done.Add(1)
			}
		}
	})
	b.ReportMetric(float64(b.N)/submitted.Seconds(), "submits/s")
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "lifecycles/s")
}

// each runs fn b.N times from all callers.
func each(b *testing.B, fn func(worker int) error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	parallel(callers, func(w int) {
		for left.Add(-1) >= 0 {
			if err := fn(w); err != nil {
				b.Error(err)
			}
		}
	})
	b.StopTimer()
}

func submitOne(s *sqlite.Store) error {
	_, err := s.CreateExecution(context.Background(), ff.CreateExecution{Lane: "main", Kind: "k", Payload: benchPayload})
	return err
}

func claimSome(s *sqlite.Store, worker, n int) ([]ff.Claimed, error) {
	r, err := s.Claim(context.Background(), ff.Claim{Claimant: claimant(fmt.Sprintf("i%d", worker)), Lanes: []ff.LaneID{"main"}, Max: n})
	return r.Claimed, err
}

// filled is a store with n executions that wait.
func filled(b *testing.B, n int) *sqlite.Store {
	s := open(b, filepath.Join(b.TempDir(), "f.db"), sqlite.Options{})
	batch := make([]ff.CreateExecution, min(n, ff.MaxBatch))
	for i := range batch {
		batch[i] = ff.CreateExecution{Lane: "main", Kind: "k", Payload: benchPayload}
	}
	for n > 0 {
		batch = batch[:min(n, len(batch))]
		n -= len(batch)
		if _, err := s.CreateExecutions(context.Background(), ff.CreateExecutions{Executions: batch}); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

func BenchmarkSubmit(b *testing.B) {
	s := filled(b, 0)
	each(b, func(int) error { return submitOne(s) })
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
	claimed := make(chan ff.Claimed, b.N)
	for len(claimed) < b.N {
		some, err := claimSome(s, 0, ff.MaxClaim)
		if err != nil {
			b.Fatal(err)
		}
		for _, c := range some {
			claimed <- c
		}
	}
	each(b, func(int) error {
		c := <-claimed
		_, err := s.CompleteExecution(context.Background(), ff.CompleteExecution{LeaseRef: c.Ref(), Result: benchPayload[:64]})
		return err
	})
}

// BenchmarkAppend appends frames of a token each, every caller to a stream of its own.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct {
		name  string
		frame ff.NewFrame
		batch int
	}{
		{"durable", ff.NewFrame{Type: "token", Payload: benchPayload[:32]}, 1},
		{"4 KiB", ff.NewFrame{Type: "token", Payload: benchPayload}, 1},
		{"best_effort", ff.NewFrame{Type: "token", Payload: benchPayload[:32], Mode: ff.FrameBestEffort}, 1},
		{"summary", ff.NewFrame{Payload: []byte(`{"tokens":{"in":1,"out":2}}`), Mode: ff.FrameSummary}, 1},
		{"batches of 20", ff.NewFrame{Type: "token", Payload: benchPayload[:32]}, 20},
	} {
		b.Run(c.name, func(b *testing.B) {
			s, claimed := leasedStore(b, callers)
			frames := slices.Repeat([]ff.NewFrame{c.frame}, c.batch)
			each(b, func(w int) error {
				_, err := s.AppendFrames(context.Background(), ff.AppendFrames{LeaseRef: claimed[w].Ref(), Frames: frames})
				return err
			})
			b.ReportMetric(float64(b.N*c.batch)/b.Elapsed().Seconds(), "frames/s")
		})
	}
}

// leasedStore is a store with n executions that are leased for long.
func leasedStore(b *testing.B, n int) (*sqlite.Store, []ff.Claimed) {
	s := filled(b, n)
	r, err := s.Claim(context.Background(), ff.Claim{Claimant: claimant("i"), Lanes: []ff.LaneID{"main"}, Max: n, LeaseTTL: time.Hour})
	if err != nil || len(r.Claimed) != n {
		b.Fatalf("claimed %d of %d: %v", len(r.Claimed), n, err)
	}
	return s, r.Claimed
}

// BenchmarkTail measures how long a frame takes to reach each of many tails of one
// stream.
func BenchmarkTail(b *testing.B) {
	for _, tails := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(tails, " tails"), func(b *testing.B) { benchmarkTail(b, tails) })
	}
}

func benchmarkTail(b *testing.B, tails int) {
	s, claimed := leasedStore(b, 1)
	stream := ff.StreamRef{ID: claimed[0].Execution.ID}
	var all sync.WaitGroup
	var mu sync.Mutex
	var took []time.Duration
	arrived := make(chan struct{}, tails)
	for range tails {
		all.Go(func() {
			for c := (ff.TailFrames{StreamRef: stream, Wait: ff.MaxTailWait}); ; {
				r, err := s.TailFrames(context.Background(), c)
				if err != nil {
					b.Error(err)
					return
				}
				mu.Lock()
				for _, f := range r.Frames {
					took = append(took, time.Since(f.At))
				}
				mu.Unlock()
				for range r.Frames {
					arrived <- struct{}{}
				}
				if r.Closed() {
					return
				}
				c.After = r.Last
			}
		})
	}
	for b.Loop() {
		time.Sleep(10 * time.Millisecond)
		_, err := s.AppendFrames(context.Background(), ff.AppendFrames{LeaseRef: claimed[0].Ref(), Frames: []ff.NewFrame{{Payload: benchPayload[:32], At: time.Now()}}})
		if err != nil {
			b.Fatal(err)
		}
		for range tails {
			<-arrived
		}
	}
	if _, err := s.CompleteExecution(context.Background(), ff.CompleteExecution{LeaseRef: claimed[0].Ref()}); err != nil {
		b.Fatal(err)
	}
	all.Wait()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2])/1e6, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100])/1e6, "p99-ms")
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
