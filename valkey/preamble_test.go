package valkey_test

import (
	"bufio"
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

// monitor gives the commands that a server gets, without times, up to one that
// begins with last.
func monitor(t *testing.T, server *valkeytest.Server, last string, do func()) (commands []string) {
	t.Helper()
	conn, err := net.Dial("tcp", server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "MONITOR\r\n")
	lines := bufio.NewScanner(conn)
	if !lines.Scan() || lines.Text() != "+OK" {
		t.Fatalf("MONITOR: %q", lines.Text())
	}
	do()
	for lines.Scan() {
		_, command, ok := strings.Cut(lines.Text(), "] ")
		if !ok {
			continue
		}
		command = regexp.MustCompile(`\b\d{13}\b`).ReplaceAllString(strings.ReplaceAll(command, `"`, ""), "NOW")
		commands = append(commands, command)
		if strings.HasPrefix(command, last) {
			return commands
		}
	}
	t.Fatalf("no %s came: %v", last, lines.Err())
	return nil
}

// What a worker does when it connects, command by command (spec 10 §3.3).
func TestConnectPreamble(t *testing.T) {
	server := valkeytest.Start(t)
	s := openStore(t, server.URL(), valkey.Options{})
	register := ff.RegisterWorker{Claimant: ff.Claimant{Worker: "w1", Instance: "w1-i1"}, Namespace: "default", Lanes: []ff.LaneID{"main", "batch"},
		LivenessTTL: time.Minute, Exclusive: true}
	var err error
	if register.Capabilities, err = ff.NewCapabilitySet("gpu", "cuda"); err != nil {
		t.Fatal(err)
	}
	got := monitor(t, server, "SADD", func() {
		if _, err := s.RegisterWorker(t.Context(), register); err != nil {
			t.Error(err)
		}
	})
	want := []string{"PING", "SET ff:worker:default:w1-i1:alive 1 NX PX 60000", "HGETALL ff:config:partitions",
		"HSET ff:worker:default:w1-i1:caps worker_id w1 lanes_csv batch,main caps_csv cuda,gpu ttl_ms 60000 registered_at_ms NOW last_heartbeat_ms NOW",
		"SADD ff:idx:default:workers w1-i1"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("with capabilities (-want +got):\n%s", d)
	}
	if ttl, err := server.Do("PTTL", "ff:worker:default:w1-i1:caps").AsInt64(); ttl != -1 || err != nil {
		t.Errorf("the capability hash expires in %d ms, %v", ttl, err)
	}

	register.Instance, register.Capabilities = "w1-i2", ff.CapabilitySet{}
	got = monitor(t, server, "SREM", func() {
		if _, err := s.RegisterWorker(t.Context(), register); err != nil {
			t.Error(err)
		}
	})
	want = []string{"PING", "SET ff:worker:default:w1-i2:alive 1 NX PX 60000", "HGETALL ff:config:partitions",
		"DEL ff:worker:default:w1-i2:caps", "SREM ff:idx:default:workers w1-i2"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("without capabilities (-want +got):\n%s", d)
	}

	// A clean shutdown leaves nothing.
	for _, instance := range []ff.WorkerInstanceID{"w1-i1", "w1-i2"} {
		if r, err := s.MarkWorkerDead(t.Context(), ff.MarkWorkerDead{Namespace: "default", Instance: instance, Reason: "shutdown"}); err != nil || !r.Marked {
			t.Errorf("marked %t, %v", r.Marked, err)
		}
	}
	left, err := server.Do("KEYS", "*work*").AsStrSlice()
	if d := cmp.Diff([]string{"ffx:idx:worker_namespaces"}, left); d != "" || err != nil {
		t.Errorf("left behind (-want +got): %v\n%s", err, d)
	}
}
