package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
)

// examined is what doctor says of a store, with its exit code.
func examined(t *testing.T, env []string, args ...string) (d diagnosis, o output) {
	t.Helper()
	o = flowfabric(t, env, "", append(append([]string{"doctor"}, args...), "--json")...)
	if err := json.Unmarshal([]byte(o.stdout), &d); err != nil {
		t.Fatalf("%v: %v in %q: %s", args, err, o.stdout, o.stderr)
	}
	if d.OK != (o.code == exitOK) || d.Problems != d.Checks.Count(ff.CheckProblem) || d.Warnings != d.Checks.Count(ff.CheckWarning) {
		t.Errorf("exit code %d with %+v", o.code, d)
	}
	return d, o
}

// has says whether a check came out in a way, with a text in it.
func (d *diagnosis) has(name string, s ff.CheckStatus, text string) bool {
	for _, c := range d.Checks {
		if c.Name == name && c.Status == s && strings.Contains(c.Detail+" "+c.Advice, text) {
			return true
		}
	}
	return false
}

func TestDoctorFindsAHealthyValkeyHealthy(t *testing.T) {
	valkey := valkeytest.Start(t, valkeytest.WithAOF(), valkeytest.WithPassword(secret))
	env := append(hostAndPort(t, valkey), "FF_VALKEY_PASSWORD="+secret)
	launch(t, env, "serve").answers(t)
	d, o := examined(t, env, "--store", valkey.URL())
	if o.code != exitOK || d.Warnings > 0 || len(d.Checks) < 10 || strings.Contains(o.stdout, secret) {
		t.Errorf("exit code %d: %s", o.code, o.stdout)
	}
	for name, says := range map[string]string{
		"reachable": "PING takes", "authenticated": "as user default", "version": "Valkey ", "topology": "a single primary", "partitions": "4 flow, 32 budget, 32 quota",
		"library flowfabric": "version 34, ours", "library flowfabric_go": "version", "durability": "append-only file, fsync always", "memory": "noeviction",
		"clock": "within 1s", "permissions": "allowed",
	} {
		if !d.has(name, ff.CheckOK, says) {
			t.Errorf("%s: %q is missing in %+v", name, says, d.Checks)
		}
	}
	people := flowfabric(t, env, "", "doctor", "--store", "valkey://"+valkey.Addr)
	if people.code != exitOK || !strings.Contains(people.stdout, "ok       clock ") || !strings.Contains(people.stdout, "0 problem(s), 0 warning(s)") {
		t.Errorf("exit code %d: %s%s", people.code, people.stdout, people.stderr)
	}
}

func TestDoctorChangesNothingOnAnEmptyValkey(t *testing.T) {
	valkey := valkeytest.Start(t, valkeytest.WithAOF())
	changes := func() string {
		info, err := valkey.Do("INFO", "persistence").ToString()
		if err != nil {
			t.Fatal(err)
		}
		return regexp.MustCompile(`rdb_changes_since_last_save:\d+`).FindString(info)
	}
	before := changes()
	d, o := examined(t, nil, "--store", valkey.URL())
	if o.code != exitOK || !d.has("library flowfabric", ff.CheckOK, "not installed") || !d.has("partitions", ff.CheckOK, "the store is new") {
		t.Errorf("exit code %d: %s", o.code, o.stdout)
	}
	functions, err := valkey.Do("FUNCTION", "LIST").ToArray()
	if keys := keysLike(t, valkey, "*"); len(keys)+len(functions) > 0 || err != nil || changes() != before {
		t.Errorf("it left keys %q and %d libraries, %v; %s was %s", keys, len(functions), err, changes(), before)
	}
}

func TestDoctorNamesWhatIsMisconfigured(t *testing.T) {
	valkey := valkeytest.Start(t, valkeytest.WithConfig("maxmemory", "64mb"), valkeytest.WithConfig("maxmemory-policy", "allkeys-lru"))
	ok(t, "submit", "job", "--store", valkey.URL())
	for _, words := range [][]string{{"FUNCTION", "DELETE", "flowfabric"}, {"HSET", "ff:config:partitions", "num_quota_partitions", "x"}} {
		if err := valkey.Do(words[0], words[1:]...).Error(); err != nil {
			t.Fatal(err)
		}
	}
	d, o := examined(t, nil, "--store", valkey.URL())
	if o.code != exitFailed || !d.has("memory", ff.CheckProblem, "CONFIG SET maxmemory-policy noeviction") || !d.has("durability", ff.CheckWarning, "CONFIG SET appendonly yes") ||
		!d.has("library flowfabric", ff.CheckWarning, "flowfabric library | valkey-cli") || !d.has("partitions", ff.CheckProblem, `num_quota_partitions is "x"`) {
		t.Errorf("exit code %d: %s", o.code, o.stdout)
	}
	if d, _ := examined(t, []string{"FF_FLOW_PARTITIONS=7"}, "--store", valkey.URL()); !d.has("partitions", ff.CheckProblem, "stored 256, configured 7") {
		t.Errorf("partitions: %+v", d.Checks)
	}
	if err := valkey.Do("REPLICAOF", "127.0.0.1", "1").Error(); err != nil {
		t.Fatal(err)
	}
	if d, _ := examined(t, nil, "--store", valkey.URL()); !d.has("topology", ff.CheckProblem, "its primary, 127.0.0.1:1") {
		t.Errorf("a replica: %+v", d.Checks)
	}
}

func TestDoctorComparesLibraries(t *testing.T) {
	valkey := valkeytest.Start(t)
	for _, c := range []struct {
		version string
		status  ff.CheckStatus
		says    string
	}{{"34", ff.CheckOK, "loaded by FlowFabric in Rust"}, {"33", ff.CheckWarning, "older than this program's 34"}, {"35", ff.CheckWarning, "newer than this program's 34"}} {
		source := "#!lua name=flowfabric\nredis.register_function('ff_version', function() return '" + c.version + "' end)"
		if err := valkey.Do("FUNCTION", "LOAD", "REPLACE", source).Error(); err != nil {
			t.Fatal(err)
		}
		if d, _ := examined(t, nil, "--store", valkey.URL()); !d.has("library flowfabric", c.status, c.says) {
			t.Errorf("version %s: %+v", c.version, d.Checks)
		}
	}
}

func TestDoctorSaysWhyItWasNotLetIn(t *testing.T) {
	valkey := valkeytest.Start(t, valkeytest.WithPassword("another"))
	for store, says := range map[string]string{
		"valkey://" + valkey.Addr:                       "FF_VALKEY_PASSWORD",
		"valkey://:" + secret + "@" + valkey.Addr:       "WRONGPASS",
		"valkey://nobody:" + secret + "@" + valkey.Addr: "WRONGPASS",
	} {
		d, o := examined(t, nil, "--store", store)
		if o.code != exitUnavailable || !d.has("authenticated", ff.CheckProblem, says) || strings.Contains(o.stdout+o.stderr, secret) {
			t.Errorf("%s: exit code %d: %s%s", store, o.code, o.stdout, o.stderr)
		}
	}
	if d, o := examined(t, nil, "--store", "valkey://127.0.0.1:1"); o.code != exitUnavailable || !d.has("reachable", ff.CheckProblem, "connection refused") {
		t.Errorf("exit code %d: %s", o.code, o.stdout)
	}
}

// impostor answers like a server whose INFO is another.
func impostor(t *testing.T, info string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answerAs(c, info)
		}
	}()
	return l.Addr().String()
}

func answerAs(c net.Conn, info string) {
	defer c.Close()
	in := bufio.NewReader(c)
	line := func() string { s, _ := in.ReadString('\n'); return strings.TrimSpace(s) }
	for {
		n, err := strconv.Atoi(strings.TrimPrefix(line(), "*"))
		if err != nil {
			return
		}
		words := make([]string, n)
		for i := range words {
			size, _ := strconv.Atoi(strings.TrimPrefix(line(), "$"))
			word := make([]byte, size+2)
			if _, err := io.ReadFull(in, word); err != nil {
				return
			}
			words[i] = string(word[:size])
		}
		switch words[0] {
		case "HELLO":
			fmt.Fprint(c, "%1\r\n+proto\r\n:3\r\n")
		case "CLIENT":
			fmt.Fprint(c, "+OK\r\n")
		case "PING":
			fmt.Fprint(c, "+PONG\r\n")
		case "INFO":
			fmt.Fprintf(c, "$%d\r\n%s\r\n", len(info), info)
		default:
			fmt.Fprint(c, "-ERR unknown command\r\n")
		}
	}
}

func TestDoctorKnowsServersThatAreNotValkeyOrTooOld(t *testing.T) {
	for info, says := range map[string]string{
		"redis_version:7.4.1\r\n":                         "this is not Valkey",
		"redis_version:7.2.4\r\nvalkey_version:7.1.0\r\n": "upgrade to Valkey 7.2 or newer",
		"server_name:valkey\r\nvalkey_version:eight\r\n":  "cannot be read",
	} {
		d, o := examined(t, nil, "--store", "valkey://"+impostor(t, info))
		if o.code != exitFailed || !d.has("version", ff.CheckProblem, says) {
			t.Errorf("%q: exit code %d: %s", info, o.code, o.stdout)
		}
		if d.Problems != 1 || d.Warnings != 0 {
			t.Errorf("%q: what such a server lacks was judged: %s", info, o.stdout)
		}
	}
}

func TestDoctorJudgesNoEvictionPolicyThatItWasNotTold(t *testing.T) {
	d, o := examined(t, nil, "--store", "valkey://"+impostor(t, "valkey_version:8.1.0\r\n"))
	if !d.has("memory", ff.CheckWarning, "unknown") || strings.Contains(o.stdout, "deletes executions") {
		t.Errorf("exit code %d: %s", o.code, o.stdout)
	}
}

func TestDoctorNamesMissingPermissions(t *testing.T) {
	valkey := valkeytest.Start(t)
	user := func(rules ...string) string {
		if err := valkey.Do("ACL", append([]string{"SETUSER", "flowfabric", "reset", "on", ">" + secret}, rules...)...).Error(); err != nil {
			t.Fatal(err)
		}
		return "valkey://flowfabric:" + secret + "@" + valkey.Addr
	}
	for rules, says := range map[string]string{
		"~ff:* ~ffx:* &* +@all -info":          "'info'",
		"~ff:* ~ffx:* &* +@all -fcall":         "'fcall'",
		"~ff:* ~ffx:* &* +@all -function|load": "'function|load'",
		"~ff:* ~ffx:* &* +@all -subscribe":     "'subscribe'",
		"~ff:* &* +@all":                       "access a key",
		"~ff:* ~ffx:* &ff:* +@all":             "access a channel",
	} {
		d, o := examined(t, nil, "--store", user(strings.Fields(rules)...))
		if o.code != exitFailed || !d.has("permissions", ff.CheckProblem, says) || !d.has("permissions", ff.CheckProblem, "ACL SETUSER flowfabric ~ff:* ~ffx:*") {
			t.Errorf("%s: exit code %d: %s", rules, o.code, o.stdout)
		}
	}
	if d, o := examined(t, nil, "--store", user("~ff:*", "~ffx:*", "&*", "+@all", "-config")); o.code != exitOK || !d.has("permissions", ff.CheckWarning, "'config|get'") {
		t.Errorf("without CONFIG GET: exit code %d: %s", o.code, o.stdout)
	}
}

var aclLine = regexp.MustCompile(`(?m)^ *ACL SETUSER flowfabric on >PASSWORD (.*)$`)

func TestTheUserOfTheGuideMayDoWhatIsNeededAndNoMore(t *testing.T) {
	guide, err := os.ReadFile(filepath.Join("..", "..", "docs", "valkey.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := aclLine.FindStringSubmatch(string(guide))
	if found == nil {
		t.Fatal("docs/valkey.md shows no user")
	}
	valkey := valkeytest.Start(t, valkeytest.WithAOF())
	if err := valkey.Do("ACL", append([]string{"SETUSER", "flowfabric", "on", ">" + secret}, strings.Fields(found[1])...)...).Error(); err != nil {
		t.Fatal(err)
	}
	store := "valkey://flowfabric:" + secret + "@" + valkey.Addr
	base := launch(t, []string{few}, "serve", "--store", store, "--listen", "127.0.0.1:0").answers(t)
	launch(t, []string{few}, "worker", "run", "--store", store, "--exec", `tr a-z A-Z; [ "$FLOWFABRIC_ATTEMPT" = 1 ]`)
	if got := ok(t, "submit", "shout", "--payload", `"a"`, "--retries", "1", "--wait", "30s", "--server", base); got != `"A"` {
		t.Errorf("result %q", got)
	}
	for _, command := range []string{"list", "lanes", "workers", "events"} {
		ok(t, command, "--store", store)
	}
	if d, o := examined(t, nil, "--store", store); o.code != exitOK || d.Warnings > 0 {
		t.Errorf("exit code %d: %s", o.code, o.stdout)
	}
}

func TestDoctorChecksSQLiteFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ff.db")
	if d, o := examined(t, nil, "--store", "sqlite:"+path); o.code != exitOK || !d.has("file", ff.CheckWarning, "does not exist") {
		t.Errorf("no file: exit code %d: %s", o.code, o.stdout)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
	server, _ := serve(t, path, "127.0.0.1:0")
	d, o := examined(t, nil, "--store", path)
	if o.code != exitOK || d.Warnings > 0 || !d.has("used by", ff.CheckOK, fmt.Sprintf("process %d", server.cmd.Process.Pid)) {
		t.Errorf("in use: exit code %d: %s", o.code, o.stdout)
	}
	for name, says := range map[string]string{"file": path, "writable": "can be written", "content": "no damage", "schema": "version", "durability": "wal", "partitions": "256 flow, 32 budget, 32 quota"} {
		if !d.has(name, ff.CheckOK, says) {
			t.Errorf("%s: %q is missing in %+v", name, says, d.Checks)
		}
	}
	server.stop(t)
	before, _ := os.ReadDir(dir)
	if d, o := examined(t, nil, "--store", path); o.code != exitOK || d.Warnings > 0 {
		t.Errorf("not in use: exit code %d: %s", o.code, o.stdout)
	}
	if after, _ := os.ReadDir(dir); len(after) != len(before) {
		t.Errorf("it left files: %v became %v", before, after)
	}
	if d, _ := examined(t, []string{"FF_QUOTA_PARTITIONS=5"}, "--store", path); !d.has("partitions", ff.CheckProblem, "stored 32, configured 5") || !d.has("used by", ff.CheckOK, "nobody") {
		t.Errorf("%+v", d.Checks)
	}
	other := filepath.Join(dir, "text.db")
	if err := os.WriteFile(other, []byte("not a database"), 0o600); err != nil {
		t.Fatal(err)
	}
	for store, check := range map[string]string{other: "content", filepath.Join(dir, "none", "x.db"): "file"} {
		if d, o := examined(t, nil, "--store", store); o.code != exitFailed || !d.has(check, ff.CheckProblem, "") {
			t.Errorf("%s: exit code %d: %s", store, o.code, o.stdout)
		}
	}
}

func TestDoctorFindsDamageInSQLiteFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ff.db")
	for range 20 {
		ok(t, "submit", "job", "--payload", `"`+strings.Repeat("x", 5000)+`"`, "--store", path)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	// The schema stays: what is behind it is overwritten.
	for at := int64(8 * 4096); at < info.Size(); at += 4096 {
		if _, err := f.WriteAt([]byte(strings.Repeat("\xff", 64)), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if d, o := examined(t, nil, "--store", path); o.code != exitFailed || !d.has("content", ff.CheckProblem, "backup") {
		t.Errorf("exit code %d: %s", o.code, o.stdout)
	}
}

func TestDoctorChecksServers(t *testing.T) {
	_, base := serve(t, filepath.Join(t.TempDir(), "ff.db"), "127.0.0.1:0", "--token", secret)
	if d, o := examined(t, nil, "--server", base, "--token", secret); o.code != exitOK || d.Warnings > 0 || !d.has("store", ff.CheckOK, "sqlite") || !d.has("authenticated", ff.CheckOK, "accepted") {
		t.Errorf("exit code %d: %s", o.code, o.stdout)
	}
	if d, o := examined(t, nil, "--store", base, "--token", "wrong"); o.code != exitUnavailable || !d.has("authenticated", ff.CheckProblem, "FF_API_TOKEN") {
		t.Errorf("wrong token: exit code %d: %s", o.code, o.stdout)
	}
	if d, o := examined(t, nil, "--server", "http://127.0.0.1:1"); o.code != exitUnavailable || !d.has("reachable", ff.CheckProblem, "flowfabric serve") {
		t.Errorf("no server: exit code %d: %s", o.code, o.stdout)
	}
}

func TestDoctorWarnsOfTheSameDurabilityThroughAServer(t *testing.T) {
	for warns, options := range map[ff.CheckStatus][]valkeytest.Option{
		ff.CheckWarning: nil,
		ff.CheckOK:      {valkeytest.WithAOF()},
	} {
		valkey := valkeytest.Start(t, options...)
		base := launch(t, []string{few}, "serve", "--store", valkey.URL(), "--listen", "127.0.0.1:0").answers(t)
		direct, _ := examined(t, nil, "--store", valkey.URL())
		through, o := examined(t, nil, "--server", base)
		if !direct.has("durability", warns, "append-only file") || !through.has("durability", warns, "append-only file") {
			t.Errorf("%s: %+v; through the server: %s", warns, direct.Checks, o.stdout)
		}
	}
}

func TestDoctorTellsAServerFromItsStore(t *testing.T) {
	valkey := valkeytest.Start(t)
	base := launch(t, []string{few}, "serve", "--store", valkey.URL(), "--listen", "127.0.0.1:0").answers(t)
	valkey.Kill()
	if d, o := examined(t, nil, "--server", base); o.code != exitFailed || !d.has("store", ff.CheckProblem, "doctor --store URL") {
		t.Errorf("exit code %d: %s", o.code, o.stdout)
	}
}
