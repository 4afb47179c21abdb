package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheExampleGreetsOnAFileThatItMayOpenAgain(t *testing.T) {
	db := filepath.Join(t.TempDir(), "hello.db")
	for _, name := range []string{"ann", "bob"} {
		var out bytes.Buffer
		if err := run(t.Context(), &out, db, name); err != nil {
			t.Fatal(err)
		}
		if want := `result "hello, ` + name + `"`; !strings.Contains(out.String(), want) {
			t.Errorf("printed %q, want %q in it", out.String(), want)
		}
	}
}
