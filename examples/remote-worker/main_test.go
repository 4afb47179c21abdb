package main

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAWorkerThatKnowsOnlyTheURLDoesTheWork(t *testing.T) {
	serving, stopServing := context.WithCancel(t.Context())
	working, stopWorking := context.WithCancel(t.Context())
	defer stopServing()
	defer stopWorking()
	url, served, worked := make(chan string, 1), make(chan error, 1), make(chan error, 1)
	go func() {
		served <- serve(serving, filepath.Join(t.TempDir(), "f.db"), "127.0.0.1:0", func(u string) { url <- u })
	}()
	var base string
	select {
	case base = <-url:
	case err := <-served:
		t.Fatal(err)
	}
	go func() { worked <- work(working, base, slog.New(slog.DiscardHandler)) }()

	var out bytes.Buffer
	if err := submit(t.Context(), &out, base, "hello"); err != nil {
		t.Fatal(err)
	}
	if out.String() != "HELLO\n" {
		t.Errorf("printed %q", out.String())
	}
	stopWorking()
	if err := <-worked; err != nil {
		t.Errorf("the worker did not stop cleanly: %v", err)
	}
	stopServing()
	if err := <-served; err != nil {
		t.Errorf("the server did not stop cleanly: %v", err)
	}
}
