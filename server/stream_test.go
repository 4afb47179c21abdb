package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/server"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

// written is an attempt under way that has written frames.
type written struct {
	store ff.Backend
	ref   ff.LeaseRef
	ids   []ff.FrameID
}

func write(t testing.TB, store ff.Backend, payloads ...string) *written {
	t.Helper()
	created, err := store.CreateExecution(t.Context(), ff.CreateExecution{Lane: "default", Kind: "job"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := store.Claim(t.Context(), ff.Claim{Claimant: ff.Claimant{Worker: "w", Instance: "i"}, Lanes: []ff.LaneID{"default"}, LeaseTTL: time.Hour})
	if err != nil || len(got.Claimed) != 1 || got.Claimed[0].Execution.ID != created.ID {
		t.Fatal(got, err)
	}
	a := &written{store: store, ref: got.Claimed[0].Ref()}
	for _, p := range payloads {
		a.append(t, ff.NewFrame{Type: "log", Payload: []byte(p)})
	}
	return a
}

func (a *written) append(t testing.TB, frames ...ff.NewFrame) {
	t.Helper()
	r, err := a.store.AppendFrames(t.Context(), ff.AppendFrames{LeaseRef: a.ref, Frames: frames})
	if err != nil {
		t.Fatal(err)
	}
	a.ids = append(a.ids, r.IDs...)
}

func (a *written) complete(t testing.TB) {
	t.Helper()
	if _, err := a.store.CompleteExecution(t.Context(), ff.CompleteExecution{LeaseRef: a.ref}); err != nil {
		t.Fatal(err)
	}
}

// path is a path below the attempt.
func (a *written) path(rest string) string {
	return "/v1/executions/" + url.PathEscape(a.ref.ID.String()) + "/attempts/0" + rest
}

// event is one event of a stream; a comment has only its text.
type event struct{ name, id, data, comment string }

// events reads an event stream.
type events struct {
	t    testing.TB
	resp *http.Response
	in   *bufio.Reader
}

func follow(t testing.TB, target string, headers map[string]string) *events {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", target, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range headers {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return &events{t, resp, bufio.NewReader(resp.Body)}
}

// next is the next event or comment; false when the stream has ended.
func (e *events) next() (ev event, more bool) {
	e.t.Helper()
	for {
		line, err := e.in.ReadString('\n')
		if err != nil {
			return ev, false
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "id":
			ev.id = value
		case "data":
			ev.data = value
		case "event":
			ev.name = value
		case "":
			if value != "" || line != "\n" {
				ev.comment = value
				continue
			}
			if ev != (event{}) {
				return ev, true
			}
		}
	}
}

// frame is the next event that is a frame.
func (e *events) frame() (id, payload string) {
	e.t.Helper()
	for {
		ev, more := e.next()
		if !more {
			e.t.Fatal("the stream has ended")
		}
		if ev.data == "" {
			continue
		}
		var f httpapi.Frame
		if err := json.Unmarshal([]byte(ev.data), &f); err != nil || ev.name != "" || f.Text == nil {
			e.t.Fatalf("%+v: %v", ev, err)
		}
		return ev.id, *f.Text
	}
}

// ends reads to the end and returns the last event.
func (e *events) ends() (last event) {
	for {
		ev, more := e.next()
		if !more {
			return last
		}
		last = ev
	}
}

func TestFramesArriveAsEventsUntilTheStreamIsClosed(t *testing.T) {
	store := storetest.Open(t, sqlite.Options{})
	base := start(t, store, server.Options{})
	a := write(t, store, "one\n", "<two>")
	e := follow(t, base+a.path("/stream/events"), nil)
	if h := e.resp.Header; e.resp.StatusCode != 200 || h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v", e.resp.StatusCode, h)
	}
	for i, want := range []string{"one\n", "<two>"} {
		if id, got := e.frame(); got != want || id != a.ids[i].String() {
			t.Errorf("frame %d: %s %q", i, id, got)
		}
	}
	a.append(t, ff.NewFrame{Payload: []byte("three")})
	if id, got := e.frame(); got != "three" || id != a.ids[2].String() {
		t.Errorf("a frame that was written later: %s %q", id, got)
	}
	a.complete(t)
	end := e.ends()
	var closed httpapi.Closed
	if err := json.Unmarshal([]byte(end.data), &closed); err != nil || end.name != "end" || end.id != "end" || closed.ClosedReason != "attempt_success" || closed.ClosedAt.IsZero() {
		t.Errorf("the end: %+v, %v", end, err)
	}
}

func TestAnEventStreamGoesOnAfterTheLastEventThatTheClientHas(t *testing.T) {
	store := storetest.Open(t, sqlite.Options{})
	base := start(t, store, server.Options{})
	a := write(t, store, "one", "two", "three")
	a.complete(t)
	e := follow(t, base+a.path("/stream/events"), map[string]string{"Last-Event-ID": a.ids[1].String()})
	if _, got := e.frame(); got != "three" {
		t.Errorf("the first frame is %q", got)
	}
	if end := e.ends(); end.name != "end" {
		t.Errorf("the last event is %+v", end)
	}
	if e := follow(t, base+a.path("/stream/events?after="+a.ids[0].String()), nil); e.resp.StatusCode != 200 {
		t.Errorf("after: %d", e.resp.StatusCode)
	} else if _, got := e.frame(); got != "two" {
		t.Errorf("after: the first frame is %q", got)
	}
	if e := follow(t, base+a.path("/stream/events"), map[string]string{"Last-Event-ID": "end"}); e.resp.StatusCode != http.StatusNoContent {
		t.Errorf("a client that has seen the end is answered %d", e.resp.StatusCode)
	}
	if e := follow(t, base+a.path("/stream/events"), map[string]string{"Last-Event-ID": "x"}); e.resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a client with an id that was never sent is answered %d", e.resp.StatusCode)
	}
}

func TestBestEffortFramesCanBeLeftOut(t *testing.T) {
	store := storetest.Open(t, sqlite.Options{})
	base := start(t, store, server.Options{})
	a := write(t, store)
	a.append(t, ff.NewFrame{Payload: []byte("live"), Mode: ff.FrameBestEffort}, ff.NewFrame{Payload: []byte("kept")})
	a.complete(t)
	if _, got := follow(t, base+a.path("/stream/events?visibility=durable"), nil).frame(); got != "kept" {
		t.Errorf("the first event is %q", got)
	}
	for _, path := range []string{"/frames?visibility=durable", "/frames/tail?visibility=durable"} {
		page := getJSON[httpapi.Frames](t, base+a.path(path))
		if len(page.Frames) != 1 || *page.Frames[0].Text != "kept" || page.Last != a.ids[1] {
			t.Errorf("%s: %+v", path, page)
		}
	}
}

func getJSON[T any](t testing.TB, target string) (v T) {
	t.Helper()
	resp := send(t, "GET", target, nil, nil, false)
	data, err := json.Marshal(resp.Body)
	if err == nil {
		err = json.Unmarshal(data, &v)
	}
	if err != nil || resp.Status != 200 {
		t.Fatalf("%s: %v, %v", target, resp, err)
	}
	return v
}

func TestAnIdleEventStreamIsKeptAliveBeyondTheTimesOfARequest(t *testing.T) {
	store := storetest.Open(t, sqlite.Options{})
	s, err := server.New(store, server.Options{TailHeartbeat: 40 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewUnstartedServer(s.Handler())
	hs.Config.ReadTimeout, hs.Config.WriteTimeout = 100*time.Millisecond, 100*time.Millisecond
	hs.Start()
	defer hs.Close()
	a := write(t, store)
	e := follow(t, hs.URL+a.path("/stream/events"), nil)
	for n := range 10 {
		if ev, more := e.next(); !more || ev.comment == "" {
			t.Fatalf("heartbeat %d: %+v, %v", n, ev, more)
		}
	}
	a.append(t, ff.NewFrame{Payload: []byte("at last")})
	if _, got := e.frame(); got != "at last" {
		t.Errorf("got %q", got)
	}
	a.complete(t)
	e.ends()
}

func TestStreamsOfUnknownExecutionsAreEmptyButNotFollowed(t *testing.T) {
	h := handler(t, server.Options{})
	const attempt = "/v1/executions/%7Bfp:86%7D:550e8400-e29b-41d4-a716-446655440000/attempts/0"
	for path, want := range map[string]string{
		"/stream":                      `200 {"frames":[],"count":0}`,
		"/stream/tail":                 `200 {"frames":[],"count":0}`,
		"/frames":                      `200 {"frames":[],"last":"0-0","more":false}`,
		"/frames/tail":                 `200 {"frames":[],"last":"0-0","more":false}`,
		"/summary":                     `200 {"version":0}`,
		"/frames?to=+1":                `400 {"error":"invalid_input: to: must be MS or MS-SEQ in decimal digits (got \" 1\")","code":"invalid_input","field":"to"}`,
		"/frames/tail?visibility=some": `400 {"error":"invalid_input: visibility: must be all or durable (got \"some\")","code":"invalid_input","field":"visibility"}`,
		"/frames?limit=10001":          `400 {"error":"invalid_input: limit: must be a whole number from 0 to 10000 (got \"10001\")","code":"invalid_input","field":"limit"}`,
		"/frames/tail?wait_ms=30001":   `400 {"error":"invalid_input: wait_ms: must be a whole number from 0 to 30000 (got \"30001\")","code":"invalid_input","field":"wait_ms"}`,
	} {
		w := ask(t, h, "GET", attempt+path, nil, "")
		if got := fmt.Sprint(w.Code, " ", w.Body); got != want {
			t.Errorf("%s: %s\nwant %s", path, got, want)
		}
	}
	if w := ask(t, h, "GET", attempt+"/stream/events", nil, ""); w.Code != 404 {
		t.Errorf("events: %d %s", w.Code, w.Body)
	}
	if w := ask(t, h, "GET", strings.Replace(attempt, "/attempts/0", "/attempts/-1", 1)+"/frames", nil, ""); w.Code != 400 || !strings.Contains(w.Body.String(), "attempt_index") {
		t.Errorf("a bad index: %d %s", w.Code, w.Body)
	}
}

func TestTailsBeyondTheLimitAreRefusedAndReadsAreNot(t *testing.T) {
	store := storetest.Open(t, sqlite.Options{})
	base := start(t, store, server.Options{MaxTails: 1})
	a := write(t, store, "one")
	first := follow(t, base+a.path("/stream/events"), nil)
	first.frame()
	for _, path := range []string{"/stream/events", "/stream/tail?block_ms=1000", "/frames/tail?wait_ms=1000"} {
		e := follow(t, base+a.path(path), nil)
		if e.resp.StatusCode != http.StatusTooManyRequests {
			t.Fatalf("%s: %d", path, e.resp.StatusCode)
		}
		body, _ := io.ReadAll(e.resp.Body)
		if e.resp.Header.Get("Retry-After") != "1" || !strings.Contains(string(body), `"kind":"resource_exhausted","retryable":true`) {
			t.Errorf("%s: %d %v %s", path, e.resp.StatusCode, e.resp.Header, body)
		}
	}
	for _, path := range []string{"/stream", "/stream/tail", "/frames", "/frames/tail", "/summary"} {
		if got := send(t, "GET", base+a.path(path), nil, nil, false); got.Status != 200 {
			t.Errorf("%s: %v", path, got)
		}
	}
	for _, path := range []string{"/stream/tail?block_ms=30000", "/frames/tail?wait_ms=30000", "/stream/events"} {
		if got := send(t, "HEAD", base+a.path(path), nil, nil, false); got.Status != 200 {
			t.Errorf("HEAD %s: %v", path, got)
		}
	}
	a.complete(t)
	first.ends()
	for { // the place is free once the handler has returned
		second := follow(t, base+a.path("/stream/events"), nil)
		if second.resp.StatusCode == 200 {
			second.ends()
			return
		}
	}
}

// tailed is a store that tells when a tail has come as far as waiting.
type tailed struct {
	ff.Backend
	waiting chan struct{}
}

func (s tailed) TailFrames(ctx context.Context, c ff.TailFrames) (ff.FramesResult, error) {
	if c.Wait > 0 {
		s.waiting <- struct{}{}
	}
	return s.Backend.TailFrames(ctx, c)
}

func TestStoppingEndsEventStreamsAndTails(t *testing.T) {
	store := tailed{storetest.Open(t, sqlite.Options{}), make(chan struct{}, 8)}
	s, l := bind(t, store, server.Options{})
	stop := serve(t, s, l)
	base := "http://" + l.Addr().String()
	a := write(t, store)
	e := follow(t, base+a.path("/stream/events"), nil)
	results := make(chan pollResult, 2)
	go poll(t.Context(), "GET", base+a.path("/frames/tail?wait_ms=30000"), "", results)
	go poll(t.Context(), "GET", base+a.path("/stream/tail?block_ms=30000"), "", results)
	for range 3 {
		<-store.waiting
	}
	begin := time.Now()
	if err := stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("stopping took %s", took)
	}
	if last := e.ends(); last.comment != "the server stops" {
		t.Errorf("the stream ended with %+v", last)
	}
	for range 2 {
		if r := <-results; r.err != nil || r.status != 200 || !strings.HasPrefix(r.body, `{"frames":[],`) {
			t.Errorf("a tail ended with %+v", r)
		}
	}
}

// A client that reads nothing holds its place no longer than it may.
func TestAClientThatDoesNotReadIsCutOff(t *testing.T) {
	store := storetest.Open(t, sqlite.Options{})
	base := start(t, store, server.Options{MaxTails: 1, TailWriteTimeout: 50 * time.Millisecond})
	a := write(t, store)
	for range 400 {
		a.append(t, ff.NewFrame{Payload: []byte(strings.Repeat("x", ff.MaxFramePayloadBytes))})
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", a.path("/stream/events"))
	if status, err := bufio.NewReaderSize(conn, 16).ReadString('\n'); err != nil || status != "HTTP/1.1 200 OK\r\n" {
		t.Fatalf("%q, %v", status, err) // it has the only place now
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		e := follow(t, base+a.path("/stream/events"), nil)
		_ = e.resp.Body.Close()
		if e.resp.StatusCode == http.StatusOK {
			return
		}
	}
	t.Error("the place was not given back")
}

func TestStreamsOfTheReferenceAreReadByItsCursors(t *testing.T) {
	store := storetest.Open(t, sqlite.Options{})
	base := start(t, store, server.Options{})
	a := write(t, store, "one", "two", "three")
	ms := fmt.Sprint(a.ids[1].Ms)
	between := func(query string) (payloads []string) {
		for _, f := range getJSON[httpapi.StreamFrames](t, base+a.path("/stream?"+query)).Frames {
			payloads = append(payloads, f.Fields["payload"])
		}
		return payloads
	}
	all := []string{"one", "two", "three"}
	for query, want := range map[string][]string{
		"":                                 all,
		"from=start&to=end":                all,
		"from=end":                         nil,
		"to=start":                         nil,
		"to=0-0":                           nil,
		"to=0":                             nil,
		"from=0-0":                         all,
		"from=" + a.ids[1].String():        all[1:],
		"to=" + a.ids[1].String():          all[:2],
		"from=" + a.ids[2].Next().String(): nil,
		"limit=1&x=y":                      all[:1],
	} {
		if got := between(query); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	if got := between("from=" + ms + "&to=" + ms); !slices.Contains(got, "two") {
		t.Errorf("all of a millisecond: %q", got)
	}
	for query, want := range map[string]string{
		"/stream?from=":                     "text/plain",
		"/stream?from=1&from=2":             "text/plain",
		"/stream?limit=-1":                  "text/plain",
		"/stream?limit=x":                   "text/plain",
		"/stream?from=1-":                   "text/plain",
		"/stream?from=99999999999999999999": "application/json",
		"/stream/tail?after=end":            "application/json",
		"/stream/tail?limit=1001":           "application/json",
		"/stream/tail?block_ms=x":           "text/plain",
	} {
		if got := send(t, "GET", base+a.path(query), nil, nil, false); got.Status != 400 || got.ContentType != want {
			t.Errorf("%s: %v, want 400 and %s", query, got, want)
		}
	}
}

func TestOptionsOfTailsAreChecked(t *testing.T) {
	for _, o := range []server.Options{{MaxTails: -1}, {MaxTails: server.MaxMaxTails + 1}, {TailHeartbeat: time.Minute}, {TailHeartbeat: -1}, {TailWriteTimeout: -1}} {
		if _, err := server.New(storetest.Open(t, sqlite.Options{}), o); ff.CodeOf(err) != ff.CodeInvalidInput {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
