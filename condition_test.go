package flowfabric

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The texts of spec 04b §9.2.
func TestConditionsHaveTheTextOfTheWire(t *testing.T) {
	for want, c := range map[string]ResumeCondition{
		`{"allow_operator_override":true,"condition_type":"signal_set","minimum_signal_count":1,"required_signal_names":["n"],"signal_match_mode":"any","timeout_behavior":"fail"}`:                 AwaitSignal("n").At("k"),
		`{"allow_operator_override":true,"condition_type":"signal_set","minimum_signal_count":1,"required_signal_names":[],"signal_match_mode":"any","timeout_behavior":"fail"}`:                    AwaitSignal("").At("k"),
		`{"allow_operator_override":true,"condition_type":"signal_set","minimum_signal_count":1,"required_signal_names":["__operator_only__"],"signal_match_mode":"all","timeout_behavior":"fail"}`: OperatorOnly(),
		`{"allow_operator_override":true,"condition_type":"signal_set","minimum_signal_count":1,"required_signal_names":["__timeout_only__"],"signal_match_mode":"all","timeout_behavior":"fail"}`:  TimeoutOnly(),
		`{"allow_operator_override":true,"composite":true,"condition_type":"composite","minimum_signal_count":1,"required_signal_names":[],"signal_match_mode":"composite","timeout_behavior":"fail","tree":{"kind":"AllOf","members":[{"kind":"Single","matcher":{"kind":"ByName","name":"a<b"},"path":"members[0]","waitpoint_key":"k"},{"count_kind":"DistinctSources","kind":"Count","matcher":null,"n":2,"path":"members[1]","waitpoints":["k","l"]}],"path":""},"v":1}`: AllOf(AwaitSignal("a<b").At("k"), AwaitCount(2, DistinctSources, "k", "l")),
	} {
		got, err := c.Wire(TimeoutFail)
		if err != nil || got != want {
			t.Errorf("%+v is\n%s, %v, want\n%s", c, got, err, want)
		}
		back, err := ParseConditionWire(got, "k")
		if d := cmp.Diff(c, back); err != nil || d != "" {
			t.Errorf("read back (-want +got), %v:\n%s", err, d)
		}
	}
}

func FuzzParseConditionWire(f *testing.F) {
	c := AllOf(AwaitSignal("a").At("k"), AllOf(AwaitCount(2, DistinctSignals, "k").Named("b")))
	text, err := c.Wire(TimeoutResume)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(`{"required_signal_names":["a","b"],"signal_match_mode":"all"}`)
	f.Add(`{"composite":true,"tree":{"kind":"Count","n":-1,"waitpoints":null}}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseConditionWire(text, "k")
		if err != nil {
			return
		}
		c.WaitpointKeys()
		c.SignalNames()
		if c.validate() != nil {
			return
		}
		again, err := c.Wire(TimeoutFail)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseConditionWire(again, "k"); err != nil || !cmp.Equal(back.SignalNames(), c.SignalNames()) {
			t.Errorf("%+v became %+v, %v", c, back, err)
		}
	})
}
