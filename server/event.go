package server

import (
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

func (s *Server) events(r *request) (answer, error) {
	q := r.query()
	c := ff.ReadEvents{
		After: ff.EventCursor(q.text("after")), Family: ff.EventFamily(q.text("family")), Limit: int(q.number("limit", 0, ff.MaxPageLimit)),
		Wait: time.Duration(q.number("wait_ms", 0, ff.MaxClaimWait.Milliseconds())) * time.Millisecond,
	}
	if id := q.text("execution_id"); id != "" && q.err == nil {
		c.ID, q.err = ff.ParseExecutionID(id)
	}
	if q.err != nil {
		return answer{}, q.err
	}
	ctx, cancel := s.polling(r)
	defer cancel()
	got, err := s.store.ReadEvents(ctx, c)
	if err != nil && ctx.Err() != nil {
		got, err = ff.ReadEventsResult{Next: c.After}, nil
	}
	if err != nil {
		return answer{}, err
	}
	out := httpapi.EventPage{Events: make([]httpapi.Event, len(got.Events)), NextCursor: got.Next}
	for i, e := range got.Events {
		out.Events[i] = httpapi.EventOf(e)
	}
	return ok(out)
}
