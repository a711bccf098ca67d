package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"image/color"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Texts need 4.5:1 (WCAG 1.4.3), bars and lines that mean something 3:1
// (1.4.11). The axis doesn't: what it says is written at the bars, too.
func TestChartsCanBeRead(t *testing.T) {
	for _, c := range charts {
		for _, th := range themes {
			name := c.file + "-" + th.name + ".svg"
			t.Run(name, func(t *testing.T) {
				background, texts, shapes := coloursIn(t, filepath.Join("charts", name))
				if want := map[string]string{"light": "#FFFFFF", "dark": "#0D1117"}[th.name]; background != want {
					t.Errorf("the background is %s, want %s", background, want)
				}
				if len(texts) == 0 || len(shapes) == 0 {
					t.Fatalf("%d texts, %d shapes", len(texts), len(shapes))
				}
				for colour := range texts {
					if got := contrast(t, colour, background); got < 4.5 {
						t.Errorf("text in %s on %s: %.2f:1", colour, background, got)
					}
				}
				for colour := range shapes {
					if got := contrast(t, colour, background); got < 3 && colour != hex(th.grid) {
						t.Errorf("a bar or line in %s on %s: %.2f:1", colour, background, got)
					}
				}
			})
		}
	}
}

// The measure itself, on what is known: WCAG's extremes, and a grey that is
// often quoted as the lightest on white.
func TestContrast(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want float64
	}{{"#000000", "#FFFFFF", 21}, {"#FFFFFF", "#FFFFFF", 1}, {"#767676", "#FFFFFF", 4.54}} {
		if got := contrast(t, c.a, c.b); math.Abs(got-c.want) > 0.01 {
			t.Errorf("%s on %s: got %.3f, want %.2f", c.a, c.b, got, c.want)
		}
	}
}

func hex(c color.NRGBA) string { return fmt.Sprintf("#%02X%02X%02X", c.R, c.G, c.B) }

// coloursIn returns the colours that a chart uses: of its first area, which is
// the background, of its texts, and of its other areas and its lines.
func coloursIn(t *testing.T, path string) (background string, texts, shapes map[string]bool) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	texts, shapes = make(map[string]bool), make(map[string]bool)
	for d := xml.NewDecoder(file); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return background, texts, shapes
		}
		if err != nil {
			t.Fatal(err)
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		switch fill := property(e, "fill"); {
		case e.Name.Local == "text":
			texts[fill] = true
		case e.Name.Local != "path":
		case background == "":
			background = fill
		case fill == "NONE":
			shapes[property(e, "stroke")] = true
		case fill != background: // which is behind texts
			shapes[fill] = true
		}
	}
}

// property returns a colour from an element's style. Without one it is black.
func property(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local != "style" {
			continue
		}
		for p := range strings.SplitSeq(a.Value, ";") {
			if key, colour, _ := strings.Cut(strings.TrimSpace(p), ":"); key == name {
				return strings.ToUpper(colour)
			}
		}
	}
	return "#000000"
}

// contrast is WCAG's contrast ratio of two colours.
func contrast(t *testing.T, a, b string) float64 {
	la, lb := luminance(t, a), luminance(t, b)
	return (max(la, lb) + 0.05) / (min(la, lb) + 0.05)
}

func luminance(t *testing.T, colour string) float64 {
	t.Helper()
	n, err := strconv.ParseUint(strings.TrimPrefix(colour, "#"), 16, 32)
	if err != nil || len(colour) != 7 {
		t.Fatalf("%q is no colour", colour)
	}
	part := func(shift int) float64 {
		v := float64(n>>shift&0xff) / 255
		if v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	return 0.2126*part(16) + 0.7152*part(8) + 0.0722*part(0)
}
