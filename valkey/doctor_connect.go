package valkey

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"strings"
	"syscall"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// missing reports a node to which there is no connection; one that others stand in
// for is a warning.
func (d *doctor) missing(address string, err error, spare bool) {
	c := d.unmet(err)
	c.Status = ff.CheckProblem
	c.Detail = address + ": " + c.Detail
	if spare {
		c.Status = ff.CheckWarning
	}
	d.checks = append(d.checks, c)
}

// unmet says why there is no connection.
func (d *doctor) unmet(err error) ff.Check {
	c := ff.Check{Name: "reachable", Detail: firstLine(err.Error())}
	e, ok := valkey.IsValkeyErr(err)
	if !ok {
		c.Advice = d.networkAdvice(err)
		return c
	}
	const credentials = "give the right user and password: in the URL, valkey://user:password@host, or in FF_VALKEY_USER and FF_VALKEY_PASSWORD"
	switch word := adviceWord(e.Error()); word {
	case "NOAUTH":
		c.Name, c.Detail, c.Advice = "authenticated", "the server wants a password", credentials
	case "WRONGPASS":
		c.Name, c.Advice = "authenticated", credentials
	case "NOPERM":
		c.Name, c.Advice = "permissions", "let the user connect: ACL SETUSER "+d.user()+" "+neededPermissions
	default:
		c.Advice = cmp.Or(replyAdvice[word].advice, "look at the server's log, and check that the URL leads where it should")
	}
	return c
}

var useNewer = "use Valkey " + minVersion.String() + " or newer"

// networkAdvice says what to do when no server answered. TLS and its absence look
// alike to the other side: what it was not meant to read, it drops or waits for.
func (d *doctor) networkAdvice(err error) string {
	var (
		unknown  x509.UnknownAuthorityError
		name     x509.HostnameError
		invalid  x509.CertificateInvalidError
		noTLS    tls.RecordHeaderError
		alert    tls.AlertError
		secure   = d.target.option.TLSConfig
		dropped  = errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		timedOut interface{ Timeout() bool }
	)
	const plain = "if it does not, write valkey:// and leave out tls=true (FF_TLS)"
	switch {
	case errors.As(err, &unknown):
		return "name the file of the authority that has signed the server's certificate: ca=FILE in the URL"
	case errors.As(err, &name):
		return "give the name that the certificate has: server_name=NAME in the URL, or an address that the certificate names"
	case errors.As(err, &invalid):
		return "give the server a certificate that is valid"
	case errors.As(err, &noTLS):
		return "check that the server speaks TLS at this port; " + plain
	case secure != nil && len(secure.Certificates) == 0 && (dropped || errors.As(err, &alert) || strings.Contains(err.Error(), "remote error: tls")):
		return "the server may want a certificate of its client: cert=FILE&key=FILE in the URL; check also that it speaks TLS at this port"
	case secure != nil && errors.As(err, &timedOut) && timedOut.Timeout():
		return "check the address and the firewall, and that the server speaks TLS at this port; " + plain
	case secure == nil && dropped:
		return "check whether the server wants TLS at this port: valkeys:// or tls=true in the URL (FF_TLS)"
	}
	return "check that the server runs, its address and the firewall, and whether it wants TLS (valkeys:// or tls=true in the URL, FF_TLS)"
}
