package server

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	ff "github.com/flowfabric/flowfabric"
)

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

// quiet is how long all requests must have found the store before it is back: while
// a part of a cluster is away, some do and some do not.
const quiet = time.Second

// logFault logs a request that failed by a fault. While the store is away every
// request fails: then the first is logged, and how many there were at its return.
func (s *Server) logFault(r *http.Request, err error) {
	level := slog.LevelError
	attrs := []slog.Attr{slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Any("err", err)}
	switch ff.CodeOf(err) {
	case ff.CodeTransport, ff.CodeUnavailable, ff.CodeTimeout:
		if s.loss.Failed() {
			attrs = append(attrs, slog.String("store", "lost; requests that fail from now on are counted"))
		} else {
			level = slog.LevelDebug
		}
	}
	s.log.LogAttrs(r.Context(), level, "request failed", attrs...)
}

// found notes that a request which began at some time has found the store.
func (s *Server) found(r *http.Request, began time.Time) {
	if failed, lasted, ended := s.loss.Worked(began); ended {
		s.log.InfoContext(r.Context(), "the store is back", "failed_requests", failed, "lasted", lasted.Round(time.Millisecond))
	}
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
