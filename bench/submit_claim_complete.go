package bench

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// Options of a scenario.
type Options struct {
	// Tasks is the number of executions, Workers that of the concurrent callers
	// and then workers, Payload the input in bytes.
	Tasks, Workers, Payload int
	// Preload is the number of completed executions that are stored before the
	// measurement begins.
	Preload int
	// Batch is how many executions one submit has; 0 means 1.
	Batch int
	// Chain lets workers complete an execution and claim the next in one call.
	Chain bool
	// Tails is how many callers follow each output.
	Tails int
	// Rate is how many frames are appended per second; 0 for as many as possible.
	Rate int
	// Progress, when set, is told what is going on.
	Progress func(phase string, done, of int)
}

// Validate checks the options.
func (o *Options) Validate() error {
	for _, f := range []struct {
		name          string
		n, low, limit int
	}{
		{"tasks", o.Tasks, 1, 10_000_000},
		{"workers", o.Workers, 1, 10_000},
		{"payload", o.Payload, 0, ff.MaxPayloadBytes},
		{"preload", o.Preload, 0, 100_000_000},
		{"batch", o.Batch, 0, ff.MaxBatch},
		{"tails", o.Tails, 0, 10_000}, {"rate", o.Rate, 0, 10_000_000},
	} {
		if f.n < f.low || f.n > f.limit {
			return ff.InvalidInput(f.name, "must be %d to %d (got %d)", f.low, f.limit, f.n)
		}
	}
	o.Batch = max(o.Batch, 1)
	if n := o.Batch * o.Payload; n > ff.MaxBatchBytes {
		return ff.InvalidInput("batch", "times payload must not exceed %d bytes (got %d)", ff.MaxBatchBytes, n)
	}
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	return nil
}

// SubmitClaimComplete submits all executions, one by one from as many callers as
// there are workers, and then works on them, one by one. Lifecycles per second
// count from the first submit to the last completion.
func SubmitClaimComplete(ctx context.Context, b ff.Backend, o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	r, err := newReport(ctx, "submit-claim-complete", b)
	if err != nil {
		return nil, err
	}
	r.describe(&o)
	run := newCycle(b, &o)
	if err := run.preload(ctx, o); err != nil {
		return nil, fmt.Errorf("storing %d executions beforehand: %w", o.Preload, err)
	}

	return r, run.measure(ctx, o, r)
}

// describe puts the options into the report.
func (r *Report) describe(o *Options) {
	r.Tasks, r.Workers, r.Payload, r.Preloaded, r.Batch, r.Chain = o.Tasks, o.Workers, o.Payload, o.Preload, o.Batch, o.Chain
}

// newCycle makes a run with a lane of its own.
func newCycle(b ff.Backend, o *Options) *cycle {
	payload := make([]byte, o.Payload)
	_, _ = rand.Read(payload)
	return &cycle{b: b, payload: payload, workers: o.Workers, lane: ff.LaneID(fmt.Sprintf("bench-%d", time.Now().UnixNano()))}
}

// measure submits and works and fills in the figures.
func (c *cycle) measure(ctx context.Context, o Options, r *Report) error {
	start := time.Now()
	if err := c.submit(ctx, o); err != nil {
		return fmt.Errorf("submitting: %w", err)
	}
	r.SubmitsPerS = float64(o.Tasks) / time.Since(start).Seconds()
	if err := c.work(ctx, o); err != nil {
		return fmt.Errorf("working: %w", err)
	}
	r.Seconds = time.Since(start).Seconds()
	r.LifecyclesS = float64(o.Tasks) / r.Seconds
	r.LatencyMS["submit"] = c.submits.percentiles()
	r.LatencyMS["claim"] = c.claims.percentiles()
	if o.Chain {
		r.LatencyMS["complete and claim"] = c.completes.percentiles()
	} else {
		r.LatencyMS["complete"] = c.completes.percentiles()
	}
	return nil
}

type cycle struct {
	b                          ff.Backend
	payload                    []byte
	workers                    int
	lane                       ff.LaneID
	submits, claims, completes recorder
}

// preload stores executions that went through a whole lifecycle, in batches.
func (c *cycle) preload(ctx context.Context, o Options) error {
	const batch = 500
	lane := c.lane + "-preload"
	var done atomic.Int64
	return parallel(ctx, min(4, max(1, o.Preload/batch)), func(ctx context.Context, i int) error {
		claimant := ff.Claimant{Worker: "bench", Instance: ff.WorkerInstanceID(fmt.Sprintf("preload-%d", i))}
		for {
			n := min(batch, o.Preload-int(done.Add(batch))+batch)
			if n <= 0 {
				return ctx.Err()
			}
			many := ff.CreateExecutions{Executions: make([]ff.CreateExecution, n)}
			for i := range many.Executions {
				many.Executions[i] = ff.CreateExecution{Lane: lane, Kind: "bench", Payload: c.payload}
			}
			if _, err := c.b.CreateExecutions(ctx, many); err != nil {
				return err
			}
			for left := n; left > 0; {
				got, err := c.b.Claim(ctx, ff.Claim{Claimant: claimant, Lanes: []ff.LaneID{lane}, Max: min(left, ff.MaxClaim)})
				if err != nil {
					return err
				}
				if len(got.Claimed) == 0 {
					break
				}
				left -= len(got.Claimed)
				if err := c.completeAll(ctx, got.Claimed); err != nil {
					return err
				}
			}
			o.Progress("preload", min(int(done.Load()), o.Preload), o.Preload)
		}
	})
}

func (c *cycle) completeAll(ctx context.Context, claimed []ff.Claimed) error {
	return parallel(ctx, min(16, len(claimed)), func(ctx context.Context, i int) error {
		for ; i < len(claimed); i += 16 {
			if _, err := c.b.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: claimed[i].Ref(), Result: []byte(`{"ok":true}`)}); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *cycle) submit(ctx context.Context, o Options) error {
	var next atomic.Int64
	return parallel(ctx, c.workers, func(ctx context.Context, _ int) error {
		for {
			last := next.Add(int64(o.Batch))
			n := min(int64(o.Batch), int64(o.Tasks)-last+int64(o.Batch))
			if n <= 0 {
				return nil
			}
			start := time.Now()
			if err := c.submitSome(ctx, int(n)); err != nil {
				return err
			}
			c.submits.since(start)
			if last%1000 == 0 {
				o.Progress("submit", int(min(last, int64(o.Tasks))), o.Tasks)
			}
		}
	})
}

func (c *cycle) submitSome(ctx context.Context, n int) error {
	one := ff.CreateExecution{Lane: c.lane, Kind: "bench", Payload: c.payload}
	if n == 1 {
		_, err := c.b.CreateExecution(ctx, one)
		return err
	}
	_, err := c.b.CreateExecutions(ctx, ff.CreateExecutions{Executions: slices.Repeat([]ff.CreateExecution{one}, n)})
	return err
}

func (c *cycle) work(ctx context.Context, o Options) error {
	var completed atomic.Int64
	return parallel(ctx, c.workers, func(ctx context.Context, i int) error {
		claim := ff.Claim{Claimant: ff.Claimant{Worker: "bench", Instance: ff.WorkerInstanceID(fmt.Sprintf("bench-%d", i))}, Lanes: []ff.LaneID{c.lane}}
		complete := ff.CompleteExecution{Result: []byte(`{"ok":true}`)}
		if o.Chain {
			complete.Next = &claim
		}
		for completed.Load() < int64(o.Tasks) {
			start := time.Now()
			got, err := c.b.Claim(ctx, claim)
			if err != nil {
				return err
			}
			if len(got.Claimed) == 0 {
				return nil
			}
			c.claims.since(start)
			for held := got.Claimed; len(held) > 0; {
				start := time.Now()
				complete.LeaseRef = held[0].Ref()
				done, err := c.b.CompleteExecution(ctx, complete)
				if err != nil {
					return err
				}
				c.completes.since(start)
				held = done.Next.Claimed
				if n := completed.Add(1); n%1000 == 0 {
					o.Progress("work", int(n), o.Tasks)
				}
			}
		}
		return nil
	})
}
