package valkey_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/flowfabric/flowfabric/valkey"
)

// A server keeps the extensions that it has when their version is not lower. So a
// change of them without a higher version would reach no server in use.
func TestTheVersionOfTheExtensionsGrowsWithTheirText(t *testing.T) {
	const record = "testdata/extensions.version"
	noted, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte(valkey.Extensions()))
	want := fmt.Sprintf("%d %s", valkey.ExtensionsVersion, hex.EncodeToString(digest[:]))
	if got := strings.TrimSpace(string(noted)); got != want {
		t.Errorf("%s notes %q, the extensions are %q.\nIf main has the noted text already, raise ExtensionsVersion; then note the new line there.", record, got, want)
	}
}
