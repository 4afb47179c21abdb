package client

import (
	"context"
	"strconv"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// ReadEvents reads the event log. The server waits for events for the caller.
func (r *Remote) ReadEvents(ctx context.Context, c ff.ReadEvents) (ff.ReadEventsResult, error) {
	if err := c.Validate(); err != nil {
		return ff.ReadEventsResult{}, err
	}
	q := pageQuery("", c.Limit, "after", string(c.After), "execution_id", c.ID.String(), "family", string(c.Family))
	if c.Wait > 0 {
		q.Set("wait_ms", strconv.FormatInt(c.Wait.Milliseconds(), 10))
	}
	var out httpapi.EventPage
	if err := r.c.do(ctx, call{method: "GET", path: "/v1/events", query: q, wait: c.Wait, out: &out}); err != nil {
		return ff.ReadEventsResult{}, err
	}
	got := ff.ReadEventsResult{Next: out.NextCursor, Events: make([]ff.Event, len(out.Events))}
	for i := range out.Events {
		got.Events[i] = out.Events[i].Event()
	}
	return got, nil
}
