package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// parkedLease is long enough for executions that are claimed first and suspended last.
const parkedLease = time.Hour

// SuspendSignalResume measures what a wait costs: each of as many callers as there are
// workers suspends an execution, sends the signal that it waits for, with a payload, and
// claims a resumed one; that is a round trip. Every execution makes one. Submitting,
// claiming and completing them lies outside of the measurement.
func SuspendSignalResume(ctx context.Context, b ff.Backend, o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Payload > ff.MaxSignalPayloadBytes {
		return nil, ff.InvalidInput("payload", "a signal holds at most %d bytes (got %d)", ff.MaxSignalPayloadBytes, o.Payload)
	}
	r, err := newReport(ctx, "suspend-signal-resume", b)
	if err != nil {
		return nil, err
	}
	r.describe(&o)
	c := newCycle(b, &o)
	if err := c.preload(ctx, o); err != nil {
		return nil, fmt.Errorf("storing %d executions beforehand: %w", o.Preload, err)
	}
	if err := c.submit(ctx, o); err != nil {
		return nil, fmt.Errorf("submitting: %w", err)
	}
	t := &trips{cycle: c, refs: make([]ff.LeaseRef, o.Tasks)}
	if err := t.claimAll(ctx); err != nil {
		return nil, fmt.Errorf("claiming before the measurement: %w", err)
	}
	if err := t.measure(ctx, &o, r); err != nil {
		return nil, err
	}
	if err := t.completeAll(ctx); err != nil {
		return nil, fmt.Errorf("completing after the measurement: %w", err)
	}
	return r, nil
}

// trips is a run of round trips over executions that are held.
type trips struct {
	*cycle
	// refs are the leases: before the measurement those that are suspended, one by one,
	// after it those that were resumed.
	refs                            []ff.LeaseRef
	suspends, signals, resumes, all recorder
}

func (t *trips) claimAll(ctx context.Context) error {
	return parallel(ctx, t.workers, func(ctx context.Context, i int) error {
		low, high := t.share(i)
		for low < high {
			got, err := t.b.Claim(ctx, t.claim(i, min(high-low, ff.MaxClaim)))
			if err != nil {
				return err
			}
			if len(got.Claimed) == 0 {
				return errLost
			}
			for j := range got.Claimed {
				t.refs[low] = got.Claimed[j].Ref()
				low++
			}
		}
		return nil
	})
}

var errLost = errors.New("an execution that was submitted or resumed cannot be claimed: is another worker on the lane?")

// share is the part of refs that a worker has.
func (t *trips) share(i int) (low, high int) {
	return i * len(t.refs) / t.workers, (i + 1) * len(t.refs) / t.workers
}

func (t *trips) claim(i, most int) ff.Claim {
	return ff.Claim{Claimant: ff.Claimant{Worker: "bench", Instance: ff.WorkerInstanceID(fmt.Sprintf("bench-%d", i))},
		Lanes: []ff.LaneID{t.lane}, Max: most, LeaseTTL: parkedLease, Wait: 10 * time.Second}
}

func (t *trips) measure(ctx context.Context, o *Options, r *Report) error {
	start := time.Now()
	var done atomic.Int64
	err := parallel(ctx, t.workers, func(ctx context.Context, i int) error {
		claim := t.claim(i, 1)
		low, high := t.share(i)
		for ; low < high; low++ {
			resumed, err := t.trip(ctx, t.refs[low], claim)
			if err != nil {
				return err
			}
			t.refs[low] = resumed
			if n := done.Add(1); n%1000 == 0 {
				o.Progress("round trips", int(n), o.Tasks)
			}
		}
		return nil
	})
	r.Seconds = time.Since(start).Seconds()
	r.TripsPerS = float64(o.Tasks) / r.Seconds
	for name, latency := range map[string]*recorder{"suspend": &t.suspends, "signal": &t.signals, "resumed claim": &t.resumes, "round trip": &t.all} {
		r.LatencyMS[name] = latency.percentiles()
	}
	return err
}

func (t *trips) trip(ctx context.Context, ref ff.LeaseRef, claim ff.Claim) (resumed ff.LeaseRef, err error) {
	begun := time.Now()
	s, err := t.b.SuspendExecution(ctx, ff.SuspendExecution{LeaseRef: ref, Condition: ff.AwaitSignal("go"), TimeoutAfter: parkedLease})
	if err != nil {
		return resumed, fmt.Errorf("suspending: %w", err)
	}
	t.suspends.since(begun)
	start := time.Now()
	w := s.Waitpoints[0]
	_, err = t.b.DeliverSignal(ctx, ff.DeliverSignal{ID: ref.ID, WaitpointID: w.ID, Token: w.Token, Name: "go", SourceType: "bench",
		SourceIdentity: string(claim.Instance), Payload: t.payload})
	if err != nil {
		return resumed, fmt.Errorf("signalling: %w", err)
	}
	t.signals.since(start)
	start = time.Now()
	got, err := t.b.Claim(ctx, claim)
	switch {
	case err != nil:
		return resumed, fmt.Errorf("claiming: %w", err)
	case len(got.Claimed) == 0 || !got.Claimed[0].Resumed:
		return resumed, errLost
	}
	t.resumes.since(start)
	t.all.since(begun)
	return got.Claimed[0].Ref(), nil
}

func (t *trips) completeAll(ctx context.Context) error {
	return parallel(ctx, t.workers, func(ctx context.Context, i int) error {
		for low, high := t.share(i); low < high; low++ {
			if _, err := t.b.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: t.refs[low]}); err != nil {
				return err
			}
		}
		return nil
	})
}
