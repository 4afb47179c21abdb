package worker_test

import (
	"context"
	"sync/atomic"
	"testing"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/worker"
)

// BenchmarkTasks is what a task costs beside its handler: claim, dispatch,
// completion, on a store in memory.
func BenchmarkTasks(b *testing.B) {
	s := storetest.OpenWithEngine(b)
	w := connect(b, s, func(c *worker.Config) { c.Concurrency = 64 })
	var left atomic.Int64
	done := make(chan struct{})
	worker.Handle(w, "job", func(context.Context, []byte) ([]byte, error) {
		if left.Add(-1) == 0 {
			close(done)
		}
		return nil, nil
	})
	left.Store(int64(b.N))
	batch := ff.CreateExecutions{Executions: make([]ff.CreateExecution, 0, ff.MaxBatch)}
	for n := b.N; n > 0; n -= len(batch.Executions) {
		batch.Executions = batch.Executions[:0]
		for range min(n, ff.MaxBatch) {
			batch.Executions = append(batch.Executions, ff.CreateExecution{Lane: "default", Kind: "job"})
		}
		if _, err := s.CreateExecutions(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	run(b, w)
	<-done
	b.StopTimer()
}
