package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a body.
const maxDepth = 64

// fields are the fields of a body, as they were sent.
type fields map[string]json.RawMessage

// tree walks JSON that is known to be valid and looks for what encoding/json lets
// through. It copies nothing but field names: bodies hold megabytes of payload.
type tree struct {
	data  []byte
	at    int
	depth int
	top   fields
}

// checkTree refuses repeated fields and deep nesting, and gives the fields of the
// outermost object; nil when the JSON is no object.
func checkTree(data []byte) (fields, error) {
	t := tree{data: data}
	err := t.value()
	return t.top, err
}

func (t *tree) value() error {
	switch t.peek() {
	case '{':
		return t.object()
	case '[':
		return t.list()
	case '"':
		_, err := t.text()
		return err
	}
	for t.at < len(t.data) && bytes.IndexByte([]byte(",]} \t\r\n"), t.data[t.at]) < 0 {
		t.at++
	}
	return nil
}

// peek is the next byte that is not a space.
func (t *tree) peek() byte {
	for {
		switch c := t.data[t.at]; c {
		case ' ', '\t', '\r', '\n':
			t.at++
		default:
			return c
		}
	}
}

// text steps over a string and gives it with its quotes. Half a surrogate pair is
// refused: encoding/json would replace it.
func (t *tree) text() ([]byte, error) {
	start := t.at
	for t.at++; t.data[t.at] != '"'; t.at++ {
		if t.data[t.at] != '\\' {
			continue
		}
		if t.at++; t.data[t.at] != 'u' {
			continue
		}
		r := t.escape()
		if !utf16.IsSurrogate(r) {
			continue
		}
		if t.data[t.at+1] != '\\' || t.data[t.at+2] != 'u' {
			return nil, fmt.Errorf("%w: a text has half a surrogate pair: \\u%04x", ErrMalformed, r)
		}
		t.at += 2
		if low := t.escape(); utf16.DecodeRune(r, low) == utf8.RuneError {
			return nil, fmt.Errorf("%w: a text has half a surrogate pair: \\u%04x before \\u%04x", ErrMalformed, r, low)
		}
	}
	t.at++
	return t.data[start:t.at], nil
}

// escape reads the four digits behind the u at the current byte and steps to the
// last one.
func (t *tree) escape() rune {
	n, _ := strconv.ParseUint(string(t.data[t.at+1:t.at+5]), 16, 16)
	t.at += 4
	return rune(n)
}

func (t *tree) open() error {
	if t.depth++; t.depth > maxDepth {
		return fmt.Errorf("%w: nested deeper than %d levels", ErrShape, maxDepth)
	}
	t.at++
	return nil
}

func (t *tree) list() error {
	if err := t.open(); err != nil {
		return err
	}
	for {
		switch t.peek() {
		case ']':
			t.at++
			t.depth--
			return nil
		case ',':
			t.at++
		default:
			if err := t.value(); err != nil {
				return err
			}
		}
	}
}

func (t *tree) object() error {
	if err := t.open(); err != nil {
		return err
	}
	seen := fields{}
	for {
		switch t.peek() {
		case '}':
			if t.depth == 1 {
				t.top = seen
			}
			t.at++
			t.depth--
			return nil
		case ',':
			t.at++
		default:
			if err := t.field(seen); err != nil {
				return err
			}
		}
	}
}

func (t *tree) field(seen fields) error {
	quoted, err := t.text()
	if err != nil {
		return err
	}
	name := string(quoted[1 : len(quoted)-1])
	if bytes.IndexByte(quoted, '\\') >= 0 {
		if err := json.Unmarshal(quoted, &name); err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	if _, twice := seen[name]; twice {
		return fmt.Errorf("%w: field %.100s is repeated", ErrShape, name)
	}
	t.peek() // the colon
	t.at++
	t.peek()
	start := t.at
	err = t.value()
	seen[name] = t.data[start:t.at]
	return err
}
