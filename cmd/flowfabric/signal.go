package main

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/user"
	"strings"

	"github.com/spf13/cobra"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/internal/httpapi"
)

// tokenVariable is where `signal` finds the token of the waitpoint.
const tokenVariable = "FLOWFABRIC_WAITPOINT_TOKEN"

type signalFlags struct {
	waitpoint, by, payload, key, category, source, correlation, tokenFile string
	raw                                                                   bool
}

func (f *signalFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.waitpoint, "waitpoint", "", "id or key of the waitpoint; the only open one when absent")
	flags.StringVar(&f.by, "by", userName(), "who says so")
	flags.Lookup("by").DefValue = "$USER"
	flags.StringVar(&f.payload, "payload", "", "for the worker: JSON, @FILE, or - for standard input")
	flags.BoolVar(&f.raw, "raw", false, "take the payload as raw bytes, not as JSON")
}

// userName is who runs the command: the variable USER, or whom the system knows; empty
// when neither says.
func userName() string {
	if name := os.Getenv("USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

func (f *signalFlags) readPayload(stdin io.Reader) ([]byte, error) {
	data, err := readPayload(f.payload, stdin)
	if err != nil || len(data) == 0 {
		return nil, err
	}
	if !f.raw && !json.Valid(data) {
		return nil, ff.InvalidInput("payload", `is not JSON: quote a text like '"hello"', or add --raw`)
	}
	return data, nil
}

func (a *app) approveCommand() *cobra.Command {
	return a.decideCommand("approve", client.Approved, "Approve what an execution waits for", "  flowfabric approve \"$ID\"\n  flowfabric approve \"$ID\" --waitpoint legal --by ann --payload '{\"limit\":500}'")
}

func (a *app) rejectCommand() *cobra.Command {
	return a.decideCommand("reject", client.Rejected, "Reject what an execution waits for", "  flowfabric reject \"$ID\" --payload '\"too expensive\"'")
}

func (a *app) decideCommand(use, decision, short, example string) *cobra.Command {
	var f signalFlags
	c := &cobra.Command{Use: use + " ID", Short: short, Args: exactly("ID"), Example: example,
		Long: "Delivers the signal \"" + decision + "\" as an operator, without a token. The same decision of the same person\nat a waitpoint counts once. Whether the execution goes on is up to what it waits for.",
	}
	c.RunE = a.withID(func(ctx context.Context, b ff.Backend, id ff.ExecutionID) error {
		if strings.TrimSpace(f.by) == "" {
			return usageError("--by must say who decides")
		}
		payload, err := f.readPayload(a.stdin)
		if err != nil {
			return err
		}
		at, err := ff.ChooseWaitpoint(ctx, b, id, f.waitpoint)
		if err != nil {
			return err
		}
		got, err := ff.DeliverApprovalSignal(ctx, b, ff.DeliverApproval{ID: id, WaitpointID: at.WaitpointID, Decision: decision, By: f.by, Payload: payload, IdempotencySuffix: f.key})
		if err != nil {
			return err
		}
		return a.printDelivered(at, decision, got)
	})
	f.add(c)
	c.Flags().StringVar(&f.key, "key", "", "what the same decision counts once for, instead of --by")
	return c
}

func (a *app) signalCommand() *cobra.Command {
	var f signalFlags
	c := &cobra.Command{Use: "signal ID NAME", Short: "Deliver a signal to an execution that waits", Args: exactly("ID", "NAME"),
		Long:    "Delivers a signal to a waitpoint. Who may read tokens needs none: it is read from the store. Others give theirs in\nthe variable " + tokenVariable + " or in a file, never on the command line.",
		Example: "  flowfabric signal \"$ID\" paid --payload '{\"cents\":420}' --key payment-17\n  flowfabric signal \"$ID\" paid --waitpoint payment --token-file token.txt",
	}
	c.RunE = a.withStore(func(ctx context.Context, b ff.Backend, args []string) error {
		id, err := ff.ParseExecutionID(args[0])
		if err != nil {
			return usageError("%w", err)
		}
		if f.payload == "-" && f.tokenFile == "-" {
			return usageError("--payload and --token-file cannot both be read from standard input")
		}
		s := ff.DeliverSignal{ID: id, Name: args[1], Category: f.category, SourceType: f.source, SourceIdentity: f.by, CorrelationID: f.correlation, IdempotencyKey: f.key}
		if s.Payload, err = f.readPayload(a.stdin); err != nil {
			return err
		}
		token, err := readSecret("token_file", f.tokenFile, tokenVariable, a.stdin)
		if err != nil {
			return err
		}
		at, err := ff.ChooseWaitpoint(ctx, b, id, f.waitpoint)
		if err != nil {
			return err
		}
		s.WaitpointID, s.Token = at.WaitpointID, ff.WaitpointToken(token)
		if token == "" {
			if s.Token, err = b.WaitpointToken(ctx, at); err != nil {
				return err
			}
		}
		got, err := b.DeliverSignal(ctx, s)
		if err != nil {
			return err
		}
		return a.printDelivered(at, s.Name, got)
	})
	f.add(c)
	flags := c.Flags()
	flags.StringVar(&f.key, "key", "", "idempotency key: a repetition within a day is not kept")
	flags.StringVar(&f.category, "category", "", "what kind of signal it is")
	flags.StringVar(&f.source, "source-type", "operator", "what kind of sender --by is")
	flags.StringVar(&f.correlation, "correlation-id", "", "text that ties it to something else")
	flags.StringVar(&f.tokenFile, "token-file", "", "file with the token of the waitpoint, - for standard input ("+tokenVariable+")")
	return c
}

// maxSecretFile bounds a file with a secret or a token.
const maxSecretFile = 4 << 10

// readSecret reads a secret from a file or else from a variable; empty when neither is
// given. Errors never show it.
func readSecret(field, file, variable string, stdin io.Reader) (string, error) {
	in := stdin
	switch file {
	case "":
		return strings.TrimSpace(os.Getenv(variable)), nil
	case "-":
	default:
		f, err := os.Open(file)
		if err != nil {
			return "", ff.InvalidInput(field, "cannot be read: %w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxSecretFile+1))
	text := strings.TrimSpace(string(data))
	switch {
	case err != nil:
		return "", ff.InvalidInput(field, "cannot be read: %w", err)
	case len(data) > maxSecretFile:
		return "", ff.InvalidInput(field, "must have at most %d bytes", maxSecretFile)
	case text == "":
		return "", ff.InvalidInput(field, "is empty")
	}
	return text, nil
}

var effects = map[ff.SignalEffect]string{
	ff.EffectResumed:        "the execution goes on",
	ff.EffectAppended:       "it counts; the execution waits for more",
	ff.EffectRepeated:       "it counted before; the execution waits for more",
	ff.EffectNone:           "kept, but the execution does not wait for it",
	ff.EffectNotInCondition: "kept, but the execution does not wait at this waitpoint",
	ff.EffectNotMatched:     "kept, but the execution waits for a signal of another name",
	ff.EffectBuffered:       "kept until the execution waits",
}

func (a *app) printDelivered(at ff.WaitpointRef, name string, got ff.DeliverSignalResult) error {
	out := httpapi.Decided{WaitpointID: at.WaitpointID, Delivered: httpapi.DeliveredOf(got)}
	return a.print(out, func(p *printer) {
		became := cmp.Or(effects[got.Effect], string(got.Effect))
		if got.Duplicate {
			became = "it was delivered before"
		}
		p.line("%s %s: %s", at.ID, clean(name), became)
	})
}

func allSignals(ctx context.Context, b ff.Suspensions, id ff.ExecutionID) (all []httpapi.Signal, err error) {
	for q := (ff.ListSignals{ID: id, Limit: ff.MaxPageLimit}); ; {
		page, err := b.ListSignals(ctx, q)
		if err != nil {
			return nil, err
		}
		for i := range page.Signals {
			all = append(all, httpapi.SignalOf(&page.Signals[i]))
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return all, nil
		}
	}
}

func (p *printer) signals(list []httpapi.Signal) {
	if len(list) == 0 {
		return
	}
	rows := make([][]string, len(list))
	for i, s := range list {
		rows[i] = []string{at(s.AcceptedAt.Time), clean(s.Name), clean(strings.Trim(s.SourceType+":"+s.SourceIdentity, ":")), s.WaitpointID.String(), string(s.Effect)}
	}
	p.line("")
	p.table([]string{"accepted", "signal", "from", "waitpoint", "effect"}, rows)
}
