package bench

import (
	"context"
	"fmt"

	ff "github.com/flowfabric/flowfabric"
)

// sizer is a store that knows how many bytes it takes.
type sizer interface {
	Size(context.Context) (int64, error)
}

// Footprint measures how many bytes one completed execution takes, its payload
// included: use no payload to leave it out.
func Footprint(ctx context.Context, b ff.Backend, o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s, ok := b.(sizer)
	if !ok {
		return nil, ff.InvalidInput("store", "this store does not say how large it is: measure sqlite:PATH or valkey://HOST itself, not over a server")
	}
	r, err := newReport(ctx, "footprint", b)
	if err != nil {
		return nil, err
	}
	r.describe(&o)
	// The first execution brings what all share: lanes, names, connections.
	first := o
	first.Tasks = 1
	if err := newCycle(b, &first).measure(ctx, first, r); err != nil {
		return nil, err
	}
	before, err := s.Size(ctx)
	if err != nil {
		return nil, fmt.Errorf("the size before: %w", err)
	}
	if err := newCycle(b, &o).measure(ctx, o, r); err != nil {
		return nil, err
	}
	after, err := s.Size(ctx)
	if err != nil {
		return nil, fmt.Errorf("the size after: %w", err)
	}
	r.BytesEach = float64(after-before) / float64(o.Tasks)
	return r, nil
}
