package server_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/server"
)

// referenceSignal is a body of the reference's endpoint.
func referenceSignal(id ff.ExecutionID, w ff.IssuedWaitpoint, signal, name, more string) string {
	return fmt.Sprintf(`{"execution_id":"%s","waitpoint_id":"%s","signal_id":"%s","signal_name":"%s","signal_category":"approval","source_type":"user","source_identity":"ann","target_scope":"waitpoint","waitpoint_token":"%s","now":1795476800000%s}`,
		id, w.ID, signal, name, w.Token.Reveal(), more)
}

func TestTheReferencesSignalsAreAnsweredInItsForm(t *testing.T) {
	store := clocked(t)
	h := handlerOf(t, store, server.Options{})
	id, at := suspended(t, store, ff.SuspendExecution{Condition: ff.AwaitSignal("approved")})
	path := "/v1/executions/" + escaped(id) + "/signal"
	const one, two, three = "44444444-4444-4444-8444-444444444444", "55555555-5555-4555-8555-555555555555", "66666666-6666-4666-8666-666666666666"
	forged := ff.IssuedWaitpoint{ID: at[0].ID, Token: "k1:0000000000000000000000000000000000000000"}
	none := ff.IssuedWaitpoint{ID: at[0].ID}
	expired := ff.IssuedWaitpoint{ID: at[0].ID, Token: ff.WaitpointToken("k0" + strings.TrimPrefix(at[0].Token.Reveal(), "k1"))}
	for _, c := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"another name", referenceSignal(id, at[0], one, "other", `,"idempotency_key":"a","dedup_ttl_ms":60000,"payload":[123,125],"max_signals_per_execution":99999999999,"signal_maxlen":5`), 200, `{"Accepted":{"signal_id":"` + one + `","effect":"no_op"}}`},
		{"a repetition", referenceSignal(id, at[0], two, "other", `,"idempotency_key":"a","correlation_id":null`), 200, `{"Duplicate":{"existing_signal_id":"` + one + `"}}`},
		{"a forged token", referenceSignal(id, forged, two, "approved", ""), 400, `{"error":"invalid_token: `},
		{"no token", referenceSignal(id, none, two, "approved", ""), 400, `"code":"missing_token"`},
		{"the key id of no secret", referenceSignal(id, expired, two, "approved", ""), 400, `"code":"invalid_token"`},
		{"a delay beyond all limits", referenceSignal(id, at[0], two, "approved", `,"resume_delay_ms":18446744073709551615`), 400, "resume_delay_ms: must be 0 to"},
		{"a payload in base64", referenceSignal(id, at[0], two, "approved", `,"payload":"e30="`), 422, "payload"},
		{"its signal", referenceSignal(id, at[0], two, "approved", `,"created_at":1795476799000`), 200, `{"Accepted":{"signal_id":"` + two + `","effect":"resume_condition_satisfied"}}`},
		{"its repetition", referenceSignal(id, at[0], two, "approved", ""), 200, `{"Duplicate":{"existing_signal_id":"` + two + `"}}`},
		{"one too late", referenceSignal(id, at[0], three, "approved", ""), 409, `"kind":"state_conflict","retryable":false,"code":"target_not_signalable"`},
	} {
		if w := ask(t, h, "POST", path, jsonType, c.body); w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d %s, want %d %s", c.name, w.Code, w.Body, c.status, c.want)
		}
	}
}

func TestADecisionNeedsNoTokenAndFindsItsWaitpoint(t *testing.T) {
	store := clocked(t)
	h := handlerOf(t, store, server.Options{})
	decide := func(id ff.ExecutionID, body string) (int, string) {
		w := ask(t, h, "POST", "/v1/executions/"+escaped(id)+"/decide", jsonType, body)
		return w.Code, w.Body.String()
	}
	id, at := suspended(t, store, ff.SuspendExecution{Waitpoints: []ff.WaitpointBinding{{Key: "legal"}, {Key: "finance"}},
		Condition: ff.AllOf(ff.AwaitSignal("approved").At("legal"), ff.AwaitSignal("approved").At("finance"))})
	for _, by := range []string{"", `,"by":""`, `,"by":" "`} {
		if status, body := decide(id, `{"decision":"approved","waitpoint":"legal"`+by+`}`); status < 400 || !strings.Contains(body, "by") {
			t.Errorf("by nobody (%s): %d %s", by, status, body)
		}
	}
	if status, body := decide(id, `{"decision":"approved","by":"ann"}`); status != 400 || !strings.Contains(body, at[0].ID.String()+" (legal)") || !strings.Contains(body, at[1].ID.String()+" (finance)") {
		t.Errorf("of two waitpoints: %d %s", status, body)
	}
	if status, body := decide(id, `{"decision":"approved","waitpoint":"tax","by":"ann"}`); status != 409 || !strings.Contains(body, "waitpoint_not_found") {
		t.Errorf("an unknown key: %d %s", status, body)
	}
	if status, body := decide(id, `{"decision":"approved","waitpoint":"legal","by":"ann"}`); status != 200 || !strings.Contains(body, `"effect":"appended_to_waitpoint"`) {
		t.Errorf("by key: %d %s", status, body)
	}
	if status, body := decide(id, `{"decision":"approved","waitpoint":"legal","by":"ann"}`); status != 200 || !strings.Contains(body, `"duplicate":true`) {
		t.Errorf("the same again: %d %s", status, body)
	}
	if status, body := decide(id, fmt.Sprintf(`{"decision":"approved","waitpoint":"%s","by":"bob","payload":{"limit":5}}`, at[1].ID)); status != 200 || !strings.Contains(body, `"effect":"resume_condition_satisfied"`) {
		t.Errorf("by id: %d %s", status, body)
	}
	if status, body := decide(id, `{"decision":"approved","by":"ann"}`); status != 409 || !strings.Contains(body, "no open waitpoint") {
		t.Errorf("afterwards: %d %s", status, body)
	}
	list, err := store.ListSignals(t.Context(), ff.ListSignals{ID: id, Resumed: true})
	if err != nil || len(list.Signals) != 2 || list.Signals[1].SourceIdentity != "bob" || string(list.Signals[1].Payload) != `{"limit":5}` || list.Signals[1].SourceType != "operator" {
		t.Errorf("the signals: %+v, %v", list.Signals, err)
	}
}

func TestTokensAreInNoLogAndNoListing(t *testing.T) {
	var log bytes.Buffer
	store := clocked(t)
	h := handlerOf(t, store, server.Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	id, at := suspended(t, store, ff.SuspendExecution{Condition: ff.AwaitSignal("approved")})
	token := at[0].Token.Reveal()
	base := "/v1/executions/" + escaped(id)
	waitpoint := base + "/waitpoints/" + at[0].ID.String()
	for _, c := range []struct{ method, path, body string }{
		{"GET", base + "/pending-waitpoints", ""},
		{"GET", base + "/waitpoints", ""},
		{"GET", base + "/suspension", ""},
		{"GET", base + "/record", ""},
		{"POST", waitpoint + "/signals", `{"signal_name":"","waitpoint_token":"` + token + `"}`},
		{"POST", waitpoint + "/signals", `{"signal_name":"a","waitpoint_token":"` + token + `!"}`},
		{"POST", waitpoint + "/signals", `{"signal_name":"a","waitpoint_token":"` + strings.Repeat(token, 20) + `"}`},
		{"POST", waitpoint + "/signals", `{"signal_name":"a","waitpoint_token":["` + token + `"]}`},
		{"POST", waitpoint + "/signals", `{"signal_name":"other","waitpoint_token":"` + token + `"}`},
		{"GET", base + "/signals", ""},
		{"GET", "/v1/events?execution_id=" + escaped(id), ""},
	} {
		if w := ask(t, h, c.method, c.path, jsonType, c.body); strings.Contains(w.Body.String(), token) || strings.Contains(w.Body.String(), token[3:]) {
			t.Errorf("%s %s has the token: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
	ask(t, h, "GET", waitpoint+"/token", nil, "")
	if log.Len() == 0 || strings.Contains(log.String(), token[3:]) {
		t.Errorf("the log: %s", &log)
	}
}
