package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// Stream appends frames to the output of as many attempts as there are workers, Batch
// in one call, while each attempt has Tails callers that follow it: as fast as possible,
// or Rate frames per second. It measures the appends, and the time from the call of an
// append to the moment at which a tail has the frame. Before that all tails have had one.
func Stream(ctx context.Context, b ff.Backend, o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if low, high := 8, ff.MaxFramePayloadBytes; o.Payload < low || o.Payload > high {
		return nil, ff.InvalidInput("payload", "must be %d to %d (got %d)", low, high, o.Payload)
	}
	r, err := newReport(ctx, "stream", b)
	if err != nil {
		return nil, err
	}
	r.describe(&o)
	r.Tails = o.Tails
	s := &streams{b: b, o: &o, lane: ff.LaneID(fmt.Sprintf("bench-%d", time.Now().UnixNano()))}
	if err := s.claim(ctx); err != nil {
		return nil, err
	}
	return r, s.measure(ctx, r)
}

type streams struct {
	b                 ff.Backend
	o                 *Options
	lane              ff.LaneID
	claimed           []ff.Claimed
	following         sync.WaitGroup
	appends, arrivals recorder
}

// claim makes the attempts whose output is written.
func (s *streams) claim(ctx context.Context) error {
	for len(s.claimed) < s.o.Workers {
		if _, err := s.b.CreateExecution(ctx, ff.CreateExecution{Lane: s.lane, Kind: "bench"}); err != nil {
			return fmt.Errorf("submitting: %w", err)
		}
		got, err := s.b.Claim(ctx, ff.Claim{Claimant: ff.Claimant{Worker: "bench", Instance: "bench-0"}, Lanes: []ff.LaneID{s.lane}, LeaseTTL: time.Hour, Wait: 10 * time.Second})
		if err != nil {
			return fmt.Errorf("claiming: %w", err)
		}
		s.claimed = append(s.claimed, got.Claimed...)
	}
	return nil
}

// complete ends the attempts, and with them the tails.
func (s *streams) complete(ctx context.Context) {
	for i := range s.claimed {
		_, _ = s.b.CompleteExecution(ctx, ff.CompleteExecution{LeaseRef: s.claimed[i].Ref()})
	}
}

func (s *streams) measure(ctx context.Context, r *Report) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var tails sync.WaitGroup
	s.following.Add(len(s.claimed) * s.o.Tails)
	for i := range s.claimed {
		for range s.o.Tails {
			tails.Go(func() {
				if err := s.tail(ctx, &s.claimed[i]); err != nil {
					stop(err)
				}
			})
		}
	}
	err := s.await(ctx)
	start := time.Now()
	if err == nil {
		err = s.append(ctx)
	}
	r.Seconds = time.Since(start).Seconds()
	s.complete(context.WithoutCancel(ctx))
	tails.Wait()
	if err = errors.Join(err, context.Cause(ctx)); err != nil {
		return err
	}
	r.FramesPerS = float64(s.o.Tasks) / r.Seconds
	r.LatencyMS["append"] = s.appends.percentiles()
	if s.o.Tails > 0 {
		r.LatencyMS["append to tail"] = s.arrivals.percentiles()
	}
	return nil
}

// firstFrame is the type of the frame that each output begins with.
const firstFrame = "first"

// await writes a frame to each output and waits until all tails have it.
func (s *streams) await(ctx context.Context) error {
	for i := range s.claimed {
		first := ff.NewFrame{Type: firstFrame, Payload: make([]byte, 8)}
		if _, err := s.b.AppendFrames(ctx, ff.AppendFrames{LeaseRef: s.claimed[i].Ref(), Frames: []ff.NewFrame{first}}); err != nil {
			return fmt.Errorf("appending: %w", err)
		}
	}
	all := make(chan struct{})
	go func() { s.following.Wait(); close(all) }()
	select {
	case <-all:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// pace waits until the k-th append of a worker is due.
func (s *streams) pace(ctx context.Context, begin time.Time, worker, k int) error {
	if s.o.Rate == 0 {
		return nil
	}
	nth := k*len(s.claimed) + worker
	due := time.NewTimer(time.Until(begin.Add(time.Duration(float64(nth*s.o.Batch) / float64(s.o.Rate) * float64(time.Second)))))
	defer due.Stop()
	select {
	case <-due.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// append writes all frames. The first bytes of each payload say when.
func (s *streams) append(ctx context.Context) error {
	var next atomic.Int64
	begin := time.Now()
	return parallel(ctx, len(s.claimed), func(ctx context.Context, i int) error {
		for k := 0; ctx.Err() == nil; k++ {
			if err := s.pace(ctx, begin, i, k); err != nil {
				return err
			}
			last := next.Add(int64(s.o.Batch))
			n := min(int64(s.o.Batch), int64(s.o.Tasks)-last+int64(s.o.Batch))
			if n <= 0 {
				return nil
			}
			frames := make([]ff.NewFrame, n)
			start := time.Now()
			for k := range frames {
				frames[k] = ff.NewFrame{Type: "bench", Payload: make([]byte, s.o.Payload)}
				binary.BigEndian.PutUint64(frames[k].Payload, uint64(start.UnixNano()))
			}
			if _, err := s.b.AppendFrames(ctx, ff.AppendFrames{LeaseRef: s.claimed[i].Ref(), Frames: frames}); err != nil {
				return fmt.Errorf("appending: %w", err)
			}
			s.appends.since(start)
			if last%1000 == 0 {
				s.o.Progress("append", int(min(last, int64(s.o.Tasks))), s.o.Tasks)
			}
		}
		return ctx.Err()
	})
}

// tail follows the output of an attempt to its end.
func (s *streams) tail(ctx context.Context, of *ff.Claimed) error {
	q := ff.TailFrames{StreamRef: ff.StreamRef{ID: of.Execution.ID, AttemptIndex: of.Execution.Attempt.Index}, Wait: 10 * time.Second, Limit: 1000}
	has := sync.OnceFunc(s.following.Done)
	defer has()
	for {
		page, err := s.b.TailFrames(ctx, q)
		if err != nil {
			return fmt.Errorf("tailing: %w", err)
		}
		for i := range page.Frames {
			if page.Frames[i].Type == firstFrame {
				has()
				continue
			}
			s.arrivals.since(time.Unix(0, int64(binary.BigEndian.Uint64(page.Frames[i].Payload))))
		}
		if q.After = page.Last; page.Closed() {
			return nil
		}
	}
}
