package valkey_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// writers are a claimed execution for each caller.
func writers(b *testing.B, s ff.Backend) []ff.LeaseRef {
	held := claimed(b, s, callers)
	refs := make([]ff.LeaseRef, callers)
	for i := range refs {
		c := <-held
		refs[i] = c.Ref()
	}
	return refs
}

func benchAppend(b *testing.B, frames int, f ff.NewFrame) {
	s := filled(b, callers)
	refs := writers(b, s)
	batch := slices.Repeat([]ff.NewFrame{f}, frames)
	each(b, func(w int) error {
		_, err := s.AppendFrames(context.Background(), ff.AppendFrames{LeaseRef: refs[w], Frames: batch})
		return err
	})
}

func BenchmarkAppend(b *testing.B) {
	benchAppend(b, 1, ff.NewFrame{Type: "token", Payload: benchPayload[:64]})
}
func BenchmarkAppendHundred(b *testing.B) {
	benchAppend(b, 100, ff.NewFrame{Type: "token", Payload: benchPayload[:64]})
}
func BenchmarkAppendBestEffort(b *testing.B) {
	benchAppend(b, 1, ff.NewFrame{Type: "token", Payload: benchPayload[:64], Mode: ff.FrameBestEffort})
}
func BenchmarkAppendSummary(b *testing.B) {
	benchAppend(b, 1, ff.NewFrame{Payload: []byte(`{"tokens":{"in":17,"out":4},"step":"fetch"}`), Mode: ff.FrameSummary})
}

func BenchmarkReadHundredFrames(b *testing.B) {
	s := filled(b, callers)
	refs := writers(b, s)
	batch := slices.Repeat([]ff.NewFrame{{Type: "token", Payload: benchPayload[:64]}}, 100)
	for _, ref := range refs {
		if _, err := s.AppendFrames(context.Background(), ff.AppendFrames{LeaseRef: ref, Frames: batch}); err != nil {
			b.Fatal(err)
		}
	}
	each(b, func(w int) error {
		_, err := s.ReadFrames(context.Background(), ff.ReadFrames{StreamRef: ff.StreamRef{ID: refs[w].ID}})
		return err
	})
}

// BenchmarkTail measures from the append of a frame to its arrival at a tail, while a
// thousand tails wait on the streams of all callers.
func BenchmarkTail(b *testing.B) {
	s := filled(b, callers)
	refs := writers(b, s)
	ctx, cancel := context.WithCancel(b.Context())
	var idle sync.WaitGroup
	defer idle.Wait()
	defer cancel()
	for i := range 1000 {
		idle.Go(func() {
			after := ff.FrameID{}
			for ctx.Err() == nil {
				r, err := s.TailFrames(ctx, ff.TailFrames{StreamRef: ff.StreamRef{ID: refs[i%callers].ID}, After: after, Wait: ff.MaxTailWait})
				if err == nil {
					after = r.Last
				}
			}
		})
	}
	var took []time.Duration
	after := make([]ff.FrameID, callers)
	b.ResetTimer()
	for i := range b.N {
		w := i % callers
		arrived := make(chan ff.FramesResult, 1)
		go func() {
			r, err := s.TailFrames(ctx, ff.TailFrames{StreamRef: ff.StreamRef{ID: refs[w].ID}, After: after[w], Wait: ff.MaxTailWait})
			if err != nil {
				b.Error(err)
			}
			arrived <- r
		}()
		time.Sleep(2 * time.Millisecond) // until it waits
		began := time.Now()
		if _, err := s.AppendFrames(ctx, ff.AppendFrames{LeaseRef: refs[w], Frames: []ff.NewFrame{{Type: "token", Payload: benchPayload[:64]}}}); err != nil {
			b.Fatal(err)
		}
		r := <-arrived
		took = append(took, time.Since(began))
		after[w] = r.Last
	}
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "µs-p99")
}
