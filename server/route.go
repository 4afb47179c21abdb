package server

import (
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// Body limits in bytes. The first three are those of the reference
// (spec 08 §1.5), the others leave room for the largest payload, or batch of them, in base64.
const (
	limitControl = 64 << 10
	limitCreate  = 1 << 20
	limitMedium  = 256 << 10
	limitPayload = ff.MaxPayloadBytes/3*4 + 1<<20
	limitBatch   = ff.MaxBatchBytes/3*4 + 8<<20
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
	// wait marks long polls, storeless what is answered without the store.
	wait      bool
	storeless bool
	// unchecked says that the execution of the path need not exist, textErrors that
	// queries are refused in plain text, as the reference does.
	unchecked, textErrors bool
	serve                 func(s *Server, r *request) (answer, error)
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

// stack is the routes with everything that stands before them.
func (s *Server) stack() (http.Handler, error) {
	mux := http.NewServeMux()
	routes := slices.Concat(referenceRoutes(), streamRoutes(), apiRoutes(), frameRoutes(), suspensionRoutes(), waitpointRoutes(), signalRoutes(), pageRoutes())
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
		began := time.Now()
		a, err := rt.serve(s, req)
		if err != nil {
			s.writeError(w, r, err)
			return
		}
		if !rt.storeless {
			s.found(r, began)
		}
		s.write(w, r, a)
	})
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
