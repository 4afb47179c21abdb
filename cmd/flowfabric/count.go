package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// counts are the totals of `wc -w` and `wc -l`.
type counts struct {
	Words int `json:"words"`
	Lines int `json:"lines"`
}

// countFile counts the words and lines of a file as wc does in the locale of the
// environment. text is false for a file with NUL bytes or invalid UTF-8.
func countFile(path string) (c counts, text bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return c, false, err
	}
	defer f.Close()
	return count(f, unicodeLocale())
}

// unicodeLocale reports whether the environment asks for UTF-8, as the C library
// decides it.
func unicodeLocale() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := os.Getenv(name); v != "" {
			v = strings.ToUpper(v)
			return strings.Contains(v, "UTF-8") || strings.Contains(v, "UTF8")
		}
	}
	return false
}

func count(r io.Reader, wide bool) (c counts, text bool, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	word := false
	for {
		char, size, err := in.ReadRune()
		if errors.Is(err, io.EOF) {
			if word {
				c.Words++
			}
			return c, true, nil
		}
		switch {
		case err != nil:
			return c, false, err
		case char == 0, char == utf8.RuneError && size == 1:
			return c, false, nil
		case separates(char, wide):
			if word {
				c.Words++
			}
			word = false
			if char == '\n' {
				c.Lines++
			}
		case prints(char, wide):
			word = true
		}
	}
}

// separates reports whether wc ends a word at a character.
func separates(r rune, wide bool) bool {
	if r < utf8.RuneSelf || !wide {
		return r == ' ' || r >= '\t' && r <= '\r'
	}
	const wordJoiner = 0x2060
	return unicode.Is(unicode.Zs, r) || r == wordJoiner
}

// prints reports whether a character makes a word. Others neither begin nor end
// one.
func prints(r rune, wide bool) bool {
	if r < utf8.RuneSelf || !wide {
		return r > ' ' && r < 0x7f
	}
	return unicode.IsGraphic(r) || unicode.In(r, unicode.Cf, unicode.Co)
}
