package flowfabric

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestExecutionIDsAreParsed(t *testing.T) {
	const text = "{fp:7}:550e8400-e29b-41d4-a716-446655440000"
	id, err := ParseExecutionID(text)
	if err != nil {
		t.Fatal(err)
	}
	if id.String() != text || id.Partition() != 7 || id.UUID().String() != text[7:] || !id.IsCanonical() {
		t.Errorf("parsed %q as %s, partition %d, uuid %s", text, id, id.Partition(), id.UUID())
	}
	for in, want := range map[string]string{
		"abc":                                  "execution_id is missing the `{fp:N}:` hash-tag prefix: abc",
		"{fp:7}":                               "execution_id is missing the `{fp:N}:` hash-tag prefix: {fp:7}",
		"{bp:7}:x":                             "execution_id is missing the `{fp:N}:` hash-tag prefix: {bp:7}:x",
		"{fp:99999}:x":                         "execution_id partition index is not a valid u16: 99999",
		"{fp:-1}:x":                            "execution_id partition index is not a valid u16: -1",
		"{fp:}:x":                              "execution_id partition index is not a valid u16: ",
		"{fp:7}:zzz":                           "execution_id UUID suffix is not a valid UUID: zzz",
		"550e8400-e29b-41d4-a716-446655440000": "execution_id is missing the `{fp:N}:` hash-tag prefix: 550e8400-e29b-41d4-a716-446655440000",
		"{fp:7}:550e8400-e29b-41d4-a716-44665": "execution_id UUID suffix is not a valid UUID: 550e8400-e29b-41d4-a716-44665",
	} {
		_, err := ParseExecutionID(in)
		if e, ok := AsError(err); !ok || e.Detail != want || e.Code != CodeInvalidInput {
			t.Errorf("ParseExecutionID(%q): %v, want %q", in, err, want)
		}
	}
}

func TestExecutionIDsKeepTheirTextAndKnowWhetherItIsCanonical(t *testing.T) {
	for _, s := range []string{
		"{fp:007}:550e8400-e29b-41d4-a716-446655440000",
		"{fp:+7}:550e8400-e29b-41d4-a716-446655440000",
		"{fp:7}:550E8400-E29B-41D4-A716-446655440000",
		"{fp:7}:550e8400e29b41d4a716446655440000",
		"{fp:7}:{550e8400-e29b-41d4-a716-446655440000}",
	} {
		id, err := ParseExecutionID(s)
		if err != nil || id.String() != s || id.IsCanonical() {
			t.Errorf("%s: %v, canonical %v, %v", s, id, id.IsCanonical(), err)
		}
	}
}

func TestIDsAreWrittenInOneFormAndReadInMany(t *testing.T) {
	const canonical = "550e8400-e29b-41d4-a716-446655440000"
	for _, s := range []string{canonical, strings.ToUpper(canonical), "urn:uuid:" + canonical, "{" + canonical + "}", strings.ReplaceAll(canonical, "-", "")} {
		id, err := ParseLeaseID(s)
		if err != nil || id.String() != canonical {
			t.Errorf("ParseLeaseID(%q) = %s, %v", s, id, err)
		}
	}
	if _, err := ParseLeaseID("nope"); err == nil || !strings.Contains(err.Error(), `lease_id: "nope" is not a UUID`) {
		t.Errorf("a bad lease id gives %v", err)
	}
	var f Fence
	if err := json.Unmarshal([]byte(`{"lease_id":"`+canonical+`","lease_epoch":3,"attempt_id":""}`), &f); err != nil {
		t.Fatal(err)
	}
	if f.LeaseID.String() != canonical || !f.AttemptID.IsZero() || !f.Partial() {
		t.Errorf("read fence %+v", f)
	}
}

func TestLaneIDsAreChecked(t *testing.T) {
	for in, want := range map[string]string{
		"":                      "lane_id is empty",
		strings.Repeat("x", 65): "lane_id exceeds 64 bytes (got 65)",
		"bäd":                   "lane_id contains non-ASCII-printable byte at index 1",
		"a\n":                   "lane_id contains non-ASCII-printable byte at index 1",
	} {
		_, err := ParseLaneID(in)
		if e, ok := AsError(err); !ok || e.Detail != want {
			t.Errorf("ParseLaneID(%q): %v, want %q", in, err, want)
		}
	}
	for _, ok := range []string{"default", "with blank", "{x}|:", strings.Repeat("x", 64)} {
		if _, err := ParseLaneID(ok); err != nil {
			t.Errorf("ParseLaneID(%q): %v", ok, err)
		}
	}
}

func TestIdentifiersAreChecked(t *testing.T) {
	for in, want := range map[string]string{
		"":                       "must not be empty",
		strings.Repeat("w", 257): "exceeds 256 bytes (got 257)",
		"w 1":                    "must not contain whitespace or control characters",
		"w\u00a01":               "must not contain whitespace or control characters",
		"w\x001":                 "must not contain whitespace or control characters",
		"w\xff":                  "must not contain whitespace or control characters",
	} {
		err := WorkerID(in).Validate()
		if e, ok := AsError(err); !ok || e.Detail != want || e.Field != "worker_id" {
			t.Errorf("worker id %q: %v, want %q", in, err, want)
		}
	}
	if err := Namespace("").Validate(); err != nil {
		t.Errorf("the empty namespace: %v", err)
	}
	if err := WorkerInstanceID(strings.Repeat("w", 256)).Validate(); err != nil {
		t.Error(err)
	}
}

func FuzzParseExecutionID(f *testing.F) {
	for _, s := range []string{"{fp:7}:550e8400-e29b-41d4-a716-446655440000", "{fp:}:", "", "{fp:1}:{fp:1}:x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseExecutionID(s)
		if err != nil {
			return
		}
		if id.String() != s {
			t.Fatalf("%q is kept as %q", s, id)
		}
		canonical := MakeExecutionID(id.Partition(), id.UUID())
		again, err := ParseExecutionID(canonical.String())
		if err != nil || again != canonical || !again.IsCanonical() {
			t.Fatalf("the canonical form of %q is %q: %v", s, canonical, err)
		}
	})
}
