package flowfabric

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
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
	for _, s := range []string{"x" + canonical + "y", "{" + canonical + "]", "URN:UUID:" + canonical, canonical + " ", "550e8400-e29b-41d4-a716_446655440000", "{" + strings.ReplaceAll(canonical, "-", "") + "}"} {
		if id, err := ParseLeaseID(s); err == nil {
			t.Errorf("ParseLeaseID(%q) = %s", s, id)
		}
		if id, err := ParseExecutionID("{fp:7}:" + s); err == nil {
			t.Errorf("an execution id with %q is %s", s, id)
		}
	}
	var f Fence
	if err := json.Unmarshal([]byte(`{"lease_id":"`+canonical+`","lease_epoch":3,"attempt_id":""}`), &f); err != nil {
		t.Fatal(err)
	}
	if f.LeaseID.String() != canonical || !f.AttemptID.IsZero() || !f.Partial() {
		t.Errorf("read fence %+v", f)
	}
}

func TestEveryKindOfIDIsMintedAndParsed(t *testing.T) {
	for _, c := range []struct {
		minted string
		parse  func(string) (fmt.Stringer, error)
		field  string
	}{
		{NewFlowID().String(), func(s string) (fmt.Stringer, error) { return ParseFlowID(s) }, "flow_id"},
		{NewBudgetID().String(), func(s string) (fmt.Stringer, error) { return ParseBudgetID(s) }, "budget_id"},
		{NewQuotaPolicyID().String(), func(s string) (fmt.Stringer, error) { return ParseQuotaPolicyID(s) }, "quota_policy_id"},
		{NewLeaseID().String(), func(s string) (fmt.Stringer, error) { return ParseLeaseID(s) }, "lease_id"},
		{NewAttemptID().String(), func(s string) (fmt.Stringer, error) { return ParseAttemptID(s) }, "attempt_id"},
		{NewSignalID().String(), func(s string) (fmt.Stringer, error) { return ParseSignalID(s) }, "signal_id"},
		{NewWaitpointID().String(), func(s string) (fmt.Stringer, error) { return ParseWaitpointID(s) }, "waitpoint_id"},
		{NewSuspensionID().String(), func(s string) (fmt.Stringer, error) { return ParseSuspensionID(s) }, "suspension_id"},
		{NewEdgeID().String(), func(s string) (fmt.Stringer, error) { return ParseEdgeID(s) }, "edge_id"},
	} {
		id, err := c.parse(c.minted)
		if err != nil || id.String() != c.minted || uuid.MustParse(c.minted).Version() != 4 {
			t.Errorf("%s %s is read as %v, %v", c.field, c.minted, id, err)
		}
		if _, err := c.parse("nope"); err == nil || err.Error() != "invalid_input: "+c.field+`: "nope" is not a UUID` {
			t.Errorf("a bad %s gives %v", c.field, err)
		}
	}
}

func TestExecutionIDsAreMintedOnThePartitionOfTheirLaneOrFlow(t *testing.T) {
	u := uuid.MustParse("550e8400-e29b-41d4-a716-446655440000")
	if got := SoloExecutionID("default", DefaultPartitionConfig, u).String(); got != "{fp:86}:"+u.String() {
		t.Errorf("solo: %s", got)
	}
	if got := FlowExecutionID(FlowID(u), DefaultPartitionConfig, u).String(); got != "{fp:24}:"+u.String() {
		t.Errorf("member: %s", got)
	}
	if got := NewFlowExecutionID(FlowID(u), DefaultPartitionConfig); got.Partition() != 24 || !got.IsCanonical() {
		t.Errorf("new member: %s", got)
	}
	older := NewExecutionID("default", DefaultPartitionConfig)
	for range 1000 {
		newer := NewExecutionID("default", DefaultPartitionConfig)
		if older.Compare(newer) >= 0 {
			t.Fatalf("%s was minted before %s", older, newer)
		}
		older = newer
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

func BenchmarkNewLeaseID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		NewLeaseID()
	}
}

func BenchmarkNewExecutionID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		NewExecutionID("default", DefaultPartitionConfig)
	}
}

func BenchmarkParseExecutionID(b *testing.B) {
	s := NewExecutionID("default", DefaultPartitionConfig).String()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseExecutionID(s); err != nil {
			b.Fatal(err)
		}
	}
}
