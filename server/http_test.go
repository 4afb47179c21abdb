package server_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/metrics"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/server"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

// faulty is a store whose list of lanes goes wrong as a test wants it.
type faulty struct {
	ff.Backend
	lanes func(context.Context) ([]ff.LaneStatus, error)
}

func (f faulty) Lanes(ctx context.Context) ([]ff.LaneStatus, error) { return f.lanes(ctx) }

func faultyHandler(t *testing.T, log io.Writer, lanes func(context.Context) ([]ff.LaneStatus, error)) http.Handler {
	t.Helper()
	s, err := server.New(faulty{storetest.Open(t, sqlite.Options{}), lanes}, server.Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return s.Handler()
}

func TestWhatIsNotServedIsEmpty(t *testing.T) {
	h := handler(t, server.Options{})
	const id = "/v1/executions/%7Bfp:86%7D:550e8400-e29b-41d4-a716-446655440000"
	for _, c := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/nothing", 404, ""},
		{"GET", "/v1/executions/", 404, ""},
		{"GET", "/v1/lanes/", 404, ""},
		{"GET", "//v1/lanes", 404, ""},
		{"GET", "/v1/./lanes", 404, ""},
		{"GET", "/v1/executions/../lanes", 404, ""},
		{"GET", "/metrics", 404, ""},
		{"DELETE", "/v1/lanes", 405, "GET, HEAD"},
		{"PATCH", "/v1/executions", 405, "GET, HEAD, POST"},
		{"OPTIONS", "/v1/claims", 405, "POST"},
		{"GET", id + "/cancel", 405, "POST"},
		{"POST", "/v1/flows", 404, ""},
		{"POST", "/v1/budgets", 404, ""},
		{"POST", "/v1/quotas", 404, ""},
	} {
		w := ask(t, h, c.method, c.path, jsonType, "{}")
		if w.Code != c.status || w.Body.Len() > 0 || w.Header().Get("Allow") != c.allow || w.Header().Get("Location") != "" {
			t.Errorf("%s %s: %d %v %q, want %d, Allow %q and no body", c.method, c.path, w.Code, w.Header(), w.Body, c.status, c.allow)
		}
	}
}

func TestHeadAnswersAsGetWithoutABody(t *testing.T) {
	base := start(t, storetest.Open(t, sqlite.Options{}), server.Options{})
	for _, path := range []string{"/healthz", "/v1/lanes", "/openapi.json", "/", "/v1/executions?partition=1", "/v1/query/executions"} {
		var length [2]int64
		for i, method := range []string{"GET", "HEAD"} {
			req, err := http.NewRequestWithContext(t.Context(), method, base+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != 200 || (method == "HEAD") != (len(body) == 0) {
				t.Errorf("%s %s: %d, %d bytes, %v", method, path, resp.StatusCode, len(body), err)
			}
			length[i] = resp.ContentLength
		}
		if length[0] != length[1] || length[0] <= 0 {
			t.Errorf("%s: content lengths %v", path, length)
		}
	}
}

func TestAnUnknownQueryParameterIsRefusedOnOurOwnEndpointsOnly(t *testing.T) {
	h := handler(t, server.Options{})
	for path, want := range map[string]string{
		"/v1/query/executions?stat=waiting": `\"stat\" is unknown; the parameters are lane, state, kind, namespace, order, cursor, limit`,
		"/v1/lanes?lane=x":                  `\"lane\" is unknown; this endpoint has none`,
		"/v1/lanes?a=%zz":                   "query: is malformed",
	} {
		if w := ask(t, h, "GET", path, nil, ""); w.Code != 400 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s, want %s", path, w.Code, w.Body, want)
		}
	}
	for _, path := range []string{"/v1/executions?partition=1&x=1", "/healthz?x=1", "/livez?x=1", "/?x=1", "/openapi.json?x=1"} {
		if w := ask(t, h, "GET", path, nil, ""); w.Code != 200 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// unsized hides the length of a body, so that it is sent in chunks.
type unsized struct{ io.Reader }

func TestChunkedBodiesAreBoundedWhereTheyAreRead(t *testing.T) {
	h := handler(t, server.Options{})
	post := func(path, contentType string, size int) *httptest.ResponseRecorder {
		req := httptest.NewRequestWithContext(t.Context(), "POST", path, unsized{strings.NewReader(strings.Repeat(" ", size))})
		req.Host, req.ContentLength = "localhost", -1
		req.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		return w
	}
	const id = "/v1/executions/%7Bfp:86%7D:550e8400-e29b-41d4-a716-446655440000"
	if w := post(id+"/cancel", "application/json", 64<<10+1); w.Code != 413 || w.Body.String() != `{"error":"payload_too_large","limit_bytes":65536,"route":"/v1/executions/{id}/cancel"}` {
		t.Errorf("cancel: %d %s", w.Code, w.Body)
	}
	if w := post(id+"/cancel", "text/plain", 64<<10+1); w.Code != 415 {
		t.Errorf("cancel in plain text: %d %s", w.Code, w.Body)
	}
	if w := post(id+"/replay", "", 64<<10+1); w.Code != 404 || !strings.Contains(w.Body.String(), "not found: execution") {
		t.Errorf("replay reads no body: %d %s", w.Code, w.Body)
	}
}

func TestAPanicIsLoggedAndHidden(t *testing.T) {
	var log bytes.Buffer
	h := faultyHandler(t, &log, func(context.Context) ([]ff.LaneStatus, error) { panic("the secret is 42") })
	w := ask(t, h, "GET", "/v1/lanes", nil, "")
	if w.Code != 500 || strings.Contains(w.Body.String(), "42") || !strings.Contains(w.Body.String(), `"code":"internal"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if !strings.Contains(log.String(), "the secret is 42") || !strings.Contains(log.String(), "goroutine ") {
		t.Errorf("the log lacks the panic or its stack: %s", &log)
	}
	if w := ask(t, h, "GET", "/v1/info", nil, ""); w.Code != 200 {
		t.Errorf("afterwards: %d", w.Code)
	}
}

func TestFaultsOfTheStoreAreLoggedAndTheirCauseHidden(t *testing.T) {
	for _, c := range []struct {
		name   string
		err    error
		status int
		retry  string
	}{
		{"an unknown error", fmt.Errorf("open /var/lib/secret.db: no space"), 500, ""},
		{"a store out of reach", ff.Errorf(ff.CodeUnavailable, "dial 10.0.0.7: %w", io.ErrUnexpectedEOF), 503, ""},
		{"a full pool", &ff.Error{Code: ff.CodeResourceExhausted, RetryAfter: 100 * time.Millisecond}, 429, "1"},
		{"a fuller pool", &ff.Error{Code: ff.CodeResourceExhausted, RetryAfter: 2100 * time.Millisecond}, 429, "3"},
	} {
		var log bytes.Buffer
		w := ask(t, faultyHandler(t, &log, func(context.Context) ([]ff.LaneStatus, error) { return nil, c.err }), "GET", "/v1/lanes", nil, "")
		if w.Code != c.status || w.Header().Get("Retry-After") != c.retry || strings.Contains(w.Body.String(), "secret") || strings.Contains(w.Body.String(), "10.0.0.7") {
			t.Errorf("%s: %d %v %s", c.name, w.Code, w.Header(), w.Body)
		}
		if logged := strings.Contains(log.String(), "request failed"); logged != (c.status >= 500) {
			t.Errorf("%s: log %q", c.name, &log)
		}
	}
}

func TestTheLossOfAStoreIsLoggedOnceAndItsReturnWithACount(t *testing.T) {
	var log bytes.Buffer
	away := true
	h := faultyHandler(t, &log, func(context.Context) ([]ff.LaneStatus, error) {
		if away {
			return nil, ff.NewError(ff.CodeTransport, "connection refused")
		}
		return nil, nil
	})
	list := func() int { return ask(t, h, "GET", "/v1/lanes", nil, "").Code }
	for range 50 {
		if code := list(); code < 500 {
			t.Fatalf("status %d", code)
		}
	}
	if w := ask(t, h, "GET", "/livez", nil, ""); w.Code != 200 || strings.Contains(log.String(), "the store is back") {
		t.Errorf("the process answered with %d, and the log says %s", w.Code, &log)
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), "connection refused") {
		t.Errorf("%d errors in the log: %s", n, &log)
	}
	away = false
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(log.String(), "the store is back"); time.Sleep(time.Millisecond) {
		if code := list(); code != 200 || time.Now().After(deadline) {
			t.Fatalf("status %d, log %s", code, &log)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 2 || !strings.Contains(log.String(), "failed_requests=50") {
		t.Errorf("%d lines: %s", n, &log)
	}
}

func TestAClientThatLeftIsNoFaultOfTheServer(t *testing.T) {
	var log bytes.Buffer
	h := faultyHandler(t, &log, func(ctx context.Context) ([]ff.LaneStatus, error) { return nil, ctx.Err() })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req := httptest.NewRequestWithContext(ctx, "GET", "/v1/lanes", nil)
	req.Host = "localhost"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	if w.Code != 499 || log.Len() > 0 {
		t.Errorf("%d, log %q", w.Code, &log)
	}
}

func TestRequestsAreCountedByRouteAndStatus(t *testing.T) {
	m, err := metrics.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close(context.WithoutCancel(t.Context())) })
	h := handler(t, server.Options{Meter: m.Meter(), Metrics: m, CORSOrigins: []string{"*"}, Token: "s3cret"})
	token := map[string]string{"Authorization": "Bearer s3cret"}
	const id = "/v1/executions/%7Bfp:86%7D:550e8400-e29b-41d4-a716-446655440000"
	for _, c := range []struct{ method, path string }{{"GET", id}, {"GET", id}, {"BREW", "/v1/lanes"}, {"GET", "/secret-path"}, {"GET", "//v1/lanes"}} {
		ask(t, h, c.method, c.path, token, "")
	}
	ask(t, h, "GET", "/v1/lanes", nil, "")
	w := ask(t, h, "GET", "/metrics", map[string]string{"Accept": "text/plain"}, "")
	if !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain; version=0.0.4") || w.Header().Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("headers %v", w.Header())
	}
	for _, want := range []string{
		`ff_http_requests_total{method="GET",otel_scope_name="ff",otel_scope_schema_url="",otel_scope_version="",path="/v1/executions/{id}",status="404"} 2`,
		`method="OTHER",otel_scope_name="ff",otel_scope_schema_url="",otel_scope_version="",path="unknown",status="405"} 1`,
		`path="unknown",status="404"} 2`,
		`path="/v1/lanes",status="401"} 1`,
		`ff_http_request_duration_seconds_bucket{`,
		`le="0.005"`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("the metrics lack %s:\n%s", want, w.Body)
		}
	}
	if strings.Contains(w.Body.String(), "secret-path") || strings.Contains(w.Body.String(), `path="/metrics"`) {
		t.Error("a path that is no route, or the metrics themselves, became a label")
	}
	if w := ask(t, h, "POST", "/metrics", nil, ""); w.Code != 405 || w.Body.Len() > 0 || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d %v", w.Code, w.Header())
	}
}

func TestTheRequestLogHoldsNoSecrets(t *testing.T) {
	var log bytes.Buffer
	s, err := server.New(storetest.Open(t, sqlite.Options{}), server.Options{Token: "s3cret", Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	headers := map[string]string{"Authorization": "Bearer s3cret", "Content-Type": "application/json"}
	ask(t, s.Handler(), "POST", "/v1/lanes/default/executions", headers, `{"kind":"x","payload":"my-card-number"}`)
	ask(t, s.Handler(), "GET", "/v1/lanes/a%0Ab?s3cret", headers, "")
	if lines := strings.Count(log.String(), "\n"); lines != 2 || strings.Contains(log.String(), "s3cret") || strings.Contains(log.String(), "my-card-number") {
		t.Errorf("%d lines: %s", lines, &log)
	}
}
