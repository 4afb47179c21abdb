package valkey_test

import (
	"strings"
	"testing"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/valkey"
)

func TestURLsSayWhatIsWrong(t *testing.T) {
	for url, says := range map[string]string{
		"":                                       "is not a Valkey URL",
		"http://h":                               "is not a Valkey URL",
		"valkey://":                              "lacks its host",
		"valkey://h:0":                           "1 to 65535",
		"valkey://h:70000":                       "1 to 65535",
		"valkey://h/zero":                        "must be a number",
		"valkey://h/-1":                          "must be a number",
		"valkey://h?tls=yes":                     "tls must be true or false",
		"valkey://h?cluster=maybe":               "cluster must be true or false",
		"valkey://h?ca=/x":                       "ca needs tls=true",
		"valkeys://h?ca=/does/not/exist":         "ca:",
		"valkeys://h?cert=/does/not/exist":       "cert and key:",
		"valkey://a,b":                           "several addresses need",
		"valkey://a/1?cluster=true":              "database 0 only",
		"valkey://a?cluster=true&sentinel=m":     "not both",
		"valkey://a?timeout=1":                   "timeout must be",
		"valkey://a?timeout=1ms":                 "timeout must be",
		"valkey://u:secret@a?password=secret":    "unknown parameter",
		"valkey://u:secret@:1":                   "lacks its host",
		"valkey://u:secret@h:x":                  "is not a Valkey URL",
		"valkey://u:12/secret@h":                 "percent-encoded",
		"valkey://u:1#secret@h":                  "percent-encoded",
		"valkey://u:1?secret@h:6379":             "percent-encoded",
		"valkey://u:1?x=1&secret@h:6379":         "percent-encoded",
		"valkey://u:p@h?secret%40x=1":            "unknown parameter",
		"valkey:h:6379":                          "valkey://HOST:PORT",
		"valkeys:u:secret@h":                     "valkeys://HOST:PORT",
		"valkey:":                                "valkey://HOST:PORT",
		"valkey://u:secret@h?x=%zz":              "cannot be read",
		"valkey://u:secret@h/zero?sentinel=main": "must be a number",
	} {
		_, err := valkey.ParseURL(url)
		if ff.CodeOf(err) != ff.CodeInvalidInput || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, want %q", url, err, says)
		}
	}
}

func TestURLsThatAreRight(t *testing.T) {
	for url, location := range map[string]string{
		"valkey://h":                                      "valkey://h:6379",
		"redis://h:1":                                     "redis://h:1",
		"valkey://u:secret@h:1/3":                         "valkey://h:1/3",
		"valkeys://h?server_name=x&timeout=1s":            "valkeys://h:6379",
		"valkey://h?tls=true":                             "valkey://h:6379",
		"valkey://[::1]:7/0":                              "valkey://[::1]:7",
		"valkey://[::1]":                                  "valkey://[::1]:6379",
		"valkey://a,b:2,c?cluster=true":                   "valkey://a:6379,b:2,c:6379?cluster=true",
		"valkey://a,b?sentinel=main&sentinel_user=secret": "valkey://a:6379,b:6379?sentinel=main",
	} {
		target, err := valkey.ParseURL(url)
		if err != nil {
			t.Errorf("%q: %v", url, err)
			continue
		}
		if got := target.String(); got != location {
			t.Errorf("%q is at %q, want %q", url, got, location)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for _, url := range []string{"valkey://u:p@h:6379/0?tls=true&cluster=true", "valkeys://a,b?sentinel=x&timeout=5s", "redis://[::1]/1", "valkey://%zz", "valkey://h?ca=/dev/null&tls=1"} {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		target, err := valkey.ParseURL(url)
		if (target == nil) == (err == nil) {
			t.Fatalf("%q: %v and %v", url, target, err)
		}
		if err != nil && ff.CodeOf(err) != ff.CodeInvalidInput {
			t.Errorf("%q: %v", url, err)
		}
	})
}
