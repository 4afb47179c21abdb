// Package valkeytest runs real Valkey servers for tests: a single server, a
// cluster or a primary with sentinels, each on loopback and ended with its test.
//
// A server may take the time from a Clock that the test moves. Servers that are
// missing fail the test instead of skipping it; `make services` installs them.
package valkeytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/valkey-io/valkey-go"
)

const (
	startAttempts = 10
	startTimeout  = 30 * time.Second
	stopTimeout   = 5 * time.Second
	callTimeout   = 5 * time.Second
	pollInterval  = 20 * time.Millisecond
)

// Server is one valkey-server process.
type Server struct {
	// Addr is the address as "127.0.0.1:port". It stays over Restart.
	Addr string

	t      testing.TB
	config config
	dir    string
	port   int
	bus    int // the port of the cluster's own traffic
	client valkey.Client

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has ended
	up     bool          // answers commands, as far as the test has decided
}

// Start runs a single server that keeps nothing on disk unless an option says so.
func Start(t testing.TB, o ...Option) *Server {
	t.Helper()
	return start(t, newConfig(o))
}

// start tries ports until a server could listen on one.
func start(t testing.TB, c config) *Server {
	t.Helper()
	var err error
	for range startAttempts {
		s := &Server{t: t, config: c, dir: t.TempDir()}
		if err = s.prepare(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.cleanup)
		if err = s.run(); err == nil {
			if c.clock != nil {
				c.clock.register(s)
			}
			return s
		}
		s.Kill()
		if !strings.Contains(err.Error(), "Address already in use") {
			break
		}
	}
	t.Fatalf("starting valkey-server: %v", err)
	return nil
}

// prepare chooses the address and writes the configuration.
func (s *Server) prepare() error {
	var err1, err2 error
	s.port, err1 = freePort()
	s.bus, err2 = freePort()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
	var b bytes.Buffer
	fmt.Fprintf(&b, "bind 127.0.0.1\nport %d\ndir %s\n", s.port, s.dir)
	if s.config.cluster {
		fmt.Fprintf(&b, "cluster-enabled yes\ncluster-port %d\n", s.bus)
	}
	for _, line := range s.config.lines {
		if line[1] == "" {
			line[1] = `""`
		}
		fmt.Fprintf(&b, "%s %s\n", line[0], line[1])
	}
	return os.WriteFile(s.configFile(), b.Bytes(), 0o600)
}

func (s *Server) configFile() string { return filepath.Join(s.dir, "valkey.conf") }
func (s *Server) logFile() string    { return filepath.Join(s.dir, "valkey.log") }

// freePort finds a port that nobody listens on, below those the kernel gives to
// outgoing connections: a client that dials a server that is down could
// otherwise take the server's own port.
func freePort() (int, error) {
	var listen net.ListenConfig
	var err error
	for range 100 {
		port := 10000 + rand.IntN(22000)
		var l net.Listener
		l, err = listen.Listen(context.Background(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("finding a free port: %w", err)
}

// run starts the process and returns when it serves.
func (s *Server) run() error {
	binary, err := exec.LookPath("valkey-server")
	if err != nil {
		return errors.New("valkey-server is not installed; run `make services`")
	}
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{s.configFile()}
	if s.config.sentinel {
		args = append(args, "--sentinel")
	}
	cmd := exec.CommandContext(context.Background(), binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if s.config.clock != nil {
		cmd.Env = append(os.Environ(), s.config.clock.environ()...)
	}
	endWithTest(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	s.mu.Lock()
	s.cmd, s.exited = cmd, exited
	s.mu.Unlock()
	return s.ready(cmd.Process.Pid, exited)
}

// ready waits until the process serves and has loaded its data.
func (s *Server) ready(pid int, exited chan struct{}) error {
	deadline := time.Now().Add(startTimeout)
	for {
		err := s.serving(pid)
		if err == nil {
			s.setUp(true)
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("it ended at once:\n%s", s.logTail())
		case <-time.After(pollInterval):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no answer in %v: %w\n%s", startTimeout, err, s.logTail())
		}
	}
}

// serving says whether the process itself, not another one on its port, answers.
func (s *Server) serving(pid int) error {
	if s.client == nil {
		client, err := valkey.NewClient(s.clientOption())
		if err != nil {
			return err
		}
		s.client = client
	}
	info, err := s.text("INFO")
	switch {
	case err != nil:
		return err
	case !strings.Contains(info, fmt.Sprintf("process_id:%d\r\n", pid)):
		return errors.New("another process answers")
	case strings.Contains(info, "loading:1\r\n"):
		return errors.New("it loads its data")
	}
	return nil
}

func (s *Server) clientOption() valkey.ClientOption {
	return valkey.ClientOption{
		InitAddress:       []string{s.Addr},
		Password:          s.config.password,
		ForceSingleClient: true,
		DisableCache:      true,
	}
}

// logTail returns the end of what the server has written.
func (s *Server) logTail() string {
	b, _ := os.ReadFile(s.logFile())
	return string(b[max(0, len(b)-2000):])
}

// URL returns the address as "valkey://127.0.0.1:port", with the password if
// there is one.
func (s *Server) URL() string { return s.config.url(s.Addr, nil) }

// url makes the URL of servers, of which the first is the host.
func (c config) url(addr string, query url.Values) string {
	u := url.URL{Scheme: "valkey", Host: addr, RawQuery: query.Encode()}
	if c.password != "" {
		u.User = url.UserPassword("", c.password)
	}
	return u.String()
}

// Client returns a client of this server alone, even of a cluster's node. It
// ends with the test and connects anew after a Restart.
func (s *Server) Client() valkey.Client { return s.client }

// Do runs one command on this server.
func (s *Server) Do(command string, args ...string) valkey.ValkeyResult {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	return s.client.Do(ctx, s.client.B().Arbitrary(command).Args(args...).Build())
}

// text runs a command that answers with a text, of which the client leaves the
// prefix that names its format.
func (s *Server) text(command string, args ...string) (string, error) {
	text, err := s.Do(command, args...).ToString()
	return strings.TrimPrefix(text, "txt:"), err
}

// Running says whether the process is there and not paused.
func (s *Server) Running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.up
}

func (s *Server) setUp(up bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up = up
}

// Kill ends the process as a crash would and waits until it is gone.
func (s *Server) Kill() {
	if p, exited := s.process(); p != nil {
		_ = p.Kill()
		<-exited
	}
}

// Stop ends the process in its own way, which saves what its configuration says.
func (s *Server) Stop() {
	p, exited := s.process()
	if p == nil {
		return
	}
	_ = resumeProcess(p)
	_ = p.Signal(syscall.SIGTERM)
	select {
	case <-exited:
	case <-time.After(stopTimeout):
		s.Kill()
	}
}

// process returns the process that is about to end, nil if there is none.
func (s *Server) process() (*os.Process, chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up = false
	if s.cmd == nil {
		return nil, nil
	}
	return s.cmd.Process, s.exited
}

// Pause stops the process without ending it: connections stay, nothing answers.
func (s *Server) Pause() { s.signal(false, pauseProcess) }

// Resume lets a paused process go on.
func (s *Server) Resume() { s.signal(true, resumeProcess) }

func (s *Server) signal(up bool, send func(*os.Process) error) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := send(s.cmd.Process); err != nil {
		s.t.Fatalf("signal to the server %s: %v", s.Addr, err)
	}
	s.up = up
}

// Restart runs the server again on its port and directory, stopping it first if
// it runs, and returns when it serves. After Kill it finds what is on disk.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	deadline := time.Now().Add(startTimeout)
	for {
		err := s.run()
		if err == nil {
			return
		}
		s.Kill()
		if time.Now().After(deadline) || !strings.Contains(err.Error(), "Address already in use") {
			s.t.Fatalf("starting valkey-server again: %v", err)
		}
		time.Sleep(pollInterval)
	}
}

func (s *Server) cleanup() {
	s.Kill()
	if s.client != nil {
		s.client.Close()
	}
}
