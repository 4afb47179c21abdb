package valkeytest

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

// Clock is the wall clock of servers that were started WithClock. It stands
// still until Advance moves it, and rules what a server takes from the wall
// clock: TIME, the expiry of keys, the ids of streams, and the timeouts of
// blocking commands. Timers of the server itself go on in real time.
type Clock struct {
	t       testing.TB
	library string
	file    string
	value   *int64

	mu      sync.Mutex
	closed  bool
	servers []*Server
}

// NewClock makes a clock that shows the present in whole milliseconds.
func NewClock(t testing.TB) *Clock {
	t.Helper()
	code, err := clockLibrary()
	if err != nil {
		t.Fatalf("the clock of the test servers: %v", err)
	}
	dir := t.TempDir()
	c := &Clock{t: t, library: filepath.Join(dir, "clock.so"), file: filepath.Join(dir, "clock")}
	if err := os.WriteFile(c.library, code, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.file, make([]byte, 8), 0o600); err != nil {
		t.Fatal(err)
	}
	c.open()
	atomic.StoreInt64(c.value, time.Now().Truncate(time.Millisecond).UnixNano())
	return c
}

// open maps the file of the clock until the test ends.
func (c *Clock) open() {
	c.t.Helper()
	f, err := os.OpenFile(c.file, os.O_RDWR, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	memory, err := mapClock(f)
	if err != nil {
		c.t.Fatalf("mapping the clock: %v", err)
	}
	c.value = (*int64)(unsafe.Pointer(&memory[0]))
	c.t.Cleanup(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		last := *c.value
		c.value, c.closed = &last, true
		_ = unmapClock(memory)
	})
}

// environ returns what a server's environment needs to follow the clock.
func (c *Clock) environ() []string {
	return []string{"LD_PRELOAD=" + c.library, "VALKEYTEST_CLOCK=" + c.file}
}

// Now returns the time that the clock shows.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now()
}

func (c *Clock) now() time.Time { return time.Unix(0, atomic.LoadInt64(c.value)) }

// Advance moves the clock and returns when every running server shows the new
// time, which is the result.
func (c *Clock) Advance(d time.Duration) time.Time {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now().Add(d)
	atomic.StoreInt64(c.value, now.UnixNano())
	for _, s := range c.servers {
		if err := s.shows(now); err != nil {
			c.t.Errorf("the clock of %s: %v", s.Addr, err)
		}
	}
	return now
}

func (c *Clock) register(s *Server) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.servers = append(c.servers, s)
}

// shows waits until the server's TIME is at, unless the server does not run.
func (s *Server) shows(at time.Time) error {
	deadline := time.Now().Add(callTimeout)
	for s.Running() {
		now, err := s.Time()
		if err == nil && now.Equal(at.Truncate(time.Microsecond)) {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("it shows %v instead of %v", now, at)
		}
		if time.Now().After(deadline) && s.Running() {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// Time returns what the server answers to TIME.
func (s *Server) Time() (time.Time, error) {
	parts, err := s.Do("TIME").AsIntSlice()
	if err != nil {
		return time.Time{}, err
	}
	if len(parts) != 2 {
		return time.Time{}, fmt.Errorf("TIME answered %v", parts)
	}
	return time.Unix(parts[0], parts[1]*1000), nil
}

//go:embed preload/clock.c
var clockSource []byte

// clockLibrary compiles preload/clock.c once per test process and returns the library.
var clockLibrary = sync.OnceValues(func() ([]byte, error) {
	if runtime.GOOS != "linux" || strconv.IntSize != 64 {
		return nil, errors.New("it needs 64-bit Linux")
	}
	compiler, err := compiler()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "valkeytest")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	source, library := filepath.Join(dir, "clock.c"), filepath.Join(dir, "clock.so")
	if err := os.WriteFile(source, clockSource, 0o600); err != nil {
		return nil, err
	}
	out, err := exec.Command(compiler, "-shared", "-fPIC", "-O2", "-o", library, source).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", compiler, err, out)
	}
	return os.ReadFile(library)
})

// compiler finds the C compiler.
func compiler() (string, error) {
	for _, name := range []string{os.Getenv("CC"), "cc", "gcc"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("there is no C compiler; run ./.ci/compiler")
}
