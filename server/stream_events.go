package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

const (
	eventStreamType = "text/event-stream"
	// endEventID is the id of the event that ends a stream. Who comes back with it has
	// seen everything, and is told not to come again.
	endEventID = "end"
	// eventPage bounds the frames that one client holds in memory.
	eventPage = 64
	// reconnectMS is how long a client waits before it comes back to a stream that
	// broke off.
	reconnectMS = 1000
)

// streamEvents follows a stream until it is closed, the client leaves or the server
// stops. A client that comes back goes on after its Last-Event-ID.
func (s *Server) streamEvents(r *request) (answer, error) {
	ref, err := r.streamRef()
	if err != nil {
		return answer{}, err
	}
	q := r.query()
	c := ff.TailFrames{StreamRef: ref, After: q.position("after"), Durable: q.durable(), Wait: s.opts.TailHeartbeat, Limit: eventPage}
	if q.err != nil {
		return answer{}, q.err
	}
	switch last := r.Header.Get("Last-Event-ID"); last {
	case "":
	case endEventID:
		return answer{status: http.StatusNoContent}, nil
	default:
		if c.After, err = ff.ParseFrameID(last); err != nil {
			return answer{}, ff.InvalidInput("Last-Event-ID", "must be the id of a frame (got %.60q)", last)
		}
	}
	// A stream that nobody will ever write must not be waited for.
	if _, err := s.store.Execution(r.Context(), ref.ID); err != nil {
		return answer{}, err
	}
	header := http.Header{"Content-Type": {eventStreamType}, "Cache-Control": {"no-store"}, "X-Accel-Buffering": {"no"}, "X-Content-Type-Options": {"nosniff"}}
	if r.Method == http.MethodHead {
		return answer{status: http.StatusOK, header: header}, nil
	}
	leave, err := s.enterTail(r.Context())
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, header: header, stream: func(w http.ResponseWriter) {
		defer leave()
		ctx, cancel := s.polling(r)
		defer cancel()
		s.follow(ctx, s.eventWriter(w), c)
	}}, nil
}

// eventWriter writes events to one client.
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	buf     bytes.Buffer
}

// eventWriter lets a stream last longer than other answers may.
func (s *Server) eventWriter(w http.ResponseWriter) *eventWriter {
	e := &eventWriter{w: w, control: http.NewResponseController(w), timeout: s.opts.TailWriteTimeout}
	// The deadline of the request would end the context of its handler.
	_ = e.control.SetReadDeadline(time.Time{})
	return e
}

// flush writes what was put together. A client that does not take it in time is cut
// off.
func (e *eventWriter) flush() error {
	defer e.buf.Reset()
	if err := e.control.SetWriteDeadline(time.Now().Add(e.timeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := e.w.Write(e.buf.Bytes()); err != nil {
		return err
	}
	return e.control.Flush()
}

// comment is for the connection: clients do not see it.
func (e *eventWriter) comment(text string) { fmt.Fprintf(&e.buf, ": %s\n\n", text) }

// event puts an event together. Its data is JSON, which has no line breaks.
func (e *eventWriter) event(name, id string, data any) error {
	if name != "" {
		fmt.Fprintf(&e.buf, "event: %s\n", name)
	}
	fmt.Fprintf(&e.buf, "id: %s\ndata: ", id)
	enc := json.NewEncoder(&e.buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(data); err != nil { // ends with a line break
		return err
	}
	e.buf.WriteByte('\n')
	return nil
}

// frames puts the events of a page together: one without a name for each frame, and
// one named end when no more will follow.
func (e *eventWriter) frames(page *ff.FramesResult) error {
	for i := range page.Frames {
		f := httpapi.FrameOf(&page.Frames[i])
		if err := e.event("", f.ID.String(), f); err != nil {
			return err
		}
	}
	if page.Closed() {
		return e.event("end", endEventID, httpapi.Closed{ClosedAt: httpapi.At(page.ClosedAt), ClosedReason: page.ClosedReason})
	}
	if len(page.Frames) == 0 {
		e.comment("nothing new")
	}
	return nil
}

// follow writes a stream until it is closed or ctx ends, with a comment now and then
// while nothing happens, so that nobody on the way takes the connection for dead.
func (s *Server) follow(ctx context.Context, e *eventWriter, c ff.TailFrames) {
	fmt.Fprintf(&e.buf, "retry: %d\n\n", reconnectMS)
	for e.flush() == nil {
		page, err := s.store.TailFrames(ctx, c)
		if err == nil {
			err = e.frames(&page)
		}
		if err != nil {
			s.breakOff(ctx, e, err)
			return
		}
		if page.Closed() {
			_ = e.flush()
			return
		}
		c.After = page.Last
	}
}

// breakOff ends a stream that is not closed: its client comes back for the rest.
func (s *Server) breakOff(ctx context.Context, e *eventWriter, err error) {
	switch {
	case s.stopping.Err() != nil:
		e.comment("the server stops")
	case ctx.Err() != nil:
		return
	default:
		s.log.ErrorContext(ctx, "following a stream failed", "err", err)
		_, p := ff.PublicErrorOf(err)
		e.comment(p.Error)
	}
	_ = e.flush()
}
