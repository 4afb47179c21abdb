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

// advised says whether a problem comes with an advice that has a text in it.
func advised(checks ff.Checks, name, text string) bool {
	return slices.ContainsFunc(checks, func(c ff.Check) bool {
		return c.Name == name && c.Status == ff.CheckProblem && strings.Contains(c.Advice, text)
	})
}

func TestDiagnoseAdvisesWhatTheRefusalOfAServerAsksFor(t *testing.T) {
	server, sentinels := valkeytest.Start(t), valkeytest.StartSentinel(t)
	for url, advice := range map[string]string{
		server.URL() + "/99":                                     "raise databases",
		server.URL() + "?sentinel=x":                             "leave out sentinel=",
		"valkey://" + sentinels.Addrs()[0] + "?sentinel=another": "SENTINEL MASTERS",
	} {
		checks := diagnose(t, url)
		if len(checks) != 1 || !advised(checks, "reachable", advice) {
			t.Errorf("%s: %+v", url, checks)
		}
	}
}

func TestDiagnoseKnowsASentinelAndWhatItWatches(t *testing.T) {
	s := valkeytest.StartSentinel(t)
	for _, parameters := range []string{"", "?cluster=true"} {
		checks := diagnose(t, "valkey://"+s.Addrs()[0]+parameters)
		if checks.Count(ff.CheckProblem) != 1 || !advised(checks, "topology", "sentinel="+s.Name) {
			t.Errorf("%q: %+v", parameters, checks)
		}
		if found(checks, "memory", ff.CheckOK, "") || found(checks, "memory", ff.CheckWarning, "") || found(checks, "durability", ff.CheckWarning, "") {
			t.Errorf("%q: what a sentinel does not have was judged: %+v", parameters, checks)
		}
	}
}

func TestDiagnoseOfAClusterNodeAloneHasOneProblem(t *testing.T) {
	cluster := valkeytest.StartCluster(t)
	for _, node := range cluster.Nodes {
		checks := diagnose(t, "valkey://"+node.Addr)
		if checks.Count(ff.CheckProblem) != 1 || !advised(checks, "topology", "cluster=true") {
			t.Errorf("%s: %+v", node.Addr, checks)
		}
	}
}

func TestDiagnoseWarnsOfAPasswordThatNobodyChecks(t *testing.T) {
	server := valkeytest.Start(t, valkeytest.WithAOF())
	if checks := diagnose(t, "valkey://:wrong@"+server.Addr); !found(checks, "authenticated", ff.CheckWarning, "needs no password") {
		t.Errorf("a user without a password: %+v", checks)
	}
	guarded := valkeytest.Start(t, valkeytest.WithAOF(), valkeytest.WithPassword("secret"))
	if checks := diagnose(t, guarded.URL()); !found(checks, "authenticated", ff.CheckOK, "as user default") {
		t.Errorf("a user with a password: %+v", checks)
	}
}

func TestDiagnoseSaysWhatTLSNeeds(t *testing.T) {
	ca, cert, key := certificates(t)
	port, strict := unusedPort(t), unusedPort(t)
	secure := []valkeytest.Option{valkeytest.WithConfig("tls-cert-file", cert), valkeytest.WithConfig("tls-key-file", key), valkeytest.WithConfig("tls-ca-cert-file", ca)}
	plain := valkeytest.Start(t, append(secure, valkeytest.WithConfig("tls-port", port), valkeytest.WithConfig("tls-auth-clients", "no"))...)
	valkeytest.Start(t, append(secure, valkeytest.WithConfig("tls-port", strict), valkeytest.WithConfig("tls-auth-clients", "yes"))...)
	for url, advice := range map[string]string{
		"valkeys://127.0.0.1:" + port:                                      "ca=FILE",
		"valkeys://127.0.0.1:" + port + "?server_name=other.test&ca=" + ca: "server_name=NAME",
		"valkeys://127.0.0.1:" + strict + "?ca=" + ca:                      "cert=FILE&key=FILE",
		"valkey://127.0.0.1:" + port:                                       "valkeys://",
		"valkeys://" + plain.Addr:                                          "valkey://",
	} {
		checks := diagnose(t, url)
		if len(checks) != 1 || !advised(checks, "reachable", advice) {
			t.Errorf("%s: %q is missing in %+v", url, advice, checks)
		}
	}
}

func TestDiagnoseRefusesAURLThatIsNone(t *testing.T) {
	if checks, err := valkey.Diagnose(t.Context(), "valkey://h?tls=perhaps", valkey.Options{}); ff.CodeOf(err) != ff.CodeInvalidInput || checks != nil {
		t.Errorf("checks %+v, %v", checks, err)
	}
}
