// Package client talks to a FlowFabric server: it submits, reads and steers
// executions, and waits for their results. [Client.Backend] is the same as a
// [flowfabric.Backend], with which a worker on another machine needs only the
// server's URL.
//
// Errors are *flowfabric.Error with the codes of the store, so that errors.Is and
// the sentinels work as they do beside the store; transport when the server
// cannot be reached, timeout when it does not answer in time. Calls are repeated
// when the server cannot be reached or is busy and that is safe: reads are, what
// the holder of a lease says about its end is, and submits are because each
// carries an id. A call that must not happen twice is repeated only when it
// certainly did not reach the server.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	ff "github.com/flowfabric/flowfabric"
)

const (
	// maxAnswer bounds what is read of one answer: a claim of the largest
	// payloads comes in several calls.
	maxAnswer = 512 << 20
	// DefaultTimeout bounds a call, besides the time that it asks the server to
	// wait.
	DefaultTimeout = 30 * time.Second
	// DefaultRetries is how often a call that may be repeated is.
	DefaultRetries = 4
)

// Client talks to one server. It is safe for concurrent use.
type Client struct {
	base     *url.URL
	token    string
	insecure bool
	http     *http.Client
	owned    *http.Transport
	timeout  time.Duration
	retries  uint
	// life ends with Close, and every call with it.
	life context.Context
	end  context.CancelFunc
	// partitions are those of the server's store, once they are known.
	partitions atomic.Pointer[ff.PartitionConfig]
	// unchainedUntil is until when completions do not ask for more work, in
	// nanoseconds since 1970.
	unchainedUntil atomic.Int64
}

// Option changes a Client.
type Option func(*Client)

// WithToken sends a bearer token with every request.
func WithToken(token string) Option { return func(c *Client) { c.token = token } }

// WithInsecureToken permits sending the token over plain HTTP to another machine.
func WithInsecureToken() Option { return func(c *Client) { c.insecure = true } }

// WithHTTPClient uses an HTTP client of one's own. It must have no timeout
// shorter than the longest wait for work. Redirects are not followed whatever it
// says: they could lead the token elsewhere.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// WithTimeout bounds each call, besides the time that it asks the server to wait.
func WithTimeout(d time.Duration) Option { return func(c *Client) { c.timeout = d } }

// WithRetries sets how often a call that may be repeated is, when the server
// cannot be reached or is busy; 0 is never.
func WithRetries(n int) Option { return func(c *Client) { c.retries = uint(max(0, n)) } }

// New makes a client of the server at a URL like http://127.0.0.1:9090. Errors:
// invalid_input for a bad URL, and for a token that would be sent over plain HTTP
// to another machine.
func New(server string, options ...Option) (*Client, error) {
	if strings.Contains(server, "@") {
		return nil, ff.InvalidInput("server", "the URL must not have a user or a password; give a token with WithToken")
	}
	base, err := url.Parse(strings.TrimRight(server, "/"))
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" {
		return nil, ff.InvalidInput("server", "%q is not a URL like http://127.0.0.1:9090", server)
	}
	if base.RawQuery != "" || base.Fragment != "" {
		return nil, ff.InvalidInput("server", "the URL must not have a query or a fragment (got %q)", server)
	}
	c := &Client{base: base, timeout: DefaultTimeout, retries: DefaultRetries}
	for _, o := range options {
		o(c)
	}
	if strings.ContainsFunc(c.token, func(r rune) bool { return r < 0x21 || r > 0x7e }) {
		return nil, ff.InvalidInput("token", "contains characters that do not fit into a header")
	}
	if c.token != "" && base.Scheme == "http" && !c.insecure && !loopback(base.Hostname()) {
		return nil, ff.InvalidInput("server", "the token would be sent unencrypted to %s: use https, or allow it on purpose (WithInsecureToken; --insecure-token on the command line)", base.Host)
	}
	if c.http == nil {
		c.owned = &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			MaxIdleConnsPerHost: 64, IdleConnTimeout: 90 * time.Second, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second,
		}
		c.http = &http.Client{Transport: c.owned}
	}
	own := *c.http
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.http = &own
	c.life, c.end = context.WithCancel(context.Background())
	return c, nil
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// Close ends the calls that run, refuses later ones with unavailable, and closes
// idle connections. It may be called again.
func (c *Client) Close() error {
	c.end()
	if c.owned != nil {
		c.owned.CloseIdleConnections()
	}
	return nil
}

// call is one request.
type call struct {
	method, path string
	query        url.Values
	body         any
	// out gets the decoded answer; raw the bytes and the headers instead.
	out any
	raw func(http.Header, []byte) error
	// wait is how long the server was asked to wait.
	wait time.Duration
	// once marks a call that must not be repeated when its answer was lost.
	once bool
}

// do makes a call. A call that may be repeated is, with growing pauses, while the
// server cannot be reached or says that it is worth trying again.
func (c *Client) do(ctx context.Context, k call) error {
	var body []byte
	if k.body != nil {
		var err error
		if body, err = json.Marshal(k.body); err != nil {
			return ff.InvalidInput("body", "cannot be encoded: %w", err)
		}
	}
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 50*time.Millisecond, 2*time.Second
	return repeat(ctx, func() error { return c.try(ctx, k, body) }, func(err error) bool { return c.repeatable(k, err) },
		backoff.WithBackOff(pause), backoff.WithMaxTries(c.retries+1), backoff.WithMaxElapsedTime(0))
}

// repeat calls f until it succeeds, its error is not worth a repetition, or the
// options end it.
func repeat(ctx context.Context, f func() error, worth func(error) bool, options ...backoff.RetryOption) error {
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := f()
		if err != nil && !worth(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, options...)
	var permanent *backoff.PermanentError
	if errors.As(err, &permanent) {
		err = permanent.Unwrap()
	}
	return err
}

// repeatable reports whether a call may be made again after an error. A
// connection that was refused has sent nothing, so even a call that must be made
// once may.
func (c *Client) repeatable(k call, err error) bool {
	if c.life.Err() != nil {
		return false
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return true
	}
	e, ok := ff.AsError(err)
	if !ok || k.once {
		return false
	}
	switch e.Kind() {
	case ff.KindTransport, ff.KindUnavailable, ff.KindResourceExhausted:
		return e.Retryable()
	}
	return false
}

func (c *Client) try(ctx context.Context, k call, body []byte) error {
	if c.life.Err() != nil {
		return errClosed
	}
	limited, cancel := context.WithTimeout(ctx, c.timeout+k.wait)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)() //nolint:contextcheck // the end of the client ends its calls
	req, err := c.request(limited, k, body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(ctx, limited, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return c.unreachable(ctx, limited, err)
	}
	if len(data) > maxAnswer {
		return ff.Errorf(ff.CodeTransport, "the answer of %s is larger than %d bytes", c.base.Host, maxAnswer)
	}
	return k.read(resp, data)
}

// errClosed is what every call gets after Close.
var errClosed = ff.NewError(ff.CodeUnavailable, "the client is closed")

func (c *Client) request(ctx context.Context, k call, body []byte) (*http.Request, error) {
	target := *c.base
	target.Path, target.RawPath = "", ""
	address := target.String() + strings.TrimRight(c.base.EscapedPath(), "/") + k.path
	if len(k.query) > 0 {
		address += "?" + k.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, k.method, address, bytes.NewReader(body))
	if err != nil {
		return nil, ff.InvalidInput("server", "cannot make a request to %s: %w", c.base, err)
	}
	if k.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

// unreachable is the error of a request without an answer. The end of the caller's
// context is kept as such; that of our own limit is a timeout, which may pass.
func (c *Client) unreachable(ctx, limited context.Context, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	switch {
	case c.life.Err() != nil:
		return errClosed
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case ctx.Err() != nil:
		return ff.Errorf(ff.CodeTimeout, "no answer from %s in time: %w", c.base.Host, ctx.Err())
	case limited.Err() != nil:
		return ff.Errorf(ff.CodeTimeout, "no answer from %s within %s", c.base.Host, c.timeout)
	case errors.Is(err, context.DeadlineExceeded):
		// A dialer's timeout passes for the end of a context, which it is not.
		err = errors.New(err.Error())
	}
	return ff.Errorf(ff.CodeTransport, "cannot reach the server at %s (is it running? start one with: flowfabric serve): %w", c.base, err)
}

func (k *call) read(resp *http.Response, data []byte) error {
	if resp.StatusCode >= 400 {
		return refusal(resp, data)
	}
	if resp.StatusCode >= 300 {
		return ff.InvalidInput("server", "it redirects to %q: give its final URL", resp.Header.Get("Location"))
	}
	if k.raw != nil {
		return k.raw(resp.Header, data)
	}
	if k.out == nil || len(data) == 0 {
		return nil
	}
	if err := json.Unmarshal(data, k.out); err != nil {
		return ff.Errorf(ff.CodeUnsupportedStore, "the answer is not what this version expects (is it a FlowFabric server?): %w", err)
	}
	return nil
}

// refusal rebuilds the error of an answer.
func refusal(resp *http.Response, data []byte) error {
	var p ff.PublicError
	if err := json.Unmarshal(data, &p); err != nil || p.Error == "" {
		if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed {
			return ff.Errorf(ff.CodeUnsupportedStore, "there is no %s %s here (status %d): is it a FlowFabric server, and of this version? %.200s",
				resp.Request.Method, resp.Request.URL.Path, resp.StatusCode, bytes.TrimSpace(data))
		}
		p = ff.PublicError{Error: fmt.Sprintf("status %d: %.200s", resp.StatusCode, bytes.TrimSpace(data))}
	}
	if resp.StatusCode == http.StatusUnauthorized {
		return ff.NewError(ff.CodeUnauthorized, "the server wants a token, or another one (WithToken in code, --token or FF_API_TOKEN of the command): "+p.Error)
	}
	e := p.Restore(resp.StatusCode)
	if seconds, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16); err == nil {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	return e
}
