package lifecycle_test

import (
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/lifecycle"
)

// The worked examples of spec 01 §11.2.
const (
	exampleSecret = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	exampleKey    = "wpk:33333333-3333-4333-8333-333333333333"
)

func exampleWaitpoint(t *testing.T) ff.WaitpointID {
	t.Helper()
	id, err := ff.ParseWaitpointID("33333333-3333-4333-8333-333333333333")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func keyring(secret string) *lifecycle.Keyring {
	return &lifecycle.Keyring{Current: "k1", Secrets: map[string]lifecycle.Secret{"k1": {Hex: secret}}}
}

func TestTokensAreThoseOfTheWire(t *testing.T) {
	id, created := exampleWaitpoint(t), time.UnixMilli(1700000000000)
	for secret, want := range map[string]string{
		exampleSecret:                  "k1:cc698c8339ad1175ae4ef335d012ec2d181ddd23",
		strings.Repeat("ab", 70):       "k1:61423f85cd85615a413845d1c98b99625c5f687f",
		strings.ToUpper(exampleSecret): "k1:cc698c8339ad1175ae4ef335d012ec2d181ddd23",
	} {
		k := keyring(secret)
		token, err := k.Sign(id, exampleKey, created)
		if err != nil || token.Reveal() != want {
			t.Errorf("token %q, %v, want %q", token.Reveal(), err, want)
		}
		if err := k.Verify(token, id, exampleKey, created, t0); err != nil {
			t.Error(err)
		}
	}
	_, err := (&lifecycle.Keyring{}).Sign(id, exampleKey, created)
	wantCode(t, err, ff.CodeHMACSecretNotInitialized)
	_, err = keyring("abc").Sign(id, exampleKey, created)
	wantCode(t, err, ff.CodeInvalidSecret)
}

func TestATokenIsForOneWaitpointOnly(t *testing.T) {
	id, created, k := exampleWaitpoint(t), time.UnixMilli(1700000000000), keyring(exampleSecret)
	token, err := k.Sign(id, exampleKey, created)
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, k.Verify(token, ff.NewWaitpointID(), exampleKey, created, t0), ff.CodeInvalidToken)
	wantCode(t, k.Verify(token, id, "wpk:other", created, t0), ff.CodeInvalidToken)
	wantCode(t, k.Verify(token, id, exampleKey, created.Add(time.Millisecond), t0), ff.CodeInvalidToken)
	wantCode(t, (&lifecycle.Keyring{}).Verify(token, id, exampleKey, created, t0), ff.CodeHMACSecretNotInitialized)
}

func TestPrintingATokenHidesIt(t *testing.T) {
	token := ff.WaitpointToken("k1:cc698c8339ad1175ae4ef335d012ec2d181ddd23")
	for _, shown := range []string{token.String(), token.GoString(), token.LogValue().String()} {
		if strings.Contains(shown, "ec2d181ddd23") || !strings.HasPrefix(shown, "k1:cc698c8339ad1175") {
			t.Errorf("shown as %q", shown)
		}
	}
}

func FuzzVerify(f *testing.F) {
	id, created, k := ff.WaitpointID{15: 3}, t0, keyring(exampleSecret)
	good, err := k.Sign(id, "key", created)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{"", ":", "k1:", "k1", good.Reveal(), strings.ToUpper(good.Reveal()), "k1:" + strings.Repeat("0", 40)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if err := k.Verify(ff.WaitpointToken(token), id, "key", created, t0); (err == nil) != (token == good.Reveal()) {
			t.Errorf("token %q: %v", token, err)
		}
	})
}
