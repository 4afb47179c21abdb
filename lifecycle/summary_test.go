package lifecycle_test

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// patch merges patches in one append into a summary. It does so twice, as a store does
// that has to run a command again: both times must give the same.
func patch(t rapid.TB, x *ff.Execution, sum ff.Summary, patches ...string) (ff.Summary, error) {
	t.Helper()
	fence := ff.Fence{LeaseID: x.Lease.ID, LeaseEpoch: x.LeaseEpoch, AttemptID: x.CurrentAttemptID}
	c := ff.AppendFrames{LeaseRef: ref(x, fence)}
	for _, p := range patches {
		c.Frames = append(c.Frames, ff.NewFrame{Mode: ff.FrameSummary, Payload: []byte(p)})
	}
	args, err := lifecycle.PrepareAppend(&c)
	if err != nil {
		return sum, err
	}
	var results [2]ff.Summary
	var errs [2]error
	for i := range results {
		d, err := lifecycle.ReadSummary(sum)
		if err != nil {
			t.Fatal(err)
		}
		_, errs[i] = lifecycle.Append(x, &lifecycle.Stream{}, d, &args, t0)
		results[i] = d.Summary
	}
	if ff.CodeOf(errs[0]) != ff.CodeOf(errs[1]) || errs[0] == nil && string(results[0].Document) != string(results[1].Document) {
		t.Fatalf("merged again, %q make %s (%v), at first %s (%v)", patches, results[1].Document, errs[1], results[0].Document, errs[0])
	}
	return results[1], errs[1]
}

func TestPatchesOfOneAppendMeetOneAnother(t *testing.T) {
	x := active(t)
	for _, c := range []struct {
		patches []string
		want    string
	}{
		{[]string{`{"a":{}}`, `{"a":{"b":1}}`, `{"c":[]}`, `{"c":{"d":1}}`}, `{"a":{"b":1},"c":{"d":1}}`},
		{[]string{`{"a":[{"b":1},[]]}`, `{"a":{"c":1}}`}, `{"a":{"c":1}}`},
		{[]string{`{"a":{"b":1}}`, `{"a":[false,{"c":[]},null]}`, `{"a":{"2":{"c":{"d":2}}}}`}, `{"a":{"1":false,"2":{"c":{"d":2}},"b":1}}`},
		{[]string{`{"a":"__ff_null__"}`, `{"a":{"b":"__ff_null__"}}`}, `{"a":{"b":null}}`},
	} {
		sum, err := patch(t, x, ff.Summary{}, c.patches...)
		if err != nil || string(sum.Document) != c.want || sum.Version != int64(len(c.patches)) {
			t.Errorf("%q make %s (%v), want %s", c.patches, sum.Document, err, c.want)
		}
	}
}

func TestNumbersOfASummaryHave14Digits(t *testing.T) {
	x := active(t)
	for in, want := range map[string]string{
		"12345678901234567890": "12345678901235000000", "1.0": "1", "-0.0": "-0", "0.1": "0.1", "1e300": "1e+300", "1.23456789012345678": "1.2345678901235",
		"1.7976931348623157e308": "1.7976931348623e+308", "5e-324": "5e-324",
	} {
		sum, err := patch(t, x, ff.Summary{}, `{"a":[`+in+`]}`)
		if got := string(sum.Document); err != nil || got != `{"a":[`+want+`]}` {
			t.Errorf("%s becomes %s (%v), want %s", in, got, err, want)
		}
	}
}

func TestADamagedSummaryIsNotMergedInto(t *testing.T) {
	for _, stored := range []string{"[1]", "7", "null", `{"a":`} {
		if _, err := lifecycle.ReadSummary(ff.Summary{Document: []byte(stored), Version: 1}); ff.CodeOf(err) != ff.CodeCorruption {
			t.Errorf("%s: %v", stored, err)
		}
	}
}

// member draws a value of a patch, mostly small so that patches meet.
func member() *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		leaf := rapid.SampledFrom([]any{nil, false, true, 1.0, 0.1, 12345678901234567.0, "x", "", ff.SummaryNull})
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0, 1:
			return rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "1", "2"}), rapid.Deferred(member), 0, 3).Draw(t, "object")
		case 2:
			return rapid.SliceOfN(rapid.Deferred(member), 0, 3).Draw(t, "list")
		}
		return leaf.Draw(t, "leaf")
	})
}

// Whatever is merged: the document is an object without the text that stands for null
// and without empty lists, a patch that says nothing changes nothing, and deleting all
// members leaves none.
func TestAnyPatchesMakeAnObject(t *testing.T) {
	x := active(t)
	rapid.Check(t, func(t *rapid.T) {
		sum := ff.Summary{}
		for range rapid.IntRange(1, 5).Draw(t, "patches") {
			p, err := json.Marshal(rapid.MapOfN(rapid.SampledFrom([]string{"a", "b"}), member(), 0, 2).Draw(t, "patch"))
			if err != nil {
				t.Fatal(err)
			}
			next, err := patch(t, x, sum, string(p))
			if err != nil {
				t.Fatalf("%s: %v", p, err)
			}
			sum = next
		}
		var members map[string]any
		if err := json.Unmarshal(sum.Document, &members); err != nil || strings.Contains(string(sum.Document), ff.SummaryNull) || strings.Contains(string(sum.Document), "[]") {
			t.Fatalf("the document is %s", sum.Document)
		}
		same, err := patch(t, x, sum, `{}`)
		if err != nil || string(same.Document) != string(sum.Document) {
			t.Fatalf("an empty patch makes %s of %s (%v)", same.Document, sum.Document, err)
		}
		if empty, err := patch(t, x, sum, `{"a":null,"b":null}`); err != nil || string(empty.Document) != `{}` {
			t.Fatalf("after all was deleted: %s (%v)", empty.Document, err)
		}
	})
}
