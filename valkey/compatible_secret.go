package valkey

import (
	"context"
	"strings"

	ff "github.com/flowfabric/flowfabric"
)

// RotateWaitpointSecret installs the secret that signs from now on. The rule refuses key
// ids that are known with another secret, which the function does not (quirk 04a S8).
func (s *compatible) RotateWaitpointSecret(ctx context.Context, c ff.RotateWaitpointSecret) (r ff.RotateWaitpointSecretResult, err error) {
	if err := c.Validate(); err != nil {
		return r, err
	}
	now, err := s.Now(ctx)
	if err != nil {
		return r, err
	}
	ring, err := s.keyring(ctx, s.send, 0)
	if err != nil {
		return r, err
	}
	if known, ok := ring.Secrets[c.KeyID]; ok {
		if strings.EqualFold(known.Hex, c.Secret) {
			c.Secret = known.Hex // the function compares the texts
		}
	}
	want, err := ring.Rotate(&c, now)
	if err != nil {
		return r, err
	}
	r, err = s.rotate(ctx, &c, func(p uint16) call { return callRotateSecret(p, &c) })
	if err == nil && !r.Unchanged {
		r.Collected = want.Collected
	}
	return r, err
}
