package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// Latency measures, on an idle store, the time from the call of a submit to the
// moment at which a waiting worker has the execution: one at a time.
func Latency(ctx context.Context, b ff.Backend, o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	r, err := newReport(ctx, "latency", b)
	if err != nil {
		return nil, err
	}
	r.Tasks, r.Workers, r.Payload = o.Tasks, 1, o.Payload
	lane := ff.LaneID(fmt.Sprintf("bench-%d", time.Now().UnixNano()))
	payload := make([]byte, o.Payload)
	var started recorder

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	got, errs := make(chan ff.Claimed), make(chan error, 1)
	go func() { errs <- claimLoop(ctx, b, lane, got) }()

	begin := time.Now()
	for i := range o.Tasks {
		submitted := time.Now()
		if _, err := b.CreateExecution(ctx, ff.CreateExecution{Lane: lane, Kind: "bench", Payload: payload}); err != nil {
			return nil, fmt.Errorf("submitting: %w", err)
		}
		select {
		case c := <-got:
			started.since(submitted)
			if _, err := b.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: c.Ref()}); err != nil {
				return nil, fmt.Errorf("completing: %w", err)
			}
		case err := <-errs:
			return nil, fmt.Errorf("claiming: %w", err)
		}
		if i%100 == 0 {
			o.Progress("latency", i, o.Tasks)
		}
	}
	r.Seconds = time.Since(begin).Seconds()
	r.LatencyMS["submit_to_start"] = started.percentiles()
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		return nil, fmt.Errorf("claiming: %w", err)
	}
	return r, nil
}

// claimLoop hands over what it claims until ctx ends.
func claimLoop(ctx context.Context, b ff.Claims, lane ff.LaneID, to chan<- ff.Claimed) error {
	c := ff.Claim{Claimant: ff.Claimant{Worker: "bench", Instance: "bench-0"}, Lanes: []ff.LaneID{lane}, Wait: 10 * time.Second}
	for {
		got, err := b.Claim(ctx, c)
		if err != nil {
			return err
		}
		for _, claimed := range got.Claimed {
			select {
			case to <- claimed:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}
