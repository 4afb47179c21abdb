package bench

import (
	"context"
	"fmt"

	ff "github.com/flowfabric/flowfabric"
)

// Stored measures what stored executions cost: lifecycles per second before and
// after as many completed executions as Preload says are stored.
func Stored(ctx context.Context, b ff.Backend, o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	r, err := newReport(ctx, "stored", b)
	if err != nil {
		return nil, err
	}
	r.describe(&o)
	if err := newCycle(b, &o).measure(ctx, o, r); err != nil {
		return nil, err
	}
	before := r.LifecyclesS
	run := newCycle(b, &o)
	if err := run.preload(ctx, o); err != nil {
		return nil, fmt.Errorf("storing %d executions: %w", o.Preload, err)
	}
	if err := run.measure(ctx, o, r); err != nil {
		return nil, err
	}
	r.Ratio = r.LifecyclesS / before
	return r, nil
}
