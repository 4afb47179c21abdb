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
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	ff "github.com/flowfabric/flowfabric"
)

// maxDepth bounds the nesting of a body.
const maxDepth = 64

// Malformed is a body that is not JSON; Shape is JSON of the wrong shape. The
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
// and not null. Errors wrap ErrMalformed or ErrShape and name the field.
func Decode[T any](body []byte, unknown Unknown, required ...string) (T, error) {
	var v T
	if !utf8.Valid(body) {
		return v, fmt.Errorf("%w: the body is not valid UTF-8", ErrMalformed)
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	var first json.RawMessage
	if err := dec.Decode(&first); err != nil {
		if errors.Is(err, io.EOF) {
			return v, fmt.Errorf("%w: the body is empty", ErrMalformed)
		}
		return v, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := checkTree(first); err != nil {
		return v, err
	}
	if err := checkRequired(first, required); err != nil {
		return v, err
	}
	strict := json.NewDecoder(bytes.NewReader(first))
	if unknown == RefuseUnknown {
		strict.DisallowUnknownFields()
	}
	if err := strict.Decode(&v); err != nil {
		return v, shapeError(err)
	}
	if rest, _ := io.ReadAll(io.MultiReader(dec.Buffered(), bytes.NewReader(body[dec.InputOffset():]))); len(bytes.TrimSpace(rest)) > 0 {
		return v, fmt.Errorf("%w: something follows the JSON object", ErrMalformed)
	}
	return v, nil
}

func checkRequired(object json.RawMessage, required []string) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(object, &fields); err != nil || fields == nil {
		return fmt.Errorf("%w: the body must be an object", ErrShape)
	}
	for _, name := range required {
		switch value, ok := fields[name]; {
		case !ok:
			return fmt.Errorf("%w: field %s is missing", ErrShape, name)
		case string(value) == "null":
			return fmt.Errorf("%w: field %s must not be null", ErrShape, name)
		}
	}
	return nil
}

func shapeError(err error) error {
	var t *json.UnmarshalTypeError
	if errors.As(err, &t) {
		return fmt.Errorf("%w: field %s: %s does not fit %s", ErrShape, t.Field, t.Value, t.Type)
	}
	return fmt.Errorf("%w: %w", ErrShape, err)
}

// checkTree refuses repeated fields and deep nesting.
func checkTree(data json.RawMessage) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var open []map[string]bool // nil for lists
	key := false               // the next string is a key
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		switch tok := token.(type) {
		case json.Delim:
			if tok == '{' || tok == '[' {
				if len(open) == maxDepth {
					return fmt.Errorf("%w: nested deeper than %d levels", ErrShape, maxDepth)
				}
				var seen map[string]bool
				if tok == '{' {
					seen = map[string]bool{}
				}
				open = append(open, seen)
			} else {
				open = open[:len(open)-1]
			}
			key = len(open) > 0 && open[len(open)-1] != nil
			continue
		case string:
			if key {
				if open[len(open)-1][tok] {
					return fmt.Errorf("%w: field %s is repeated", ErrShape, tok)
				}
				open[len(open)-1][tok] = true
				key = false
				continue
			}
		}
		key = len(open) > 0 && open[len(open)-1] != nil
	}
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
		return fmt.Errorf("bytes must be a list of numbers from 0 to 255: %w", err)
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

// MillisOf makes a Millis.
func MillisOf(d time.Duration) Millis { return Millis(d.Milliseconds()) }

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
