// Package bench has the scenarios of `flowfabric bench`: what a store does under
// load, with the machine, the store and its durability beside the figures.
package bench

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// Machine says where the figures come from.
type Machine struct {
	CPU   string `json:"cpu"`
	Cores int    `json:"cores"`
	OS    string `json:"os"`
	Arch  string `json:"arch"`
	Go    string `json:"go"`
}

// ThisMachine describes the machine.
func ThisMachine() Machine {
	return Machine{CPU: cpuModel(), Cores: runtime.NumCPU(), OS: runtime.GOOS, Arch: runtime.GOARCH, Go: runtime.Version()}
}

func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// Percentiles of the latencies of one command, in milliseconds.
type Percentiles struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Report is the result of a scenario. Figures that a scenario does not have are
// left out.
type Report struct {
	Scenario    string  `json:"scenario"`
	Machine     Machine `json:"machine"`
	Store       string  `json:"store"`
	Version     string  `json:"store_version"`
	Durability  string  `json:"durability"`
	Tasks       int     `json:"tasks"`
	Workers     int     `json:"workers"`
	Payload     int     `json:"payload"`
	Preloaded   int     `json:"preloaded"`
	Batch       int     `json:"batch,omitempty"`
	Chain       bool    `json:"chain,omitempty"` // each completion claimed the next
	Tails       int     `json:"tails,omitempty"` // of each output
	FramesPerS  float64 `json:"frames_per_s,omitempty"`
	SubmitsPerS float64 `json:"submits_per_s,omitempty"`
	LifecyclesS float64 `json:"lifecycles_per_s,omitempty"`
	TripsPerS   float64 `json:"round_trips_per_s,omitempty"`
	Seconds     float64 `json:"seconds"`
	// Ratio is the lifecycles per second with the preloaded executions stored, to
	// those without.
	Ratio float64 `json:"ratio,omitempty"`
	// BytesEach is what one completed execution takes in the store.
	BytesEach float64                `json:"bytes_per_execution,omitempty"`
	LatencyMS map[string]Percentiles `json:"latency_ms"`
}

func newReport(ctx context.Context, scenario string, b ff.Admin) (*Report, error) {
	info, err := b.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("describing the store: %w", err)
	}
	return &Report{Scenario: scenario, Machine: ThisMachine(), Store: info.Store, Version: info.Version,
		Durability: info.Durability, LatencyMS: map[string]Percentiles{}}, nil
}

// recorder collects latencies of one command from many goroutines.
type recorder struct {
	mu   sync.Mutex
	took []time.Duration
}

func (r *recorder) since(start time.Time) {
	d := time.Since(start)
	r.mu.Lock()
	r.took = append(r.took, d)
	r.mu.Unlock()
}

func (r *recorder) percentiles() Percentiles {
	if len(r.took) == 0 {
		return Percentiles{}
	}
	slices.Sort(r.took)
	at := func(p float64) float64 {
		i := int(p * float64(len(r.took)-1))
		return float64(r.took[i].Microseconds()) / 1000
	}
	return Percentiles{P50: at(0.50), P95: at(0.95), P99: at(0.99), Max: at(1)}
}

// parallel runs n copies of work and returns the first error; the others are
// stopped by it.
func parallel(ctx context.Context, n int, work func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := work(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
