package server_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/server"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
	"github.com/flowfabric/flowfabric/valkey"
)

// trace is a recording of requests to the reference's server and its answers, and of
// what its workers did between them on Valkey.
type trace struct {
	Name  string `json:"name"`
	Steps []struct {
		HTTP struct {
			Method  string            `json:"method"`
			Path    string            `json:"path"`
			Headers map[string]string `json:"headers"`
			Body    json.RawMessage   `json:"body"`
			Raw     *string           `json:"raw"`
		} `json:"http"`
		Tries   int      `json:"tries"`
		AgainOn int      `json:"again_on"`
		Expect  reply    `json:"expect"`
		Valkey  []string `json:"valkey"`
		Got     any      `json:"got"`
	} `json:"steps"`
}

// needsValkey reports whether workers of the reference take part.
func (tr *trace) needsValkey() bool {
	for _, step := range tr.Steps {
		if step.Valkey != nil {
			return true
		}
	}
	return false
}

type reply struct {
	Status      int    `json:"status"`
	ContentType string `json:"content_type"`
	Body        any    `json:"body"`
}

// otherEndpoints are those of flows and budgets: their steps in these traces are left
// out.
var otherEndpoints = []string{"/v1/flows", "/v1/budgets"}

// otherAnswers are answers that are meant to be others, by trace and step.
var otherAnswers = map[string]int{
	"replay": 9, // a replay removes the result of the run before
}

func TestRecordedTracesOfTheReferenceMatch(t *testing.T) {
	files, err := filepath.Glob("testdata/wire/http/*.json*")
	if err != nil || len(files) < 18 {
		t.Fatalf("%d traces, %v", len(files), err)
	}
	behind := valkeytest.Start(t)
	for _, file := range files {
		tr := readTrace(t, file)
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name+"/Valkey", func(t *testing.T) {
			if err := behind.Do("FLUSHALL").Error(); err != nil {
				t.Fatal(err)
			}
			store, err := valkey.Open(t.Context(), behind.URL(), valkey.Options{Lanes: []ff.LaneID{"default", "bench", "batch"}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = store.Close() })
			replay(t, start(t, store, server.Options{}), tr, behind)
		})
		if !tr.needsValkey() {
			t.Run(name+"/SQLite", func(t *testing.T) {
				replay(t, start(t, storetest.Open(t, sqlite.Options{}), server.Options{}), tr, nil)
			})
		}
	}
}

func readTrace(t *testing.T, file string) (tr trace) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(file, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := json.NewDecoder(r).Decode(&tr); err != nil {
		t.Fatal(err)
	}
	return tr
}

func replay(t *testing.T, base string, tr trace, behind *valkeytest.Server) {
	replayed := 0
	for i, step := range tr.Steps {
		if step.Valkey != nil {
			if got, want := workerStep(t, behind, step.Valkey), masked(step.Got); !reflect.DeepEqual(got, want) {
				t.Errorf("step %d, %s: got %v, want %v", i, step.Valkey[1], got, want)
			}
			continue
		}
		h := step.HTTP
		if slices.ContainsFunc(otherEndpoints, func(p string) bool { return strings.Contains(h.Path, p) }) {
			continue
		}
		replayed++
		body := []byte(h.Body)
		if h.Raw != nil {
			body = []byte(*h.Raw)
		}
		got := send(t, h.Method, base+h.Path, h.Headers, body, h.Body != nil && h.Raw == nil)
		for n := 1; n < step.Tries && got.Status == step.AgainOn; n++ {
			got = send(t, h.Method, base+h.Path, h.Headers, body, h.Body != nil && h.Raw == nil)
		}
		// A typed refusal where the reference answers 500 is right.
		if step.Expect.Status == http.StatusInternalServerError && got.Status >= 400 && got.Status < 500 {
			continue
		}
		if at, other := otherAnswers[tr.Name]; other && at == i {
			continue
		}
		want, have := normal(step.Expect), normal(got)
		if !reflect.DeepEqual(want, have) {
			t.Errorf("step %d, %s %s:\n got %+v\nwant %+v", i, h.Method, h.Path, have, want)
		}
	}
	if replayed == 0 {
		t.Error("no step of the trace was replayed")
	}
}

// workerStep does what a worker of the reference did and returns the answer as the
// recording has it.
func workerStep(t *testing.T, behind *valkeytest.Server, command []string) (got any) {
	t.Helper()
	answer, err := behind.Do(command[0], command[1:]...).ToAny()
	if err != nil {
		t.Fatalf("%q: %v", command, err)
	}
	text, err := json.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	return masked(got)
}

func send(t testing.TB, method, url string, headers map[string]string, body []byte, isJSON bool) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if isJSON {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range headers {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	r := reply{Status: resp.StatusCode, Body: string(data)}
	r.ContentType, _, _ = strings.Cut(resp.Header.Get("Content-Type"), ";")
	if r.ContentType == "application/json" && len(data) > 0 {
		r.Body = nil
		if err := json.Unmarshal(data, &r.Body); err != nil {
			t.Fatalf("the answer is not JSON: %s", data)
		}
	}
	return r
}

// normal makes answers comparable: times, and the wording of errors, are each
// server's own.
func normal(r reply) reply {
	if r.Status >= 400 {
		object, ok := r.Body.(map[string]any)
		if !ok {
			return reply{Status: r.Status, ContentType: "any", Body: "text"}
		}
		if _, limit := object["limit_bytes"]; !limit {
			r.Body = map[string]any{"error": object["error"] != "", "kind": object["kind"], "retryable": object["retryable"]}
		}
	}
	r.Body = masked(r.Body)
	return r
}

var timeText = regexp.MustCompile(`^1[5-9]\d{11}(-\d+)?$`)

func masked(v any) any {
	switch x := v.(type) {
	case float64:
		if x > 1_500_000_000_000 {
			return "time"
		}
	case string:
		if x == "<time>" || timeText.MatchString(x) {
			return "time"
		}
	case []any:
		for i := range x {
			x[i] = masked(x[i])
		}
	case map[string]any:
		for k := range x {
			x[k] = masked(x[k])
		}
	}
	return v
}

func (r reply) String() string { return fmt.Sprintf("%d %s %v", r.Status, r.ContentType, r.Body) }
