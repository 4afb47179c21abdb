package valkey

import (
	"embed"
	"io/fs"
	"strings"
)

// LibraryName is the name of the function library on a server.
const LibraryName = "flowfabric"

// LibraryVersion is what ff_version answers: the version of the functions' keys,
// arguments and replies, which the reference implementation shares.
const LibraryVersion = "34"

// libraryHeader begins the library. The second line tells our build from the
// reference's library of the same version; raise it with any change of the text.
const libraryHeader = "#!lua name=" + LibraryName + "\n-- flowfabric for Go, build 2\n"

//go:embed functions/*.lua
var libraryFiles embed.FS

// Library returns the text of the function library for FUNCTION LOAD: shared.lua,
// whose functions all the others use, and then the others in the order of names.
func Library() string {
	var b strings.Builder
	b.WriteString(libraryHeader)
	b.WriteString(libraryFile("functions/shared.lua"))
	files, _ := fs.Glob(libraryFiles, "functions/*.lua")
	for _, file := range files {
		if file != "functions/shared.lua" {
			b.WriteString(libraryFile(file))
		}
	}
	return b.String()
}

func libraryFile(name string) string {
	text, err := libraryFiles.ReadFile(name)
	if err != nil {
		panic(err) // it is part of the program
	}
	return string(text) + "\n"
}
