package valkey

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// firstKeyID is the id of the first secret of a store.
const firstKeyID = "k1"

// secretVariable is where every FlowFabric finds the first secret (spec 09 §1).
const secretVariable = "FF_WAITPOINT_HMAC_SECRET"

// secretsTogether is how many partitions get a secret at the same time (spec 07 §14).
const secretsTogether = 16

// signed makes a call that signs a waitpoint. When the store has no secret yet, a random
// one becomes its first.
func (s *Store) signed(ctx context.Context, c *call) (reply, error) {
	r, err := s.answer(ctx, c)
	if ff.CodeOf(err) != ff.CodeHMACSecretNotInitialized {
		return r, err
	}
	if err := s.createSecret(ctx); err != nil {
		return nil, err
	}
	return s.answer(ctx, c)
}

func (s *Store) createSecret(ctx context.Context) error {
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return ff.Errorf(ff.CodeInternal, "no random secret can be had: %w", err)
	}
	installed, in, err := s.installSecret(ctx, ownSecret{firstKeyID, hex.EncodeToString(secret)})
	if err == nil && len(installed) > 0 {
		s.log.Info("the store had no secret to sign waitpoints with; it has one now", "store", s.location, "kid", in.kid)
	}
	return err
}

// seedSecret installs the secret that the program was given.
func (s *Store) seedSecret(ctx context.Context, o *Options) error {
	secret := cmp.Or(o.WaitpointSecret, os.Getenv(secretVariable))
	if secret == "" {
		return nil
	}
	r, err := s.SeedWaitpointSecret(ctx, ff.SeedWaitpointSecret{KeyID: firstKeyID, Secret: secret})
	if err == nil && !r.Same {
		s.log.Warn("the store signs waitpoints with another secret than the configured one, which is ignored: rotate to install it",
			"store", s.location, "kid", r.KeyID)
	}
	return err
}

// SeedWaitpointSecret installs the first secret, on those partitions that have none
// (spec 01 §11.1).
func (s *Store) SeedWaitpointSecret(ctx context.Context, c ff.SeedWaitpointSecret) (ff.SeedWaitpointSecretResult, error) {
	if err := c.Validate(); err != nil {
		return ff.SeedWaitpointSecretResult{}, err
	}
	installed, in, err := s.installSecret(ctx, ownSecret{c.KeyID, c.Secret})
	return ff.SeedWaitpointSecretResult{Seeded: len(installed) > 0, KeyID: in.kid, Same: strings.EqualFold(in.hex, c.Secret)}, err
}

// ownSecret is a secret with its id; zero for none.
type ownSecret struct{ kid, hex string }

// installSecret gives a secret to every partition that cannot sign, and answers which
// partitions those were and which secret it was. Whatever others do at the same time,
// all partitions have the same in the end: one that a partition has is given to the
// others; otherwise the first partition decides, which keeps what came first.
func (s *Store) installSecret(ctx context.Context, offered ownSecret) (lacking []uint16, in ownSecret, err error) {
	have, lacking, err := s.currentSecrets(ctx)
	if err != nil {
		return nil, in, err
	}
	i := slices.IndexFunc(have, func(o ownSecret) bool { return o.hex != "" })
	if i >= 0 {
		offered = have[i]
	}
	if len(lacking) == 0 {
		return nil, offered, nil
	}
	if i < 0 {
		if err := s.putSecret(ctx, []uint16{0}, have, offered); err != nil {
			return nil, in, err
		}
		if have, _, err = s.currentSecrets(ctx); err != nil {
			return nil, in, err
		}
		offered = have[0]
	}
	for some := range slices.Chunk(lacking, secretsTogether) {
		if err := s.putSecret(ctx, some, have, offered); err != nil {
			return nil, in, err
		}
	}
	return lacking, offered, nil
}

// currentSecrets reads the current secret of each partition, and lists those that cannot
// sign: they have none, or only its id.
func (s *Store) currentSecrets(ctx context.Context) (have []ownSecret, lacking []uint16, err error) {
	commands := make([]valkey.Completed, s.partitions.Flow)
	for p := range s.partitions.Flow {
		commands[p] = s.client.B().Hgetall().Key(tagOf(p).secrets()).Build()
	}
	have = make([]ownSecret, len(commands))
	for p, r := range s.client.DoMulti(ctx, commands...) {
		hash, err := r.AsStrMap()
		if err != nil {
			return nil, nil, s.lift(ctx, err)
		}
		have[p].kid = hash["current_kid"]
		if have[p].kid != "" {
			have[p].hex = hash["secret:"+have[p].kid]
		}
		if have[p].hex == "" {
			lacking = append(lacking, uint16(p))
		}
	}
	return have, lacking, nil
}

// putSecret installs a secret where nobody else has done so by now. A current id whose
// secret is missing gets it.
func (s *Store) putSecret(ctx context.Context, partitions []uint16, have []ownSecret, o ownSecret) error {
	var commands []valkey.Completed
	for _, p := range partitions {
		key, kid := tagOf(p).secrets(), cmp.Or(have[p].kid, o.kid)
		commands = append(commands, s.client.B().Hsetnx().Key(key).Field("secret:"+kid).Value(o.hex).Build(),
			s.client.B().Hsetnx().Key(key).Field("current_kid").Value(kid).Build())
	}
	for _, r := range s.client.DoMulti(ctx, commands...) {
		if err := r.Error(); err != nil {
			return s.lift(ctx, err)
		}
	}
	return nil
}

// RotateWaitpointSecret installs the secret that signs from now on, on all partitions.
func (s *Store) RotateWaitpointSecret(ctx context.Context, c ff.RotateWaitpointSecret) (ff.RotateWaitpointSecretResult, error) {
	if err := c.Validate(); err != nil {
		return ff.RotateWaitpointSecretResult{}, err
	}
	return s.rotate(ctx, &c, func(p uint16) call {
		return call{function: "ffx_rotate_waitpoint_secret", keys: []string{tagOf(p).secrets()}, args: []string{c.KeyID, c.Secret, millis(c.Grace)}}
	})
}

// rotate calls a function on every partition. It answers rotated, the key id before, the
// new one and how many secrets were forgotten, or noop when nothing had to be done. When
// no partition takes the secret, the first error is that of the rotation.
func (s *Store) rotate(ctx context.Context, c *ff.RotateWaitpointSecret, build func(uint16) call) (r ff.RotateWaitpointSecretResult, err error) {
	if err := s.open(); err != nil {
		return r, err
	}
	r.Unchanged = true
	var first error
	partitions := make([]uint16, s.partitions.Flow)
	for p := range partitions {
		partitions[p] = uint16(p)
	}
	for some := range slices.Chunk(partitions, secretsTogether) {
		calls := make([]call, len(some))
		for i, p := range some {
			calls[i] = build(p)
		}
		for i, answer := range s.doMulti(ctx, calls) {
			a, err := reply(nil), answer.err
			if err == nil {
				a, err = readReply(calls[i].function, &answer.m)
			}
			if err != nil {
				r.Failed = append(r.Failed, int(some[i]))
				first = cmp.Or(first, err)
				continue
			}
			r.Rotated++
			if a.text(0) == "rotated" {
				r.Unchanged, r.Previous = false, orElse(r.Previous, a.text(1))
				r.Collected = max(r.Collected, int(textNumber(a.text(3))))
			}
		}
	}
	if r.Rotated == 0 {
		return ff.RotateWaitpointSecretResult{}, first
	}
	if first != nil {
		s.log.Warn("a secret was not installed everywhere: repeat the rotation", "kid", c.KeyID, "failed", len(r.Failed), "err", first)
	}
	return r, nil
}

// WaitpointSecrets lists the ids of the secrets in force. All partitions have the same.
func (s *Store) WaitpointSecrets(ctx context.Context) (out ff.WaitpointSecrets, err error) {
	call := call{function: "ff_list_waitpoint_hmac_kids", keys: []string{tagOf(0).secrets()}}
	r, err := s.answer(ctx, &call)
	if err != nil {
		return out, err
	}
	out.Current = r.text(0)
	for i := 2; i+1 < len(r); i += 2 {
		if kid := r.text(i); kid != out.Current {
			out.Verifying = append(out.Verifying, ff.WaitpointSecret{KeyID: kid, ExpiresAt: time.UnixMilli(textNumber(r.text(i + 1)))})
		}
	}
	slices.SortFunc(out.Verifying, func(a, b ff.WaitpointSecret) int {
		return cmp.Or(b.ExpiresAt.Compare(a.ExpiresAt), strings.Compare(a.KeyID, b.KeyID))
	})
	return out, nil
}
