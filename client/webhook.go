package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// The headers of a delivery and the beginnings of secrets and signatures, as Standard
// Webhooks (https://www.standardwebhooks.com) has them.
const (
	HeaderWebhookID        = "Webhook-Id"
	HeaderWebhookTimestamp = "Webhook-Timestamp"
	HeaderWebhookSignature = "Webhook-Signature"

	webhookSecretPrefix    = "whsec_"
	webhookSignaturePrefix = "v1,"
)

// Limits of webhooks.
const (
	// DefaultWebhookTolerance is how far the timestamp of a delivery may be off.
	DefaultWebhookTolerance = 5 * time.Minute
	// DefaultWebhookBody bounds the body of a delivery, in bytes.
	DefaultWebhookBody = 256 << 10
	// WebhookWindow is how long a delivery that is sent again is known: longer than
	// senders repeat one.
	WebhookWindow = 7 * 24 * time.Hour

	minWebhookSecret     = 24
	maxWebhookSecret     = 64
	maxWebhookSecrets    = 8
	maxWebhookID         = 256
	maxWebhookSignatures = 16
	maxWebhookTolerance  = time.Hour
)

// WebhookConfig says which deliveries a Webhook takes.
type WebhookConfig struct {
	// Secrets are what the sender signs with: "whsec_" and 24 to 64 bytes in base64. A
	// delivery that is signed with any of them is taken: give the old and the new one
	// while a secret is replaced.
	Secrets []string
	// Tolerance is how far the timestamp of a delivery may be from now, to both sides;
	// DefaultWebhookTolerance when 0, at most an hour.
	Tolerance time.Duration
	// MaxBody bounds the body, in bytes; DefaultWebhookBody when 0, at most
	// flowfabric.MaxSignalPayloadBytes.
	MaxBody int64
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Webhook turns webhooks of other systems into signals. It takes deliveries that are
// signed as Standard Webhooks says: HMAC-SHA256 over their id, timestamp and body. It is
// safe for concurrent use.
type Webhook struct {
	secrets   [][]byte
	tolerance time.Duration
	maxBody   int64
	now       func() time.Time
}

// NewWebhook makes a Webhook. Errors: invalid_input, which never shows a secret.
func NewWebhook(c WebhookConfig) (*Webhook, error) {
	w := &Webhook{tolerance: cmp.Or(c.Tolerance, DefaultWebhookTolerance), maxBody: cmp.Or(c.MaxBody, DefaultWebhookBody), now: c.Now}
	if w.now == nil {
		w.now = time.Now
	}
	if n := len(c.Secrets); n < 1 || n > maxWebhookSecrets {
		return nil, ff.InvalidInput("secrets", "must be 1 to %d (got %d)", maxWebhookSecrets, n)
	}
	for i, text := range c.Secrets {
		secret, err := webhookSecret(text)
		if err != nil {
			return nil, ff.AtItem("secrets", i, err)
		}
		w.secrets = append(w.secrets, secret)
	}
	if w.tolerance < 0 || w.tolerance > maxWebhookTolerance {
		return nil, ff.InvalidInput("tolerance", "must be 0 to %s (got %s)", maxWebhookTolerance, w.tolerance)
	}
	if w.maxBody < 0 || w.maxBody > ff.MaxSignalPayloadBytes {
		return nil, ff.InvalidInput("max_body", "must be 0 to %d bytes (got %d)", ff.MaxSignalPayloadBytes, w.maxBody)
	}
	return w, nil
}

func webhookSecret(text string) ([]byte, error) {
	secret, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, webhookSecretPrefix))
	if err != nil {
		return nil, ff.InvalidInput("secret", "must be %s and base64 (got %d characters that are not)", webhookSecretPrefix, len(text))
	}
	if n := len(secret); n < minWebhookSecret || n > maxWebhookSecret {
		return nil, ff.InvalidInput("secret", "must be %d to %d bytes in base64 (got %d bytes)", minWebhookSecret, maxWebhookSecret, n)
	}
	return secret, nil
}

// WebhookDelivery is a delivery that was verified.
type WebhookDelivery struct {
	// ID is the same each time the sender repeats the delivery.
	ID string
	// SentAt is when this attempt was signed.
	SentAt time.Time
	Body   []byte
}

// IdempotencyKey is the key of the signal that a delivery becomes.
func (d *WebhookDelivery) IdempotencyKey() string { return "webhook:" + d.ID }

// Verify reads the body of a request and checks who has signed it, and that it was signed
// now. It does not remember deliveries: the idempotency key of the signal does. Errors:
// unauthorized when a header is missing or malformed, the timestamp too far off or no
// signature right; payload_too_large; transport when the body cannot be read.
func (w *Webhook) Verify(r *http.Request) (WebhookDelivery, error) {
	d := WebhookDelivery{ID: r.Header.Get(HeaderWebhookID)}
	if err := checkWebhookID(d.ID); err != nil {
		return WebhookDelivery{}, err
	}
	timestamp := r.Header.Get(HeaderWebhookTimestamp)
	var err error
	if d.SentAt, err = w.sentAt(timestamp); err != nil {
		return WebhookDelivery{}, err
	}
	signatures := strings.Fields(strings.Join(r.Header.Values(HeaderWebhookSignature), " "))
	if n := len(signatures); n < 1 || n > maxWebhookSignatures {
		return WebhookDelivery{}, unverified("the header %s must have 1 to %d signatures (got %d)", HeaderWebhookSignature, maxWebhookSignatures, n)
	}
	if d.Body, err = w.body(r); err != nil {
		return WebhookDelivery{}, err
	}
	if !w.signed(signatures, d.ID, timestamp, d.Body) {
		return WebhookDelivery{}, unverified("no signature of the delivery is right: are the secrets those of the sender, and is the body as it was sent?")
	}
	return d, nil
}

func unverified(format string, args ...any) error {
	return ff.Errorf(ff.CodeUnauthorized, "webhook: "+format, args...)
}

// checkWebhookID refuses ids with a full stop too: it separates the parts that are signed,
// so that a part of one delivery could pass for another.
func checkWebhookID(id string) error {
	if id == "" || len(id) > maxWebhookID || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' || r == '.' }) {
		return unverified("the header %s must be 1 to %d printable ASCII characters without a full stop (got %d bytes)", HeaderWebhookID, maxWebhookID, len(id))
	}
	return nil
}

func (w *Webhook) sentAt(timestamp string) (time.Time, error) {
	seconds, err := strconv.ParseUint(timestamp, 10, 40)
	if err != nil || timestamp[0] == '0' {
		return time.Time{}, unverified("the header %s must be seconds since 1970 (got %.40q)", HeaderWebhookTimestamp, timestamp)
	}
	at := time.Unix(int64(seconds), 0) //nolint:gosec // 40 bits fit
	if off := w.now().Sub(at); off > w.tolerance || off < -w.tolerance {
		return time.Time{}, unverified("the delivery was signed at %s, which is more than %s from now: an old delivery, or a wrong clock", at.UTC().Format(time.RFC3339), w.tolerance)
	}
	return at, nil
}

func (w *Webhook) body(r *http.Request) ([]byte, error) {
	tooLarge := ff.Errorf(ff.CodePayloadTooLarge, "webhook: the body must have at most %d bytes", w.maxBody)
	if r.ContentLength > w.maxBody {
		return nil, tooLarge
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, w.maxBody+1))
	if err != nil {
		return nil, ff.Errorf(ff.CodeTransport, "webhook: the body cannot be read: %w", err)
	}
	if int64(len(body)) > w.maxBody {
		return nil, tooLarge
	}
	return body, nil
}

// signed compares in constant time. Signatures of other versions are passed over.
func (w *Webhook) signed(signatures []string, id, timestamp string, body []byte) (right bool) {
	for _, secret := range w.secrets {
		want := webhookMAC(secret, id, timestamp, body)
		for _, s := range signatures {
			text, ok := strings.CutPrefix(s, webhookSignaturePrefix)
			if !ok {
				continue
			}
			got, err := base64.StdEncoding.Strict().DecodeString(text)
			right = err == nil && hmac.Equal(got, want) || right
		}
	}
	return right
}

func webhookMAC(secret []byte, id, timestamp string, body []byte) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return mac.Sum(nil)
}

// SignWebhook sets the headers of a delivery as its sender does: with the first secret,
// and the clock of the Webhook. Errors: unauthorized for an id that Verify refuses.
func (w *Webhook) SignWebhook(h http.Header, id string, body []byte) error {
	if err := checkWebhookID(id); err != nil {
		return err
	}
	timestamp := strconv.FormatInt(w.now().Unix(), 10)
	h.Set(HeaderWebhookID, id)
	h.Set(HeaderWebhookTimestamp, timestamp)
	h.Set(HeaderWebhookSignature, webhookSignaturePrefix+base64.StdEncoding.EncodeToString(webhookMAC(w.secrets[0], id, timestamp, body)))
	return nil
}

// Deliver verifies a request and delivers the signal that it means: the body is the
// payload unless the signal has one (it must when the token is in the body), and the id of the delivery its idempotency key, so
// that a repetition is a duplicate. Without a token it reads the one of the waitpoint;
// then the waitpoint must come from the body, as Handler has it: nothing else is signed.
// Errors: those of Verify and of DeliverSignal; waitpoint_not_found.
func (w *Webhook) Deliver(r *http.Request, store ff.ApprovalStore, s ff.DeliverSignal) (ff.DeliverSignalResult, error) {
	d, err := w.Verify(r)
	if err != nil {
		return ff.DeliverSignalResult{}, err
	}
	return deliverWebhook(r.Context(), store, &d, s)
}

func deliverWebhook(ctx context.Context, store ff.ApprovalStore, d *WebhookDelivery, s ff.DeliverSignal) (r ff.DeliverSignalResult, err error) {
	if s.Payload == nil {
		if s.Token != "" && bytes.Contains(d.Body, []byte(s.Token)) {
			return r, ff.InvalidInput("payload", "must be given: the body has the token of the waitpoint, which does not belong into a signal")
		}
		s.Payload = d.Body
	}
	s.IdempotencyKey, s.DedupWindow = d.IdempotencyKey(), cmp.Or(s.DedupWindow, WebhookWindow)
	s.Category, s.SourceType = cmp.Or(s.Category, "callback"), cmp.Or(s.SourceType, "webhook")
	if s.CreatedAt.IsZero() {
		s.CreatedAt = d.SentAt
	}
	if s.Token == "" {
		if s.Token, err = store.WaitpointToken(ctx, ff.WaitpointRef{ID: s.ID, WaitpointID: s.WaitpointID}); err != nil {
			return r, err
		}
	}
	return store.DeliverSignal(ctx, s)
}

// WebhookRoute says which signal a verified delivery is, and to which waitpoint.
type WebhookRoute func(context.Context, *WebhookDelivery) (ff.DeliverSignal, error)

// WebhookAnswer is what Handler answers for a delivery that was taken.
type WebhookAnswer struct {
	SignalID  ff.SignalID `json:"signal_id"`
	Duplicate bool        `json:"duplicate"`
}

// Handler takes deliveries with POST, lets route say what they mean, and delivers them.
// It answers 200 for a signal that was accepted now or before, 401 for a delivery that is
// not to be trusted, 413 for one that is too large, and the status of the error otherwise.
func (w *Webhook) Handler(store ff.ApprovalStore, route WebhookRoute) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			rw.Header().Set("Allow", http.MethodPost)
			http.Error(rw, "webhooks are delivered with POST", http.StatusMethodNotAllowed)
			return
		}
		result, err := w.handle(r, store, route)
		if err != nil {
			status, public := webhookRefusal(err)
			writeWebhook(rw, status, public)
			return
		}
		writeWebhook(rw, http.StatusOK, WebhookAnswer{result.SignalID, result.Duplicate})
	})
}

func (w *Webhook) handle(r *http.Request, store ff.ApprovalStore, route WebhookRoute) (ff.DeliverSignalResult, error) {
	d, err := w.Verify(r)
	if err != nil {
		return ff.DeliverSignalResult{}, err
	}
	s, err := route(r.Context(), &d)
	if err != nil {
		return ff.DeliverSignalResult{}, err
	}
	return deliverWebhook(r.Context(), store, &d, s)
}

// webhookRefusal is the answer for an error.
func webhookRefusal(err error) (int, ff.PublicError) {
	status, public := ff.PublicErrorOf(err)
	switch {
	case errors.Is(err, ff.ErrPayloadTooLarge):
		status = http.StatusRequestEntityTooLarge
	case ff.CodeOf(err) == ff.CodeUnauthorized:
		status = http.StatusUnauthorized
	}
	return status, public
}

func writeWebhook(rw http.ResponseWriter, status int, v any) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	_ = json.NewEncoder(rw).Encode(v) // whoever has left does not miss it
}
