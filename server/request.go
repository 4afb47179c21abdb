package server

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// request is a request with its body read.
type request struct {
	*http.Request
	route *route
	body  []byte
}

// decode reads the body as its route says.
func decode[B any](r *request) (B, error) {
	return httpapi.Decode[B](r.body, r.route.unknown(), r.route.required...)
}

// readBody reads the body; when it cannot, it answers why and reports false.
func (s *Server) readBody(w http.ResponseWriter, r *request, rt *route) bool {
	if !jsonContent(r.Header.Get("Content-Type")) {
		s.writeJSON(w, r.Request, http.StatusUnsupportedMediaType, ff.PublicError{Error: "invalid JSON: Unsupported Media Type: send Content-Type: application/json"})
		return false
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, rt.limit))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		s.tooLarge(w, r.Request, rt)
		return false
	case err != nil:
		s.writeError(w, r.Request, ff.InvalidInput("body", "could not be read: %v", err))
		return false
	}
	r.body = body
	return true
}

func jsonContent(header string) bool {
	t, _, err := mime.ParseMediaType(header)
	return err == nil && (t == "application/json" || strings.HasPrefix(t, "application/") && strings.HasSuffix(t, "+json"))
}

// executionID reads the id of the path.
func (r *request) executionID() (ff.ExecutionID, error) {
	id, err := ff.ParseExecutionID(r.PathValue("id"))
	if e, ok := ff.AsError(err); ok {
		shown := *e
		shown.Detail = "invalid execution_id: " + e.Detail
		return id, &shown
	}
	return id, err
}

// sameExecutionID reads the id of the path, which a body of the reference has again.
func (r *request) sameExecutionID(again string) (ff.ExecutionID, error) {
	if _, err := ff.ParseExecutionID(again); err != nil {
		return ff.ExecutionID{}, fmt.Errorf("%w: field execution_id: %w", httpapi.ErrShape, err)
	}
	id, err := r.executionID()
	if err == nil && again != id.String() {
		err = ff.InvalidInput("execution_id", "path execution_id does not match body execution_id")
	}
	return id, err
}

// query reads query parameters and refuses bad ones.
type query struct {
	values url.Values
	err    error
}

func (r *request) query() *query {
	values, err := url.ParseQuery(r.URL.RawQuery)
	q := &query{values: values}
	if err != nil {
		q.err = ff.InvalidInput("query", "is malformed: %v", err)
	}
	return q
}

func (q *query) text(name string) string {
	if all := q.values[name]; len(all) > 1 && q.err == nil {
		q.err = ff.InvalidInput(name, "is given %d times", len(all))
	}
	return q.values.Get(name)
}

// number reads a whole number from 0 to limit; def when it is not given.
func (q *query) number(name string, def, limit int64) int64 {
	s := q.text(name)
	if s == "" || q.err != nil {
		return def
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > limit {
		q.err = ff.InvalidInput(name, "must be a whole number from 0 to %d (got %.40q)", limit, s)
		return def
	}
	return n
}
