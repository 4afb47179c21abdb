// Package scheduler decides which execution goes to which worker: it stands
// between those who claim (workers, the HTTP server) and a store.
//
// A store serves the lanes of a claim in the given order. Without more, a busy
// first lane would starve the others; the scheduler therefore starts each claim
// at another lane, also those that come with completions. It also measures claims.
package scheduler

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	ff "github.com/flowfabric/flowfabric"
)

// Order is how the lanes of a claim are served.
type Order int

const (
	// Rotate starts each claim at the next lane, so that no lane starves.
	Rotate Order = iota
	// Strict serves the lanes as given: a later lane only when all earlier ones
	// are empty.
	Strict
)

// Options of a scheduler.
type Options struct {
	Order Order
	Meter metric.Meter
}

// Store is what a scheduler asks of a store.
type Store interface {
	ff.Claims
	CompleteExecution(context.Context, ff.CompleteExecution) (ff.CompleteExecutionResult, error)
}

// Scheduler is a Claims with fair lanes and metrics, and a completion whose claim
// has them too. The grants pass through.
type Scheduler struct {
	ff.Claims
	store Store
	order Order
	// turns count the claims, apart for each claimant (by hash): with one common
	// count, claimants that take turns could each meet the same lane every time.
	turns   [256]atomic.Uint64
	took    metric.Float64Histogram
	waited  metric.Float64Histogram
	claimed metric.Int64Counter
}

var _ ff.Claims = (*Scheduler)(nil)

// New makes a scheduler over a store.
func New(store Store, o Options) (*Scheduler, error) {
	if o.Meter == nil {
		o.Meter = noop.Meter{}
	}
	s := &Scheduler{Claims: store, store: store, order: o.Order}
	var err error
	s.took, err = o.Meter.Float64Histogram("ff_claim_from_grant_duration_seconds", metric.WithUnit("s"),
		metric.WithDescription("Duration of one claim, whatever came of it, without waiting for work"),
		metric.WithExplicitBucketBoundaries(.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10))
	if err == nil {
		s.waited, err = o.Meter.Float64Histogram("ff_claim_wait_seconds", metric.WithUnit("s"),
			metric.WithDescription("Duration of one claim that may wait for work"),
			metric.WithExplicitBucketBoundaries(.001, .005, .01, .05, .1, .5, 1, 2.5, 5, 10, 30, 60))
	}
	if err == nil {
		s.claimed, err = o.Meter.Int64Counter("ff_claimed_executions_total", metric.WithDescription("Executions given to workers, by claims and with completions"))
	}
	if err != nil {
		return nil, fmt.Errorf("scheduler metrics: %w", err)
	}
	return s, nil
}

// Claim takes up to Max executions; see Claims.Claim.
func (s *Scheduler) Claim(ctx context.Context, c ff.Claim) (ff.ClaimResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ClaimResult{}, err
	}
	s.rotate(&c)
	start := time.Now()
	r, err := s.Claims.Claim(ctx, c)
	duration := s.took
	if c.Wait > 0 {
		duration = s.waited
	}
	duration.Record(ctx, time.Since(start).Seconds(), onLane(c.Lanes[0]))
	s.count(ctx, r.Claimed)
	return r, err
}

// CompleteExecution completes, and claims as Claim does what comes next; see
// Leases.CompleteExecution.
func (s *Scheduler) CompleteExecution(ctx context.Context, c ff.CompleteExecution) (ff.CompleteExecutionResult, error) {
	if err := c.Validate(); err != nil {
		return ff.CompleteExecutionResult{}, err
	}
	if c.Next != nil {
		s.rotate(c.Next)
	}
	r, err := s.store.CompleteExecution(ctx, c)
	s.count(ctx, r.Next.Claimed)
	return r, err
}

// rotate starts a claim at the next lane.
func (s *Scheduler) rotate(c *ff.Claim) {
	if s.order == Rotate && len(c.Lanes) > 1 {
		c.Lanes = rotated(c.Lanes, int(s.turn(c).Add(1)%uint64(len(c.Lanes))))
	}
}

func (s *Scheduler) count(ctx context.Context, claimed []ff.Claimed) {
	for i := range claimed {
		s.claimed.Add(ctx, 1, onLane(claimed[i].Execution.Lane))
	}
}

// GrantNext reserves the next execution of a lane; see Claims.GrantNext.
func (s *Scheduler) GrantNext(ctx context.Context, g ff.GrantNext) (ff.GrantResult, error) {
	if err := g.Validate(); err != nil {
		return ff.GrantResult{}, err
	}
	start := time.Now()
	defer func() { s.took.Record(ctx, time.Since(start).Seconds(), onLane(g.Lane)) }()
	return s.Claims.GrantNext(ctx, g)
}

func onLane(lane ff.LaneID) metric.MeasurementOption {
	return metric.WithAttributes(attribute.String("lane", string(lane)))
}

// turn is the count of a claimant with its lanes. Two that share one by chance
// do no harm: their claims do not keep in step for long.
func (s *Scheduler) turn(c *ff.Claim) *atomic.Uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, l := range c.Lanes {
		h.WriteString(string(l))
		h.WriteByte(0)
	}
	h.WriteString(string(c.Instance))
	return &s.turns[h.Sum64()%uint64(len(s.turns))]
}

var seed = maphash.MakeSeed()

func rotated(lanes []ff.LaneID, by int) []ff.LaneID {
	return append(append(make([]ff.LaneID, 0, len(lanes)), lanes[by:]...), lanes[:by]...)
}
