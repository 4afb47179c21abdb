package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/client"
)

// provider is the outside system: it takes orders, and calls back later.
type provider struct {
	out    io.Writer
	signer *client.Webhook
	// called has the error of the calls when they are made.
	called chan error
}

func newProvider(out io.Writer, signer *client.Webhook) *provider {
	return &provider{out, signer, make(chan error, 1)}
}

// ServeHTTP accepts an order and works on it when the caller is gone.
func (p *provider) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	var o order
	if err := json.NewDecoder(http.MaxBytesReader(rw, r.Body, 1<<16)).Decode(&o); err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	rw.WriteHeader(http.StatusAccepted)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		p.called <- p.work(ctx, o)
	}()
}

// work calls back twice, as providers do that did not get the answer. Before, somebody
// else tries without the secret of the webhook, and somebody with a made-up token.
func (p *provider) work(ctx context.Context, o order) error {
	fmt.Fprintf(p.out, "provider: accepted %s\n", o.Invoice)
	done := callback{o.Reference, "receipt 42"}
	if err := p.call(ctx, "without a signature", o.Callback, "", done); err != nil {
		return err
	}
	forged := done
	forged.Reference.Token = ff.WaitpointToken(o.Reference.Token.KeyID() + ":" + fmt.Sprintf("%064d", 0))
	if err := p.call(ctx, "with a made-up token", o.Callback, "evt_0", forged); err != nil {
		return err
	}
	if err := p.call(ctx, "it is paid", o.Callback, "evt_1", done); err != nil {
		return err
	}
	return p.call(ctx, "it is paid, again", o.Callback, "evt_1", done)
}

// call sends a callback and prints the answer; without an id it is not signed.
func (p *provider) call(ctx context.Context, what, url, id string, c callback) error {
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	header := http.Header{}
	if id != "" {
		if err := p.signer.SignWebhook(header, id, body); err != nil {
			return err
		}
	}
	status, answer, err := post(ctx, url, header, body)
	if err != nil {
		return err
	}
	var a struct {
		Code      string `json:"code"`
		Duplicate bool   `json:"duplicate"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return fmt.Errorf("the answer %.200q: %w", answer, err)
	}
	fmt.Fprintf(p.out, "callback, %s: %d %s", what, status, a.Code)
	if status == http.StatusOK {
		fmt.Fprintf(p.out, "duplicate: %t", a.Duplicate)
	}
	fmt.Fprintln(p.out)
	return nil
}
