package server_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flowfabric/flowfabric/server"
)

func TestTheDocumentDescribesEveryEndpoint(t *testing.T) {
	h := handler(t, server.Options{Metrics: http.NotFoundHandler()})
	doc := readDocument(t, h)
	if doc.OpenAPI != "3.1.0" {
		t.Errorf("version %q", doc.OpenAPI)
	}
	var described []string
	seen := map[string]bool{}
	for path, operations := range doc.Paths {
		for method, op := range operations {
			described = append(described, strings.ToUpper(method)+" "+path)
			if op.OperationID == "" || seen[op.OperationID] {
				t.Errorf("%s %s: operation id %q is missing or used twice", method, path, op.OperationID)
			}
			seen[op.OperationID] = true
			if op.Summary == "" || len(op.Responses) < 2 {
				t.Errorf("%s: summary %q, answers %v", op.OperationID, op.Summary, op.Responses)
			}
			for _, name := range pathNames.FindAllStringSubmatch(path, -1) {
				if !slices.ContainsFunc(op.Parameters, func(p parameter) bool { return p.Name == name[1] && p.In == "path" && p.Required }) {
					t.Errorf("%s: part %s of the path is not described", op.OperationID, name[1])
				}
			}
		}
	}
	var served []string
	for _, p := range server.Patterns() {
		served = append(served, strings.TrimSuffix(p, "{$}"))
	}
	slices.Sort(served)
	slices.Sort(described)
	if diff := cmp.Diff(served, described); diff != "" {
		t.Errorf("served (-) and described (+):\n%s", diff)
	}
}

var pathNames = regexp.MustCompile(`\{(\w+)\}`)

// fill puts the examples of parameters into a path.
func fill(path string) string {
	return strings.NewReplacer("{id}", "%7Bfp:86%7D:550e8400-e29b-41d4-a716-446655440000", "{idx}", "0", "{lane}", "default", "{worker_id}", "mailer", "{waitpoint_id}", "3b241101-e2bb-4255-8caf-4136c566a962").Replace(path)
}

// The fields that the document calls required are those that the server misses.
func TestTheRequiredFieldsOfTheDocumentAreRequired(t *testing.T) {
	h := handler(t, server.Options{})
	doc := readDocument(t, h)
	bodies := 0
	for path, operations := range doc.Paths {
		for method, op := range operations {
			if op.RequestBody == nil {
				continue
			}
			bodies++
			var example map[string]any
			if err := json.Unmarshal(op.RequestBody.Content["application/json"].Example, &example); err != nil {
				t.Errorf("%s has no example: %v", op.OperationID, err)
				continue
			}
			required := doc.resolve(op.RequestBody.Content["application/json"].Schema).Required
			for name, value := range example {
				delete(example, name)
				body, _ := json.Marshal(example)
				example[name] = value
				w := ask(t, h, strings.ToUpper(method), fill(path), jsonType, string(body))
				missed := w.Code == 422 && strings.Contains(w.Body.String(), "field "+name+" is missing")
				if missed != slices.Contains(required, name) {
					t.Errorf("%s: required are %v, without %s: %d %s", op.OperationID, required, name, w.Code, w.Body)
				}
			}
			if !slices.ContainsFunc(required, func(name string) bool { _, ok := example[name]; return !ok }) {
				continue
			}
			t.Errorf("%s: the example lacks one of %v", op.OperationID, required)
		}
	}
	if bodies < 25 {
		t.Errorf("only %d bodies", bodies)
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
			w := ask(t, h, strings.ToUpper(method), fill(path), jsonType, string(op.RequestBody.Content["application/json"].Example))
			// Tokens are made for one waitpoint: that of an example is nobody's.
			if w.Code >= 400 && w.Code != http.StatusNotFound && w.Code != http.StatusConflict && !strings.Contains(w.Body.String(), `"code":"invalid_token"`) {
				t.Errorf("%s: the example is refused: %d %s", op.OperationID, w.Code, w.Body)
			}
		}
	}
	if tried < 25 {
		t.Errorf("only %d examples", tried)
	}
}
