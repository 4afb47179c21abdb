package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// answer is what a handler answers: JSON, raw bytes with their type, or a stream that
// is written as it comes.
type answer struct {
	status      int
	json        any
	raw         []byte
	contentType string
	header      http.Header
	stream      func(http.ResponseWriter)
}

func ok(v any) (answer, error) { return answer{status: http.StatusOK, json: v}, nil }

func created(v any) (answer, error) { return answer{status: http.StatusCreated, json: v}, nil }

// createdOr answers 201 for something new and 200 for something that was there.
func createdOr(duplicate bool, v any) (answer, error) {
	if duplicate {
		return ok(v)
	}
	return created(v)
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
	case a.stream != nil:
		w.WriteHeader(a.status)
		a.stream(w)
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
		s.logFault(r, err)
	}
	if e, ok := ff.AsError(err); ok && e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10))
	}
	s.writeJSON(w, r, status, p)
}
