package client

import (
	"context"
	"iter"
	"net/url"
	"strconv"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// AppendFrames appends to the output of an attempt. It is not repeated when its answer
// was lost: the frames may be stored.
func (r *Remote) AppendFrames(ctx context.Context, c ff.AppendFrames) (ff.AppendFramesResult, error) {
	if err := c.Validate(); err != nil {
		return ff.AppendFramesResult{}, err
	}
	var out httpapi.Appended
	err := r.c.do(ctx, call{method: "POST", path: executionPath(c.ID, "/frames"), once: true, body: httpapi.AppendOf(&c), out: &out})
	return out.Result(), err
}

// ReadFrames reads a range of the output of an attempt.
func (r *Remote) ReadFrames(ctx context.Context, c ff.ReadFrames) (ff.FramesResult, error) {
	if err := c.Validate(); err != nil {
		return ff.FramesResult{}, err
	}
	q := frameQuery(c.Limit, c.Durable)
	setPosition(q, "from", c.From)
	setPosition(q, "to", c.To)
	var out httpapi.Frames
	err := r.c.do(ctx, call{method: "GET", path: streamPath(c.StreamRef, "/frames"), query: q, out: &out})
	return out.Result(), err
}

// TailFrames reads the output of an attempt after a position. The server waits for it
// for the caller.
func (r *Remote) TailFrames(ctx context.Context, c ff.TailFrames) (ff.FramesResult, error) {
	if err := c.Validate(); err != nil {
		return ff.FramesResult{}, err
	}
	q := frameQuery(c.Limit, c.Durable)
	setPosition(q, "after", c.After)
	if c.Wait > 0 {
		q.Set("wait_ms", strconv.FormatInt(int64(httpapi.MillisOf(c.Wait)), 10))
	}
	var out httpapi.Frames
	err := r.c.do(ctx, call{method: "GET", path: streamPath(c.StreamRef, "/frames/tail"), query: q, wait: c.Wait, out: &out})
	return out.Result(), err
}

func frameQuery(limit int, durable bool) url.Values {
	q := url.Values{}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	if durable {
		q.Set("visibility", httpapi.VisibilityDurable)
	}
	return q
}

func setPosition(q url.Values, name string, at ff.FrameID) {
	if !at.IsZero() {
		q.Set(name, at.String())
	}
}

func streamPath(ref ff.StreamRef, rest string) string {
	return executionPath(ref.ID, "/attempts/"+strconv.Itoa(ref.AttemptIndex)+rest)
}

// Summary reads the summary document of an attempt.
func (r *Remote) Summary(ctx context.Context, ref ff.StreamRef) (ff.Summary, error) {
	if err := ref.Validate(); err != nil {
		return ff.Summary{}, err
	}
	var out httpapi.Summary
	err := r.c.do(ctx, call{method: "GET", path: streamPath(ref, "/summary"), out: &out})
	return out.Result(), err
}

// Output is a frame and the attempt that wrote it.
type Output struct {
	AttemptIndex int
	ff.Frame
}

// OutputSource is what Follow reads: a store, or a Client's Backend.
type OutputSource interface {
	Execution(context.Context, ff.ExecutionID) (ff.Execution, error)
	TailFrames(context.Context, ff.TailFrames) (ff.FramesResult, error)
}

// Tail follows the output of one attempt from q.After, and ends when its stream is
// closed. While the server cannot be reached it goes on trying until ctx ends; q.Wait
// and q.Limit need not be set. An error ends it. Errors: execution_not_found.
func (c *Client) Tail(ctx context.Context, q ff.TailFrames) iter.Seq2[ff.Frame, error] {
	return func(yield func(ff.Frame, error) bool) {
		if _, err := (patient{c}).Execution(ctx, q.ID); err != nil {
			yield(ff.Frame{}, err)
			return
		}
		tail(ctx, patient{c}, q, yield)
	}
}

// Follow follows the output of an execution from q on: when an attempt has ended it
// goes on with the next one, until the execution has ended. It is otherwise like Tail.
func (c *Client) Follow(ctx context.Context, q ff.TailFrames) iter.Seq2[Output, error] {
	return Follow(ctx, patient{c}, q)
}

// Follow is Client.Follow on any store. It does not repeat calls that fail.
func Follow(ctx context.Context, from OutputSource, q ff.TailFrames) iter.Seq2[Output, error] {
	return func(yield func(Output, error) bool) {
		for at := q; ; at.AttemptIndex, at.After = at.AttemptIndex+1, (ff.FrameID{}) {
			x, err := from.Execution(ctx, at.ID)
			if err != nil {
				yield(Output{}, err)
				return
			}
			if x.Terminal() && at.AttemptIndex > x.Attempt.Index {
				return
			}
			if !tail(ctx, from, at, func(f ff.Frame, err error) bool { return yield(Output{at.AttemptIndex, f}, err) }) {
				return
			}
		}
	}
}

// tail yields the frames of a stream until it is closed, and then reports true.
func tail(ctx context.Context, from OutputSource, q ff.TailFrames, yield func(ff.Frame, error) bool) bool {
	if q.Wait == 0 {
		q.Wait = waitFor
	}
	for {
		page, err := from.TailFrames(ctx, q)
		if err == nil && len(page.Frames) == 0 && !page.Closed() {
			// The stream of an execution that was deleted is never closed.
			_, err = from.Execution(ctx, q.ID)
		}
		if err != nil {
			yield(ff.Frame{}, err)
			return false
		}
		for _, f := range page.Frames {
			if !yield(f, nil) {
				return false
			}
		}
		if q.After = page.Last; page.Closed() {
			return true
		}
	}
}

// patient repeats calls while their errors say that they may succeed later.
type patient struct{ c *Client }

func (p patient) Execution(ctx context.Context, id ff.ExecutionID) (x ff.Execution, err error) {
	err = p.c.patiently(ctx, func() (err error) {
		x, err = p.c.Get(ctx, id)
		return err
	})
	return x, err
}

func (p patient) TailFrames(ctx context.Context, q ff.TailFrames) (page ff.FramesResult, err error) {
	err = p.c.patiently(ctx, func() (err error) {
		page, err = p.c.Backend().TailFrames(ctx, q)
		return err
	})
	return page, err
}

// Summary reads the summary document of an attempt; version 0 when there is none.
func (c *Client) Summary(ctx context.Context, ref ff.StreamRef) (ff.Summary, error) {
	return c.Backend().Summary(ctx, ref)
}
