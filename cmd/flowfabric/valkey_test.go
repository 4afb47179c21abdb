package main

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
)

const (
	secret = "geheim"
	// few partitions keep servers quick.
	few = "FF_FLOW_PARTITIONS=4"
)

// hostAndPort are the variables that lead to a server.
func hostAndPort(t *testing.T, s *valkeytest.Server) []string {
	t.Helper()
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return []string{"FF_BACKEND=valkey", "FF_HOST=" + host, "FF_PORT=" + port, "FF_LISTEN_ADDR=127.0.0.1:0", few}
}

// keysLike are the keys of a server that match a pattern.
func keysLike(t *testing.T, s *valkeytest.Server, pattern string) []string {
	t.Helper()
	keys, err := s.Do("KEYS", pattern).AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestServersAndWorkersShareAValkeyWithAPassword(t *testing.T) {
	valkey := valkeytest.Start(t, valkeytest.WithPassword(secret))
	env := append(hostAndPort(t, valkey), "FF_VALKEY_PASSWORD="+secret, "FF_LANES= a, ,b ", "FF_CLUSTER=0", "FF_TLS=False",
		"FF_FORCE_LUA_RELOAD=yes", "FF_INDEX_RECONCILER_INTERVAL_S=1")
	first := launch(t, env, "serve")
	base := first.answers(t)
	second := launch(t, env, "serve", "--store", "valkey://"+valkey.Addr)
	on := func(args ...string) []string { return append(args, "--server", second.answers(t)) }
	id := strings.TrimSpace(ok(t, on("submit", "shout", "--lane", "a", "--payload", `"hello"`)...))
	w := launch(t, env, "worker", "run", "--store", "valkey://"+valkey.Addr, "--lane", "a", "--capability", "gpu", "--instance", "w-1", "--lease", "5s", "--exec", "tr a-z A-Z")
	if got := ok(t, "result", id, "--wait", "30s", "--server", base); got != `"HELLO"` {
		t.Errorf("result %q", got)
	}
	if lanes := okJSON[httpapi.Lanes](t, on("lanes")...); len(lanes.Lanes) != 2 {
		t.Errorf("lanes %+v", lanes)
	}
	if ttl, err := valkey.Do("PTTL", "ff:worker:default:w-1:alive").AsInt64(); err != nil || ttl <= 5000 || ttl > 10000 {
		t.Errorf("the worker is alive for %d ms, %v; want twice the lease", ttl, err)
	}
	again := flowfabric(t, env, "", "worker", "run", "--store", valkey.URL(), "--instance", "w-1", "--exec", "cat")
	if again.code != exitFailed || !strings.Contains(again.stderr, "duplicate worker_instance_id 'w-1'") {
		t.Errorf("a second worker of the same instance: exit code %d: %s", again.code, again.stderr)
	}
	w.stop(t)
	if left := append(keysLike(t, valkey, "ff*:worker:*"), keysLike(t, valkey, "ff*:idx:default:workers")...); len(left) > 0 {
		t.Errorf("a stopped worker leaves %q", left)
	}
	info := bodyOf(t, base+"/v1/info")
	if !strings.Contains(info, valkey.Addr) {
		t.Errorf("info %s", info)
	}
	first.stop(t)
	second.stop(t)
	for _, text := range []string{info, first.stderr.String(), second.stderr.String(), w.stderr.String(), again.stderr} {
		if strings.Contains(text, secret) {
			t.Errorf("the password is shown: %s", text)
		}
	}
	if want := "Serving valkey://" + valkey.Addr + " on"; !strings.Contains(first.stderr.String(), want) || !strings.Contains(second.stderr.String(), want) {
		t.Errorf("%q is missing in: %s%s", want, first.stderr, second.stderr)
	}
}

func TestAWorkerOnAValkeyNeedsNoServer(t *testing.T) {
	valkey := valkeytest.Start(t)
	store := []string{"--store", valkey.URL()}
	launch(t, []string{few}, append(store, "worker", "run", "--exec", `tr a-z A-Z; [ "$FLOWFABRIC_ATTEMPT" = 1 ]`)...)
	o := flowfabric(t, []string{few}, "", append(store, "submit", "shout", "--payload", `"a"`, "--retries", "1", "--wait", "30s")...)
	if o.code != exitOK || o.stdout != `"A"` {
		t.Errorf("exit code %d, result %q: %s", o.code, o.stdout, o.stderr)
	}
}

func TestOnlyServersDeleteWhatRetentionNoLongerKeeps(t *testing.T) {
	// There is no store behind it: only what is not passed on can be swept.
	if r, err := (withoutRetention{}).Sweep(t.Context(), ff.Sweep{Kind: ff.SweepRetention}); err != nil || r != (ff.SweepResult{}) {
		t.Errorf("swept %+v, %v", r, err)
	}
}

func TestSettingsOfAValkeyAreRefusedNamingTheVariable(t *testing.T) {
	for settings, says := range map[string]string{
		"FF_PORT=0":                         "invalid value for FF_PORT: must be 1 to 65535",
		"FF_PORT=":                          "invalid value for FF_PORT: expected a number, got ''",
		"FF_TLS=on":                         "invalid value for FF_TLS: expected 1, true, 0 or false, got 'on'",
		"FF_CLUSTER=yes":                    "invalid value for FF_CLUSTER: expected 1, true, 0 or false, got 'yes'",
		"FF_FORCE_LUA_RELOAD=please":        "invalid value for FF_FORCE_LUA_RELOAD: expected 1, true, yes, 0 or false, got 'please'",
		"FF_VALKEY_DATABASE=x":              "invalid value for FF_VALKEY_DATABASE: expected u16, got 'x'",
		"FF_LANES=,":                        "invalid value for FF_LANES: at least one non-empty lane name is required",
		"FF_LANES=":                         "invalid value for FF_LANES: at least one non-empty lane name is required",
		"FF_LANES=a,b,a":                    "invalid value for FF_LANES: duplicate lane name 'a'",
		"FF_LANES=ü":                        "invalid value for FF_LANES: invalid_input: lane",
		"FF_HOST=a/b":                       "invalid value for FF_HOST:",
		"FF_CLUSTER=1 FF_VALKEY_DATABASE=1": "a cluster has database 0 only (got 1)",
		"FF_VALKEY_URL=sqlite:x.db":         "invalid value for FF_VALKEY_URL: must be a URL such as",
		"FF_VALKEY_URL=valkey://localhost FF_HOST=h":   "invalid value for FF_VALKEY_URL: give it or FF_HOST, not both",
		"FF_VALKEY_URL=valkey://localhost FF_TLS=true": "invalid value for FF_VALKEY_URL: give it or FF_TLS, not both",
	} {
		o := flowfabric(t, append(strings.Split(settings, " "), "FF_BACKEND=Valkey", "FF_LISTEN_ADDR=127.0.0.1:0"), "", "serve")
		if o.code != exitFailed || !strings.Contains(o.stderr, says) {
			t.Errorf("%s: exit code %d: %s", settings, o.code, o.stderr)
		}
	}
}

func TestTheWholeURLMayComeFromTheEnvironment(t *testing.T) {
	valkey := valkeytest.Start(t, valkeytest.WithPassword(secret))
	d := launch(t, []string{"FF_BACKEND=valkey", "FF_VALKEY_URL=valkey://" + valkey.Addr + "/3", "FF_VALKEY_PASSWORD=" + secret, "FF_LISTEN_ADDR=127.0.0.1:0", few}, "serve")
	ok(t, "submit", "job", "--server", d.answers(t))
	d.stop(t)
	if keys := keysLike(t, valkey, "*"); len(keys) > 0 || !strings.Contains(d.stderr.String(), valkey.Addr+"/3 on") {
		t.Errorf("database 0 has %q: %s", keys, d.stderr)
	}
	// --store wins over FF_BACKEND.
	other := launch(t, []string{"FF_BACKEND=valkey", "FF_VALKEY_URL=valkey://localhost:1"}, "serve", "--store", "sqlite::memory:", "--listen", "127.0.0.1:0")
	other.answers(t)
	if want := "has no effect on this kind of store\" variable=FF_VALKEY_URL"; !strings.Contains(other.stderr.String(), want) {
		t.Errorf("%q is missing in: %s", want, other.stderr)
	}
}

func TestAPasswordIsShownNowhere(t *testing.T) {
	valkey := valkeytest.Start(t, valkeytest.WithPassword("another"))
	for _, c := range []struct {
		store string
		code  int
	}{
		{"valkey://:" + secret + "@" + valkey.Addr, exitUnavailable},
		{"valkey://u:" + secret + "@127.0.0.1:1", exitUnavailable},
		{"valkey://u:" + secret + "@127.0.0.1:0", exitUsage},
		{"valkey://u:" + secret + "@" + valkey.Addr + "/x", exitUsage},
		{"valkey://u:" + secret + "@" + valkey.Addr + "?no=1", exitUsage},
		{"valkey://u:" + secret + "@h:1,g:2", exitUsage},
		{"valkey://h?sentinel=m&cluster=1&sentinel_password=" + secret, exitUsage},
		{"valkey://:12/" + secret + "@h", exitUsage},
		{"valkey://u:12/" + secret + "@h", exitUsage},
		{"valkey://u:12?" + secret + "@h", exitUsage},
		{"valkey://u:12#" + secret + "@h", exitUsage},
		{"postgres://u:" + secret + "@h/db", exitUsage},
		{"http://u:" + secret + "@127.0.0.1:1", exitFailed},
	} {
		for _, command := range [][]string{{"list"}, {"doctor"}, {"serve", "--listen", "127.0.0.1:0"}, {"dev", "--listen", "127.0.0.1:0"}, {"worker", "run", "--exec", "cat"}} {
			if c.code == exitUnavailable && (command[0] == "serve" || command[0] == "worker") {
				continue // they would go on trying
			}
			o := flowfabric(t, nil, "", append(command, "--store", c.store)...)
			if o.code == exitOK || strings.Contains(o.stdout+o.stderr, secret) {
				t.Errorf("%v --store %s: exit code %d: %s%s", command, c.store, o.code, o.stdout, o.stderr)
			}
			if command[0] == "list" && o.code != c.code {
				t.Errorf("%v --store %s: exit code %d, want %d: %s", command, c.store, o.code, c.code, o.stderr)
			}
		}
	}
	d := launch(t, nil, "serve", "--listen", "127.0.0.1:0", "--store", "valkey://u:"+secret+"@127.0.0.1:1")
	eventually(t, "it tries again", func() bool { return strings.Contains(d.stderr.String(), "not ready") })
	d.stopsTrying(t)
	if strings.Contains(d.stderr.String(), secret) {
		t.Errorf("the password is shown: %s", d.stderr)
	}
}

func TestAWrongStoreIsAMistakeOfTheCommandLine(t *testing.T) {
	for _, store := range []string{"valkey://h?foo=1", "valkey://h/x", "localhost:6379", "valkey:localhost:6379", "valkey://h?extensions=maybe", "sqlite:", "postgres://h"} {
		if o := flowfabric(t, nil, "", "list", "--store", store); o.code != exitUsage {
			t.Errorf("list --store %s: exit code %d: %s", store, o.code, o.stderr)
		}
	}
	o := flowfabric(t, []string{"FF_BACKEND=valkey", "FF_VALKEY_URL=valkey://h?foo=1"}, "", "serve", "--listen", "127.0.0.1:0")
	if o.code != exitFailed || !strings.Contains(o.stderr, "invalid value for FF_VALKEY_URL") {
		t.Errorf("serve with a wrong FF_VALKEY_URL: exit code %d: %s", o.code, o.stderr)
	}
}

func TestAStoreThatCannotBeUsedIsUnavailable(t *testing.T) {
	valkey := valkeytest.Start(t)
	for store, says := range map[string]string{"valkeys://" + valkey.Addr: "does not speak TLS", valkey.URL() + "/99": "no database of this number"} {
		if o := flowfabric(t, nil, "", "submit", "job", "--store", store); o.code != exitUnavailable || !strings.Contains(o.stderr, says) {
			t.Errorf("--store %s: exit code %d: %s", store, o.code, o.stderr)
		}
	}
}

func TestReadingWhereThereIsNoStoreSaysSoAndWritesNothing(t *testing.T) {
	valkey := valkeytest.Start(t)
	id := "{fp:1}:550e8400-e29b-41d4-a716-446655440000"
	for _, command := range [][]string{{"list"}, {"lanes"}, {"workers"}, {"events"}, {"get", id}, {"result", id}, {"cancel", id}} {
		o := flowfabric(t, nil, "", append(command, "--store", valkey.URL()+"/3")...)
		if o.code != exitUnavailable || !strings.Contains(o.stderr, "there is no store at valkey://"+valkey.Addr+"/3 yet") {
			t.Errorf("%v: exit code %d: %s%s", command, o.code, o.stdout, o.stderr)
		}
	}
	if info, err := valkey.Do("INFO", "keyspace").ToString(); strings.Contains(info, "db") || err != nil {
		t.Errorf("something was written: %s, %v", info, err)
	}
	ok(t, "submit", "job", "--store", valkey.URL()+"/3")
	if got := ok(t, "list", "--store", valkey.URL()+"/3"); !strings.Contains(got, "waiting") {
		t.Errorf("listed %q", got)
	}
}

// stopsTrying ends a daemon that has not come up: it is interrupted.
func (d *daemon) stopsTrying(t *testing.T) {
	t.Helper()
	start := time.Now()
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = d.wait()
	if code := d.cmd.ProcessState.ExitCode(); code != exitInterrupted || time.Since(start) > patience/2 {
		t.Errorf("exit code %d after %s: %s", code, time.Since(start), d.stderr)
	}
}

func TestThePrintedLibrariesCanBeLoaded(t *testing.T) {
	valkey := valkeytest.Start(t)
	for _, c := range []struct {
		args          []string
		name, version string
	}{{[]string{"library"}, "flowfabric", "ff_version"}, {[]string{"library", "--extensions"}, "flowfabric_go", "ffx_version"}} {
		name, err := valkey.Do("FUNCTION", "LOAD", "REPLACE", ok(t, c.args...)).ToString()
		if err != nil || name != c.name {
			t.Errorf("%v loads %q, %v", c.args, name, err)
		}
		version, err := valkey.Do("FCALL", c.version, "0").ToString()
		l := okJSON[library](t, c.args...)
		if err != nil || l.Name != c.name || l.Version != version || l.Source != ok(t, c.args...) {
			t.Errorf("%v: library %s, version %s; the server says %q, %v", c.args, l.Name, l.Version, version, err)
		}
	}
	d := okJSON[diagnosis](t, "doctor", "--store", valkey.URL())
	for _, c := range d.Checks {
		if strings.HasPrefix(c.Name, "library") && (c.Status != ff.CheckOK || !strings.HasPrefix(c.Detail, "version")) {
			t.Errorf("%+v", c)
		}
	}
}

func TestACommandSaysThatItWaitsForAStore(t *testing.T) {
	const store = "valkey://127.0.0.1:1"
	o := flowfabric(t, nil, "", "list", "--store", store)
	first, rest, _ := strings.Cut(o.stderr, "\n")
	if o.code != exitUnavailable || !strings.Contains(first, store+" does not answer") || !strings.Contains(first, "5s") || !strings.Contains(rest, "connection refused") {
		t.Errorf("exit code %d: %s", o.code, o.stderr)
	}
	if o := flowfabric(t, nil, "", "list", "--store", store, "--json"); o.code != exitUnavailable || strings.Count(o.stderr, "\n") != 1 || !strings.HasPrefix(o.stderr, "{") {
		t.Errorf("with --json: exit code %d: %s", o.code, o.stderr)
	}
}

func TestAWaitingCommandSaysThatTheServerWentAway(t *testing.T) {
	server, base := serve(t, t.TempDir()+"/ff.db", "127.0.0.1:0", "--log-level", "debug")
	id := strings.TrimSpace(ok(t, "submit", "job", "--server", base))
	waiting := launch(t, nil, "result", id, "--wait", "1h", "--server", base)
	eventually(t, "it waits", func() bool { return strings.Contains(server.stderr.String(), id) })
	server.stop(t)
	eventually(t, "it says so", func() bool { return strings.Contains(waiting.stderr.String(), "trying again") })
	if n := strings.Count(waiting.stderr.String(), "trying again"); n != 1 {
		t.Errorf("it says so %d times: %s", n, waiting.stderr)
	}
}
