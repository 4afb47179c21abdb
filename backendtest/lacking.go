package backendtest

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
)

// exercise checks one behaviour. One that the store lacks has to fail.
func exercise(t *testing.T, store Store, b behaviour) {
	reason, lacks := store.Lacks[b.name]
	if !lacks {
		b.check(&subject{TB: t, Store: store, t: t})
		return
	}
	attempt := &expectedFailure{TB: t}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.check(&subject{TB: attempt, Store: store, t: t})
	}()
	<-ended
	if !attempt.Failed() {
		t.Errorf("the store has this behaviour, though it is said to lack it because %s", reason)
		return
	}
	t.Logf("the store lacks this: %s", reason)
}

// expectedFailure keeps a failure from failing the test.
type expectedFailure struct {
	testing.TB
	failed atomic.Bool
}

func (f *expectedFailure) note(text string) {
	f.Log("as expected: " + text)
	f.failed.Store(true)
}

func (f *expectedFailure) Failed() bool              { return f.failed.Load() }
func (f *expectedFailure) Fail()                     { f.failed.Store(true) }
func (f *expectedFailure) Error(args ...any)         { f.note(fmt.Sprint(args...)) }
func (f *expectedFailure) Errorf(s string, a ...any) { f.note(fmt.Sprintf(s, a...)) }

func (f *expectedFailure) FailNow() {
	f.Fail()
	runtime.Goexit()
}

func (f *expectedFailure) Fatal(args ...any) {
	f.note(fmt.Sprint(args...))
	runtime.Goexit()
}

func (f *expectedFailure) Fatalf(s string, a ...any) {
	f.note(fmt.Sprintf(s, a...))
	runtime.Goexit()
}
