package flowfabric

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestCapabilitySetsAreSortedDistinctAndHashed(t *testing.T) {
	for _, c := range []struct {
		tokens      []string
		csv, digest string
	}{
		{nil, "", "4fd0bfc1"},
		{[]string{"gpu"}, "gpu", "2fc2accd"},
		{[]string{"gpu", "cuda", "gpu"}, "cuda,gpu", "c952a6c4"},
		{[]string{"gpu", "cpu"}, "cpu,gpu", "60044962"},
		{[]string{"cap-c", "cap-a", "cap-b"}, "cap-a,cap-b,cap-c", "228e5819"},
	} {
		set, err := NewCapabilitySet(c.tokens...)
		if err != nil || set.CSV() != c.csv || set.Digest() != c.digest || set.Len() != len(set.Tokens()) {
			t.Errorf("%v: csv %q, digest %s, %v; want %q, %s", c.tokens, set.CSV(), set.Digest(), err, c.csv, c.digest)
		}
	}
}

func TestCapabilityTokensAreChecked(t *testing.T) {
	many := make([]string, MaxCapabilityTokens+1)
	for i := range many {
		many[i] = fmt.Sprint("t", i)
	}
	for want, tokens := range map[string][]string{
		"capability token must not be empty":                                             {"a", ""},
		`capability token may not contain ',' (CSV delimiter): "a,b"`:                    {"a,b"},
		`capability token must not contain whitespace or control characters: "a b"`:      {"a b"},
		`capability token must not contain whitespace or control characters: "a\u00a0b"`: {"a\u00a0b"},
		`capability token must not contain whitespace or control characters: "a\x7f"`:    {"a\x7f"},
		"capability set exceeds CAPS_MAX_TOKENS (256): 257":                              many,
		"capability CSV exceeds CAPS_MAX_BYTES (4096): 4097":                             {strings.Repeat("x", 4097)},
	} {
		_, err := NewCapabilitySet(tokens...)
		if e, ok := AsError(err); !ok || e.Detail != want || e.Field != "capabilities" {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := NewCapabilitySet(append(many[:MaxCapabilityTokens:MaxCapabilityTokens], many[0])...); err != nil {
		t.Errorf("256 distinct tokens: %v", err)
	}
	if _, err := NewCapabilitySet(strings.Repeat("x", 4096)); err != nil {
		t.Errorf("4096 bytes: %v", err)
	}
}

func TestMissingCapabilitiesAreNamed(t *testing.T) {
	set := func(csv string) CapabilitySet {
		s, err := ParseCapabilityCSV(csv)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct{ required, offered, missing string }{
		{"cuda,gpu", "", "cuda,gpu"},
		{"alpha,alpha,mid,zeta", "beta,mid", "alpha,zeta"},
		{",,,", "", ""},
		{"gpu", "cuda,gpu", ""},
		{"GPU", "gpu", "GPU"},
	} {
		if got := strings.Join(set(c.offered).Missing(set(c.required)), ","); got != c.missing {
			t.Errorf("required %q, offered %q: missing %q, want %q", c.required, c.offered, got, c.missing)
		}
	}
	data, _ := json.Marshal(set("b,a"))
	var read CapabilitySet
	if err := json.Unmarshal(data, &read); err != nil || !slices.Equal(read.Tokens(), []string{"a", "b"}) || string(data) != `["a","b"]` {
		t.Errorf("JSON %s read as %v, %v", data, read, err)
	}
}
