package valkeytest_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/valkey-io/valkey-go"
)

const month = 30 * 24 * time.Hour

func must(t *testing.T, r valkey.ValkeyResult) {
	t.Helper()
	if err := r.Error(); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !check(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
	}
}

func timeOf(t *testing.T, s *valkeytest.Server) time.Time {
	t.Helper()
	now, err := s.Time()
	if err != nil {
		t.Fatal(err)
	}
	return now
}

func TestClockStandsStillUntilItIsMoved(t *testing.T) {
	t.Parallel()
	clock := valkeytest.NewClock(t)
	s := valkeytest.Start(t, valkeytest.WithClock(clock))
	before := clock.Now()
	time.Sleep(30 * time.Millisecond)
	if now := timeOf(t, s); !now.Equal(before) {
		t.Errorf("TIME is %v, the clock showed %v", now, before)
	}
	for _, d := range []time.Duration{time.Microsecond, time.Second, month} {
		if now := clock.Advance(d); !timeOf(t, s).Equal(now) {
			t.Errorf("TIME is %v, the clock shows %v", timeOf(t, s), now)
		}
	}
	if passed := clock.Now().Sub(before); passed != month+time.Second+time.Microsecond {
		t.Errorf("the clock moved by %v", passed)
	}
}

func TestClockRulesExpiry(t *testing.T) {
	t.Parallel()
	clock := valkeytest.NewClock(t)
	s := valkeytest.Start(t, valkeytest.WithClock(clock))
	must(t, s.Do("SET", "k", "v", "PX", "1000"))
	clock.Advance(999 * time.Millisecond)
	if ttl, err := s.Do("PTTL", "k").AsInt64(); err != nil || ttl != 1 {
		t.Errorf("PTTL before the end = %d, %v", ttl, err)
	}
	clock.Advance(time.Millisecond)
	if n, err := s.Do("EXISTS", "k").AsInt64(); err != nil || n != 1 {
		t.Errorf("at its last millisecond EXISTS = %d, %v", n, err)
	}
	clock.Advance(time.Millisecond)
	if n, err := s.Do("EXISTS", "k").AsInt64(); err != nil || n != 0 {
		t.Errorf("after its end EXISTS = %d, %v", n, err)
	}
}

func TestClockRulesStreamIDsAndScripts(t *testing.T) {
	t.Parallel()
	clock := valkeytest.NewClock(t)
	s := valkeytest.Start(t, valkeytest.WithClock(clock))
	for range 2 {
		id, err := s.Do("XADD", "s", "*", "f", "v").ToString()
		if want := strconv.FormatInt(clock.Now().UnixMilli(), 10) + "-0"; err != nil || id != want {
			t.Errorf("XADD = %s, %v, want %s", id, err, want)
		}
		got, err := s.Do("EVAL", "return server.call('TIME')[1]", "0").AsInt64()
		if err != nil || got != clock.Now().Unix() {
			t.Errorf("TIME of a script = %d, %v, want %d", got, err, clock.Now().Unix())
		}
		clock.Advance(month)
	}
}

// A blocked command wakes at once under a held clock, but its timeout is one of
// the wall clock: it ends when the clock is moved past it.
func TestClockAndBlockingCommands(t *testing.T) {
	t.Parallel()
	clock := valkeytest.NewClock(t)
	s := valkeytest.Start(t, valkeytest.WithClock(clock))
	client := s.Client()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	pop := func() chan error {
		ended := make(chan error, 1)
		go func() { ended <- client.Do(ctx, client.B().Blpop().Key("l").Timeout(1).Build()).Error() }()
		eventually(t, func() bool {
			info, err := s.Do("INFO", "clients").ToString()
			return err == nil && strings.Contains(info, "blocked_clients:1\r\n")
		})
		return ended
	}
	woken := pop()
	must(t, s.Do("RPUSH", "l", "x"))
	if err := <-woken; err != nil {
		t.Errorf("BLPOP of a push = %v", err)
	}
	late := pop()
	select {
	case err := <-late:
		t.Errorf("BLPOP ended under a clock that stands still: %v", err)
	case <-time.After(1300 * time.Millisecond):
	}
	clock.Advance(1001 * time.Millisecond)
	if err := <-late; !valkey.IsValkeyNil(err) {
		t.Errorf("BLPOP after its timeout = %v", err)
	}
}

func TestClockAndPubSub(t *testing.T) {
	t.Parallel()
	clock := valkeytest.NewClock(t)
	s := valkeytest.Start(t, valkeytest.WithClock(clock))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	messages, ended := make(chan string, 10), make(chan error, 1)
	client := s.Client()
	go func() {
		ended <- client.Receive(ctx, client.B().Subscribe().Channel("c").Build(), func(m valkey.PubSubMessage) { messages <- m.Message })
	}()
	publish := func(message string) {
		eventually(t, func() bool {
			n, err := s.Do("PUBLISH", "c", message).AsInt64()
			return err == nil && n == 1
		})
		if got := <-messages; got != message {
			t.Errorf("message %q, want %q", got, message)
		}
	}
	publish("now")
	clock.Advance(month)
	publish("a month later")
	cancel()
	<-ended
}

func TestClockWithServersThatAreNotThere(t *testing.T) {
	t.Parallel()
	clock := valkeytest.NewClock(t)
	killed := valkeytest.Start(t, valkeytest.WithClock(clock))
	paused := valkeytest.Start(t, valkeytest.WithClock(clock))
	killed.Kill()
	paused.Pause()
	clock.Advance(month)
	killed.Restart()
	paused.Resume()
	for _, s := range []*valkeytest.Server{killed, paused} {
		if now := timeOf(t, s); !now.Equal(clock.Now()) {
			t.Errorf("TIME is %v, the clock shows %v", now, clock.Now())
		}
	}
}
