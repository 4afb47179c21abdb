// Command external-callback pays invoices with a provider that takes its time and calls
// back. The execution waits suspended; the callback becomes a signal, once, however often
// the provider calls.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
	"github.com/flowfabric/flowfabric/engine"
	"github.com/flowfabric/flowfabric/sqlstore/sqlite"
	"github.com/flowfabric/flowfabric/worker"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer) (err error) {
	store, err := sqlite.Open(ctx, ":memory:", sqlite.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()

	// The provider signs its callbacks with a secret that it shares with us.
	secret := make([]byte, 32)
	rand.Read(secret)
	webhook, err := client.NewWebhook(client.WebhookConfig{Secrets: []string{"whsec_" + base64.StdEncoding.EncodeToString(secret)}})
	if err != nil {
		return err
	}
	callbacks, stop, err := serve(ctx, webhook.Handler(store, route))
	if err != nil {
		return err
	}
	defer stop()
	p := newProvider(out, webhook)
	orders, stop, err := serve(ctx, p)
	if err != nil {
		return err
	}
	defer stop()

	loops, err := engine.New(store, engine.Options{})
	if err != nil {
		return err
	}
	w, err := worker.Connect(ctx, store, worker.Config{Worker: "payer", Lanes: []ff.LaneID{"invoices"}})
	if err != nil {
		return err
	}
	worker.Handle(w, "pay", (&payer{orders, callbacks}).pay)
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 2)
	go func() { ended <- loops.Run(background) }()
	go func() { ended <- w.Run(background) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-ended, <-ended)
	}()

	submitted, err := store.CreateExecution(ctx, ff.CreateExecution{Lane: "invoices", Kind: "pay", Payload: []byte(`"invoice 7"`)})
	if err != nil {
		return err
	}
	if err := wait(ctx, store, submitted.ID); err != nil {
		return err
	}
	select {
	case err = <-p.called: // the provider has called as often as it wanted
	case <-time.After(10 * time.Second):
		err = errors.New("the provider has not called back")
	case <-ctx.Done():
		err = ctx.Err()
	}
	return errors.Join(err, tell(ctx, out, store, submitted.ID))
}

// order is what we ask the provider for. It keeps the reference and sends it back.
type order struct {
	Invoice   string    `json:"invoice"`
	Callback  string    `json:"callback"`
	Reference reference `json:"reference"`
}

// reference says where the callback belongs. Its token is what allows it to go there.
type reference struct {
	Execution ff.ExecutionID    `json:"execution"`
	Waitpoint ff.WaitpointID    `json:"waitpoint"`
	Token     ff.WaitpointToken `json:"token"`
}

// callback is what the provider sends when it is done.
type callback struct {
	Reference reference `json:"reference"`
	Receipt   string    `json:"receipt"`
}

// payer has the handler, with the addresses of the provider and of our webhook.
type payer struct{ orders, callbacks string }

// pay runs twice: up to Await, which suspends it, and again, from the beginning, when the
// provider has called. The waitpoint is made before the order is sent: a provider that is
// faster than we are finds it, and its callback is kept.
func (p *payer) pay(ctx context.Context, invoice string) (string, error) {
	task := worker.TaskFrom(ctx)
	wp, err := task.Waitpoint(ctx, "payment", time.Hour)
	if err != nil {
		return "", err
	}
	if wp.Pending {
		o := order{invoice, p.callbacks, reference{task.ID(), wp.ID, wp.Token}}
		if err := send(ctx, p.orders, o); err != nil {
			return "", err
		}
	}
	signals, err := task.Await(ctx, "payment", worker.WaitForSignal("paid").Because(ff.SuspendedForCallback).Within(time.Hour).OrFail())
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s is paid: %s", invoice, signals[0].Payload), nil
}

// route says which signal a callback is. The payload is the receipt alone: the body has
// the token.
func route(_ context.Context, d *client.WebhookDelivery) (ff.DeliverSignal, error) {
	var c callback
	if err := json.Unmarshal(d.Body, &c); err != nil {
		return ff.DeliverSignal{}, ff.InvalidInput("body", "must be a callback: %w", err)
	}
	if c.Reference.Token == "" {
		return ff.DeliverSignal{}, ff.InvalidInput("token", "must not be empty")
	}
	return ff.DeliverSignal{ID: c.Reference.Execution, WaitpointID: c.Reference.Waitpoint, Token: c.Reference.Token,
		Name: "paid", SourceIdentity: "provider", Payload: []byte(c.Receipt)}, nil
}

// serve serves a handler on a free port.
func serve(ctx context.Context, h http.Handler) (url string, stop func(), err error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Serve(l) // until it is closed
	}()
	return "http://" + l.Addr().String(), func() { _ = s.Close(); <-ended }, nil
}

// send posts an order.
func send(ctx context.Context, url string, o order) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	status, _, err := post(ctx, url, http.Header{}, body)
	if err == nil && status != http.StatusAccepted {
		err = fmt.Errorf("the provider answers %d", status)
	}
	return err
}

// caller keeps no connections open.
var caller = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}

// post returns the status and the beginning of the answer.
func post(ctx context.Context, url string, h http.Header, body []byte) (status int, answer []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	r.Header = h
	response, err := caller.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(response.Body, 4096))
	return response.StatusCode, answer, err
}

// wait waits until an execution has ended.
func wait(ctx context.Context, store ff.Backend, id ff.ExecutionID) error {
	for q := (ff.ReadEvents{ID: id, Wait: ff.MaxClaimWait}); ; {
		x, err := store.Execution(ctx, id)
		if err != nil || x.Terminal() {
			return err
		}
		page, err := store.ReadEvents(ctx, q)
		if err != nil {
			return err
		}
		q.After = page.Next
	}
}

// tell prints how an execution has ended and how many signals it has taken.
func tell(ctx context.Context, out io.Writer, store ff.Backend, id ff.ExecutionID) error {
	x, err := store.Execution(ctx, id)
	if err != nil {
		return err
	}
	signals, err := store.ListSignals(ctx, ff.ListSignals{ID: id})
	if err != nil {
		return err
	}
	result, err := store.ExecutionResult(ctx, id)
	fmt.Fprintf(out, "%s, signals taken: %d: %s%s\n", x.PublicState(), len(signals.Signals), result, x.FailureReason)
	return err
}
