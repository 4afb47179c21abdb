package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/flowfabric/flowfabric/valkey"
)

func (a *app) libraryCommand() *cobra.Command {
	var extensions bool
	c := &cobra.Command{
		Use: "library", Short: "Print a function library of Valkey", Args: exactly(),
		Long: `Prints the source of the function library that a Valkey needs, or with --extensions
of the second one. Whoever opens the store loads both when they are missing or older, so
this is for loading them by hand, where servers and workers may not.`,
		Example: "  flowfabric library | valkey-cli -x FUNCTION LOAD REPLACE\n  flowfabric library --extensions | valkey-cli -x FUNCTION LOAD REPLACE",
	}
	c.RunE = func(*cobra.Command, []string) error {
		l := library{valkey.LibraryName, valkey.LibraryVersion, valkey.Library()}
		if extensions {
			l = library{valkey.ExtensionsName, strconv.Itoa(valkey.ExtensionsVersion), valkey.Extensions()}
		}
		return a.print(l, func(p *printer) { fmt.Fprint(p.w, l.Source) })
	}
	c.Flags().BoolVar(&extensions, "extensions", false, "the library of the functions that the reference does not have")
	return c
}

// library is a function library with its source.
type library struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Source  string `json:"source"`
}
