package lifecycle

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // HMAC-SHA1 is what the tokens are on the wire; as a MAC it holds
	"crypto/subtle"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	ff "github.com/flowfabric/flowfabric"
)

// digestLength is the length of a signature in hex.
const digestLength = 2 * sha1.Size

// Keyring holds the secrets that sign and check waitpoint tokens (spec 01 §11).
type Keyring struct {
	// Current is the id of the secret that signs; empty when there is none.
	Current string            `json:"current"`
	Secrets map[string]Secret `json:"secrets"`
}

// Secret is one secret of a keyring.
type Secret struct {
	// Hex is the secret in hex digits.
	Hex string `json:"secret"`
	// ExpiresAt ends the grace of a secret that was replaced.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// Sign makes the token of a waitpoint that is created at an instant (spec 04a §5.2).
// Errors: hmac_secret_not_initialized, invalid_secret.
func (k *Keyring) Sign(id ff.WaitpointID, key string, createdAt time.Time) (ff.WaitpointToken, error) {
	secret, ok := k.Secrets[k.Current]
	if k.Current == "" || !ok {
		return "", ff.NewError(ff.CodeHMACSecretNotInitialized, "")
	}
	digest, err := secret.sign(id, key, createdAt)
	if err != nil {
		return "", err
	}
	return ff.WaitpointToken(k.Current + ":" + digest), nil
}

// sign is HMAC-SHA1 over "id|key|created_at", created_at in milliseconds.
func (s Secret) sign(id ff.WaitpointID, key string, createdAt time.Time) (string, error) {
	secret, err := hex.DecodeString(s.Hex)
	if err != nil {
		return "", ff.NewError(ff.CodeInvalidSecret, "")
	}
	mac := hmac.New(sha1.New, secret)
	mac.Write([]byte(id.String() + "|" + key + "|" + strconv.FormatInt(createdAt.UnixMilli(), 10)))
	return hex.EncodeToString(mac.Sum(nil)), nil
}

// Reissue is the token of a waitpoint for operators: the one that was issued while its
// secret counts, and one that the current secret signs after that. Errors: those of Sign.
func (k *Keyring) Reissue(issued ff.WaitpointToken, id ff.WaitpointID, key string, createdAt, now time.Time) (ff.WaitpointToken, error) {
	kid := issued.KeyID()
	secret, ok := k.Secrets[kid]
	if k.Current == "" || ok && (kid == k.Current || !secret.ExpiresAt.Before(now)) {
		return issued, nil
	}
	return k.Sign(id, key, createdAt)
}

// Verify checks a token in constant time (spec 04a §5.3). Errors: missing_token,
// invalid_token, token_expired, hmac_secret_not_initialized, invalid_secret.
func (k *Keyring) Verify(token ff.WaitpointToken, id ff.WaitpointID, key string, createdAt, now time.Time) error {
	if token == "" {
		return ff.NewError(ff.CodeMissingToken, "")
	}
	kid, digest, _ := strings.Cut(token.Reveal(), ":")
	if kid == "" || len(digest) != digestLength {
		return ff.NewError(ff.CodeInvalidToken, "")
	}
	if k.Current == "" {
		return ff.NewError(ff.CodeHMACSecretNotInitialized, "")
	}
	secret, ok := k.Secrets[kid]
	if !ok {
		return ff.NewError(ff.CodeInvalidToken, "")
	}
	if kid != k.Current && secret.ExpiresAt.Before(now) {
		return ff.NewError(ff.CodeTokenExpired, "")
	}
	want, err := secret.sign(id, key, createdAt)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare([]byte(want), []byte(digest)) != 1 {
		return ff.NewError(ff.CodeInvalidToken, "")
	}
	return nil
}

// Seed installs the first secret, also under the key id of one that is missing (spec
// 01 §11.1).
func (k *Keyring) Seed(c *ff.SeedWaitpointSecret) ff.SeedWaitpointSecretResult {
	current, ok := k.Secrets[k.Current]
	if k.Current != "" && ok {
		return ff.SeedWaitpointSecretResult{KeyID: k.Current, Same: k.Current == c.KeyID && strings.EqualFold(current.Hex, c.Secret)}
	}
	if k.Current == "" {
		k.Current = c.KeyID
	}
	if k.Secrets == nil {
		k.Secrets = map[string]Secret{}
	}
	k.Secrets[k.Current] = Secret{Hex: c.Secret}
	return ff.SeedWaitpointSecretResult{Seeded: true, KeyID: k.Current, Same: k.Current == c.KeyID}
}

// Rotate makes another secret the current one (spec 04a §11). A key id that is known
// with another secret is refused, also one that is in its grace (quirk 04a S8). Errors:
// rotation_conflict.
func (k *Keyring) Rotate(c *ff.RotateWaitpointSecret, now time.Time) (ff.RotateWaitpointSecretResult, error) {
	r := ff.RotateWaitpointSecretResult{Rotated: 1, Previous: k.Current}
	known, ok := k.Secrets[c.KeyID]
	if ok && !strings.EqualFold(known.Hex, c.Secret) && (c.KeyID == k.Current || !known.ExpiresAt.Before(now)) {
		return ff.RotateWaitpointSecretResult{}, ff.NewError(ff.CodeRotationConflict, c.KeyID)
	}
	if ok && c.KeyID == k.Current {
		r.Unchanged, r.Previous = true, ""
		return r, nil
	}
	secrets := maps.Clone(k.Secrets)
	for kid, s := range secrets {
		if kid != k.Current && kid != c.KeyID && s.ExpiresAt.Before(now) {
			delete(secrets, kid)
			r.Collected++
		}
	}
	if secrets == nil {
		secrets = map[string]Secret{}
	}
	if old, ok := secrets[k.Current]; ok {
		old.ExpiresAt = now.Add(c.Grace)
		secrets[k.Current] = old
	}
	secrets[c.KeyID] = Secret{Hex: c.Secret}
	k.Current, k.Secrets = c.KeyID, secrets
	return r, nil
}

// List is what may be known of the keyring at now, the secret in grace longest first.
func (k *Keyring) List(now time.Time) ff.WaitpointSecrets {
	l := ff.WaitpointSecrets{Current: k.Current}
	for kid, s := range k.Secrets {
		if kid != k.Current && !s.ExpiresAt.Before(now) {
			l.Verifying = append(l.Verifying, ff.WaitpointSecret{KeyID: kid, ExpiresAt: s.ExpiresAt})
		}
	}
	slices.SortFunc(l.Verifying, func(a, b ff.WaitpointSecret) int {
		if c := b.ExpiresAt.Compare(a.ExpiresAt); c != 0 {
			return c
		}
		return strings.Compare(a.KeyID, b.KeyID)
	})
	return l
}
