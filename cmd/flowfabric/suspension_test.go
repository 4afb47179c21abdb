package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/internal/httpapi"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
)

// served is a server with what tests of waits need.
type served struct {
	testing.TB
	base  string
	store ff.Backend
}

func serveWaits(t testing.TB) *served {
	t.Helper()
	_, base := serve(t, filepath.Join(t.TempDir(), "ff.db"), "127.0.0.1:0")
	return over(t, base)
}

func over(t testing.TB, base string) *served {
	t.Helper()
	c, err := client.New(base)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &served{t, base, c.Backend()}
}

func (s *served) on(args ...string) []string { return append(args, "--server", s.base) }

// waits is an execution that waits.
func (s *served) waits(c ff.SuspendExecution) (id string, at []ff.IssuedWaitpoint) {
	s.Helper()
	if _, err := s.store.CreateExecution(s.Context(), ff.CreateExecution{Lane: "l", Kind: "k"}); err != nil {
		s.Fatal(err)
	}
	got, err := s.store.Claim(s.Context(), ff.Claim{Claimant: ff.Claimant{Worker: "w", Instance: "i"}, Lanes: []ff.LaneID{"l"}, LeaseTTL: time.Minute})
	if err != nil || len(got.Claimed) != 1 {
		s.Fatal(got, err)
	}
	c.LeaseRef = got.Claimed[0].Ref()
	r, err := s.store.SuspendExecution(s.Context(), c)
	if err != nil {
		s.Fatal(err)
	}
	return c.ID.String(), r.Waitpoints
}

func (s *served) says(out string, want ...string) {
	s.Helper()
	for _, w := range want {
		if !strings.Contains(out, w) {
			s.Errorf("it says\n%s\nwhich lacks %q", out, w)
		}
	}
}

func TestPeopleSeeWhatAnExecutionWaitsForAndAnswerIt(t *testing.T) {
	s := serveWaits(t)
	id, at := s.waits(ff.SuspendExecution{Waitpoints: []ff.WaitpointBinding{{Key: "legal"}, {Key: "finance"}}, Reason: ff.SuspendedForApproval,
		Condition:    ff.AllOf(ff.AwaitSignal("approved").At("legal"), ff.AwaitSignal("approved").At("finance")),
		TimeoutAfter: time.Hour, OnTimeout: ff.TimeoutCancel})
	const what = `all of (a signal "approved" at legal; a signal "approved" at finance)`
	s.says(ok(t, s.on("get", id)...), "waits for  "+what, "waiting_for_approval", ", then it is cancelled")
	s.says(ok(t, s.on("explain", id)...), "it waits since", "for "+what, "its time is over at", "it is cancelled then",
		"("+at[0].Key+") 0 signal(s) have come", "flowfabric approve '"+id+"' --waitpoint KEY, or flowfabric reject '"+id+"' --waitpoint KEY", "flowfabric resume '"+id+"'")
	list := okJSON[httpapi.Waitpoints](t, s.on("waitpoints", id)...)
	if len(list.Waitpoints) != 2 || list.Waitpoints[0].WaitpointID.String() > list.Waitpoints[1].WaitpointID.String() {
		t.Errorf("%+v", list)
	}
	if o := flowfabric(t, nil, "", s.on("approve", id)...); o.code != exitFailed || !strings.Contains(o.stderr, at[1].ID.String()+" (finance)") {
		t.Errorf("without a waitpoint: %d %s", o.code, o.stderr)
	}
	s.says(ok(t, s.on("approve", id, "--waitpoint", "legal", "--by", "ann", "--payload", `{"limit":5}`)...), "the execution waits for more")
	s.says(ok(t, s.on("approve", id, "--waitpoint", "legal", "--by", "ann")...), "it was delivered before")
	s.says(ok(t, s.on("get", id)...), "counted")
	s.says(ok(t, s.on("explain", id)...), `(legal) 1 signal(s) have come, 1 of them counted: "approved" by ann, the last at`)
	s.says(ok(t, s.on("reject", id, "--waitpoint", "finance", "--by", "bob")...), "kept, but the execution")
	if got := okJSON[httpapi.Decided](t, s.on("approve", id, "--waitpoint", at[1].ID.String(), "--by", "bob")...); got.Effect != ff.EffectResumed || got.WaitpointID != at[1].ID {
		t.Errorf("%+v", got)
	}
	s.says(ok(t, s.on("get", id, "--signals")...), "waited for", "resumed at", "operator:ann", "operator:bob", "rejected", string(ff.EffectResumed))
	s.says(ok(t, s.on("explain", id)...), "is waiting", "it waited from", `resumed by 2 signal(s): "approved" by ann, "approved" by bob`)
	s.says(ok(t, s.on("waitpoints", id, "--closed")...), "finance", "closed", "resumed")
	if o := ok(t, s.on("waitpoints", id)...); strings.Contains(o, "legal") {
		t.Errorf("closed waitpoints are listed: %s", o)
	}
	explained := okJSON[struct {
		Suspension httpapi.Suspension `json:"suspension"`
	}](t, s.on("explain", id)...)
	record := okJSON[struct {
		Suspension httpapi.Suspension `json:"suspension"`
		Signals    []httpapi.Signal   `json:"signals"`
	}](t, s.on("get", id, "--signals")...)
	if len(explained.Suspension.ResumedBy) != 2 || record.Suspension.CloseReason != ff.ClosedResumed || len(record.Signals) != 3 || string(record.Signals[0].Payload) != `{"limit":5}` {
		t.Errorf("%+v %+v", explained, record)
	}
}

func TestASignalTakesATokenFromAFileOrAVariableOnly(t *testing.T) {
	s := serveWaits(t)
	id, at := s.waits(ff.SuspendExecution{Condition: ff.AwaitCount(3, ff.DistinctSignals)})
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(at[0].Token.Reveal()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const forged = "k1:0123456789012345678901234567890123456789"
	for _, c := range []struct {
		env   []string
		stdin string
		args  []string
		code  int
		says  string
	}{
		{nil, "", []string{"--token-file", file}, exitOK, "waits for more"},
		{nil, at[0].Token.Reveal(), []string{"--token-file", "-"}, exitOK, "waits for more"},
		{[]string{tokenVariable + "=" + forged}, "", nil, exitFailed, "invalid_token"},
		{nil, "", []string{"--token-file", filepath.Join(t.TempDir(), "none")}, exitFailed, "token_file: cannot be read"},
		{nil, "", []string{"--token-file", "-"}, exitFailed, "token_file: is empty"},
		{nil, strings.Repeat("x", maxSecretFile+1), []string{"--token-file", "-"}, exitFailed, "must have at most 4096 bytes"},
		{nil, "", []string{"--token-file", "-", "--payload", "-"}, exitUsage, "cannot both"},
		{nil, "", []string{"--payload", "x"}, exitFailed, "payload: is not JSON"},
		{nil, "", []string{"--waitpoint", "elsewhere"}, exitFailed, "no open waitpoint with the key"},
		{nil, "", []string{"--payload", "x", "--raw", "--key", "k"}, exitOK, "the execution goes on"},
		{nil, "", nil, exitFailed, "no open waitpoint"},
	} {
		o := flowfabric(t, c.env, c.stdin, s.on(append([]string{"signal", id, "done"}, c.args...)...)...)
		if o.code != c.code || !strings.Contains(o.stdout+o.stderr, c.says) {
			t.Errorf("%v: exit code %d, %s%s; want %d and %q", c.args, o.code, o.stdout, o.stderr, c.code, c.says)
		}
		if strings.Contains(o.stdout+o.stderr, at[0].Token.Reveal()) || strings.Contains(o.stdout+o.stderr, forged) {
			t.Errorf("%v shows the token: %s%s", c.args, o.stdout, o.stderr)
		}
	}
}

func TestAnOperatorResumesFromTheCommandLine(t *testing.T) {
	s := serveWaits(t)
	id, _ := s.waits(ff.SuspendExecution{Condition: ff.OperatorOnly(), Reason: ff.SuspendedForOperatorReview})
	s.says(ok(t, s.on("explain", id)...), "for an operator", "it may wait for ever", "- resume it without a signal with: flowfabric resume")
	if got := okJSON[httpapi.StateAnswer](t, s.on("resume", id, "--delay", "1h")...); got.State != ff.StateDelayed {
		t.Errorf("%+v", got)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"resume", id}, exitFailed, "execution_not_suspended"},
		{[]string{"resume", "{fp:1}:550e8400-e29b-41d4-a716-446655440000"}, exitNotFound, "execution_not_found"},
		{[]string{"resume", id, "--delay", "-1s"}, exitFailed, "resume_delay_ms: must be 0 to"},
		{[]string{"approve", "{fp:1}:550e8400-e29b-41d4-a716-446655440000"}, exitNotFound, "execution_not_found"},
		{[]string{"approve", id}, exitFailed, "no open waitpoint"},
		{[]string{"waitpoints", "{fp:1}:550e8400-e29b-41d4-a716-446655440000"}, exitNotFound, "execution_not_found"},
		{[]string{"approve", id, "--by", ""}, exitUsage, "--by must say who decides"},
		{[]string{"waitpoints"}, exitUsage, "needs 1 argument"},
		{[]string{"signal", id}, exitUsage, "needs 2 argument"},
		{[]string{"signal", "x", "y"}, exitUsage, "x"},
		{[]string{"secret", "rotat"}, exitUsage, "did you mean rotate?"},
	} {
		o := flowfabric(t, nil, "", s.on(append(c.args, "--json")...)...)
		var e struct{ Error string }
		if err := json.Unmarshal([]byte(o.stderr), &e); err != nil || o.code != c.code || !strings.Contains(e.Error, c.says) {
			t.Errorf("%v: exit code %d, %s; want %d and %q", c.args, o.code, o.stderr, c.code, c.says)
		}
	}
}

func TestSecretsAreRotatedAndNeverShown(t *testing.T) {
	s := serveWaits(t)
	s.says(ok(t, s.on("secret", "list")...), "no secret yet")
	id, at := s.waits(ff.SuspendExecution{Condition: ff.AwaitSignal("")})
	first := at[0].Token.KeyID()
	saved := filepath.Join(t.TempDir(), "secret.hex")
	s.says(ok(t, s.on("secret", "rotate", "--key-id", "k2", "--save", saved)...), "k2 signs from now on; tokens of "+first+" stay valid for 24h0m0s")
	data, err := os.ReadFile(saved)
	if err != nil || len(strings.TrimSpace(string(data))) != 64 {
		t.Fatalf("%q, %v", data, err)
	}
	if info, err := os.Stat(saved); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	late, _ := s.waits(ff.SuspendExecution{Condition: ff.AwaitSignal("")})
	secret := strings.TrimSpace(string(data))
	given := strings.Repeat("ab", 32)
	for _, c := range []struct {
		env   []string
		stdin string
		args  []string
		code  int
		says  string
	}{
		{nil, "", []string{"--key-id", "k2", "--secret-file", saved}, exitOK, "nothing was changed"},
		{nil, given, []string{"--key-id", "k2", "--secret-file", "-"}, exitFailed, "rotation_conflict"},
		{nil, "", []string{"--save", saved}, exitFailed, "save: cannot be written"},
		{nil, given, []string{"--secret-file", "-", "--save", saved}, exitUsage, "--save is for a random secret"},
		{nil, "not-hex", []string{"--secret-file", "-"}, exitFailed, "invalid_secret_hex"},
		{nil, "abcdef12", []string{"--secret-file", "-"}, exitFailed, "must have at least 32 hex digits (got 8)"},
		{nil, "", []string{"--key-id", "a:b"}, exitFailed, "invalid_kid"},
		{nil, "", []string{"--grace", "-1s"}, exitFailed, "invalid_grace_ms"},
		{[]string{secretVariable + "=" + given}, "", []string{"--key-id", "k3", "--grace", "0s"}, exitOK, "k3 signs from now on"},
		{nil, "", []string{given}, exitUsage, "takes no arguments"},
	} {
		o := flowfabric(t, c.env, c.stdin, s.on(append([]string{"secret", "rotate"}, c.args...)...)...)
		if o.code != c.code || !strings.Contains(o.stdout+o.stderr, c.says) {
			t.Errorf("%v: exit code %d, %s%s; want %d and %q", c.args, o.code, o.stdout, o.stderr, c.code, c.says)
		}
		if c.code != exitUsage && (strings.Contains(o.stdout+o.stderr, secret) || strings.Contains(o.stdout+o.stderr, given)) {
			t.Errorf("%v shows the secret: %s%s", c.args, o.stdout, o.stderr)
		}
	}
	if list := okJSON[httpapi.Secrets](t, s.on("secret", "list")...); list.Current != "k3" {
		t.Errorf("%+v", list)
	}
	if got := okJSON[struct {
		KeyID string `json:"key_id"`
	}](t, s.on("secret", "rotate")...); !strings.HasPrefix(got.KeyID, "k20") {
		t.Errorf("%+v", got)
	}
	s.says(ok(t, s.on("approve", id)...), "the execution goes on")   // the grace of its secret is a day
	s.says(ok(t, s.on("approve", late)...), "the execution goes on") // its secret is gone
}

const envSecret = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

func TestAServerTakesItsFirstSecretFromTheEnvironment(t *testing.T) {
	behind := valkeytest.Start(t)
	for kind, url := range map[string]string{"SQLite": "sqlite:" + filepath.Join(t.TempDir(), "ff.db"), "Valkey": behind.URL()} {
		t.Run(kind, func(t *testing.T) {
			start := func(secret string) (*daemon, *served) {
				d := launch(t, []string{"FF_WAITPOINT_HMAC_SECRET=" + secret, "FF_WAITPOINT_HMAC_GRACE_MS=0"}, "serve", "--store", url, "--listen", "127.0.0.1:0")
				return d, over(t, d.answers(t))
			}
			first, s := start(envSecret)
			if list := okJSON[httpapi.Secrets](t, s.on("secret", "list")...); list.Current != "k1" {
				t.Errorf("%+v", list)
			}
			s.says(ok(t, s.on("secret", "rotate", "--key-id", "k2", "--json")...), `"previous_key_id":"k1"`)
			first.stop(t)
			if strings.Contains(first.stderr.String(), envSecret) || strings.Contains(first.stderr.String(), "another secret") {
				t.Errorf("the log: %s", first.stderr)
			}
			second, s := start(envSecret)
			if list := okJSON[httpapi.Secrets](t, s.on("secret", "list")...); list.Current != "k2" {
				t.Errorf("the restart changed the secret: %+v", list)
			}
			second.stop(t)
			if !strings.Contains(second.stderr.String(), "another secret") || strings.Contains(second.stderr.String(), envSecret) {
				t.Errorf("the log does not say that the secret is ignored: %s", second.stderr)
			}
		})
	}
}

func TestAShortSecretIsTakenWithAWarning(t *testing.T) {
	d := launch(t, []string{"FF_WAITPOINT_HMAC_SECRET=abcdef12"}, "serve", "--store", "sqlite::memory:", "--listen", "127.0.0.1:0")
	s := over(t, d.answers(t))
	if list := okJSON[httpapi.Secrets](t, s.on("secret", "list")...); list.Current != "k1" {
		t.Errorf("%+v", list)
	}
	d.stop(t)
	if log := d.stderr.String(); !strings.Contains(log, "is short: tokens may be forged") || strings.Contains(log, "abcdef12") {
		t.Errorf("the log: %s", log)
	}
}

func TestAMalformedSecretEndsTheStartWithoutShowingIt(t *testing.T) {
	for secret, says := range map[string]string{
		"":                        "must not be empty",
		"xyzw-secret":             "must be an even-length hex string (0-9a-fA-F)",
		"abc":                     "must be an even-length hex string (0-9a-fA-F)",
		strings.Repeat("ab", 257): "must have at most 512 hex digits (got 514)",
	} {
		o := flowfabric(t, []string{"FF_WAITPOINT_HMAC_SECRET=" + secret, "FF_SQLITE_PATH=:memory:", "FF_LISTEN_ADDR=127.0.0.1:0"}, "", "serve")
		if o.code != exitFailed || !strings.Contains(o.stderr, "invalid value for FF_WAITPOINT_HMAC_SECRET: "+says) || secret != "" && strings.Contains(o.stderr, secret) {
			t.Errorf("%q: exit code %d: %s", secret, o.code, o.stderr)
		}
	}
	for _, grace := range []string{"", "-1", "x", "99999999999999"} {
		o := flowfabric(t, []string{"FF_WAITPOINT_HMAC_GRACE_MS=" + grace, "FF_SQLITE_PATH=:memory:", "FF_LISTEN_ADDR=127.0.0.1:0"}, "", "serve")
		if o.code != exitFailed || !strings.Contains(o.stderr, "invalid value for FF_WAITPOINT_HMAC_GRACE_MS: ") {
			t.Errorf("a grace of %q: exit code %d: %s", grace, o.code, o.stderr)
		}
	}
}
