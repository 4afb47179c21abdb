package valkey_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/engine"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

// promoted is how many executions a sweep of a loop promotes.
func promoted(t *testing.T, b ff.Backend, every time.Duration) int {
	t.Helper()
	r, err := b.Sweep(t.Context(), ff.Sweep{Kind: ff.SweepDelayed, Every: every})
	if err != nil {
		t.Fatal(err)
	}
	return r.Processed
}

func TestOneOfTheProcessesThatSweepDoesItForTheOthers(t *testing.T) {
	for _, use := range []valkey.ExtensionUse{valkey.ExtensionsRequired, valkey.ExtensionsOff} {
		t.Run(string(use), func(t *testing.T) {
			clock := valkeytest.NewClock(t)
			server := valkeytest.Start(t, valkeytest.WithClock(clock))
			open := func() ff.Backend {
				return openBackend(t, server.URL(), valkey.Options{Partitions: fewPartitions, Extensions: use})
			}
			first, second, third := open(), open(), open()
			delay := func() {
				t.Helper()
				if _, err := first.CreateExecution(t.Context(), ff.CreateExecution{Lane: "main", Kind: "k", Delay: 10 * time.Millisecond}); err != nil {
					t.Fatal(err)
				}
				clock.Advance(20 * time.Millisecond)
			}
			const every = time.Second
			delay()
			if n := promoted(t, first, every); n != 1 {
				t.Errorf("the first promoted %d", n)
			}
			delay()
			looks := func() int { return commandsOf(t, server, "fcall") + commandsOf(t, server, "zrangebyscore") }
			before := looks()
			if n := promoted(t, second, every); n != 0 {
				t.Errorf("the second promoted %d for the first", n)
			}
			if n := looks() - before; n != 0 {
				t.Errorf("the second looked %d times for what is due", n)
			}
			if n := promoted(t, second, 0); n != 1 {
				t.Errorf("who asks for a sweep got %d", n)
			}
			delay()
			clock.Advance(3 * every) // the first has not come again
			if n := promoted(t, second, every); n != 1 {
				t.Errorf("the second took over and promoted %d", n)
			}
			delay()
			if n := promoted(t, first, every); n != 0 {
				t.Errorf("the first promoted %d for the second", n)
			}
			if err := second.Close(); err != nil {
				t.Fatal(err)
			}
			if n := promoted(t, third, every); n != 1 {
				t.Errorf("the third followed and promoted %d", n)
			}
			clock.Advance(2 * every)
			if promoted(t, third, every); promoted(t, first, every) != 0 {
				t.Error("who comes again in time does not stay")
			}
			delay()
			if n := promoted(t, first, every/2); n != 1 {
				t.Errorf("who sweeps more often promoted %d", n)
			}
			delay()
			if n := promoted(t, third, every); n != 0 {
				t.Errorf("who sweeps less often promoted %d", n)
			}
		})
	}
}

// BenchmarkIdleEngines gives how many functions idle processes call in a second.
func BenchmarkIdleEngines(b *testing.B) {
	for _, n := range []int{1, 4} {
		b.Run(map[int]string{1: "one", 4: "four"}[n], func(b *testing.B) {
			server := valkeytest.Start(b)
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan error, n)
			for range n {
				store, err := valkey.Open(b.Context(), server.URL(), valkey.Options{})
				if err != nil {
					b.Fatal(err)
				}
				defer func() { _ = store.Close() }()
				e, err := engine.New(store, engine.Options{})
				if err != nil {
					b.Fatal(err)
				}
				go func() { ended <- e.Run(ctx) }()
			}
			time.Sleep(2 * time.Second)
			start := commandsOf(b, server, "fcall")
			const seconds = 10
			time.Sleep(seconds * time.Second)
			b.ReportMetric(float64(commandsOf(b, server, "fcall")-start)/seconds, "FCALL/s")
			cancel()
			for range n {
				<-ended
			}
		})
	}
}

// BenchmarkFirstClaim gives how long a process that has just begun, with and without
// loops, takes to claim what another submits.
func BenchmarkFirstClaim(b *testing.B) {
	server := valkeytest.Start(b)
	for _, loops := range []bool{false, true} {
		b.Run(map[bool]string{true: "loops", false: "alone"}[loops], func(b *testing.B) {
			other, err := valkey.Open(b.Context(), server.URL(), valkey.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = other.Close() }()
			var sum, most time.Duration
			for range b.N {
				store, err := valkey.Open(b.Context(), server.URL(), valkey.Options{})
				if err != nil {
					b.Fatal(err)
				}
				ctx, cancel := context.WithCancel(b.Context())
				ended := make(chan error, 1)
				if loops {
					e, err := engine.New(store, engine.Options{})
					if err != nil {
						b.Fatal(err)
					}
					go func() { ended <- e.Run(ctx) }()
				} else {
					ended <- nil
				}
				started := make(chan time.Time, 1)
				go func() {
					time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
					started <- time.Now()
					if _, err := other.CreateExecution(b.Context(), ff.CreateExecution{Lane: "main", Kind: "k"}); err != nil {
						panic(err)
					}
				}()
				r, err := store.Claim(b.Context(), ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{"main"}, LeaseTTL: time.Minute, Wait: time.Minute})
				if err != nil || len(r.Claimed) != 1 {
					b.Fatal(err)
				}
				took := time.Since(<-started)
				sum += took
				most = max(most, took)
				cancel()
				<-ended
				_ = store.Close()
			}
			b.ReportMetric(float64(sum.Microseconds())/float64(b.N)/1000, "ms/claim")
			b.ReportMetric(float64(most.Microseconds())/1000, "ms/most")
		})
	}
}
