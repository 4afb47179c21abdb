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
	"runtime/debug"
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
	body    any
	query   []param
	answers map[int]any
	// wait marks long polls.
	wait  bool
	serve func(s *Server, r *request) (answer, error)
}

func (rt *route) pattern() string { return rt.method + " " + rt.path }

// param is a query parameter of the document.
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
	body []byte
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
	for _, rt := range append(referenceRoutes(), apiRoutes()...) {
		mux.Handle(rt.pattern(), s.endpoint(&rt))
	}
	doc, err := openAPI(append(referenceRoutes(), apiRoutes()...))
	if err != nil {
		return nil, err
	}
	mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(doc)
	})
	mux.HandleFunc("GET /{$}", s.page)
	if s.opts.Metrics != nil {
		mux.Handle("GET /metrics", s.opts.Metrics)
	}
	guarded, err := s.crossOrigin(s.guardHost(s.authenticate(emptyErrors(mux))))
	if err != nil {
		return nil, err
	}
	return s.observe(mux, guarded), nil
}

// emptyErrors serves a mux whose own 404 and 405 have no body (spec 08 §1.8).
func emptyErrors(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := mux.Handler(r); pattern == "" {
			w = &bodiless{w}
		}
		mux.ServeHTTP(w, r)
	})
}

type bodiless struct{ http.ResponseWriter }

func (b *bodiless) WriteHeader(status int) {
	b.Header().Del("Content-Type")
	b.Header().Del("X-Content-Type-Options")
	b.ResponseWriter.WriteHeader(status)
}

func (b *bodiless) Write(p []byte) (int, error) { return len(p), nil }

// endpoint reads the body within its limit, runs the handler and writes its
// answer.
func (s *Server) endpoint(rt *route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req := &request{Request: r}
		if rt.limit > 0 {
			if r.ContentLength > rt.limit {
				s.tooLarge(w, r, rt)
				return
			}
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, rt.limit))
			var large *http.MaxBytesError
			if errors.As(err, &large) {
				s.tooLarge(w, r, rt)
				return
			}
			if err != nil {
				s.writeError(w, r, ff.InvalidInput("body", "could not be read: %v", err))
				return
			}
			req.body = body
		}
		if rt.body != nil && !jsonContent(r.Header.Get("Content-Type")) {
			s.writeJSON(w, r, http.StatusUnsupportedMediaType, ff.PublicError{Error: "invalid JSON: Unsupported Media Type: send Content-Type: application/json"})
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

func jsonContent(header string) bool {
	t, _, err := mime.ParseMediaType(header)
	return err == nil && (t == "application/json" || strings.HasPrefix(t, "application/") && strings.HasSuffix(t, "+json"))
}

// tooLarge is the answer to a body over the limit (spec 08 §1.5).
func (s *Server) tooLarge(w http.ResponseWriter, r *http.Request, rt *route) {
	s.writeJSON(w, r, http.StatusRequestEntityTooLarge, struct {
		Error string `json:"error"`
		Limit int64  `json:"limit_bytes"`
		Route string `json:"route"`
	}{"payload_too_large", rt.limit, rt.path})
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
	if status >= http.StatusInternalServerError && r.Context().Err() == nil {
		s.log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	if e, ok := ff.AsError(err); ok && e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(e.RetryAfter.Round(time.Second).Seconds())))
	}
	s.writeJSON(w, r, status, p)
}

// observe logs and counts requests, and survives panics.
func (s *Server) observe(mux *http.ServeMux, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			next.ServeHTTP(w, r)
			return
		}
		start := time.Now()
		seen := &statusWriter{ResponseWriter: w}
		defer func() {
			if v := recover(); v != nil {
				s.log.ErrorContext(r.Context(), "handler panicked", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
				if seen.status == 0 {
					s.writeError(seen, r, fmt.Errorf("panic: %v", v))
				}
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
	path := "unknown"
	if _, pattern := mux.Handler(r); pattern != "" {
		_, path, _ = strings.Cut(pattern, " ")
	}
	set := metric.WithAttributes(attribute.String("method", methodLabel(r.Method)), attribute.String("path", path), attribute.String("status", strconv.Itoa(status)))
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
