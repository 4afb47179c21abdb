package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// Body limits in bytes. The first three are those of the reference
// (spec 08 §1.5), the others leave room for the largest payload in base64.
const (
	limitControl = 64 << 10
	limitCreate  = 1 << 20
	limitMedium  = 1 << 20
	limitPayload = ff.MaxPayloadBytes/3*4 + 1<<20
	limitBatch   = 32 << 20
)

// route is one endpoint. Everything that the document says about it stands
// beside the handler.
type route struct {
	method, path string
	id, tag      string
	summary      string
	// limit bounds the body; 0 means that there is none to read.
	limit int64
	// body and answers have values of the types of the bodies, for the document.
	body any
	// required are the fields that the body must have.
	required []string
	query    []param
	answers  map[int]any
	// wait marks long polls.
	wait  bool
	serve func(s *Server, r *request) (answer, error)
}

func (rt *route) pattern() string { return rt.method + " " + rt.path }

// unknown says what becomes of fields and query parameters that the route lacks.
func (rt *route) unknown() httpapi.Unknown {
	if rt.tag == "people" || rt.tag == "workers" {
		return httpapi.RefuseUnknown
	}
	return httpapi.IgnoreUnknown
}

// param is a query parameter of the document. Its max is a value for numbers and
// a length for texts.
type param struct {
	name, doc string
	number    bool
	required  bool
	enum      []any
	max       int
}

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

// answer is what a handler answers: JSON, or raw bytes with their type.
type answer struct {
	status      int
	json        any
	raw         []byte
	contentType string
	header      http.Header
}

func ok(v any) (answer, error)      { return answer{status: http.StatusOK, json: v}, nil }
func created(v any) (answer, error) { return answer{status: http.StatusCreated, json: v}, nil }

// createdOr answers 201 for something new and 200 for something that was there.
func createdOr(duplicate bool, v any) (answer, error) {
	if duplicate {
		return ok(v)
	}
	return created(v)
}

// stack is the routes with everything that stands before them.
func (s *Server) stack() (http.Handler, error) {
	mux := http.NewServeMux()
	routes := slices.Concat(referenceRoutes(), apiRoutes(), pageRoutes())
	for i := range routes {
		mux.Handle(routes[i].pattern(), s.endpoint(&routes[i]))
	}
	if s.opts.Metrics != nil {
		routes = append(routes, metricsRoute)
	}
	var err error
	if s.document, err = openAPI(routes); err != nil {
		return nil, err
	}
	guarded, err := s.crossOrigin(s.guardHost(s.authenticate(emptyErrors(mux))))
	if err != nil {
		return nil, err
	}
	return s.besideMetrics(s.observe(mux, guarded)), nil
}

// besideMetrics serves the metrics outside of everything else: no token, no CORS,
// not counted themselves (spec 09 §4.1).
func (s *Server) besideMetrics(next http.Handler) http.Handler {
	if s.opts.Metrics == nil {
		return next
	}
	mux := http.NewServeMux()
	mux.Handle(metricsRoute.pattern(), s.opts.Metrics)
	metrics := s.guardHost(emptyErrors(mux))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			metrics.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// emptyErrors serves a mux whose own 404 and 405 have no body, and which does not
// redirect (spec 08 §1.7, §1.8).
func emptyErrors(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if unclean(r) {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		if _, pattern := mux.Handler(r); pattern == "" {
			w = &bodiless{w}
		}
		mux.ServeHTTP(w, r)
	})
}

// unclean reports whether a path has empty segments or dots: a mux redirects
// those, but no endpoint has them.
func unclean(r *http.Request) bool {
	p := r.URL.EscapedPath()
	return path.Clean(p) != p
}

type bodiless struct{ http.ResponseWriter }

func (b *bodiless) WriteHeader(status int) {
	b.Header().Del("Content-Type")
	b.Header().Del("X-Content-Type-Options")
	b.ResponseWriter.WriteHeader(status)
}

func (b *bodiless) Write(p []byte) (int, error) { return len(p), nil }

// endpoint reads the body within its limit, runs the handler and writes its
// answer. A length over the limit is refused also where no body is read
// (spec 08 §1.5).
func (s *Server) endpoint(rt *route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req := &request{Request: r, route: rt}
		if rt.limit > 0 && r.ContentLength > rt.limit {
			s.tooLarge(w, r, rt)
			return
		}
		if err := rt.checkQuery(r.URL.RawQuery); err != nil {
			s.writeError(w, r, err)
			return
		}
		if rt.body != nil && !s.readBody(w, req, rt) {
			return
		}
		a, err := rt.serve(s, req)
		if err != nil {
			s.writeError(w, r, err)
			return
		}
		s.write(w, r, a)
	})
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

// checkQuery refuses parameters that an endpoint of our own does not have: a
// misspelt filter must not list everything.
func (rt *route) checkQuery(raw string) error {
	if raw == "" || rt.unknown() == httpapi.IgnoreUnknown {
		return nil
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return ff.InvalidInput("query", "is malformed: %v", err)
	}
	known := make([]string, len(rt.query))
	for i, p := range rt.query {
		known[i] = p.name
	}
	for name := range values {
		switch {
		case len(known) == 0:
			return ff.InvalidInput("query", "parameter %.100q is unknown; this endpoint has none", name)
		case !slices.Contains(known, name):
			return ff.InvalidInput("query", "parameter %.100q is unknown; the parameters are %s", name, strings.Join(known, ", "))
		}
	}
	return nil
}

func jsonContent(header string) bool {
	t, _, err := mime.ParseMediaType(header)
	return err == nil && (t == "application/json" || strings.HasPrefix(t, "application/") && strings.HasSuffix(t, "+json"))
}

// tooLarge is the answer to a body over the limit (spec 08 §1.5).
func (s *Server) tooLarge(w http.ResponseWriter, r *http.Request, rt *route) {
	s.writeJSON(w, r, http.StatusRequestEntityTooLarge, tooLarge{"payload_too_large", rt.limit, rt.path})
}

// tooLarge is the body of that answer.
type tooLarge struct {
	Error string `json:"error" enum:"payload_too_large"`
	Limit int64  `json:"limit_bytes"`
	Route string `json:"route"`
}

func (s *Server) write(w http.ResponseWriter, r *http.Request, a answer) {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	switch {
	case a.json != nil:
		s.writeJSON(w, r, a.status, a.json)
	case a.contentType != "":
		w.Header().Set("Content-Type", a.contentType)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Content-Length", strconv.Itoa(len(a.raw)))
		w.WriteHeader(a.status)
		_, _ = w.Write(a.raw)
	default:
		w.WriteHeader(a.status)
	}
}

func (s *Server) writeJSON(w http.ResponseWriter, r *http.Request, status int, v any) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		s.log.ErrorContext(r.Context(), "encoding an answer", "path", r.URL.Path, "err", err)
		status = http.StatusInternalServerError
		buf.Reset()
		buf.WriteString(`{"error":"internal: an answer could not be encoded","kind":"internal","retryable":false,"code":"internal"}`)
	}
	body := bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// statusClientGone is counted for requests whose client left before the answer:
// what the store says then is no fault of its own.
const statusClientGone = 499

// writeError answers a refusal, and logs a fault.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, httpapi.ErrMalformed):
		s.writeJSON(w, r, http.StatusBadRequest, ff.PublicError{Error: "invalid JSON: Bad Request: " + err.Error(), Code: string(ff.CodeInvalidInput)})
		return
	case errors.Is(err, httpapi.ErrShape):
		p := ff.PublicError{Error: "invalid JSON: Unprocessable Entity: " + err.Error(), Code: string(ff.CodeInvalidInput)}
		if e, ok := ff.AsError(err); ok {
			p.Code, p.Field = string(e.Code), e.Field
		}
		s.writeJSON(w, r, http.StatusUnprocessableEntity, p)
		return
	}
	status, p := ff.PublicErrorOf(err)
	if status >= http.StatusInternalServerError && r.Context().Err() != nil {
		w.WriteHeader(statusClientGone)
		return
	}
	if status >= http.StatusInternalServerError {
		s.log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	if e, ok := ff.AsError(err); ok && e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10))
	}
	s.writeJSON(w, r, status, p)
}

// observe logs and counts requests, and survives panics.
func (s *Server) observe(mux *http.ServeMux, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		seen := &statusWriter{ResponseWriter: w}
		defer func() {
			if v := recover(); v != nil {
				s.log.ErrorContext(r.Context(), "handler panicked", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
				if seen.status != 0 { // half an answer: the connection must break
					s.record(r, mux, http.StatusInternalServerError, time.Since(start))
					panic(http.ErrAbortHandler)
				}
				s.writeError(seen, r, fmt.Errorf("panic: %v", v))
			}
			s.record(r, mux, seen.status, time.Since(start))
		}()
		next.ServeHTTP(seen, r)
	})
}

func (s *Server) record(r *http.Request, mux *http.ServeMux, status int, took time.Duration) {
	if status == 0 {
		status = http.StatusOK
	}
	label := "unknown"
	if _, pattern := mux.Handler(r); pattern != "" && !unclean(r) {
		_, label, _ = strings.Cut(pattern, " ")
	}
	set := metric.WithAttributes(attribute.String("method", methodLabel(r.Method)), attribute.String("path", strings.TrimSuffix(label, "{$}")), attribute.String("status", strconv.Itoa(status)))
	s.requests.Add(r.Context(), 1, set)
	s.durations.Record(r.Context(), took.Seconds(), set)
	s.log.DebugContext(r.Context(), "request", "method", r.Method, "path", r.URL.Path, "status", status, "took", took)
}

func methodLabel(m string) string {
	switch m {
	case "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE":
		return m
	}
	return "OTHER"
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

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
