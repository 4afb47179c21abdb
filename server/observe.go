package server

import (
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
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
