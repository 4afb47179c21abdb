package valkey

import (
	"context"
	"testing"
	"time"
)

// The store's own timeout bounds each command, and nothing else may end a claim whose
// caller still waits.
func TestAClaimMayTakeAsLongAsTheTimeoutOfTheStoreSays(t *testing.T) {
	s := &Store{timeout: 10 * time.Minute, quit: make(chan struct{})}
	s.live()
	ended := make(chan time.Duration, 1)
	started := s.background(func(own context.Context) {
		at, limited := own.Deadline()
		if !limited {
			at = time.Now().Add(s.timeout)
		}
		ended <- time.Until(at)
	})
	if !started {
		t.Fatal("the store is closed")
	}
	if left := <-ended; left < s.timeout-time.Minute {
		t.Errorf("a claim ends after %s, and the timeout is %s", left, s.timeout)
	}
	s.loops.Wait()
	s.end()
}
