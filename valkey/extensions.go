package valkey

import (
	"embed"
	"fmt"
	"strings"
)

// ExtensionsName is the library of the functions that the reference does not
// have. It is loaded beside the compatible one.
const ExtensionsName = "flowfabric_go"

// ExtensionsVersion grows with every change of the extensions. A newer library is
// never replaced by an older one.
const ExtensionsVersion = 7

//go:embed functions/shared.lua functions/frames.lua functions/waitpoint.lua functions/waitpoint_token.lua extensions/*.lua
var extensionParts embed.FS

// extensionOrder is the order of the parts: a part uses those before it.
var extensionOrder = []string{"record", "claim", "lease", "suspension", "signal", "execution", "create", "sweep", "listing", "event", "reconcile", "stream", "version"}

// Extensions is the source of the extension library, for FUNCTION LOAD.
func Extensions() string {
	var b strings.Builder
	fmt.Fprintf(&b, "#!lua name=%s\nlocal VERSION = '%d'\n", ExtensionsName, ExtensionsVersion)
	parts := []string{"functions/shared.lua", "functions/frames.lua", "functions/waitpoint.lua", "functions/waitpoint_token.lua"}
	for _, name := range extensionOrder {
		parts = append(parts, "extensions/"+name+".lua")
	}
	for _, name := range parts {
		text, err := extensionParts.ReadFile(name)
		if err != nil {
			panic(err) // a part is missing from the program
		}
		b.Write(text)
	}
	return b.String()
}
