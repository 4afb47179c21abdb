package client_test

import (
	"context"
	"slices"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/worker"
)

// BenchmarkSubmit is one submit after the other over HTTP.
func BenchmarkSubmit(b *testing.B) {
	c, payload := connected(b), make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Submit(b.Context(), "l", "k", payload); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLifecycle submits, claims and completes one execution after the other
// over HTTP.
func BenchmarkLifecycle(b *testing.B) {
	c, payload := connected(b), make([]byte, 4096)
	remote := c.Backend()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Submit(b.Context(), "l", "k", payload); err != nil {
			b.Fatal(err)
		}
		got, err := remote.Claim(b.Context(), ff.Claim{Claimant: someone("a"), Lanes: []ff.LaneID{"l"}})
		if err != nil || len(got.Claimed) != 1 {
			b.Fatal(got, err)
		}
		if _, err := remote.CompleteExecution(b.Context(), ff.CompleteExecution{LeaseRef: got.Claimed[0].Ref(), Result: payload[:64]}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSubmitToStart is the time from a submit to the start of its handler in
// a worker that waits, all over HTTP.
func BenchmarkSubmitToStart(b *testing.B) {
	c, started := connected(b), make(chan time.Time, 1)
	work(b, c, func(w *worker.Worker) {
		worker.Handle(w, "k", func(context.Context, []byte) ([]byte, error) {
			started <- time.Now()
			return nil, nil
		})
	})
	var took []time.Duration
	for b.Loop() {
		at := time.Now()
		if _, err := c.Submit(b.Context(), "l", "k", nil); err != nil {
			b.Fatal(err)
		}
		took = append(took, (<-started).Sub(at))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
