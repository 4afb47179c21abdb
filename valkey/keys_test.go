package valkey

import (
	"strings"
	"testing"

	ff "github.com/flowfabric/flowfabric"
)

// TestKeysAreThoseOfTheReference pins the keys to the patterns and examples of
// spec 01 §5: the tag of the partition, and then the id with its own tag in it.
func TestKeysAreThoseOfTheReference(t *testing.T) {
	const text = "{fp:7}:550e8400-e29b-41d4-a716-446655440000"
	id, err := ff.ParseExecutionID(text)
	if err != nil {
		t.Fatal(err)
	}
	waitpoint, err := ff.ParseWaitpointID("33333333-3333-4333-8333-333333333333")
	if err != nil {
		t.Fatal(err)
	}
	k, p := keysOf(id), tagOf(7)
	for got, want := range map[string]string{
		// §5.1, of an execution
		k.core():                              "ff:exec:{fp:7}:" + text + ":core",
		k.payload():                           "ff:exec:{fp:7}:" + text + ":payload",
		k.result():                            "ff:exec:{fp:7}:" + text + ":result",
		k.policy():                            "ff:exec:{fp:7}:" + text + ":policy",
		k.tags():                              "ff:exec:{fp:7}:" + text + ":tags",
		k.leaseCurrent():                      "ff:exec:{fp:7}:" + text + ":lease:current",
		k.leaseHistory():                      "ff:exec:{fp:7}:" + text + ":lease:history",
		k.claimGrant():                        "ff:exec:{fp:7}:" + text + ":claim_grant",
		k.attemptList():                       "ff:exec:{fp:7}:" + text + ":attempts",
		k.suspension():                        "ff:exec:{fp:7}:" + text + ":suspension:current",
		k.attempt(3):                          "ff:attempt:{fp:7}:{fp:7}:550e8400-e29b-41d4-a716-446655440000:3",
		k.attemptUsage(3):                     "ff:attempt:{fp:7}:{fp:7}:550e8400-e29b-41d4-a716-446655440000:3:usage",
		k.attemptPolicy(3):                    "ff:attempt:{fp:7}:{fp:7}:550e8400-e29b-41d4-a716-446655440000:3:policy",
		k.stream(3):                           "ff:stream:{fp:7}:{fp:7}:550e8400-e29b-41d4-a716-446655440000:3",
		k.streamMeta(3):                       "ff:stream:{fp:7}:{fp:7}:550e8400-e29b-41d4-a716-446655440000:3:meta",
		p.waitpoint(waitpoint):                "ff:wp:{fp:7}:33333333-3333-4333-8333-333333333333",
		p.waitpointCondition(waitpoint):       "ff:wp:{fp:7}:33333333-3333-4333-8333-333333333333:condition",
		p.noop():                              "ff:noop:{fp:7}",
		p.idempotency("tenant-1", "order-42"): "ff:idem:{fp:7}:tenant-1:order-42",
		// §5.2, of a partition; names of lanes go in as they are (§2.4)
		p.lane("a:{b}|c d", laneEligible):          "ff:idx:{fp:7}:lane:a:{b}|c d:eligible",
		p.lane("default", laneDelayed):             "ff:idx:{fp:7}:lane:default:delayed",
		p.lane("default", laneActive):              "ff:idx:{fp:7}:lane:default:active",
		p.lane("default", laneTerminal):            "ff:idx:{fp:7}:lane:default:terminal",
		p.lane("default", laneSuspended):           "ff:idx:{fp:7}:lane:default:suspended",
		p.lane("default", laneBlockedDependencies): "ff:idx:{fp:7}:lane:default:blocked:dependencies",
		p.lane("default", laneBlockedBudget):       "ff:idx:{fp:7}:lane:default:blocked:budget",
		p.lane("default", laneBlockedQuota):        "ff:idx:{fp:7}:lane:default:blocked:quota",
		p.lane("default", laneBlockedRoute):        "ff:idx:{fp:7}:lane:default:blocked:route",
		p.lane("default", laneBlockedOperator):     "ff:idx:{fp:7}:lane:default:blocked:operator",
		p.leaseExpiry():                            "ff:idx:{fp:7}:lease_expiry",
		p.workerLeases("worker-1"):                 "ff:idx:{fp:7}:worker:worker-1:leases",
		p.workerLeases(""):                         "ff:idx:{fp:7}:worker::leases",
		p.attemptTimeout():                         "ff:idx:{fp:7}:attempt_timeout",
		p.executionDeadline():                      "ff:idx:{fp:7}:execution_deadline",
		p.suspensionTimeout():                      "ff:idx:{fp:7}:suspension_timeout",
		p.allExecutions():                          "ff:idx:{fp:7}:all_executions",
		// §5.6, without a tag
		partitionConfigKey:           "ff:config:partitions",
		lanesKey:                     "ff:idx:lanes",
		workerAliveKey("ns", "w1-i"): "ff:worker:ns:w1-i:alive",
		workerCapsKey("ns", "w1-i"):  "ff:worker:ns:w1-i:caps",
		workersKey("ns"):             "ff:idx:ns:workers",
		// our own, beside those of the reference and in the same slots
		k.events():                     "ffx:exec:{fp:7}:" + text + ":events",
		p.lost("default"):              "ffx:idx:{fp:7}:lane:default:lost",
		p.waiting("default"):           "ffx:idx:{fp:7}:lane:default:waiting",
		p.outcome("default", "failed"): "ffx:idx:{fp:7}:lane:default:outcome:failed",
		p.lanes():                      "ffx:idx:{fp:7}:lanes",
		p.grants():                     "ffx:idx:{fp:7}:grants",
		p.created():                    "ffx:idx:{fp:7}:created",
		p.events():                     "ffx:part:{fp:7}:events",
		p.eventsWaiting():              "ffx:part:{fp:7}:events:waiting",
		namespacesKey:                  "ffx:idx:worker_namespaces",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if len(laneIndexes) != 10 {
		t.Errorf("%d indexes of a lane, want 10", len(laneIndexes))
	}
	if got := tagOf(65535); got != "{fp:65535}" {
		t.Errorf("tag %s", got)
	}
}

func TestVersionOfTheServer(t *testing.T) {
	for _, c := range []struct {
		name, info string
		want       version
		text, err  string
	}{
		{"Valkey 8", "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.3\r\nredis_mode:standalone\r\n", version{8, 1}, "8.1.3", ""},
		{"Valkey 7.2", "# Server\r\nredis_version:7.2.8\r\nserver_name:valkey\r\nredis_git_sha1:00000000\r\n", version{7, 2}, "7.2.8", ""},
		{"Valkey, in capitals", "redis_version:7.2.8\nserver_name:Valkey\n", version{7, 2}, "7.2.8", ""},
		{"a release candidate", "server_name:valkey\r\nvalkey_version:9.0.0-rc1\r\n", version{9, 0}, "9.0.0-rc1", ""},
		{"major and minor", "valkey_version:10.3\r\n", version{10, 3}, "10.3", ""},
		{"Redis 7.4", "# Server\r\nredis_version:7.4.1\r\nredis_mode:standalone\r\n", version{}, "", `this is not Valkey (it calls itself Redis "7.4.1")`},
		{"Dragonfly", "# Server\r\nredis_version:7.4.0\r\ndragonfly_version:df-v1.25\r\n", version{}, "", "this is not Valkey"},
		{"garbage", "not an INFO at all", version{}, "", "this is not Valkey"},
		{"empty", "", version{}, "", "this is not Valkey"},
		{"no number", "valkey_version:eight\r\n", version{}, "", `the version of the server cannot be read (got "eight")`},
		{"half a number", "valkey_version:8.\r\n", version{}, "", `cannot be read (got "8.")`},
		{"only a major", "valkey_version:8\r\n", version{}, "", `cannot be read (got "8")`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, text, err := parseServerInfo(c.info)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("got %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || got != c.want || text != c.text {
				t.Errorf("got %v %q %v, want %v %q", got, text, err, c.want, c.text)
			}
		})
	}
	for v, low := range map[version]bool{{6, 9}: true, {7, 1}: true, {7, 2}: false, {7, 3}: false, {8, 0}: false} {
		if v.less(minVersion) != low {
			t.Errorf("%v is too old: %v, want %v", v, v.less(minVersion), low)
		}
	}
}

func TestBuildsOfTheLibraryAreTold(t *testing.T) {
	for code, want := range map[string]int{
		libraryHeader + "local x": 2,
		"#!lua name=flowfabric\n-- flowfabric for Go, build 27\nlocal x": 27,
		"#!lua name=flowfabric\n-- flowfabric for Go, build 27":          27,
		"#!lua name=flowfabric\nlocal x":                                 0,
		"#!lua name=flowfabric\n-- flowfabric for Go, build x\n":         0,
		"": 0,
	} {
		if got := buildOf(code); got != want {
			t.Errorf("build %d of %q, want %d", got, code, want)
		}
	}
}

func TestTheExtensionsHaveTheSameIndexesOfALane(t *testing.T) {
	names := "'" + strings.Join(laneIndexes, "', '") + "'"
	if !strings.Contains(strings.Join(strings.Fields(Extensions()), " "), "LANE_INDEXES = {"+names+"}") {
		t.Errorf("LANE_INDEXES is not %s", names)
	}
}
