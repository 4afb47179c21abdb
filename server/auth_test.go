package server_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/server"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

// ask sends a request straight to a handler.
func ask(t testing.TB, h http.Handler, method, target string, headers map[string]string, body string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	req.Host = "127.0.0.1:9090"
	for k, v := range headers {
		if k == "Host" {
			req.Host = v
		} else {
			req.Header.Set(k, v)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func handler(t testing.TB, o server.Options) http.Handler {
	t.Helper()
	s, err := server.New(storetest.Open(t, sqlite.Options{}), o)
	if err != nil {
		t.Fatal(err)
	}
	return s.Handler()
}

func TestTheTokenIsRequiredOfEverythingButHealthAndMetrics(t *testing.T) {
	h := handler(t, server.Options{Token: "s3cret", Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {})})
	for _, c := range []struct {
		name, method, path, header string
		want                       int
	}{
		{"health needs none", "GET", "/healthz", "", 200},
		{"liveness needs none", "GET", "/livez", "", 200},
		{"metrics need none", "GET", "/metrics", "", 200},
		{"the right token", "GET", "/v1/lanes", "Bearer s3cret", 200},
		{"no token", "GET", "/v1/lanes", "", 401},
		{"another token", "GET", "/v1/lanes", "Bearer s3creT", 401},
		{"a longer token", "GET", "/v1/lanes", "Bearer s3cret ", 401},
		{"another scheme's case", "GET", "/v1/lanes", "bearer s3cret", 401},
		{"the page", "GET", "/", "", 401},
		{"the document", "GET", "/openapi.json", "", 401},
		{"an unknown path", "GET", "/nothing", "", 401},
		{"a wrong method", "DELETE", "/v1/lanes", "", 401},
		{"a body over the limit", "POST", "/v1/executions", "", 401},
		{"health with a slash", "GET", "/healthz/", "", 401},
	} {
		w := ask(t, h, c.method, c.path, map[string]string{"Authorization": c.header}, strings.Repeat("x", 2<<20))
		if w.Code != c.want {
			t.Errorf("%s: %s %s is %d, want %d", c.name, c.method, c.path, w.Code, c.want)
		}
		if w.Code == 401 && w.Body.String() != `{"error":"missing or invalid Authorization header"}` {
			t.Errorf("%s: body %s", c.name, w.Body)
		}
	}
}

func TestWithoutATokenTheServerListensOnLoopbackOnly(t *testing.T) {
	s, err := server.New(storetest.Open(t, sqlite.Options{}), server.Options{Listen: "0.0.0.0:0"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Bind(t.Context())
	if ff.CodeOf(err) != ff.CodeInvalidInput || !strings.Contains(err.Error(), "--open") || !strings.Contains(err.Error(), "FF_API_TOKEN") {
		t.Errorf("an open address: %v", err)
	}
	for name, o := range map[string]server.Options{
		"loopback":        {Listen: "127.0.0.1:0"},
		"a token":         {Listen: "0.0.0.0:0", Token: "x"},
		"open on purpose": {Listen: "0.0.0.0:0", AllowOpen: true},
	} {
		s, err := server.New(storetest.Open(t, sqlite.Options{}), o)
		if err != nil {
			t.Fatal(err)
		}
		l, err := s.Bind(t.Context())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_ = l.Close()
	}
}

func TestOnlyLocalNamesAreAnsweredWithoutAToken(t *testing.T) {
	h := handler(t, server.Options{})
	for host, want := range map[string]int{"localhost:9090": 200, "127.0.0.1:1": 200, "[::1]:9090": 200, "app.localhost": 200, "evil.example": 403, "10.0.0.1:9090": 403, "localhost.evil.example": 403} {
		if w := ask(t, h, "GET", "/v1/lanes", map[string]string{"Host": host}, ""); w.Code != want {
			t.Errorf("host %q is answered with %d, want %d", host, w.Code, want)
		}
	}
}

func TestPagesOfOtherOriginsAreRefusedUnlessAllowed(t *testing.T) {
	const body = `{"kind":"x"}`
	post := func(h http.Handler, origin string) *httptest.ResponseRecorder {
		headers := map[string]string{"Content-Type": "application/json"}
		if origin != "" {
			headers["Origin"] = origin
		}
		return ask(t, h, "POST", "/v1/lanes/default/executions", headers, body)
	}
	closed := handler(t, server.Options{})
	for origin, want := range map[string]int{"": 201, "http://127.0.0.1:9090": 201, "https://evil.example": 403, "null": 403} {
		if w := post(closed, origin); w.Code != want {
			t.Errorf("closed: origin %q is answered with %d, want %d: %s", origin, w.Code, want, w.Body)
		}
	}
	listed := handler(t, server.Options{CORSOrigins: []string{"https://app.example"}, Token: "t"})
	if w := ask(t, listed, "OPTIONS", "/v1/anything", map[string]string{"Origin": "https://app.example"}, ""); w.Code != 200 ||
		w.Header().Get("Access-Control-Allow-Origin") != "https://app.example" || w.Header().Get("Access-Control-Allow-Methods") != "GET,POST,PUT" ||
		w.Header().Get("Access-Control-Allow-Headers") != "content-type,authorization" || w.Body.Len() > 0 {
		t.Errorf("preflight: %d %v", w.Code, w.Header())
	}
	if w := ask(t, listed, "OPTIONS", "/v1/anything", map[string]string{"Origin": "https://evil.example"}, ""); w.Header().Get("Access-Control-Allow-Origin") != "" {
		t.Error("a foreign origin is allowed")
	}
	open := handler(t, server.Options{CORSOrigins: []string{"*"}})
	if w := post(open, "https://any.example"); w.Code != 201 || w.Header().Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("any origin: %d %v", w.Code, w.Header())
	}
	if _, err := server.New(storetest.Open(t, sqlite.Options{}), server.Options{CORSOrigins: []string{"not an origin"}}); ff.CodeOf(err) != ff.CodeInvalidInput {
		t.Errorf("a bad origin: %v", err)
	}
}
