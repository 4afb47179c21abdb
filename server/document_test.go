package server_test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// document is the part of an OpenAPI document by which requests can be made up.
type document struct {
	OpenAPI    string                          `json:"openapi"`
	Paths      map[string]map[string]operation `json:"paths"`
	Components struct {
		Schemas map[string]*schema `json:"schemas"`
	} `json:"components"`
}

type operation struct {
	OperationID string      `json:"operationId"`
	Summary     string      `json:"summary"`
	Parameters  []parameter `json:"parameters"`
	RequestBody *struct {
		Content map[string]media `json:"content"`
	} `json:"requestBody"`
	Responses map[string]struct {
		Content map[string]media `json:"content"`
	} `json:"responses"`
}

type parameter struct {
	Name     string  `json:"name"`
	In       string  `json:"in"`
	Required bool    `json:"required"`
	Schema   *schema `json:"schema"`
}

type media struct {
	Schema  *schema         `json:"schema"`
	Example json.RawMessage `json:"example"`
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
	Pattern    string             `json:"pattern"`
	AnyOf      []*schema          `json:"anyOf"`
	MaxLength  *int               `json:"maxLength"`
	// Additional is a schema, or false when there may be no other properties.
	Additional json.RawMessage `json:"additionalProperties"`
}

func (d *document) resolve(s *schema) *schema {
	if s != nil && s.Ref != "" {
		return d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
	}
	return s
}

// check says where a value does not fit a schema; empty when it fits.
func (d *document) check(at string, s *schema, v any) string {
	if s = d.resolve(s); s == nil {
		return ""
	}
	if s.Type != nil && !s.allows(v) {
		return fmt.Sprintf("%s: %v is no %v", at, v, s.Type)
	}
	if len(s.Enum) > 0 && v != nil && !slices.Contains(s.Enum, v) {
		return fmt.Sprintf("%s: %v is none of %v", at, v, s.Enum)
	}
	if len(s.AnyOf) > 0 && !slices.ContainsFunc(s.AnyOf, func(one *schema) bool { return d.check(at, one, v) == "" }) {
		return at + ": fits none of the choices"
	}
	switch x := v.(type) {
	case map[string]any:
		return d.checkObject(at, s, x)
	case []any:
		for i := range x {
			if bad := d.check(fmt.Sprintf("%s[%d]", at, i), s.Items, x[i]); bad != "" {
				return bad
			}
		}
	case string:
		if s.MaxLength != nil && len(x) > *s.MaxLength || !regexp.MustCompile(s.Pattern).MatchString(x) {
			return fmt.Sprintf("%s: %q does not fit %s", at, x, s.Pattern)
		}
	case float64:
		if s.Minimum != nil && x < *s.Minimum || s.Maximum != nil && x > *s.Maximum {
			return fmt.Sprintf("%s: %v is out of range", at, x)
		}
	}
	return ""
}

func (d *document) checkObject(at string, s *schema, object map[string]any) string {
	for _, name := range s.Required {
		if _, ok := object[name]; !ok {
			return at + ": " + name + " is missing"
		}
	}
	var rest *schema
	if len(s.Additional) > 0 && s.Additional[0] == '{' {
		if err := json.Unmarshal(s.Additional, &rest); err != nil {
			return err.Error()
		}
	}
	for name, value := range object {
		property, known := s.Properties[name]
		if !known {
			// Answers of today have only what is described.
			if rest == nil && s.Type == "object" {
				return at + ": " + name + " is not described"
			}
			property = rest
		}
		if bad := d.check(at+"."+name, property, value); bad != "" {
			return bad
		}
	}
	return ""
}

// allows reports whether the type of a value is one of the schema's.
func (s *schema) allows(v any) bool {
	types, ok := s.Type.([]any)
	if !ok {
		types = []any{s.Type}
	}
	kind := fmt.Sprintf("%T", v)
	switch x := v.(type) {
	case nil:
		kind = "null"
	case bool:
		kind = "boolean"
	case map[string]any:
		kind = "object"
	case []any:
		kind = "array"
	case float64:
		if kind = "number"; x == math.Trunc(x) && slices.Contains(types, "integer") {
			kind = "integer"
		}
	}
	return slices.Contains(types, any(kind))
}

func readDocument(t testing.TB, h http.Handler) (doc document) {
	t.Helper()
	w := ask(t, h, "GET", "/openapi.json", nil, "")
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// checkAnswer says how an answer differs from the document; empty when it does not.
func (d *document) checkAnswer(op *operation, w *httptest.ResponseRecorder) string {
	if w.Code >= 500 {
		return "the server failed"
	}
	described, ok := op.Responses[strconv.Itoa(w.Code)]
	if !ok && w.Code < 400 {
		return "the status is not described"
	}
	if !ok {
		described = op.Responses["default"]
	}
	if w.Header().Get("Content-Type") != "application/json" || op.OperationID == "openapi" || op.OperationID == "get-payload" {
		return ""
	}
	var answer any
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		return err.Error()
	}
	return d.check("answer", described.Content["application/json"].Schema, answer)
}
