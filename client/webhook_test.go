package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
)

const (
	hookSecret  = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	otherSecret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
)

func hook(t testing.TB, c client.WebhookConfig) *client.Webhook {
	t.Helper()
	w, err := client.NewWebhook(c)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// delivery is a request of a sender.
func delivery(t testing.TB, sender *client.Webhook, id, body string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/hook", strings.NewReader(body))
	if err := sender.SignWebhook(r.Header, id, []byte(body)); err != nil {
		t.Fatal(err)
	}
	return r
}

// The example of the specification of Standard Webhooks.
func TestAWebhookOfTheStandardIsVerified(t *testing.T) {
	w := hook(t, client.WebhookConfig{Secrets: []string{hookSecret}, Now: func() time.Time { return time.Unix(1614265330, 0) }})
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"test": 2432232314}`))
	r.Header.Set("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek")
	r.Header.Set("webhook-timestamp", "1614265330")
	r.Header.Set("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
	d, err := w.Verify(r)
	if err != nil || d.ID != "msg_p5jXN8AQM9LWM0D4loKWxJek" || d.SentAt.Unix() != 1614265330 || string(d.Body) != `{"test": 2432232314}` {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestAWebhookThatIsNotToBeTrustedIsRefusedWithTheReason(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	w := hook(t, client.WebhookConfig{Secrets: []string{hookSecret}, MaxBody: 1000, Now: func() time.Time { return now }})
	at := func(now time.Time, secret string) *client.Webhook {
		return hook(t, client.WebhookConfig{Secrets: []string{secret}, Now: func() time.Time { return now }})
	}
	for _, c := range []struct {
		name   string
		sender *client.Webhook
		change func(r *http.Request)
		code   ff.Code
		says   string
	}{
		{"as it was sent", w, func(*http.Request) {}, "", ""},
		{"with another secret", at(now, otherSecret), func(*http.Request) {}, ff.CodeUnauthorized, "no signature"},
		{"old, but not too old", at(now.Add(-5*time.Minute), hookSecret), func(*http.Request) {}, "", ""},
		{"too old", at(now.Add(-5*time.Minute-time.Second), hookSecret), func(*http.Request) {}, ff.CodeUnauthorized, "2027-01-15T07:54:59Z"},
		{"from the future", at(now.Add(5*time.Minute+time.Second), hookSecret), func(*http.Request) {}, ff.CodeUnauthorized, "wrong clock"},
		{"old with a new timestamp", at(now.Add(-time.Hour), hookSecret), set("Webhook-Timestamp", "1800000000"), ff.CodeUnauthorized, "no signature"},
		{"with another id", w, set("Webhook-Id", "msg-2"), ff.CodeUnauthorized, "no signature"},
		{"with another body", w, func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(`{"a":2}`)) }, ff.CodeUnauthorized, "no signature"},
		{"with a longer body", w, func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(`{"a":1} `)) }, ff.CodeUnauthorized, "no signature"},
		{"with a truncated signature", w, cut(1), ff.CodeUnauthorized, "no signature"},
		{"with half a signature", w, cut(24), ff.CodeUnauthorized, "no signature"},
		{"with an empty signature", w, set("Webhook-Signature", "v1,"), ff.CodeUnauthorized, "no signature"},
		{"with a signature of another version", w, func(r *http.Request) {
			r.Header.Set("Webhook-Signature", strings.Replace(r.Header.Get("Webhook-Signature"), "v1,", "v2,", 1))
		}, ff.CodeUnauthorized, "no signature"},
		{"with others beside the right signature", w, func(r *http.Request) {
			r.Header.Set("Webhook-Signature", "v1a,eA== v1,eA== "+r.Header.Get("Webhook-Signature"))
		}, "", ""},
		{"with too many signatures", w, set("Webhook-Signature", strings.Repeat("v1,eA== ", 17)), ff.CodeUnauthorized, "1 to 16 signatures (got 17)"},
		{"without a signature", w, del("Webhook-Signature"), ff.CodeUnauthorized, "Webhook-Signature"},
		{"without an id", w, del("Webhook-Id"), ff.CodeUnauthorized, "Webhook-Id"},
		{"with an id that could hide a timestamp", w, set("Webhook-Id", "msg.1"), ff.CodeUnauthorized, "full stop"},
		{"with a long id", w, set("Webhook-Id", strings.Repeat("x", 257)), ff.CodeUnauthorized, "got 257 bytes"},
		{"without a timestamp", w, del("Webhook-Timestamp"), ff.CodeUnauthorized, "Webhook-Timestamp"},
		{"with words for a timestamp", w, set("Webhook-Timestamp", "now"), ff.CodeUnauthorized, `got "now"`},
		{"with a negative timestamp", w, set("Webhook-Timestamp", "-1800000000"), ff.CodeUnauthorized, "seconds since 1970"},
		{"with a timestamp of many digits", w, set("Webhook-Timestamp", strings.Repeat("9", 400)), ff.CodeUnauthorized, "seconds since 1970"},
		{"with a body over the limit", w, func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(strings.Repeat("x", 1001))), -1
		}, ff.CodePayloadTooLarge, "at most 1000 bytes"},
		{"with a length over the limit", w, func(r *http.Request) { r.ContentLength = 1001 }, ff.CodePayloadTooLarge, "at most 1000 bytes"},
		{"that breaks off", w, func(r *http.Request) { r.Body = io.NopCloser(broken{}) }, ff.CodeTransport, "cannot be read"},
	} {
		r := delivery(t, c.sender, "msg-1", `{"a":1}`)
		c.change(r)
		_, err := w.Verify(r)
		if (c.code == "") != (err == nil) || c.code != "" && (ff.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("a delivery %s: %v, want %s %q", c.name, err, c.code, c.says)
		}
		if err != nil && strings.Contains(err.Error(), hookSecret[6:]) {
			t.Errorf("%s: the error shows the secret", c.name)
		}
	}
}

func TestOfABodyWithoutEndOnlyAsMuchAsAllowedIsRead(t *testing.T) {
	w := hook(t, client.WebhookConfig{Secrets: []string{hookSecret}, MaxBody: 1000})
	r := delivery(t, w, "msg-1", "")
	body := &zeros{}
	r.Body, r.ContentLength = io.NopCloser(io.LimitReader(body, 1<<24)), -1
	if _, err := w.Verify(r); ff.CodeOf(err) != ff.CodePayloadTooLarge || body.read > 2000 {
		t.Errorf("%d bytes were read: %v", body.read, err)
	}
}

// zeros is a body without an end.
type zeros struct{ read int }

func (z *zeros) Read(p []byte) (int, error) {
	clear(p)
	z.read += len(p)
	return len(p), nil
}

func set(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func del(name string) func(*http.Request) { return func(r *http.Request) { r.Header.Del(name) } }

func cut(n int) func(*http.Request) {
	return func(r *http.Request) {
		s := r.Header.Get("Webhook-Signature")
		r.Header.Set("Webhook-Signature", s[:len(s)-n])
	}
}

// broken is a body that cannot be read.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestNoChangeOfASignatureIsTaken(t *testing.T) {
	w := hook(t, client.WebhookConfig{Secrets: []string{otherSecret, hookSecret}})
	right := delivery(t, w, "msg-1", "body").Header.Get("Webhook-Signature")
	rapid.Check(t, func(rt *rapid.T) {
		text := []byte(right)
		at := rapid.IntRange(0, len(text)-1).Draw(rt, "at")
		text[at] = byte(rapid.IntRange('!', '~').Draw(rt, "byte"))
		r := delivery(t, w, "msg-1", "body")
		// The signature of a later second is another: what is compared is this one.
		r.Header.Set("Webhook-Signature", string(text))
		if _, err := w.Verify(r); string(text) != r.Header.Get("Webhook-Signature") || err == nil && string(text) != right {
			rt.Errorf("%s was taken for %s", text, right)
		}
	})
}

func TestWebhooksAreSignedWithAnyOfTheSecrets(t *testing.T) {
	both := hook(t, client.WebhookConfig{Secrets: []string{otherSecret, hookSecret}})
	for _, secret := range []string{hookSecret, otherSecret} {
		if _, err := both.Verify(delivery(t, hook(t, client.WebhookConfig{Secrets: []string{secret}}), "m", "")); err != nil {
			t.Errorf("signed with %.12s: %v", secret, err)
		}
	}
}

func TestSettingsOfWebhooksThatCannotBeAreRefusedWithoutTheSecret(t *testing.T) {
	for says, c := range map[string]client.WebhookConfig{
		"secrets: must be 1 to 8 (got 0)":                                   {},
		"secrets[1].secret: must be 24 to 64 bytes in base64 (got 3 bytes)": {Secrets: []string{hookSecret, "whsec_AAEC"}},
		"must be whsec_ and base64 (got 14 characters":                      {Secrets: []string{"!not-a-secret!"}},
		"tolerance: must be 0 to 1h0m0s (got 2h0m0s)":                       {Secrets: []string{hookSecret}, Tolerance: 2 * time.Hour},
		"tolerance: must be 0 to 1h0m0s (got -1s)":                          {Secrets: []string{hookSecret}, Tolerance: -time.Second},
		"max_body: must be 0 to 1048576 bytes (got 1048577)":                {Secrets: []string{hookSecret}, MaxBody: 1<<20 + 1},
	} {
		_, err := client.NewWebhook(c)
		if ff.CodeOf(err) != ff.CodeInvalidInput || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "not-a-secret") {
			t.Errorf("%v, want %s", err, says)
		}
	}
}

// payment is the body of the webhooks of these tests: the sender was given the
// execution and the waitpoint as its reference.
type payment struct {
	Execution ff.ExecutionID `json:"execution_id"`
	Waitpoint ff.WaitpointID `json:"waitpoint_id"`
	Cents     int            `json:"cents"`
}

func paid(_ context.Context, d *client.WebhookDelivery) (ff.DeliverSignal, error) {
	var p payment
	if err := json.Unmarshal(d.Body, &p); err != nil {
		return ff.DeliverSignal{}, ff.InvalidInput("body", "is not a payment: %w", err)
	}
	return ff.DeliverSignal{ID: p.Execution, WaitpointID: p.Waitpoint, Name: "paid", SourceIdentity: "bank"}, nil
}

func TestAWebhookResumesAnExecutionOnceHoweverOftenItIsSent(t *testing.T) {
	ctx, c := within(t, patience), connected(t)
	w := hook(t, client.WebhookConfig{Secrets: []string{hookSecret}})
	url := listen(t, w.Handler(c.Backend(), paid))
	id, at := waiting(ctx, t, c.Backend(), ff.SuspendExecution{Condition: ff.AwaitSignal("paid"), Reason: ff.SuspendedForCallback})
	body, err := json.Marshal(payment{id, at[0].ID, 420})
	if err != nil {
		t.Fatal(err)
	}
	send := func(delivery string, signer *client.Webhook) (int, string) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err == nil {
			err = signer.SignWebhook(r.Header, delivery, body)
		}
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: transport(t)}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	if status, text := send("d-1", hook(t, client.WebhookConfig{Secrets: []string{otherSecret}})); status != http.StatusUnauthorized || !strings.Contains(text, "no signature") {
		t.Errorf("of a stranger: %d %s", status, text)
	}
	state(ctx, t, c, id, ff.StateSuspended)
	for i, duplicate := range []string{"false", "true", "true"} {
		if status, text := send("d-1", w); status != http.StatusOK || !strings.Contains(text, `"duplicate":`+duplicate) {
			t.Errorf("delivery %d: %d %s", i, status, text)
		}
	}
	if status, text := send("d-2", w); status != http.StatusConflict || !strings.Contains(text, "target_not_signalable") {
		t.Errorf("another delivery, too late: %d %s", status, text)
	}
	list, err := c.Signals(ctx, ff.ListSignals{ID: id})
	if err != nil || len(list.Signals) != 1 || list.Signals[0].SourceType != "webhook" || list.Signals[0].SourceIdentity != "bank" ||
		!bytes.Equal(list.Signals[0].Payload, body) || list.Signals[0].IdempotencyKey != "webhook:d-1" {
		t.Errorf("the signals: %+v, %v", list.Signals, err)
	}
	state(ctx, t, c, id, ff.StateWaiting)
}

func TestAWebhookWithATokenOfItsOwnNeedsTheRightOne(t *testing.T) {
	ctx, c := within(t, patience), connected(t)
	w := hook(t, client.WebhookConfig{Secrets: []string{hookSecret}})
	id, at := waiting(ctx, t, c.Backend(), ff.SuspendExecution{Condition: ff.AwaitSignal("paid")})
	s := ff.DeliverSignal{ID: id, WaitpointID: at[0].ID, Name: "paid", Token: "k1:0123456789012345678901234567890123456789"}
	if _, err := w.Deliver(delivery(t, w, "d", "{}"), c.Backend(), s); ff.CodeOf(err) != ff.CodeInvalidToken {
		t.Errorf("a forged token: %v", err)
	}
	s.Token = at[0].Token
	if _, err := w.Deliver(delivery(t, w, "d", `{"token":"`+s.Token.Reveal()+`"}`), c.Backend(), s); ff.CodeOf(err) != ff.CodeInvalidInput || !strings.Contains(err.Error(), "payload: must be given") {
		t.Errorf("a body with the token: %v", err)
	}
	s.Payload = []byte(`"mine"`)
	if got, err := w.Deliver(delivery(t, w, "d", "{}"), c.Backend(), s); err != nil || got.Effect != ff.EffectResumed {
		t.Errorf("the right one: %+v, %v", got, err)
	}
	if list, err := c.Signals(ctx, ff.ListSignals{ID: id}); err != nil || string(list.Signals[0].Payload) != `"mine"` {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestTheWebhookHandlerAnswersWithWhatTheSenderCanDo(t *testing.T) {
	c := connected(t)
	w := hook(t, client.WebhookConfig{Secrets: []string{hookSecret}, MaxBody: 100})
	answer := func(r *http.Request, err error) *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		w.Handler(c.Backend(), func(context.Context, *client.WebhookDelivery) (ff.DeliverSignal, error) {
			return ff.DeliverSignal{ID: ff.NewExecutionID("l", ff.DefaultPartitionConfig), WaitpointID: ff.NewWaitpointID(), Name: "x"}, err
		}).ServeHTTP(rec, r)
		return rec
	}
	for _, c := range []struct {
		name   string
		body   string
		err    error
		status int
	}{
		{"a body over the limit", strings.Repeat("x", 101), nil, 413},
		{"a body that is none", "{}", ff.InvalidInput("body", "is not a payment"), 400},
		{"no such waitpoint", "{}", nil, 409},
		{"a busy store", "{}", ff.NewError(ff.CodeUnavailable, ""), 503},
		{"too much at once", "{}", ff.NewError(ff.CodeResourceExhausted, ""), 429},
		{"a fault", "{}", errors.New("secret of the house"), 500},
	} {
		rec := answer(delivery(t, w, "d", c.body), c.err)
		if rec.Code != c.status || strings.Contains(rec.Body.String(), "secret of the house") || rec.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", c.name, rec.Code, rec.Body)
		}
	}
	if rec := answer(httptest.NewRequest(http.MethodGet, "/", nil), nil); rec.Code != http.StatusMethodNotAllowed || rec.Header().Get("Allow") != "POST" {
		t.Errorf("GET: %d", rec.Code)
	}
	if err := w.SignWebhook(http.Header{}, "a.b", nil); ff.CodeOf(err) != ff.CodeUnauthorized {
		t.Errorf("an id that nobody takes was signed: %v", err)
	}
	r := delivery(t, w, "d", "{}")
	r.Header.Set("Webhook-Timestamp", strconv.FormatInt(time.Now().Add(-time.Hour).Unix(), 10))
	if rec := answer(r, nil); rec.Code != http.StatusUnauthorized {
		t.Errorf("an old delivery: %d %s", rec.Code, rec.Body)
	}
}
