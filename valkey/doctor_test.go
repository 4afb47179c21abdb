package valkey_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

func diagnose(t *testing.T, url string) ff.Checks {
	t.Helper()
	checks, err := valkey.Diagnose(t.Context(), url, valkey.Options{Partitions: fewPartitions})
	if err != nil {
		t.Fatal(err)
	}
	return checks
}

// found says whether a check came out in a way, with a text in it.
func found(checks ff.Checks, name string, s ff.CheckStatus, text string) bool {
	for _, c := range checks {
		if c.Name == name && c.Status == s && strings.Contains(c.Node+" "+c.Detail, text) {
			return true
		}
	}
	return false
}

func TestDiagnoseLooksAtEveryNodeOfACluster(t *testing.T) {
	cluster := valkeytest.StartCluster(t, valkeytest.WithReplicas(1), valkeytest.WithPassword("secret"))
	url := "valkey://:secret@" + cluster.Nodes[0].Addr
	openStore(t, url+"?cluster=true", valkey.Options{Partitions: fewPartitions})
	checks := diagnose(t, url+"?cluster=true")
	if checks.Count(ff.CheckProblem) > 0 || !found(checks, "topology", ff.CheckOK, "cluster of 3 primaries and 3 replicas") || !found(checks, "partitions", ff.CheckOK, "4 flow") ||
		!found(checks, "library flowfabric", ff.CheckOK, "version 34, ours") {
		t.Errorf("checks %+v", checks)
	}
	for _, address := range cluster.Addrs() {
		looked := slices.ContainsFunc(checks, func(c ff.Check) bool {
			return c.Name == "reachable" && (c.Node == "" || strings.Contains(c.Node, address))
		})
		if !looked {
			t.Errorf("%s was not looked at: %+v", address, checks)
		}
	}
	if checks := diagnose(t, url); !found(checks, "topology", ff.CheckProblem, "a node of a cluster") {
		t.Errorf("without cluster=true: %+v", checks)
	}
	if err := cluster.Nodes[1].Do("CONFIG", "SET", "maxmemory", "64mb", "maxmemory-policy", "allkeys-lfu").Error(); err != nil {
		t.Fatal(err)
	}
	if checks := diagnose(t, url+"?cluster=true"); !found(checks, "memory", ff.CheckProblem, cluster.Nodes[1].Addr) || found(checks, "memory", ff.CheckProblem, cluster.Nodes[2].Addr) {
		t.Errorf("one node drops keys: %+v", checks)
	}
	cluster.Nodes[5].Kill()
	checks = diagnose(t, url+"?cluster=true")
	if !found(checks, "reachable", ff.CheckWarning, cluster.Nodes[5].Addr) || found(checks, "reachable", ff.CheckProblem, "") {
		t.Errorf("without a replica: %+v", checks)
	}
	cluster.Nodes[2].Kill()
	checks = diagnose(t, url+"?cluster=true")
	if !found(checks, "reachable", ff.CheckProblem, cluster.Nodes[2].Addr) {
		t.Errorf("without a primary: %+v", checks)
	}
}

func TestDiagnoseAsksThePrimaryThatSentinelsName(t *testing.T) {
	s := valkeytest.StartSentinel(t)
	checks := diagnose(t, "valkey://"+strings.Join(s.Addrs(), ",")+"?sentinel="+s.Name)
	if checks.Count(ff.CheckProblem) > 0 || !found(checks, "topology", ff.CheckOK, "the primary that the sentinels name") || !found(checks, "durability", ff.CheckWarning, "1 replica(s)") {
		t.Errorf("checks %+v", checks)
	}
}

func TestDiagnoseComparesClocks(t *testing.T) {
	clock := valkeytest.NewClock(t)
	server := valkeytest.Start(t, valkeytest.WithClock(clock))
	clock.Advance(time.Hour)
	if checks := diagnose(t, server.URL()); !found(checks, "clock", ff.CheckWarning, "differs from this machine's by") {
		t.Errorf("checks %+v", checks)
	}
}

func TestDiagnoseRefusesAURLThatIsNone(t *testing.T) {
	if checks, err := valkey.Diagnose(t.Context(), "valkey://h?tls=perhaps", valkey.Options{}); ff.CodeOf(err) != ff.CodeInvalidInput || checks != nil {
		t.Errorf("checks %+v, %v", checks, err)
	}
}
