package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// texts draws texts of characters that wc treats in different ways.
func texts() *rapid.Generator[string] {
	runes := []rune("ab1.é漢 \t\n\v\f\r\x01\x1b\x7f\u0080\u0085\u00a0\u00ad\u0301\u1680\u2003\u2007\u2028\u202f\u200b\u2060\u3000\ue000\ufeff\U0001f600")
	return rapid.Map(rapid.SliceOfN(rapid.SampledFrom(runes), 0, 40), func(r []rune) string { return string(r) })
}

func TestCountingEqualsWcInBothLocales(t *testing.T) {
	if _, err := exec.LookPath("wc"); err != nil {
		t.Fatal("this test compares with wc:", err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		text := texts().Draw(rt, "text")
		for locale, wide := range map[string]bool{"C": false, "C.UTF-8": true} {
			got, isText, err := count(strings.NewReader(text), wide)
			if err != nil || !isText {
				rt.Fatalf("%q is text, but: %v, %v", text, isText, err)
			}
			if want := realCounts(rt, text, locale); got.Words != want.Words || got.Lines != want.Lines {
				rt.Fatalf("%s: counted %+v in %q, wc counts %+v", locale, got, text, want)
			}
		}
	})
}

func TestCountsOfSeveralTextsAreThoseOfCat(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		list := rapid.SliceOfN(texts(), 1, 5).Draw(rt, "texts")
		var sum counts
		for _, text := range list {
			c, _, err := count(strings.NewReader(text), true)
			if err != nil {
				rt.Fatal(err)
			}
			sum.add(c)
		}
		if want := realCounts(rt, strings.Join(list, ""), "C.UTF-8"); sum.Words != want.Words || sum.Lines != want.Lines {
			rt.Fatalf("counted %+v in %q, wc counts %+v", sum, list, want)
		}
	})
}

// realCounts asks wc.
func realCounts(t rapid.TB, text, locale string) (c counts) {
	t.Helper()
	for flag, n := range map[string]*int{"-w": &c.Words, "-l": &c.Lines} {
		wc := exec.Command("wc", flag)
		wc.Env = append(os.Environ(), "LC_ALL="+locale)
		wc.Stdin = strings.NewReader(text)
		out, err := wc.Output()
		if err != nil {
			t.Fatal(err)
		}
		*n = number(t, string(out))
	}
	return c
}

func TestFilesWithNulBytesOrInvalidUTF8AreNoText(t *testing.T) {
	for _, data := range []string{"a\x00b", "\xff\xfe", "ends in half a character \xe2\x82", "\xed\xa0\x80"} {
		if _, text, err := count(strings.NewReader(data), true); text || err != nil {
			t.Errorf("%q is taken as text (%v)", data, err)
		}
	}
}
