package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	ff "github.com/flowfabric/flowfabric"
)

// authorized checks the bearer token in constant time (spec 08 §1.3). Hashes are
// compared, so that the time does not tell the length either.
func (s *Server) authorized(r *http.Request) bool {
	if s.opts.Token == "" {
		return true
	}
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(s.opts.Token))
	return ok && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// openPath reports whether a path needs no token.
func openPath(path string) bool {
	return path == "/healthz" || path == "/livez" || path == "/metrics"
}

// authenticate refuses requests without the token, before anything else is
// looked at.
func (s *Server) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !openPath(r.URL.Path) && !s.authorized(r) {
			s.writeJSON(w, r, http.StatusUnauthorized, ff.PublicError{Error: "missing or invalid Authorization header"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// guardHost answers only requests for a loopback name while the server is open
// to its own machine without a token: a page that makes its own name point to
// 127.0.0.1 gets nothing. Health is told to everybody, since probes may send any
// host or none.
func (s *Server) guardHost(next http.Handler) http.Handler {
	if s.opts.Token != "" || s.opts.AllowOpen {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" && r.URL.Path != "/livez" && !localHost(r.Host) {
			s.writeJSON(w, r, http.StatusForbidden, ff.PublicError{
				Error: "the server has no token and answers only to localhost, not to host " + strings.ToValidUTF8(r.Host, "?")})
			return
		}
		next.ServeHTTP(w, r)
	})
}

func localHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// crossOrigin lets pages of other origins in only as configured (spec 08 §1.4,
// but closed by default). Preflights are answered here and need no token.
func (s *Server) crossOrigin(next http.Handler) (http.Handler, error) {
	var origins []string
	for _, o := range s.opts.CORSOrigins {
		if o = strings.TrimSpace(o); o != "" {
			origins = append(origins, o)
		}
	}
	if slices.Contains(origins, "*") {
		return permissive(next), nil
	}
	guard := http.NewCrossOriginProtection()
	for _, o := range origins {
		if err := guard.AddTrustedOrigin(o); err != nil {
			return nil, ff.InvalidInput("cors_origins", "%q is not an origin like https://example.com: %v", o, err)
		}
	}
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.writeJSON(w, r, http.StatusForbidden, ff.PublicError{
			Error: "requests from pages of other origins are refused; allow the origin with --cors-origin or FF_CORS_ORIGINS"})
	}))
	return s.allowOrigins(origins, guard.Handler(next)), nil
}

func permissive(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Expose-Headers", "*")
		if r.Method == http.MethodOptions {
			h.Set("Access-Control-Allow-Methods", "*")
			h.Set("Access-Control-Allow-Headers", "*")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) allowOrigins(origins []string, next http.Handler) http.Handler {
	if len(origins) == 0 {
		return next
	}
	headers := "content-type"
	if s.opts.Token != "" {
		headers += ",authorization"
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Add("Vary", "origin, access-control-request-method, access-control-request-headers")
		if origin := r.Header.Get("Origin"); slices.Contains(origins, origin) {
			h.Set("Access-Control-Allow-Origin", origin)
		}
		if r.Method == http.MethodOptions {
			h.Set("Access-Control-Allow-Methods", "GET,POST,PUT")
			h.Set("Access-Control-Allow-Headers", headers)
			return
		}
		next.ServeHTTP(w, r)
	})
}
