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

// counts are the totals of `wc -w` and `wc -l`, and how the text begins and ends:
// a word that goes on in the next file is one word in `cat FILES | wc -w`.
type counts struct {
	Words int `json:"words"`
	Lines int `json:"lines"`
	// Leads says that the text begins in a word, Open that it ends in one, Blank
	// that it has neither words nor white space.
	Leads bool `json:"leads,omitempty"`
	Open  bool `json:"open,omitempty"`
	Blank bool `json:"blank,omitempty"`
}

// add appends the counts of the text that follows.
func (c *counts) add(next counts) {
	if next.Blank {
		return
	}
	c.Words += next.Words
	c.Lines += next.Lines
	if c.Open && next.Leads {
		c.Words--
	}
	c.Open = next.Open
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
	c.Blank = true
	for {
		char, size, err := in.ReadRune()
		if errors.Is(err, io.EOF) {
			if word {
				c.Words++
			}
			c.Open = word
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
			word, c.Blank = false, false
			if char == '\n' {
				c.Lines++
			}
		case prints(char, wide):
			c.Leads = c.Leads || c.Blank
			word, c.Blank = true, false
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
