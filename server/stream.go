package server

import (
	"context"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// maxStreamPage is the largest page of the endpoints of the reference (spec 08 §3.14).
const maxStreamPage = 1000

// streamRoutes are the endpoints of the reference for streams (spec 08 §3.14, §3.15).
func streamRoutes() []route {
	limit := param{name: "limit", doc: "Page size", number: true, max: maxStreamPage}
	return []route{
		{method: "GET", path: "/v1/executions/{id}/attempts/{idx}/stream", id: "read-stream", tag: "reference", summary: "Read the output of an attempt as it is stored", unchecked: true, textErrors: true,
			query:   []param{{name: "from", doc: "First position: start, end, MS or MS-SEQ; start when absent"}, {name: "to", doc: "Last position; end when absent"}, limit},
			answers: map[int]any{200: httpapi.StreamFrames{}}, serve: (*Server).readStream},
		{method: "GET", path: "/v1/executions/{id}/attempts/{idx}/stream/tail", id: "tail-stream", tag: "reference", summary: "Read the output of an attempt after a position, waiting for it when asked to", unchecked: true, textErrors: true, wait: true,
			query: []param{{name: "after", doc: "Position after which to go on, MS or MS-SEQ; 0-0 when absent"}, limit,
				{name: "block_ms", doc: "Longest time to wait for a frame", number: true, max: int(ff.MaxTailWait.Milliseconds())}},
			answers: map[int]any{200: httpapi.StreamFrames{}, 429: ff.PublicError{}}, serve: (*Server).tailStream},
	}
}

// frameRoutes are the endpoints of our own for streams.
func frameRoutes() []route {
	visibility := param{name: "visibility", doc: "all (default), or durable to leave best-effort frames out", enum: []any{httpapi.VisibilityAll, httpapi.VisibilityDurable}}
	limit := param{name: "limit", doc: "Page size", number: true, max: ff.MaxFrameLimit}
	after := param{name: "after", doc: "Position after which to go on, MS or MS-SEQ; the beginning when absent"}
	return []route{
		{method: "GET", path: "/v1/executions/{id}/attempts/{idx}/frames", id: "read-frames", tag: "people", summary: "Read the output of an attempt", unchecked: true,
			query:   []param{{name: "from", doc: "First position, MS or MS-SEQ; the beginning when absent"}, {name: "to", doc: "Last position; the end when absent"}, limit, visibility},
			answers: map[int]any{200: httpapi.Frames{}}, serve: (*Server).readFrames},
		{method: "GET", path: "/v1/executions/{id}/attempts/{idx}/frames/tail", id: "tail-frames", tag: "people", summary: "Read the output of an attempt after a position, and wait for more when asked to", unchecked: true, wait: true,
			query:   []param{after, limit, visibility, {name: "wait_ms", doc: "Longest time to wait for a frame", number: true, max: int(ff.MaxTailWait.Milliseconds())}},
			answers: map[int]any{200: httpapi.Frames{}, 429: ff.PublicError{}}, serve: (*Server).tailFrames},
		{method: "GET", path: "/v1/executions/{id}/attempts/{idx}/stream/events", id: "stream-events", tag: "people", summary: "Follow the output of an attempt as Server-Sent Events", wait: true,
			query:   []param{after, visibility},
			answers: map[int]any{200: media(eventStreamType), 204: nil, 429: ff.PublicError{}}, serve: (*Server).streamEvents},
		{method: "GET", path: "/v1/executions/{id}/attempts/{idx}/summary", id: "get-summary", tag: "people", summary: "Read the summary document of an attempt", unchecked: true,
			answers: map[int]any{200: httpapi.Summary{}}, serve: (*Server).getSummary},
		{method: "POST", path: "/v1/executions/{id}/frames", id: "append-frames", tag: "workers", summary: "Append to the output of the attempt that a lease belongs to", unchecked: true, limit: limitPayload,
			body: httpapi.Append{}, required: []string{"fence", "frames"}, answers: map[int]any{200: httpapi.Appended{}}, serve: (*Server).appendFrames},
	}
}

func (s *Server) appendFrames(r *request) (answer, error) {
	b, id, err := withID[httpapi.Append](r)
	if err != nil {
		return answer{}, err
	}
	c, err := b.Command(id)
	if err != nil {
		return answer{}, err
	}
	got, err := s.store.AppendFrames(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.AppendedOf(got))
}

// streamRef reads the stream of the path.
func (r *request) streamRef() (ref ff.StreamRef, err error) {
	index, bad := strconv.ParseUint(r.PathValue("idx"), 10, 32)
	if bad != nil {
		return ref, ff.InvalidInput("attempt_index", "must be a whole number from 0 to %d (got %.40q)", uint32(1<<32-1), r.PathValue("idx"))
	}
	ref.AttemptIndex = int(index)
	ref.ID, err = r.executionID()
	return ref, err
}

// position reads a position of a stream; zero when it is not given.
func (q *query) position(name string) (id ff.FrameID) {
	s := q.text(name)
	if s == "" || q.err != nil {
		return id
	}
	id, err := ff.ParseFrameID(s)
	if err != nil {
		q.err = ff.InvalidInput(name, "must be MS or MS-SEQ in decimal digits (got %.60q)", s)
	}
	return id
}

// durable reads the visibility.
func (q *query) durable() bool {
	switch v := q.text("visibility"); v {
	case "", httpapi.VisibilityAll:
		return false
	case httpapi.VisibilityDurable:
		return true
	default:
		if q.err == nil {
			q.err = ff.InvalidInput("visibility", "must be %s or %s (got %.40q)", httpapi.VisibilityAll, httpapi.VisibilityDurable, v)
		}
		return false
	}
}

func (s *Server) readFrames(r *request) (answer, error) {
	ref, err := r.streamRef()
	if err != nil {
		return answer{}, err
	}
	q := r.query()
	c := ff.ReadFrames{StreamRef: ref, From: q.position("from"), To: q.position("to"), Limit: int(q.number("limit", 0, ff.MaxFrameLimit)), Durable: q.durable()}
	if q.err != nil {
		return answer{}, q.err
	}
	got, err := s.store.ReadFrames(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.FramesOf(&got))
}

func (s *Server) tailFrames(r *request) (answer, error) {
	ref, err := r.streamRef()
	if err != nil {
		return answer{}, err
	}
	q := r.query()
	c := ff.TailFrames{StreamRef: ref, After: q.position("after"), Limit: int(q.number("limit", 0, ff.MaxFrameLimit)), Durable: q.durable(),
		Wait: time.Duration(q.number("wait_ms", 0, ff.MaxTailWait.Milliseconds())) * time.Millisecond}
	if q.err != nil {
		return answer{}, q.err
	}
	got, err := s.poll(r, c)
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.FramesOf(&got))
}

// poll tails once. A tail that waits takes one of the places for them; one that is
// only to look does not, so that tails that wait do not keep others from reading.
func (s *Server) poll(r *request, c ff.TailFrames) (ff.FramesResult, error) {
	if r.Method == http.MethodHead {
		c.Wait = 0
	}
	if c.Wait == 0 {
		return s.store.TailFrames(r.Context(), c)
	}
	leave, err := s.enterTail(r.Context())
	if err != nil {
		return ff.FramesResult{}, err
	}
	defer leave()
	ctx, cancel := s.polling(r)
	defer cancel()
	got, err := s.store.TailFrames(ctx, c)
	if err != nil && ctx.Err() != nil {
		return ff.FramesResult{Last: c.After}, nil
	}
	return got, err
}

// enterTail takes a place for a tail. Errors: resource_exhausted when none is free.
func (s *Server) enterTail(ctx context.Context) (leave func(), err error) {
	select {
	case s.tails <- struct{}{}:
	default:
		e := ff.Errorf(ff.CodeResourceExhausted, "all %d places for tails are taken; come back later, or read without waiting", cap(s.tails))
		e.RetryAfter = time.Second
		return nil, e
	}
	ctx = context.WithoutCancel(ctx)
	s.tailing.Add(ctx, 1)
	return func() {
		s.tailing.Add(ctx, -1)
		<-s.tails
	}, nil
}

func (s *Server) getSummary(r *request) (answer, error) {
	ref, err := r.streamRef()
	if err != nil {
		return answer{}, err
	}
	got, err := s.store.Summary(r.Context(), ref)
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.SummaryOf(&got))
}

// plainRefusal is how the reference refuses paths and queries that it cannot read.
func plainRefusal(text string) (answer, error) {
	return answer{status: http.StatusBadRequest, raw: []byte(text), contentType: "text/plain; charset=utf-8"}, nil
}

// badIndex refuses a path; empty when its index can be read.
func badIndex(r *request) string {
	if _, err := strconv.ParseUint(r.PathValue("idx"), 10, 32); err != nil {
		return "Invalid URL: Cannot parse value at index 1 with value `" + strings.ToValidUTF8(r.PathValue("idx"), "?") + "` to a `u32`"
	}
	return ""
}

// referenceQuery reads the query of an endpoint for streams of the reference. bad is
// the text of the refusal.
type referenceQuery struct {
	values url.Values
	bad    string
}

func (r *request) referenceQuery() *referenceQuery {
	values, err := url.ParseQuery(r.URL.RawQuery)
	q := &referenceQuery{values: values}
	if err != nil {
		q.refuse(err.Error())
	}
	return q
}

func (q *referenceQuery) refuse(text string) {
	if q.bad == "" {
		q.bad = "Failed to deserialize query string: " + text
	}
}

// text is the value of a parameter; missing when it is not given.
func (q *referenceQuery) text(name, missing string) string {
	switch all := q.values[name]; len(all) {
	case 0:
		return missing
	case 1:
		return all[0]
	default:
		q.refuse("duplicate field `" + name + "`")
		return missing
	}
}

func (q *referenceQuery) number(name string, missing uint64) uint64 {
	n, err := strconv.ParseUint(q.text(name, strconv.FormatUint(missing, 10)), 10, 64)
	if err != nil {
		q.refuse(name + ": must be a whole number from 0 to 18446744073709551615")
	}
	return n
}

// The words of cursors.
const (
	cursorStart = "start"
	cursorEnd   = "end"
)

var concreteCursor = regexp.MustCompile(`^[0-9]+(-[0-9]+)?$`)

// cursor reads a cursor of the reference (spec 11 §5.8).
func (q *referenceQuery) cursor(name, missing string) string {
	c := q.text(name, missing)
	switch {
	case c == cursorStart, c == cursorEnd, concreteCursor.MatchString(c):
	case c == "":
		q.refuse(name + ": stream cursor must not be empty")
	case c == "-", c == "+":
		q.refuse(name + ": bare marker '" + c + "' is not a valid stream cursor; use 'start' or 'end'")
	default:
		q.refuse(name + ": invalid stream cursor '" + strings.ToValidUTF8(c, "?") + "' (expected 'start', 'end', '<ms>', or '<ms>-<seq>')")
	}
	return c
}

// The positions behind all frames and before them.
var (
	lastPosition  = ff.FrameID{Ms: 1<<64 - 1, Seq: 1<<64 - 1}
	firstPosition = ff.FrameID{Seq: 1}
)

// lowest is the first position of a range that begins at a cursor.
func lowest(cursor string) (ff.FrameID, error) {
	switch cursor {
	case cursorStart:
		return ff.FrameID{}, nil
	case cursorEnd:
		return lastPosition, nil
	}
	return ff.ParseFrameID(cursor)
}

// highest is the last position of a range that ends at a cursor: all of a millisecond
// when that is all that is given.
func highest(cursor string) (ff.FrameID, error) {
	switch cursor {
	case cursorStart:
		return firstPosition, nil
	case cursorEnd:
		return ff.FrameID{}, nil
	}
	id, err := ff.ParseFrameID(cursor)
	switch {
	case err != nil:
	case !strings.Contains(cursor, "-"):
		id.Seq = lastPosition.Seq
	case id.IsZero():
		id = firstPosition // zero would be the end
	}
	return id, err
}

// referencePage checks the size of a page.
func referencePage(limit uint64, by string) (int, error) {
	switch {
	case limit < 1:
		return 0, ff.InvalidInput("limit", "limit must be >= 1")
	case limit > maxStreamPage:
		return 0, ff.InvalidInput("limit", "limit exceeds REST ceiling %d; paginate via %s for larger spans", maxStreamPage, by)
	}
	return int(limit), nil
}

func (s *Server) readStream(r *request) (answer, error) {
	if bad := badIndex(r); bad != "" {
		return plainRefusal(bad)
	}
	q := r.referenceQuery()
	from, to, limit := q.cursor("from", cursorStart), q.cursor("to", cursorEnd), q.number("limit", ff.DefaultFrameLimit)
	if q.bad != "" {
		return plainRefusal(q.bad)
	}
	var c ff.ReadFrames
	var err error
	if c.Limit, err = referencePage(limit, "from/to"); err != nil {
		return answer{}, err
	}
	if c.StreamRef, err = r.streamRef(); err != nil {
		return answer{}, err
	}
	if c.From, err = lowest(from); err != nil {
		return answer{}, ff.InField("from", err)
	}
	if c.To, err = highest(to); err != nil {
		return answer{}, ff.InField("to", err)
	}
	got, err := s.store.ReadFrames(r.Context(), c)
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.StreamFramesOf(&got))
}

// referenceTailLimit is the page of a tail when no limit is given.
const referenceTailLimit = 50

func (s *Server) tailStream(r *request) (answer, error) {
	if bad := badIndex(r); bad != "" {
		return plainRefusal(bad)
	}
	q := r.referenceQuery()
	after, block, limit := q.cursor("after", "0-0"), q.number("block_ms", 0), q.number("limit", referenceTailLimit)
	if q.bad != "" {
		return plainRefusal(q.bad)
	}
	if most := uint64(ff.MaxTailWait.Milliseconds()); block > most {
		return answer{}, ff.InvalidInput("block_ms", "block_ms exceeds %dms ceiling", most)
	}
	c := ff.TailFrames{Wait: time.Duration(block) * time.Millisecond}
	var err error
	if c.Limit, err = referencePage(limit, "after"); err != nil {
		return answer{}, err
	}
	if after == cursorStart || after == cursorEnd {
		return answer{}, ff.InvalidInput("after", "after: XREAD cursor must be a concrete entry id; pass '0-0' to start from the beginning")
	}
	if c.StreamRef, err = r.streamRef(); err != nil {
		return answer{}, err
	}
	if c.After, err = ff.ParseFrameID(after); err != nil {
		return answer{}, ff.InField("after", err)
	}
	got, err := s.poll(r, c)
	if err != nil {
		return answer{}, err
	}
	return ok(httpapi.StreamFramesOf(&got))
}
