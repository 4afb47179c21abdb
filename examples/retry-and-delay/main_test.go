package main

import (
	"bytes"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEachKindEndsAsItsHandlerAndPolicySay(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"KIND STATE ATTEMPTS WHY OR RESULT",
		`charge completed 3 "charged"`,
		"refund failed 1 no such payment",
		`ship completed 1 "shipped"`,
		"print expired 1 attempt_timeout",
		`remind completed 1 "reminded"`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("printed\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
