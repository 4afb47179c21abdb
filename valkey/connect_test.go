package valkey_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/internal/valkeytest"
	"github.com/flowfabric/flowfabric/valkey"
)

// certificates writes an authority and a certificate for 127.0.0.1 and gives the
// files: authority, certificate, key.
func certificates(t *testing.T) (ca, cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "flowfabric test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames: []string{"store.test"}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, b []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	cert = write("cert.pem", "CERTIFICATE", der)
	return cert, cert, write("key.pem", "PRIVATE KEY", secret)
}

func unusedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func TestTLSAndClientCertificates(t *testing.T) {
	ca, cert, key := certificates(t)
	port := unusedPort(t)
	valkeytest.Start(t, valkeytest.WithConfig("tls-port", port), valkeytest.WithConfig("tls-cert-file", cert), valkeytest.WithConfig("tls-key-file", key),
		valkeytest.WithConfig("tls-ca-cert-file", ca), valkeytest.WithConfig("tls-auth-clients", "yes"))
	at := "valkeys://127.0.0.1:" + port
	s := openStore(t, at+"?ca="+ca+"&cert="+cert+"&key="+key, valkey.Options{})
	if _, err := s.CreateExecution(t.Context(), ff.CreateExecution{Lane: "l", Kind: "k"}); err != nil {
		t.Error(err)
	}
	openStore(t, "valkey://localhost:"+port+"?tls=true&server_name=store.test&ca="+ca+"&cert="+cert+"&key="+key, valkey.Options{})
	for _, bad := range []string{at, at + "?ca=" + ca, at + "?server_name=other.test&ca=" + ca + "&cert=" + cert + "&key=" + key} {
		if _, err := valkey.Open(t.Context(), bad, valkey.Options{Connect: 300 * time.Millisecond}); err == nil {
			t.Errorf("%s was opened", bad)
		}
	}
}

func TestUsersPasswordsAndDatabases(t *testing.T) {
	server := valkeytest.Start(t)
	for _, command := range [][]string{
		{"ACL", "SETUSER", "ff", "on", ">s3cret/x", "~ff:*", "~ffx:*", "&ff:*", "&ffx:*", "+@all", "-@dangerous", "+info", "+role", "+config|get"},
		{"ACL", "SETUSER", "poor", "on", ">s3cret/x", "~ff:*", "+@all", "-fcall"},
	} {
		if err := server.Do(command[0], command[1:]...).Error(); err != nil {
			t.Fatal(err)
		}
	}
	s := openStore(t, "valkey://ff:s3cret%2Fx@"+server.Addr+"/5", valkey.Options{})
	if _, err := s.CreateExecution(t.Context(), ff.CreateExecution{Lane: "l", Kind: "k"}); err != nil {
		t.Error(err)
	}
	if n, err := server.Do("DBSIZE").AsInt64(); n != 0 || err != nil {
		t.Errorf("database 0 has %d keys, %v", n, err)
	}
	for url, says := range map[string]string{
		"valkey://ff:wrong@" + server.Addr:        "refuses the user or password",
		"valkey://poor:s3cret%2Fx@" + server.Addr: "lacks a permission",
	} {
		_, err := valkey.Open(t.Context(), url, valkey.Options{Connect: 2 * time.Second})
		if ff.CodeOf(err) != ff.CodeUnsupportedStore || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// refused opens a store that cannot be opened and says how that ended.
func refused(t *testing.T, url, says string) {
	t.Helper()
	start := time.Now()
	b, err := valkey.Open(t.Context(), url, valkey.Options{Connect: 30 * time.Second})
	if err == nil {
		_ = b.Close()
	}
	if ff.CodeOf(err) != ff.CodeUnsupportedStore || !strings.Contains(err.Error(), says) {
		t.Errorf("%s: %v, want %q", url, err, says)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("%s: what does not heal was tried for %s", url, took)
	}
}

func TestAURLThatDoesNotFitTheServerIsRefusedWithWhatToChange(t *testing.T) {
	single, cluster, sentinels := valkeytest.Start(t), valkeytest.StartCluster(t), valkeytest.StartSentinel(t)
	refused(t, single.URL()+"/99", "no database of this number")
	refused(t, single.URL()+"?sentinel=x", "no sentinel")
	refused(t, "valkey://"+cluster.Nodes[0].Addr, "add cluster=true")
	refused(t, "valkey://"+sentinels.Addrs()[0], "add sentinel=NAME")
	refused(t, "valkey://"+strings.Join(sentinels.Addrs(), ",")+"?sentinel=wrong", "no primary of this name")
	if n, err := cluster.Nodes[0].Do("DBSIZE").AsInt64(); n != 0 || err != nil {
		t.Errorf("the node has %d keys, %v", n, err)
	}
}

func TestAURLOfTheWrongSchemeIsRefusedWithTheRightOne(t *testing.T) {
	plain := valkeytest.Start(t)
	refused(t, "valkeys://"+plain.Addr+"?timeout=1s", "does not speak TLS")
	ca, cert, key := certificates(t)
	port := unusedPort(t)
	valkeytest.Start(t, valkeytest.WithConfig("tls-port", port), valkeytest.WithConfig("tls-cert-file", cert), valkeytest.WithConfig("tls-key-file", key),
		valkeytest.WithConfig("tls-ca-cert-file", ca), valkeytest.WithConfig("tls-auth-clients", "yes"))
	refused(t, "valkey://127.0.0.1:"+port+"?timeout=1s", "speaks TLS")
}
