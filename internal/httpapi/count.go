package httpapi

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"

	ff "github.com/flowfabric/flowfabric"
)

// checkCounts refuses lists of objects that are longer than the maxItems of their
// field before memory is taken for the items: a {} of two bytes becomes a struct
// of hundreds.
func (f fields) checkCounts(t reflect.Type) error {
	for field := range t.Fields() {
		limit, err := strconv.Atoi(field.Tag.Get("maxItems"))
		if err != nil || field.Type.Kind() != reflect.Slice || field.Type.Elem().Kind() != reflect.Struct {
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if n := countItems(f[name]); n > limit {
			return ff.InvalidInput(name, "must hold 1 to %d items (got %d)", limit, n)
		}
	}
	return nil
}

// countItems counts the items of a JSON list that is well formed; anything else
// counts as one.
func countItems(list json.RawMessage) int {
	items, depth, text := 1, 0, false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			depth--
		case c == ',' && depth == 1 && list[0] == '[':
			items++
		}
	}
	return items
}
