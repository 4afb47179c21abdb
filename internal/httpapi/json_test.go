package httpapi

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	ff "github.com/flowfabric/flowfabric"
)

const goodCreate = `{"execution_id":"{fp:31}:b3bec23b-7f6c-4d47-9a1c-1b789a60974c","namespace":"shop","lane_id":"l","execution_kind":"job","input_payload":[104,105],"priority":0,"creator_identity":"me","partition_id":31,"now":1795476796000`

func TestBodiesOfTheReferenceAreReadAsTheReferenceReadsThem(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       error
		says       string
	}{
		{"complete", goodCreate + `}`, nil, ""},
		{"unknown fields", goodCreate + `,"extra":{"a":[1]}}`, nil, ""},
		{"optional fields that are null", goodCreate + `,"policy":null,"delay_until":null,"idempotency_key":null}`, nil, ""},
		{"a field in other letters is unknown", goodCreate + `,"PRIORITY":"high"}`, nil, ""},
		{"nothing", ``, ErrMalformed, "empty"},
		{"no JSON", `{oops`, ErrMalformed, ""},
		{"garbage after a good object", goodCreate + `} x`, ErrMalformed, "follows"},
		{"garbage after a bad object", `{"a":1} x`, ErrShape, "execution_id is missing"},
		{"a list", `[1]`, ErrShape, "must be an object"},
		{"null", `null`, ErrShape, "must be an object"},
		{"a text", `"x"`, ErrShape, "must be an object"},
		{"no UTF-8", goodCreate + ",\"idempotency_key\":\"\xff\"}", ErrMalformed, "UTF-8"},
		{"half a surrogate pair", goodCreate + `,"idempotency_key":"\ud800"}`, ErrMalformed, `\ud800`},
		{"the other half", goodCreate + `,"tags":{"\udc00x":"a"}}`, ErrMalformed, `\udc00`},
		{"a half and a letter", goodCreate + `,"extra":["\ud83d\u0041"]}`, ErrMalformed, `\ud83d before \u0041`},
		{"a whole surrogate pair", goodCreate + `,"idempotency_key":"\ud83d\ude00\\\""}`, nil, ""},
		{"a repeated field spelt another way", goodCreate + `,"n\u006fw":1}`, ErrShape, "now is repeated"},
		{"a repeated field", goodCreate + `,"now":1}`, ErrShape, "now is repeated"},
		{"tags that are null", goodCreate + `,"tags":null}`, ErrShape, "field tags"},
		{"a tag that is a number", goodCreate + `,"tags":{"a":1}}`, ErrShape, "field tags: must be a text (got number)"},
		{"a number as text", strings.Replace(goodCreate, `"priority":0`, `"priority":"high"`, 1) + `}`, ErrShape, "field priority"},
		{"a number that is too large", strings.Replace(goodCreate, `"priority":0`, `"priority":99999999999`, 1) + `}`, ErrShape,
			"field priority: must be a whole number from -2147483648 to 2147483647 (got number 99999999999)"},
		{"a fraction", strings.Replace(goodCreate, `"priority":0`, `"priority":1.5`, 1) + `}`, ErrShape, "got number 1.5"},
		{"a partition that is too large", strings.Replace(goodCreate, `"partition_id":31`, `"partition_id":65536`, 1) + `}`, ErrShape, "from 0 to 65535"},
		{"bytes as text", strings.Replace(goodCreate, `[104,105]`, `"text"`, 1) + `}`, ErrShape, "field input_payload"},
		{"bytes beyond 255", strings.Replace(goodCreate, `[104,105]`, `[1,256]`, 1) + `}`, ErrShape, "item 1 is 256"},
		{"bytes below 0", strings.Replace(goodCreate, `[104,105]`, `[-1]`, 1) + `}`, ErrShape, "field input_payload"},
		{"a bad id", strings.Replace(goodCreate, `{fp:31}`, `{fp:x}`, 1) + `}`, ErrShape, "field execution_id"},
		{"an empty lane", strings.Replace(goodCreate, `"lane_id":"l"`, `"lane_id":""`, 1) + `}`, ErrShape, "lane_id is empty"},
		{"a lane that is not ASCII", strings.Replace(goodCreate, `"lane_id":"l"`, `"lane_id":"bäd"`, 1) + `}`, ErrShape, "lane_id contains"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Decode[CreateExecutionArgs]([]byte(c.body), IgnoreUnknown, CreateExecutionRequired...)
			expect(t, err, c.want, c.says)
			if err == nil && (string(got.InputPayload) != "hi" || got.Namespace != "shop" || got.Priority != 0 || *got.Now != 1795476796000) {
				t.Errorf("read %+v", got)
			}
		})
	}
}

func TestBodiesOfOurOwnAreReadStrictly(t *testing.T) {
	deep := strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth)
	for _, c := range []struct {
		name, body string
		want       error
		says       string
	}{
		{"the least", `{"kind":"k"}`, nil, ""},
		{"a payload of null", `{"kind":"k","payload":null}`, nil, ""},
		{"a payload with any fields", `{"kind":"k","payload":{"KIND":1,"kind":[2]}}`, nil, ""},
		{"an unknown field", `{"kind":"k","prio":1}`, ErrShape, `field "prio" is unknown; the fields are kind, payload,`},
		{"a field in other letters", `{"kind":"k","Kind":"other"}`, ErrShape, `field "Kind" is unknown`},
		{"a missing field", `{"payload":1}`, ErrShape, "kind is missing"},
		{"a required field that is null", `{"kind":null}`, ErrShape, "kind must not be null"},
		{"a field repeated within the payload", `{"kind":"k","payload":{"a":1,"a":2}}`, ErrShape, "a is repeated"},
		{"a time that is a text", `{"kind":"k","delay_until":"soon"}`, ErrShape, "field delay_until: an instant"},
		{"a time before 1970", `{"kind":"k","deadline_at":-1}`, ErrShape, "field deadline_at: an instant must be 0 to 253402300799999 milliseconds (got -1)"},
		{"bad base64", `{"kind":"k","payload_base64":"??"}`, ErrShape, "field payload_base64"},
		{"a policy that cannot be", `{"kind":"k","policy":{"max_replay_count":-1}}`, ErrShape, "max_replay_count"},
		{"a bool as number", `{"kind":"k","requires":[true]}`, ErrShape, "field requires: must be a text (got bool)"},
		{"as deep as allowed", `{"kind":"k","payload":` + deep[1:len(deep)-1] + `}`, nil, ""},
		{"deeper", `{"kind":"k","payload":` + deep + `}`, ErrShape, "deeper than 64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Decode[Submit]([]byte(c.body), RefuseUnknown, "kind")
			expect(t, err, c.want, c.says)
		})
	}
}

func TestFieldsOfEmbeddedTypesAreNamedAsInTheJSON(t *testing.T) {
	_, err := Decode[Claim]([]byte(`{"worker_id":1}`), RefuseUnknown)
	expect(t, err, ErrShape, "field worker_id: must be a text (got number)")
	_, err = Decode[CreateMany]([]byte(`{"executions":[{"lane_id":"l","kind":7}]}`), RefuseUnknown)
	expect(t, err, ErrShape, "field executions.kind: must be a text (got number)")
	_, err = Decode[CreateMany]([]byte(`{"executions":[{"lane_id":"l","kind":"k","nope":1}]}`), RefuseUnknown)
	expect(t, err, ErrShape, `"nope"`)
}

func expect(t *testing.T, err, want error, says string) {
	t.Helper()
	switch {
	case want == nil && err != nil:
		t.Errorf("refused: %v", err)
	case want != nil && !errors.Is(err, want):
		t.Errorf("got %v, want %v", err, want)
	case err != nil && !strings.Contains(err.Error(), says):
		t.Errorf("%q does not say %q", err, says)
	}
}

func TestASubmitBecomesACommandAndBack(t *testing.T) {
	body := `{"kind":"k","payload":{"a": 1},"priority":5,"tags":{"a.b":"c"},"delay_ms":1500,"max_retries":2,"timeout_ms":60000,"requires":["gpu","a"],"idempotency_key":"i","creator":"me","namespace":"ns"}`
	s, err := Decode[Submit]([]byte(body), RefuseUnknown, "kind")
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Command("lane")
	if err != nil {
		t.Fatal(err)
	}
	if string(c.Payload) != `{"a": 1}` || c.PayloadEncoding != "json" || c.Delay != 1500*time.Millisecond || c.Policy.Retry.MaxRetries != 2 ||
		c.Policy.Timeout.Attempt != time.Minute || c.Policy.Routing.RequiredCapabilities.CSV() != "a,gpu" {
		t.Errorf("command %+v", c)
	}
	again := SubmitOf(&c)
	back, err := again.Command("lane")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(c, back, same); d != "" {
		t.Error(d)
	}
	for field, bad := range map[string]Submit{
		"payload":     {Kind: "k", Payload: json.RawMessage("1"), PayloadBase64: []byte{}},
		"priority":    {Kind: "k", Priority: ff.MaxPriority + 1},
		"delay_ms":    {Kind: "k", DelayMS: -1},
		"timeout_ms":  {Kind: "k", TimeoutMS: Millis(ff.MaxDelay.Milliseconds() + 1)},
		"max_retries": {Kind: "k", MaxRetries: new(-1)},
	} {
		_, err := bad.Command("lane")
		if e, ok := ff.AsError(err); !ok || e.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestDurationsAreRoundedUpAndBounded(t *testing.T) {
	for d, want := range map[time.Duration]Millis{0: 0, 1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, time.Hour: 3600000} {
		if got := MillisOf(d); got != want {
			t.Errorf("%s is %d, want %d", d, got, want)
		}
	}
	for _, m := range []Millis{-1, Millis(ff.MaxDelay.Milliseconds() + 1), 1<<63 - 1} {
		if _, err := m.Duration("x_ms"); ff.CodeOf(err) != ff.CodeInvalidInput {
			t.Errorf("%d: %v", m, err)
		}
	}
}

func TestIDsOfAllBytesFitIntoAPath(t *testing.T) {
	for in, want := range map[string]string{
		"{fp:7}:a": "%7Bfp:7%7D:a", "a/b": "a%2Fb", ".": "%2E", "..": "%2E%2E", "a.b": "a.b", "ä %?#": "%C3%A4%20%25%3F%23",
	} {
		if got := Escape(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

// FuzzDecode feeds arbitrary bodies to both rules: a body is read, or refused with
// one of the two errors, and what is read can be written and read again.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{goodCreate + `}`, `{"kind":"k","payload":{"a":[1,2,{"b":null}]},"tags":{"a.b":"c"}}`, `{"a":1} x`, `{"kind":"k","policy":{"retry_policy":{"max_retries":3}}}`,
		`{"kind":"\ud800"}`, `[[[[`, `{"kind":"k","delay_until":1e3}`, ``, "\xff", `{"Kind":"a","kind":"b"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		_, err := Decode[CreateExecutionArgs](body, IgnoreUnknown, CreateExecutionRequired...)
		if err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrShape) {
			t.Fatalf("an error of another kind: %v", err)
		}
		s, err := Decode[Submit](body, RefuseUnknown, "kind")
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrShape) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		written, err := json.Marshal(s)
		if err != nil {
			t.Fatalf("cannot be written: %v", err)
		}
		if _, err := Decode[Submit](written, RefuseUnknown, "kind"); err != nil {
			t.Fatalf("%s cannot be read again: %v", written, err)
		}
	})
}

// BenchmarkDecode reads a submit with a payload of 4 KiB.
func BenchmarkDecode(b *testing.B) {
	body, err := json.Marshal(CreateMany{Executions: []CreateItem{{LaneID: "l", Submit: Submit{Kind: "k", PayloadBase64: make([]byte, 4096)}}}})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode[CreateMany](body, RefuseUnknown, "executions"); err != nil {
			b.Fatal(err)
		}
	}
}
