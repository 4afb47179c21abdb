package server_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/flowfabric/flowfabric/server"
)

// document is the part of an OpenAPI document by which requests can be made up.
type document struct {
	OpenAPI string `json:"openapi"`
	Paths   map[string]map[string]struct {
		OperationID string `json:"operationId"`
		Parameters  []struct {
			Name     string  `json:"name"`
			In       string  `json:"in"`
			Required bool    `json:"required"`
			Schema   *schema `json:"schema"`
			Example  string  `json:"example"`
		} `json:"parameters"`
		RequestBody *struct {
			Content map[string]struct {
				Schema  *schema         `json:"schema"`
				Example json.RawMessage `json:"example"`
			} `json:"content"`
		} `json:"requestBody"`
		Responses map[string]json.RawMessage `json:"responses"`
	} `json:"paths"`
	Components struct {
		Schemas map[string]*schema `json:"schemas"`
	} `json:"components"`
}

type schema struct {
	Ref        string             `json:"$ref"`
	Type       any                `json:"type"`
	Enum       []any              `json:"enum"`
	Properties map[string]*schema `json:"properties"`
	Required   []string           `json:"required"`
	Items      *schema            `json:"items"`
	Minimum    *float64           `json:"minimum"`
	Maximum    *float64           `json:"maximum"`
}

func readDocument(t testing.TB, h http.Handler) (doc document) {
	t.Helper()
	w := ask(t, h, "GET", "/openapi.json", nil, "")
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestTheDocumentDescribesEveryEndpoint(t *testing.T) {
	h := handler(t, server.Options{})
	doc := readDocument(t, h)
	if doc.OpenAPI != "3.1.0" {
		t.Errorf("version %q", doc.OpenAPI)
	}
	seen := map[string]bool{}
	for path, operations := range doc.Paths {
		for method, op := range operations {
			if op.OperationID == "" || seen[op.OperationID] {
				t.Errorf("%s %s: operation id %q is missing or used twice", method, path, op.OperationID)
			}
			seen[op.OperationID] = true
			if len(op.Responses) < 2 {
				t.Errorf("%s: answers %v", op.OperationID, op.Responses)
			}
			target := regexp.MustCompile(`\{\w+\}`).ReplaceAllString(path, "x")
			if w := ask(t, h, strings.ToUpper(method), target, nil, ""); w.Code == http.StatusMethodNotAllowed || (w.Code == http.StatusNotFound && w.Body.Len() == 0) {
				t.Errorf("%s %s is described but not served: %d", method, path, w.Code)
			}
		}
	}
	if len(seen) < 40 {
		t.Errorf("only %d operations", len(seen))
	}
}

func TestTheExamplesOfTheDocumentWork(t *testing.T) {
	h := handler(t, server.Options{})
	tried := 0
	for path, operations := range readDocument(t, h).Paths {
		for method, op := range operations {
			if op.RequestBody == nil || op.RequestBody.Content["application/json"].Example == nil {
				continue
			}
			tried++
			target := strings.NewReplacer("{id}", "%7Bfp:86%7D:550e8400-e29b-41d4-a716-446655440000", "{lane}", "default", "{worker_id}", "mailer").Replace(path)
			w := ask(t, h, strings.ToUpper(method), target, jsonType, string(op.RequestBody.Content["application/json"].Example))
			if w.Code >= 400 && w.Code != http.StatusNotFound && w.Code != http.StatusConflict {
				t.Errorf("%s: the example is refused: %d %s", op.OperationID, w.Code, w.Body)
			}
		}
	}
	if tried < 6 {
		t.Errorf("only %d examples", tried)
	}
}

// Every operation of the document is called with made-up requests: fitting,
// nearly fitting, and absurd ones. None may fail on the server's side.
func TestMadeUpRequestsNeverFailTheServer(t *testing.T) {
	h := handler(t, server.Options{})
	doc := readDocument(t, h)
	m := &maker{doc: doc, rnd: rand.New(rand.NewPCG(1, 2)), ids: []string{"{fp:86}:550e8400-e29b-41d4-a716-446655440000"}}
	calls, accepted := 0, 0
	for range 120 {
		for path, operations := range doc.Paths {
			for method, op := range operations {
				target, body := path, ""
				query := url.Values{}
				for _, p := range op.Parameters {
					value := m.text(p.Schema)
					switch {
					case p.In == "path" && p.Name == "id":
						target = strings.ReplaceAll(target, "{id}", url.PathEscape(m.pick(m.ids[m.rnd.IntN(len(m.ids))], value)))
					case p.In == "path":
						target = strings.ReplaceAll(target, "{"+p.Name+"}", url.PathEscape(m.pick("default", value)+"x"))
					case p.Name == "wait_ms":
					case p.Required || m.rnd.IntN(2) == 0:
						query.Set(p.Name, value)
					}
				}
				if op.RequestBody != nil {
					content := op.RequestBody.Content["application/json"]
					made, _ := json.Marshal(m.value(content.Schema, 0))
					body = m.pick(string(made), string(content.Example))
					body = strings.ReplaceAll(body, `"wait_ms":`, `"max":1,"wait_ms":0,"-":`)
				}
				if len(query) > 0 {
					target += "?" + query.Encode()
				}
				w := ask(t, h, strings.ToUpper(method), target, jsonType, body)
				calls++
				if w.Code >= 500 {
					t.Fatalf("%s %s\n%s\n%d %s", method, target, body, w.Code, w.Body)
				}
				if w.Code < 300 {
					accepted++
					m.learn(w.Body.Bytes())
				}
			}
		}
	}
	if w := ask(t, h, "GET", "/healthz", nil, ""); w.Code != 200 {
		t.Errorf("afterwards the server is not well: %d", w.Code)
	}
	t.Logf("%d calls, %d accepted", calls, accepted)
	if accepted < calls/10 {
		t.Errorf("only %d of %d calls were accepted: the requests do not reach the store", accepted, calls)
	}
}

// maker makes values up from schemas.
type maker struct {
	doc document
	rnd *rand.Rand
	ids []string
}

func (m *maker) pick(likely, rarely string) string {
	if rarely != "" && m.rnd.IntN(4) == 0 {
		return rarely
	}
	return likely
}

var learned = regexp.MustCompile(`"execution_id":"([^"]+)"`)

// learn remembers ids of executions that exist, so that later calls meet them.
func (m *maker) learn(body []byte) {
	for _, match := range learned.FindAllSubmatch(body, 3) {
		if len(m.ids) < 50 {
			m.ids = append(m.ids, string(match[1]))
		}
	}
}

var oddTexts = []string{"", "x", "default", "ü", "\x00", "\u2028", "' OR 1=1 --", "../../etc/passwd", "{fp:1}:x", "null", "-1", "9223372036854775808",
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
	s, err := server.New(openStore(f), server.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("POST", "/v1/lanes/default/executions", `{"kind":"x"}`)
	f.Add("POST", "/v1/executions", `{"execution_id":"{fp:7}:11111111-1111-4111-8111-111111111111","namespace":"ns","lane_id":"default","execution_kind":"k","input_payload":[104,105],"priority":0,"creator_identity":"me","partition_id":7,"now":1795476796000}`)
	f.Add("GET", "/v1/executions/%7Bfp:7%7D:11111111-1111-4111-8111-111111111111/record", "")
	f.Add("POST", "/v1/claims", `{"worker_id":"w","worker_instance_id":"i","lanes":["default"]}`)
	f.Add("PUT", "/v1/executions/x/priority", `{"new_priority":1}`)
	f.Add("GET", "/v1/query/executions?limit=3&state=waiting", "")
	f.Fuzz(func(t *testing.T, method, target, body string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(target, "/") || strings.ContainsAny(method, " \r\n\t") || method == "" || strings.Contains(target+body, "wait_ms") {
			return
		}
		req, err := http.NewRequestWithContext(t.Context(), method, u.String(), strings.NewReader(body))
		if err != nil {
			return
		}
		w := ask(t, s.Handler(), req.Method, req.URL.String(), jsonType, body)
		if w.Code >= 500 {
			t.Fatalf("%s %q %q: %d %s", method, target, body, w.Code, w.Body)
		}
	})
}
