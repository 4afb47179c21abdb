package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

func (a *app) waitpointsCommand() *cobra.Command {
	var closed bool
	c := &cobra.Command{Use: "waitpoints ID", Short: "List where signals to an execution may come", Args: exactly("ID"),
		Example: "  flowfabric waitpoints \"$ID\"\n  flowfabric waitpoints \"$ID\" --closed --json",
	}
	c.RunE = a.withID(func(ctx context.Context, b ff.Backend, id ff.ExecutionID) error {
		list, err := allWaitpoints(ctx, b, ff.ListWaitpoints{ID: id, Closed: closed})
		if err != nil {
			return err
		}
		out := httpapi.Waitpoints{Waitpoints: make([]httpapi.Waitpoint, len(list))}
		for i := range list {
			out.Waitpoints[i] = httpapi.WaitpointOf(&list[i])
		}
		return a.print(out, func(p *printer) { p.waitpoints(list) })
	})
	c.Flags().BoolVar(&closed, "closed", false, "closed ones as well")
	return c
}

func allWaitpoints(ctx context.Context, b ff.WaitpointLister, q ff.ListWaitpoints) (all []ff.Waitpoint, err error) {
	for q.Limit = ff.MaxPageLimit; ; {
		page, err := b.ListWaitpoints(ctx, q)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Waitpoints...)
		if q.After = page.Next; q.After.IsZero() {
			return all, nil
		}
	}
}

func (p *printer) waitpoints(list []ff.Waitpoint) {
	rows := make([][]string, len(list))
	for i, w := range list {
		key := w.Key
		if key == ff.DefaultWaitpointKey(w.ID) {
			key = ""
		}
		rows[i] = []string{w.ID.String(), clean(key), string(w.State), clean(strings.Join(w.SignalNames, ", ")), strconv.Itoa(w.Signals), at(w.CreatedAt), at(w.ExpiresAt), clean(w.CloseReason)}
	}
	p.table([]string{"waitpoint", "key", "state", "signal", "came", "created", "expires", "closed"}, rows)
}

func (a *app) secretCommand() *cobra.Command {
	c := &cobra.Command{Use: "secret", Short: "The secrets that sign waitpoint tokens", Args: cobra.ArbitraryArgs, RunE: onlyCommands}
	c.AddCommand(a.secretListCommand(), a.secretRotateCommand())
	return c
}

func (a *app) secretListCommand() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the ids of the secrets in force", Args: exactly(), Example: "  flowfabric secret list",
		RunE: a.withStore(func(ctx context.Context, b ff.Backend, _ []string) error {
			got, err := b.WaitpointSecrets(ctx)
			if err != nil {
				return err
			}
			return a.print(httpapi.SecretsOf(&got), func(p *printer) {
				if got.Current == "" {
					p.line("The store has no secret yet; it makes one when an execution first waits.")
					return
				}
				rows := [][]string{{got.Current, "signs and checks", ""}}
				for _, s := range got.Verifying {
					rows = append(rows, []string{s.KeyID, "checks", at(s.ExpiresAt)})
				}
				p.table([]string{"key id", "use", "until"}, rows)
			})
		})}
}

// secretVariable is where `secret rotate` finds the new secret.
const secretVariable = "FLOWFABRIC_NEW_SECRET"

func (a *app) secretRotateCommand() *cobra.Command {
	var keyID, file, save string
	grace := ff.DefaultSecretGrace
	c := &cobra.Command{Use: "rotate", Short: "Sign waitpoint tokens with another secret from now on", Args: exactly(),
		Long: "Makes another secret the one that signs tokens. Tokens of the one before stay valid for --grace.\n" +
			"The secret is random unless one is given, in hex digits, in a file or in the variable " + secretVariable + ":\nit is never on the command line and never printed. Servers need no restart. Put it into FF_WAITPOINT_HMAC_SECRET\nwhere that is set; --save keeps a random one in a file for that.",
		Example: "  flowfabric secret rotate\n  flowfabric secret rotate --key-id k2 --secret-file - --grace 1h < secret.hex\n  flowfabric secret rotate --key-id k2 --save secret.hex",
	}
	c.RunE = a.withStore(func(ctx context.Context, b ff.Backend, _ []string) error {
		r := ff.RotateWaitpointSecret{KeyID: keyID, Grace: grace}
		if keyID == "" {
			r.KeyID = "k" + time.Now().UTC().Format("20060102150405")
		}
		var err error
		if r.Secret, err = readSecret("secret_file", file, secretVariable, a.stdin); err != nil {
			return err
		}
		given := r.Secret != ""
		if given && save != "" {
			return usageError("--save is for a random secret; this one is given")
		}
		if !given {
			if r.Secret, err = randomSecret(); err != nil {
				return err
			}
		}
		if err := r.Validate(); err != nil {
			return err
		}
		if ff.WeakSecret(r.Secret) {
			return ff.Errorf(ff.CodeInvalidSecretHex, "must have at least %d hex digits (got %d)", 2*ff.MinSecretBytes, len(r.Secret))
		}
		if save != "" {
			if err := saveSecret(save, r.Secret); err != nil {
				return err
			}
		}
		got, err := b.RotateWaitpointSecret(ctx, r)
		if err != nil {
			return err
		}
		return a.printRotated(&r, &got, given)
	})
	flags := c.Flags()
	flags.StringVar(&keyID, "key-id", "", "id of the new secret, part of every token; made of the time when absent")
	flags.StringVar(&file, "secret-file", "", "file with the new secret, - for standard input ("+secretVariable+")")
	flags.StringVar(&save, "save", "", "write the random secret to this new file, which only you can read")
	flags.DurationVar(&grace, "grace", ff.DefaultSecretGrace, "how long tokens of the secret before stay valid")
	return c
}

func randomSecret() (string, error) {
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return "", ff.Errorf(ff.CodeInternal, "no random secret can be had: %w", err)
	}
	return hex.EncodeToString(secret), nil
}

// saveSecret refuses a file that is there: it may hold the secret before.
func saveSecret(file, secret string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return ff.InvalidInput("save", "cannot be written: %w", err)
	}
	_, err = f.WriteString(secret + "\n")
	if failed := f.Close(); err == nil {
		err = failed
	}
	if err != nil {
		return ff.InvalidInput("save", "cannot be written: %w", err)
	}
	return nil
}

// printRotated tells what a rotation did. One that did not reach all parts of the store
// has failed, and has to be repeated.
func (a *app) printRotated(r *ff.RotateWaitpointSecret, got *ff.RotateWaitpointSecretResult, given bool) error {
	if n := len(got.Failed); n > 0 {
		again := "repeat the command with the same key id and secret"
		if !given {
			again = "repeat the command with another key id"
		}
		return ff.Errorf(ff.CodeUnavailable, "%d of %d parts of the store do not have the secret %s yet: %s", n, n+got.Rotated, r.KeyID, again)
	}
	out := struct {
		KeyID string `json:"key_id"`
		httpapi.RotatedSecret
	}{r.KeyID, httpapi.RotatedSecret{Rotated: got.Rotated, Previous: got.Previous, Unchanged: got.Unchanged, Collected: got.Collected}}
	return a.print(out, func(p *printer) {
		switch {
		case got.Unchanged:
			p.line("%s signed already; nothing was changed", r.KeyID)
		case got.Previous == "":
			p.line("%s signs from now on", r.KeyID)
		default:
			p.line("%s signs from now on; tokens of %s stay valid for %s", r.KeyID, clean(got.Previous), r.Grace)
		}
	})
}
