package backendtest

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"pgregory.net/rapid"

	ff "github.com/flowfabric/flowfabric"
)

var summaryBehaviours = []behaviour{
	{"patches merge into one document", summaryMerges},
	{"the summary says when it was changed and how often", summaryTimes},
	{"a summary frame carries its patch and its version", summaryFrames},
	{"an append with a patch that cannot be is refused whole", badPatches},
	{"a patch may nest as deep as the limit", summaryDepth},
	{"a summary does not grow beyond its limit", summaryTooLarge},
}

func (s *subject) summary(stream ff.StreamRef) ff.Summary {
	s.Helper()
	sum, err := s.Summary(s.Context(), stream)
	s.must(err)
	return sum
}

// wantSummary compares documents by what they mean: stores may order members and
// write numbers as they like.
func (s *subject) wantSummary(stream ff.StreamRef, document string, version int64) {
	s.Helper()
	sum := s.summary(stream)
	s.equal("the summary", string(canonical(s, sum.Document)), string(canonical(s, []byte(document))))
	s.equal("its version", sum.Version, version)
}

// canonical is a document with its members in order and its numbers in one form.
func canonical(t rapid.TB, document []byte) []byte {
	t.Helper()
	if len(document) == 0 {
		return nil
	}
	var v any
	if err := json.Unmarshal(document, &v); err != nil {
		t.Fatalf("%.200q is not JSON: %v", document, err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// merges are patches and what they make, one after the other (spec 04c §5.2, §5.4).
var merges = [][][2]string{
	{{`{"a":1}`, `{"a":1}`}, {`{"a":null,"b":null}`, `{}`}, {`{}`, `{}`}},
	{{`{"a":1,"b":{"c":2}}`, `{"a":1,"b":{"c":2}}`}, {`{"b":{"c":null,"d":[1,2]},"a":"x"}`, `{"a":"x","b":{"d":[1,2]}}`}},
	{{`{"a":{"b":1,"c":2}}`, `{"a":{"b":1,"c":2}}`}, {`{"a":{"b":"__ff_null__","c":null}}`, `{"a":{"b":null}}`}, {`{"a":{"b":{"c":1}}}`, `{"a":{"b":{"c":1}}}`}},
	{{`{"a":"__ff_null__","b":null,"__ff_null__":"__FF_NULL__","c":"x__ff_null__"}`, `{"a":null,"__ff_null__":"__FF_NULL__","c":"x__ff_null__"}`}, {`{"d":1}`, `{"a":null,"__ff_null__":"__FF_NULL__","c":"x__ff_null__","d":1}`}},
	{{`{"a":{"b":1}}`, `{"a":{"b":1}}`}, {`{"a":{}}`, `{"a":{}}`}, {`{"a":{"c":1}}`, `{"a":{"c":1}}`}},
	{{`{"a":[1,2,3]}`, `{"a":[1,2,3]}`}, {`{"a":[9]}`, `{"a":[9]}`}, {`{"a":[]}`, `{"a":{}}`}},
	{{`{"a":[1,2]}`, `{"a":[1,2]}`}, {`{"a":{"c":1}}`, `{"a":{"c":1}}`}, {`{"a":7}`, `{"a":7}`}, {`{"a":{"c":null}}`, `{"a":{}}`}},
	{{`{"a":[null,"__ff_null__",{"n":null,"e":[]}]}`, `{"a":[null,null,{"n":null,"e":{}}]}`}},
	{{`{"a":{"b":1}}`, `{"a":{"b":1}}`}, {`{"a":[false,1]}`, `{"a":{"1":false,"2":1,"b":1}}`}},
	{{`{"a":[false,1]}`, `{"a":[false,1]}`}, {`{"a":[false,null,{"b":null,"c":2},null]}`, `{"a":[false,null,{"c":2}]}`}, {`{"a":{"b":1}}`, `{"a":{"b":1}}`}},
	{{`{"a":[[false,null],[]]}`, `{"a":[[false,null],{}]}`}},
	{{`{"a":12345678901234567890,"b":100000000000000,"c":1.0,"d":0.1,"e":-5,"f":1.23456789012345678}`, `{"a":1.2345678901235e19,"b":1e14,"c":1,"d":0.1,"e":-5,"f":1.2345678901235}`}},
	{{`{"a":"</&>é\"\\\u0001","a/b":true,"a":"<last/>"}`, `{"a":"<last/>","a/b":true}`}},
	{{` { "a" : [ 1 , { } ] } `, `{"a":[1,{}]}`}},
	{{`{"1":"x","2":"y"}`, `{"1":"x","2":"y"}`}, {`{"1":null}`, `{"2":"y"}`}},
}

func summaryMerges(s *subject) {
	for i, steps := range merges {
		c := s.start(ff.CreateExecution{Lane: ff.LaneID(fmt.Sprint("lane ", i))})
		var all []ff.NewFrame
		for n, step := range steps {
			s.equal("the version", s.appendTo(c, summaryFrame(step[0])).SummaryVersion, int64(n+1))
			s.wantSummary(streamOf(c), step[1], int64(n+1))
			all = append(all, summaryFrame(step[0]))
		}
		// All in one append.
		c = s.start(ff.CreateExecution{Lane: ff.LaneID(fmt.Sprint("lane ", i))})
		s.equal("the version", s.appendTo(c, all...).SummaryVersion, int64(len(steps)))
		s.wantSummary(streamOf(c), steps[len(steps)-1][1], int64(len(steps)))
	}
}

func summaryTimes(s *subject) {
	c := s.start(ff.CreateExecution{})
	s.appendTo(c, textFrame("a"))
	s.equal("before a patch", s.summary(streamOf(c)), ff.Summary{})
	s.Advance(time.Second)
	first := s.now()
	s.appendTo(c, summaryFrame(`{"a":1}`))
	s.equal("after a patch", s.summary(streamOf(c)), ff.Summary{Document: []byte(`{"a":1}`), Version: 1, FirstAppliedAt: first, UpdatedAt: first})
	s.Advance(time.Second)
	s.appendTo(c, textFrame("b"), summaryFrame(`{}`), summaryFrame(`{}`))
	s.equal("after three", s.summary(streamOf(c)), ff.Summary{Document: []byte(`{"a":1}`), Version: 3, FirstAppliedAt: first, UpdatedAt: s.now()})
	s.complete(c)
	s.wantSummary(streamOf(c), `{"a":1}`, 3)
}

func summaryFrames(s *subject) {
	c := s.start(ff.CreateExecution{})
	r := s.appendTo(c, summaryFrame(`{"a": 1}`), textFrame("text"), summaryFrame(`{"b":2}`))
	s.equal("the version", r.SummaryVersion, int64(2))
	s.equal("the version of an append without patches", s.appendTo(c, textFrame("more")).SummaryVersion, int64(0))
	s.wantPayloads(streamOf(c), `{"a": 1} text {"b":2} more`)
	var versions []int64
	for _, f := range s.frames(streamOf(c)).Frames {
		versions = append(versions, f.SummaryVersion)
	}
	s.equal("the versions of the frames", versions, []int64{1, 0, 2, 0})
}

// nested is a patch whose innermost object lies in depth others.
func nested(depth int) string {
	return strings.Repeat(`{"a":`, depth) + `{"b":1}` + strings.Repeat(`}`, depth)
}

func badPatches(s *subject) {
	c := s.start(ff.CreateExecution{})
	s.appendTo(c, summaryFrame(`{"a":1}`))
	before := s.frames(streamOf(c))
	for _, bad := range []string{"", "null", "7", `"text"`, "[]", `[{"a":2}]`, `{"a":2`, `{'a':2}`, `{"a":2}{}`, `{"a":NaN}`, `{"a":1e400}`,
		nested(ff.MaxSummaryDepth + 1), `{"a":[false` + strings.Repeat(",null", 40) + `,2]}`,
		`{"a":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`} {
		_, err := s.tryAppend(c, textFrame("text"), summaryFrame(`{"b":1}`), summaryFrame(bad))
		if ff.CodeOf(err) != ff.CodeInvalidInput {
			s.Errorf("the patch %.60q: %v", bad, err)
		}
	}
	s.equal("the stream", s.frames(streamOf(c)), before)
	s.wantSummary(streamOf(c), `{"a":1}`, 1)
	s.equal("the count", s.appendTo(c, textFrame("text")).Count, int64(2))
}

func summaryDepth(s *subject) {
	c := s.start(ff.CreateExecution{})
	s.appendTo(c, summaryFrame(nested(ff.MaxSummaryDepth)))
	s.wantSummary(streamOf(c), nested(ff.MaxSummaryDepth), 1)
	// Lists do not count, nor does an object that is empty.
	lists := `{"b":` + strings.Repeat(`[{"c":`, 20) + `1` + strings.Repeat(`}]`, 20) + `}`
	s.appendTo(c, summaryFrame(`{"a":null}`), summaryFrame(lists))
	s.wantSummary(streamOf(c), lists, 3)
	// The text that stands for null is looked for 32 levels below the document.
	sentinel := func(depth int, leaf string) string {
		return `{"b":` + strings.Repeat("[", depth) + leaf + strings.Repeat("]", depth) + `}`
	}
	s.appendTo(c, summaryFrame(sentinel(32, `"`+ff.SummaryNull+`"`)))
	s.wantSummary(streamOf(c), sentinel(32, "null"), 4)
	s.appendTo(c, summaryFrame(sentinel(33, `"`+ff.SummaryNull+`"`)))
	s.wantSummary(streamOf(c), sentinel(33, `"`+ff.SummaryNull+`"`), 5)
}

func summaryTooLarge(s *subject) {
	c := s.start(ff.CreateExecution{})
	const part = 60 << 10
	patch := func(i int) ff.NewFrame {
		return summaryFrame(fmt.Sprintf(`{"part %d":"%s"}`, i, strings.Repeat("x", part)))
	}
	n := ff.MaxSummaryBytes / (part + 20)
	for i := range n {
		s.appendTo(c, patch(i))
	}
	_, err := s.tryAppend(c, textFrame("text"), patch(n))
	s.refused(err, ff.ErrRetentionLimitExceeded)
	sum := s.summary(streamOf(c))
	s.equal("the version", sum.Version, int64(n))
	if len(sum.Document) < n*part || len(sum.Document) > ff.MaxSummaryBytes {
		s.Errorf("the summary has %d bytes", len(sum.Document))
	}
	s.equal("the answer", s.appendTo(c, summaryFrame(`{"part 0":null}`), patch(n)).SummaryVersion, int64(n+2))
}
