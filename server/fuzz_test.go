package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flowfabric/flowfabric/internal/storetest"
	"github.com/flowfabric/flowfabric/server"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
)

// Every operation of the document is called with made-up requests: fitting,
// nearly fitting, and absurd ones. None may fail on the server's side, and every
// answer is as the document says.
func TestMadeUpRequestsNeverFailTheServer(t *testing.T) {
	h := handler(t, server.Options{})
	doc := readDocument(t, h)
	m := &maker{doc: doc, rnd: rand.New(rand.NewPCG(1, 2)), ids: []string{"{fp:86}:550e8400-e29b-41d4-a716-446655440000"}}
	calls, accepted := 0, map[string]int{}
	for range 250 {
		for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
			for method, op := range doc.Paths[path] {
				target, body := m.request(path, &op)
				if op.OperationID == "stream-events" {
					method = "head" // an open stream is followed for ever
				}
				w := ask(t, h, strings.ToUpper(method), target, jsonType, body)
				calls++
				if bad := doc.checkAnswer(&op, w); bad != "" {
					t.Fatalf("%s %s\n%s\n%d %s\n%s", method, target, body, w.Code, w.Body, bad)
				}
				if w.Code < 300 {
					accepted[op.OperationID]++
					m.learn(w.Body.Bytes())
				}
			}
		}
	}
	if w := ask(t, h, "GET", "/healthz", nil, ""); w.Code != 200 {
		t.Errorf("afterwards the server is not well: %d", w.Code)
	}
	t.Logf("%d calls, accepted: %v", calls, accepted)
	// A few operations need what chance brings about rarely, as the result of an
	// execution that was completed.
	if len(accepted) < 40 {
		t.Errorf("only %d operations were ever accepted: the requests do not reach the store", len(accepted))
	}
}

// request makes up a request.
func (m *maker) request(path string, op *operation) (target, body string) {
	m.meant = ""
	if op.RequestBody != nil {
		content := op.RequestBody.Content["application/json"]
		made, _ := json.Marshal(m.value(content.Schema, 0))
		body = m.damage(m.pick(string(made), string(content.Example)))
	}
	query := url.Values{}
	target = path
	if strings.Contains(path, "{waitpoint_id}") && m.waitpoint != "" && m.rnd.IntN(4) > 0 {
		target, m.meant = strings.ReplaceAll(target, "{waitpoint_id}", m.waitpoint), m.waitsAt
	}
	for _, p := range op.Parameters {
		value := m.text(p.Schema)
		switch {
		case p.In == "path" && p.Name == "id" && m.meant != "":
			target = strings.ReplaceAll(target, "{id}", url.PathEscape(m.meant))
		case p.In == "path" && p.Name == "id":
			target = strings.ReplaceAll(target, "{id}", url.PathEscape(m.pick(m.ids[m.rnd.IntN(len(m.ids))], value)))
		case p.In == "path":
			target = strings.ReplaceAll(target, "{"+p.Name+"}", url.PathEscape(m.pick("default", value)))
		case p.Name == "wait_ms":
		case p.Required || m.rnd.IntN(2) == 0:
			query.Set(p.Name, value)
		}
	}
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	return target, body
}

// maker makes values up from schemas.
type maker struct {
	doc document
	rnd *rand.Rand
	ids []string
	// fences are those of leases that were given.
	fences []any
	// meant is the execution of the fence in the last body, for the path.
	meant string
	// waitpoint is one that was issued, with its token and its execution.
	waitpoint, token, waitsAt string
}

// damage breaks a body now and then.
func (m *maker) damage(body string) string {
	if body == "" || m.rnd.IntN(10) > 0 {
		return body
	}
	at := m.rnd.IntN(len(body))
	switch m.rnd.IntN(4) {
	case 0:
		return body[:at]
	case 1:
		return body[:at] + "\xff" + body[at:]
	case 2:
		return body[:at] + string(rune(m.rnd.IntN(128))) + body[at+1:]
	}
	return body + body
}

func (m *maker) pick(likely, rarely string) string {
	if rarely != "" && m.rnd.IntN(4) == 0 {
		return rarely
	}
	return likely
}

var learned = regexp.MustCompile(`"execution_id":"([^"]+)"`)

var issuedWaitpoint = regexp.MustCompile(`"waitpoint_id":"([^"]+)","waitpoint_key":"[^"]*","waitpoint_token":"([^"]+)"`)

// learn remembers ids of executions that exist, so that later calls meet them.
func (m *maker) learn(body []byte) {
	for _, match := range learned.FindAllSubmatch(body, 3) {
		if len(m.ids) < 50 {
			m.ids = append(m.ids, string(match[1]))
		}
	}
	var given struct {
		Claimed []struct {
			Execution struct {
				ID         string         `json:"execution_id"`
				LeaseEpoch uint64         `json:"lease_epoch"`
				AttemptID  string         `json:"current_attempt_id"`
				Lease      map[string]any `json:"lease"`
			} `json:"execution"`
		} `json:"claimed"`
	}
	if json.Unmarshal(body, &given) != nil {
		return
	}
	if issued := issuedWaitpoint.FindSubmatch(body); issued != nil {
		m.waitpoint, m.token, m.waitsAt = string(issued[1]), string(issued[2]), m.meant
	}
	for _, c := range given.Claimed {
		x := c.Execution
		fence := map[string]any{"lease_id": x.Lease["lease_id"], "lease_epoch": x.LeaseEpoch, "attempt_id": x.AttemptID}
		m.fences = append(m.fences, map[string]any{"execution_id": x.ID, "fence": fence})
		m.ids = append(m.ids, x.ID)
	}
}

// lease is a fence that was given, with its execution.
// Mostly it is the last one, which may still be held.
func (m *maker) lease() map[string]any {
	last := len(m.fences) - 1
	if m.rnd.IntN(4) == 0 {
		last = m.rnd.IntN(len(m.fences))
	}
	return m.fences[last].(map[string]any)
}

var oddTexts = []string{"", "x", "default", "ü", "\x00", "\u2028", "' OR 1=1 --", "../../etc/passwd", "{fp:1}:x", "\xff", "null", "-1", "9223372036854775808",
	"1e400", "550e8400-e29b-41d4-a716-446655440000", strings.Repeat("a", 300), "%00", "<script>", "job", "w", "lease_expiry", "waiting", "lease"}

func (m *maker) text(s *schema) string {
	if s != nil && len(s.Enum) > 0 && m.rnd.IntN(3) > 0 {
		return fmt.Sprint(s.Enum[m.rnd.IntN(len(s.Enum))])
	}
	if s != nil && s.Type == "integer" && m.rnd.IntN(3) > 0 {
		return fmt.Sprint(m.number(s))
	}
	return oddTexts[m.rnd.IntN(len(oddTexts))]
}

func (m *maker) number(s *schema) any {
	odd := []any{0, 1, -1, 9000, 100, 1000, 30000, 65535, 1795476796000, 1.5, 1e300, -9.3e18, json.Number("99999999999999999999")}
	if s.Maximum != nil && m.rnd.IntN(2) == 0 {
		return m.rnd.Int64N(int64(*s.Maximum) + 1)
	}
	return odd[m.rnd.IntN(len(odd))]
}

func (m *maker) value(s *schema, depth int) any {
	if s != nil && s.Ref != "" {
		s = m.doc.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
	}
	if s == nil || depth > 6 || m.rnd.IntN(40) == 0 {
		return []any{nil, 1, "x", []any{}, map[string]any{}, true}[m.rnd.IntN(6)]
	}
	typ := s.Type
	if list, ok := typ.([]any); ok {
		typ = list[m.rnd.IntN(len(list))]
	}
	switch typ {
	case "object":
		object := map[string]any{}
		for name, property := range s.Properties {
			if slices.Contains(s.Required, name) || m.rnd.IntN(4) == 0 {
				object[name] = m.value(property, depth+1)
			}
		}
		delete(object, "wait_ms")
		if _, ok := s.Properties["waitpoint_token"]; ok && m.token != "" && m.rnd.IntN(4) > 0 {
			object["waitpoint_token"] = m.token
		}
		if _, ok := s.Properties["fence"]; ok && len(m.fences) > 0 && m.rnd.IntN(3) > 0 {
			held := m.lease()
			object["fence"] = held["fence"]
			m.meant = held["execution_id"].(string)
			if _, ok := s.Properties["execution_id"]; ok {
				object["execution_id"] = m.meant
				return object
			}
		}
		if _, ok := s.Properties["execution_id"]; ok && m.rnd.IntN(3) > 0 {
			object["execution_id"] = m.ids[m.rnd.IntN(len(m.ids))]
		}
		return object
	case "array":
		list := make([]any, m.rnd.IntN(4))
		for i := range list {
			list[i] = m.value(s.Items, depth+1)
		}
		return list
	case "integer", "number":
		return m.number(s)
	case "boolean":
		return m.rnd.IntN(2) == 0
	case "string":
		return m.text(s)
	}
	return nil
}

func FuzzHandler(f *testing.F) {
	s, err := server.New(storetest.Open(f, sqlite.Options{}), server.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("POST", "/v1/lanes/default/executions", `{"kind":"x"}`)
	f.Add("POST", "/v1/executions", `{"execution_id":"{fp:7}:11111111-1111-4111-8111-111111111111","namespace":"ns","lane_id":"default","execution_kind":"k","input_payload":[104,105],"priority":0,"creator_identity":"me","partition_id":7,"now":1795476796000}`)
	f.Add("GET", "/v1/executions/%7Bfp:7%7D:11111111-1111-4111-8111-111111111111/record", "")
	f.Add("POST", "/v1/claims", `{"worker_id":"w","worker_instance_id":"i","lanes":["default"]}`)
	f.Add("PUT", "/v1/executions/x/priority", `{"new_priority":1}`)
	f.Add("GET", "/v1/query/executions?limit=3&state=waiting", "")
	f.Add("GET", "//", "")
	f.Add("GET", "/v1/events?wait%5fms=60000", "")
	f.Fuzz(func(t *testing.T, method, target, body string) {
		// As a server would read it; long polls end with the context.
		raw := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", method, target, len(body), body)
		req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, req.WithContext(ctx))
		if w.Code >= 500 {
			t.Fatalf("%s %q %q: %d %s", method, target, body, w.Code, w.Body)
		}
	})
}
