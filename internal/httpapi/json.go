// Package httpapi has the JSON bodies that server and client exchange, and how
// they become the words of package flowfabric.
//
// Bodies of the reference's endpoints (spec 08) keep its shapes: bytes are lists
// of numbers, results are tagged by their variant. Bodies of our own endpoints
// have instants as milliseconds since 1970 in fields ending in _at, durations in
// fields ending in _ms, and bytes in base64.
package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	ff "github.com/flowfabric/flowfabric"
)

// ErrMalformed is a body that is not JSON; ErrShape is JSON of the wrong shape. The
// server answers 400 and 422 (spec 08 §1.6).
var (
	ErrMalformed = errors.New("malformed JSON")
	ErrShape     = errors.New("JSON of the wrong shape")
)

// Unknown says what becomes of fields that a body's type lacks.
type Unknown int

const (
	// IgnoreUnknown is the rule of the reference's endpoints.
	IgnoreUnknown Unknown = iota
	// RefuseUnknown is the rule of our own: a misspelt option must not be lost.
	RefuseUnknown
)

// Decode reads one JSON object into a T. Fields named in required must be there
// and not null. Errors wrap ErrMalformed or ErrShape and name the field, what it
// was and what it must be.
func Decode[T any](body []byte, unknown Unknown, required ...string) (T, error) {
	var v T
	if !utf8.Valid(body) {
		return v, fmt.Errorf("%w: the body is not valid UTF-8", ErrMalformed)
	}
	object, rest, err := first(body)
	if err != nil {
		return v, err
	}
	given, err := checkTree(object)
	if err != nil {
		return v, err
	}
	if object, err = given.check(reflect.TypeFor[T](), object, unknown, required); err != nil {
		return v, err
	}
	if err := given.checkCounts(reflect.TypeFor[T]()); err != nil {
		return v, err
	}
	if err := given.decode(object, &v, unknown); err != nil {
		return v, err
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return v, fmt.Errorf("%w: something follows the JSON object", ErrMalformed)
	}
	return v, nil
}

// first is the first JSON value of a body and what follows it.
func first(body []byte) (value, rest []byte, err error) {
	if json.Valid(body) {
		return body, nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if err := dec.Decode((*json.RawMessage)(&value)); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil, fmt.Errorf("%w: the body is empty", ErrMalformed)
		}
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return value, body[dec.InputOffset():], nil
}

// check refuses fields that are missing or unknown, and gives the object without
// those that are to be ignored. Field names count as they are spelt: encoding/json
// would take KIND for kind, and for a second kind beside the first.
func (f fields) check(t reflect.Type, object []byte, unknown Unknown, required []string) ([]byte, error) {
	if f == nil {
		return nil, fmt.Errorf("%w: the body must be an object", ErrShape)
	}
	for _, name := range required {
		switch value, ok := f[name]; {
		case !ok:
			return nil, fmt.Errorf("%w: field %s is missing", ErrShape, name)
		case string(value) == "null":
			return nil, fmt.Errorf("%w: field %s must not be null", ErrShape, name)
		}
	}
	known, before := namesOf(t), len(f)
	for name := range f {
		if slices.Contains(known, name) {
			continue
		}
		if unknown == RefuseUnknown {
			return nil, fmt.Errorf("%w: field %.100q is unknown; the fields are %s", ErrShape, name, strings.Join(known, ", "))
		}
		delete(f, name)
	}
	if len(f) == before {
		return object, nil
	}
	rest, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrShape, err)
	}
	return rest, nil
}

// decode reads the object into v.
func (f fields) decode(object []byte, v any, unknown Unknown) error {
	dec := json.NewDecoder(bytes.NewReader(object))
	if unknown == RefuseUnknown {
		dec.DisallowUnknownFields()
	}
	err := dec.Decode(v)
	if err == nil {
		return nil
	}
	var t *json.UnmarshalTypeError
	if errors.As(err, &t) && t.Field != "" {
		return fmt.Errorf("%w: field %s: must be %s (got %s)", ErrShape, fieldPath(t.Field), expected(t.Type), t.Value)
	}
	return fmt.Errorf("%w: %s%w", ErrShape, f.culprit(reflect.TypeOf(v).Elem()), err)
}

// culprit names the field that does not fit a type, for the errors of types that
// decode themselves: those do not say which field they were.
func (f fields) culprit(t reflect.Type) string {
	for _, name := range slices.Sorted(maps.Keys(f)) {
		one, err := json.Marshal(fields{name: f[name]})
		if err == nil && json.Unmarshal(one, reflect.New(t).Interface()) != nil {
			return "field " + name + ": "
		}
	}
	return ""
}

// fieldPath is the path of a field without the names of embedded types, which
// are not in the JSON.
func fieldPath(path string) string {
	parts := slices.DeleteFunc(strings.Split(path, "."), func(p string) bool { return p != "" && p[0] >= 'A' && p[0] <= 'Z' })
	return strings.Join(parts, ".")
}

// expected says in words of JSON what fits a type.
func expected(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		high := int64(1)<<(t.Bits()-1) - 1
		return fmt.Sprintf("a whole number from %d to %d", -high-1, high)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return fmt.Sprintf("a whole number from 0 to %d", ^uint64(0)>>(64-t.Bits()))
	case reflect.String:
		return "a text"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "a list"
	}
	return "an object"
}

// namesByType are the field names that namesOf found.
var namesByType sync.Map

// namesOf lists the names of the fields of a struct, with those of embedded
// structs, in order.
func namesOf(t reflect.Type) []string {
	if list, ok := namesByType.Load(t); ok {
		return list.([]string)
	}
	var list []string
	for f := range t.Fields() {
		if f.Anonymous {
			list = append(list, namesOf(f.Type)...)
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		list = append(list, name)
	}
	namesByType.Store(t, list)
	return list
}

// Bytes are bytes in a body of the reference: a list of numbers. A text is
// refused there, so base64 is only read in our own bodies.
type Bytes []byte

// MarshalJSON writes a list of numbers.
func (b Bytes) MarshalJSON() ([]byte, error) {
	out := make([]byte, 0, 2+4*len(b))
	out = append(out, '[')
	for i, c := range b {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendUint(out, uint64(c), 10)
	}
	return append(out, ']'), nil
}

// UnmarshalJSON reads a list of numbers.
func (b *Bytes) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		*b = nil
		return nil
	}
	var numbers []uint16 // a []uint8 would be read as base64
	if err := json.Unmarshal(data, &numbers); err != nil {
		return errors.New("bytes must be a list of numbers from 0 to 255")
	}
	read := make([]byte, len(numbers))
	for i, n := range numbers {
		if n > 255 {
			return fmt.Errorf("bytes must be a list of numbers from 0 to 255 (item %d is %d)", i, n)
		}
		read[i] = byte(n)
	}
	*b = read
	return nil
}

// Time is an instant: milliseconds since 1970, null for none.
type Time struct{ time.Time }

// At makes a Time.
func At(t time.Time) Time { return Time{t} }

// MarshalJSON writes milliseconds.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return strconv.AppendInt(nil, t.UnixMilli(), 10), nil
}

// maxMillis is the end of the year 9999.
const maxMillis = 253402300799999

// UnmarshalJSON reads milliseconds.
func (t *Time) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		*t = Time{}
		return nil
	}
	n, err := strconv.ParseInt(string(data), 10, 64)
	if err != nil || n < 0 || n > maxMillis {
		return fmt.Errorf("an instant must be 0 to %d milliseconds (got %.40s)", int64(maxMillis), data)
	}
	*t = Time{time.UnixMilli(n).UTC()}
	return nil
}

// Millis is a duration in milliseconds.
type Millis int64

// MillisOf makes a Millis. Parts of a millisecond are rounded up: a duration that
// is there must not become none.
func MillisOf(d time.Duration) Millis { return Millis((d + time.Millisecond - 1) / time.Millisecond) }

// Duration is the duration; field names it in the error when it is negative or
// too long to be one.
func (m Millis) Duration(field string) (time.Duration, error) {
	if m < 0 || time.Duration(m) > ff.MaxDelay/time.Millisecond {
		return 0, ff.InvalidInput(field, "must be 0 to %d (got %d)", ff.MaxDelay.Milliseconds(), int64(m))
	}
	return time.Duration(m) * time.Millisecond, nil
}

// Escape makes an id fit into a path segment.
func Escape(segment string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(segment) {
		c := segment[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_~:", c) >= 0 || c == '.' && len(segment) > 2 {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}
