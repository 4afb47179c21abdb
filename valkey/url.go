package valkey

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// Schemes are the beginnings of the URLs that [ParseURL] reads; valkeys and rediss
// mean TLS. The redis forms are read because many tools write them.
var Schemes = []string{"valkey", "valkeys", "redis", "rediss"}

const (
	defaultPort    = "6379"
	defaultTimeout = 5 * time.Second
)

// Target is where and how to connect.
type Target struct {
	Cluster    bool
	option     valkey.ClientOption
	location   string
	extensions ExtensionUse
}

// ParseURL reads the URL of a Valkey:
//
//	valkey://user:password@host:6379/0?tls=true&cluster=true
//
// Several addresses are separated by commas: nodes of a cluster, or sentinels.
// The path is the number of the database, 0 by default and always 0 on a cluster.
// The parameters are
//
//	tls=true          TLS; so does the scheme valkeys
//	ca=FILE           PEM file of the authorities to trust, instead of the system's
//	cert=FILE&key=FILE    client certificate
//	server_name=NAME  name that the certificate must have, instead of the host
//	cluster=true      a cluster, of which any node may be named
//	sentinel=NAME     the addresses are sentinels, NAME is the primary they watch
//	sentinel_user=, sentinel_password=    for the sentinels
//	timeout=5s        limit of one command, and of making a connection
//	extensions=auto   auto, off or required: see [ExtensionUse]
//
// Errors: invalid_input naming the part and the value, never the password.
func ParseURL(raw string) (*Target, error) {
	if strings.Contains(strings.TrimPrefix(raw, authorityOf(raw)), "@") {
		return nil, ff.InvalidInput("store", "an @ stands behind the address: what has / ? # @ or : in a user, a password or a parameter must be percent-encoded, "+
			"%%2F for /, %%3F for ?, %%23 for #, %%40 for @")
	}
	if scheme, rest, found := strings.Cut(raw, ":"); found && slices.Contains(Schemes, scheme) && !strings.HasPrefix(rest, "//") {
		return nil, ff.InvalidInput("store", "the // is missing: write %s://HOST:PORT", scheme)
	}
	single, hosts := splitHosts(raw)
	u, err := url.Parse(single)
	if err != nil || !slices.Contains(Schemes, u.Scheme) {
		return nil, ff.InvalidInput("store", "is not a Valkey URL such as valkey://user:password@host:6379/0?tls=true")
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, ff.InvalidInput("store", "the parameters behind ? cannot be read")
	}
	t := &Target{option: valkey.ClientOption{
		Dialer: net.Dialer{Timeout: defaultTimeout}, ConnWriteTimeout: defaultTimeout, ClientName: "flowfabric", DisableCache: true,
		AlwaysPipelining: true, // otherwise a lone command does not end when its context is cancelled
	}}
	if u.User != nil {
		t.option.Username = u.User.Username()
		t.option.Password, _ = u.User.Password()
	}
	if err := t.addresses(hosts); err != nil {
		return nil, err
	}
	for _, step := range []func(*Target, *url.URL, url.Values) error{database, secure, topology, timeout, extensions, noOthers} {
		if err := step(t, u, q); err != nil {
			return nil, err
		}
	}
	t.location = t.describe(u)
	return t, nil
}

// authorityOf is a URL up to the end of its addresses.
func authorityOf(raw string) string {
	start := strings.Index(raw, "://") + len("://")
	if end := strings.IndexAny(raw[min(start, len(raw)):], "/?#"); end >= 0 {
		return raw[:start+end]
	}
	return raw
}

// splitHosts takes all hosts but the first out of a URL: package url reads one.
func splitHosts(raw string) (single string, hosts []string) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return raw, nil
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	first := strings.LastIndexByte(rest[:end], '@') + 1
	hosts = strings.Split(rest[first:end], ",")
	return scheme + "://" + rest[:first] + hosts[0] + rest[end:], hosts
}

func (t *Target) addresses(hosts []string) error {
	for _, a := range hosts {
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			host, port = strings.Trim(a, "[]"), defaultPort
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return ff.InvalidInput("store", "port %q is not 1 to 65535", port)
		}
		if host == "" {
			return ff.InvalidInput("store", "an address lacks its host (got %q)", a)
		}
		t.option.InitAddress = append(t.option.InitAddress, net.JoinHostPort(host, port))
	}
	return nil
}

func database(t *Target, u *url.URL, _ url.Values) error {
	path := strings.Trim(u.Path, "/")
	if path == "" {
		return nil
	}
	n, err := strconv.ParseUint(path, 10, 16)
	if err != nil {
		return ff.InvalidInput("store", "the database behind the address must be a number (got %q)", path)
	}
	t.option.SelectDB = int(n)
	return nil
}

func secure(t *Target, u *url.URL, q url.Values) error {
	on, err := boolean(q, "tls")
	if err != nil {
		return err
	}
	if !on && u.Scheme != "valkeys" && u.Scheme != "rediss" {
		for _, name := range []string{"ca", "cert", "key", "server_name"} {
			if q.Get(name) != "" {
				return ff.InvalidInput("store", "%s needs tls=true", name)
			}
		}
		return nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: q.Get("server_name")}
	if file := q.Get("ca"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return ff.InvalidInput("store", "ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return ff.InvalidInput("store", "ca: %s holds no certificate", file)
		}
	}
	if cert, key := q.Get("cert"), q.Get("key"); cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return ff.InvalidInput("store", "cert and key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	t.option.TLSConfig = c
	return nil
}

func topology(t *Target, _ *url.URL, q url.Values) (err error) {
	if t.Cluster, err = boolean(q, "cluster"); err != nil {
		return err
	}
	sentinel := q.Get("sentinel")
	switch {
	case t.Cluster && sentinel != "":
		return ff.InvalidInput("store", "give cluster or sentinel, not both")
	case t.Cluster && t.option.SelectDB != 0:
		return ff.InvalidInput("store", "a cluster has database 0 only (got %d)", t.option.SelectDB)
	case !t.Cluster && sentinel == "" && len(t.option.InitAddress) > 1:
		return ff.InvalidInput("store", "several addresses need cluster=true or sentinel=NAME")
	case t.Cluster:
		t.option.ClusterOption.ShardsRefreshInterval = 15 * time.Second
	case sentinel != "":
		t.option.Sentinel = valkey.SentinelOption{MasterSet: sentinel, Username: q.Get("sentinel_user"), Password: q.Get("sentinel_password"),
			TLSConfig: t.option.TLSConfig, Dialer: t.option.Dialer, TopologyRefreshInterval: 5 * time.Second}
	default:
		t.option.ForceSingleClient = true
	}
	return nil
}

func timeout(t *Target, _ *url.URL, q url.Values) error {
	v := q.Get("timeout")
	if v == "" {
		return nil
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 100*time.Millisecond || d > 10*time.Minute {
		return ff.InvalidInput("store", "timeout must be 100ms to 10m (got %q)", v)
	}
	t.option.ConnWriteTimeout, t.option.Dialer.Timeout, t.option.Sentinel.Dialer.Timeout = d, d, d
	return nil
}

func extensions(t *Target, _ *url.URL, q url.Values) (err error) {
	t.extensions, err = ParseExtensionUse(q.Get("extensions"))
	return err
}

func noOthers(_ *Target, _ *url.URL, q url.Values) error {
	known := []string{"tls", "ca", "cert", "key", "server_name", "cluster", "sentinel", "sentinel_user", "sentinel_password", "timeout", "extensions"}
	for name := range q {
		switch {
		case slices.Contains(known, name):
		case !parameterName.MatchString(name): // it may be a part of a password
			return ff.InvalidInput("store", "unknown parameter; there are %s", strings.Join(known, ", "))
		default:
			return ff.InvalidInput("store", "unknown parameter %q; there are %s", name, strings.Join(known, ", "))
		}
	}
	return nil
}

// parameterName is how parameters are named.
var parameterName = regexp.MustCompile(`^[a-z_]+$`)

func boolean(q url.Values, name string) (bool, error) {
	switch v := strings.ToLower(q.Get(name)); v {
	case "", "0", "false":
		return false, nil
	case "1", "true":
		return true, nil
	default:
		return false, ff.InvalidInput("store", "%s must be true or false (got %q)", name, v)
	}
}

// describe is the address for people, without secrets.
func (t *Target) describe(u *url.URL) string {
	text := u.Scheme + "://" + strings.Join(t.option.InitAddress, ",")
	if t.option.SelectDB != 0 {
		text += "/" + strconv.Itoa(t.option.SelectDB)
	}
	if name := t.option.Sentinel.MasterSet; name != "" {
		text += "?sentinel=" + url.QueryEscape(name)
	}
	if t.Cluster {
		text += "?cluster=true"
	}
	return text
}
