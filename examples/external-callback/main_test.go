package main

import (
	"bytes"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestACallbackIsTakenOnceAndOnlyWithItsSignatureAndToken(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	const want = `provider: accepted invoice 7
callback, without a signature: 401 unauthorized
callback, with a made-up token: 400 invalid_token
callback, it is paid: 200 duplicate: false
callback, it is paid, again: 200 duplicate: true
completed, signals taken: 1: "invoice 7 is paid: receipt 42"
`
	if out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", &out, want)
	}
}
