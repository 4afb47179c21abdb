package flowfabric

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Limits of a capability set, both inclusive (spec 01 §9.1).
const (
	MaxCapabilityTokens = 256
	MaxCapabilityBytes  = 4096
)

// CapabilitySet is a set of capability tokens: what a worker offers or an
// execution requires. It is sorted, without duplicates, and never changes.
type CapabilitySet struct{ csv string }

// NewCapabilitySet makes a set. Errors: invalid_input with the texts of spec 01
// §9.3.
func NewCapabilitySet(tokens ...string) (CapabilitySet, error) {
	const field = "capabilities"
	for _, t := range tokens {
		switch {
		case t == "":
			return CapabilitySet{}, InvalidInput(field, "capability token must not be empty")
		case strings.Contains(t, ","):
			return CapabilitySet{}, InvalidInput(field, "capability token may not contain ',' (CSV delimiter): %q", t)
		case strings.ContainsFunc(t, func(r rune) bool {
			return unicode.IsSpace(r) || unicode.IsControl(r) || r == unicode.ReplacementChar
		}):
			return CapabilitySet{}, InvalidInput(field, "capability token must not contain whitespace or control characters: %q", t)
		}
	}
	return boundedSet(tokens)
}

// boundedSet makes a set of tokens within the limits, whatever their characters.
func boundedSet(tokens []string) (CapabilitySet, error) {
	const field = "capabilities"
	distinct := slices.Compact(slices.Sorted(slices.Values(tokens)))
	if n := len(distinct); n > MaxCapabilityTokens {
		return CapabilitySet{}, InvalidInput(field, "capability set exceeds CAPS_MAX_TOKENS (%d): %d", MaxCapabilityTokens, n)
	}
	csv := strings.Join(distinct, ",")
	if n := len(csv); n > MaxCapabilityBytes {
		return CapabilitySet{}, InvalidInput(field, "capability CSV exceeds CAPS_MAX_BYTES (%d): %d", MaxCapabilityBytes, n)
	}
	return CapabilitySet{csv}, nil
}

// ParseCapabilityCSV reads a set as stores keep it: empty tokens are skipped, and
// characters are not checked, because required tokens may have any byte above 0x7f
// (spec 01 §9.2, §9.4). Errors: invalid_input when a limit is exceeded.
func ParseCapabilityCSV(csv string) (CapabilitySet, error) {
	tokens := slices.DeleteFunc(strings.Split(csv, ","), func(t string) bool { return t == "" })
	return boundedSet(tokens)
}

// CSV is the tokens in byte order, joined with commas.
func (c CapabilitySet) CSV() string { return c.csv }

// Tokens are the tokens in byte order.
func (c CapabilitySet) Tokens() []string {
	if c.csv == "" {
		return nil
	}
	return strings.Split(c.csv, ",")
}

// Len is the number of tokens.
func (c CapabilitySet) Len() int {
	if c.csv == "" {
		return 0
	}
	return strings.Count(c.csv, ",") + 1
}

// IsZero reports whether the set is empty.
func (c CapabilitySet) IsZero() bool { return c.csv == "" }

// Missing are the tokens of required that the receiver lacks.
func (c CapabilitySet) Missing(required CapabilitySet) []string {
	if required.csv == "" || required.csv == c.csv {
		return nil
	}
	have := c.Tokens()
	return slices.DeleteFunc(required.Tokens(), func(t string) bool {
		_, found := slices.BinarySearch(have, t)
		return found
	})
}

// Satisfies reports whether the receiver has every required token.
func (c CapabilitySet) Satisfies(required CapabilitySet) bool { return len(c.Missing(required)) == 0 }

// Digest is a short hash of the set for log lines (spec 01 §9.5).
func (c CapabilitySet) Digest() string {
	h := FNV1a([]byte(c.csv))
	return fmt.Sprintf("%08x", uint32(h)^uint32(h>>32))
}

// MarshalJSON writes the tokens as a list.
func (c CapabilitySet) MarshalJSON() ([]byte, error) {
	return json.Marshal(append([]string{}, c.Tokens()...))
}

// UnmarshalJSON reads a list of tokens.
func (c *CapabilitySet) UnmarshalJSON(data []byte) error {
	var tokens []string
	if err := json.Unmarshal(data, &tokens); err != nil {
		return InvalidInput("capabilities", "must be a list of strings")
	}
	set, err := NewCapabilitySet(tokens...)
	if err == nil {
		*c = set
	}
	return err
}
