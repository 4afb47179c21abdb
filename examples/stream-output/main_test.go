package main

import (
	"bytes"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWhatBothAttemptsWriteIsFollowed(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out, ":memory:"); err != nil {
		t.Fatal(err)
	}
	want := "durable execution \nattempt 1: durable execution is not hard \nsummary: {\"tokens\":5}\n"
	if out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
}
