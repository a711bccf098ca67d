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

	"codeberg.org/go-fonts/dejavu/dejavusans"
	"golang.org/x/image/font"
	"golang.org/x/image/font/opentype"
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

// A reader's machine may lack Liberation Sans and Arial. Here all texts are as wide as DejaVu
// Sans makes them, which is the widest of the usual ones, and a twentieth wider still: each
// stays within the chart, and off the bars and the other texts.
func TestChartsHaveRoomForWiderFonts(t *testing.T) {
	wide, err := opentype.Parse(dejavusans.TTF)
	if err != nil {
		t.Fatal(err)
	}
	face, err := opentype.NewFace(wide, &opentype.FaceOptions{Size: float64(fontSize), DPI: 72})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range charts {
		for _, th := range themes {
			name := c.file + "-" + th.name + ".svg"
			t.Run(name, func(t *testing.T) {
				width, height, texts, bars := boxesIn(t, filepath.Join("charts", name), th, func(text string) float64 {
					return 1.05 * float64(font.MeasureString(face, text)) / 64
				})
				if len(texts) == 0 || len(bars) == 0 {
					t.Fatalf("%d texts, %d bars", len(texts), len(bars))
				}
				for i, text := range texts {
					if text.x < 0 || text.y < 0 || text.right() > width || text.y+text.h > height {
						t.Errorf("%q leaves the chart: %.0f to %.0f of %.0f", text.what, text.x, text.right(), width)
					}
					for _, other := range append(bars, texts[:i]...) {
						if text.meets(other) {
							t.Errorf("%q, from %.0f to %.0f, runs into %q, from %.0f to %.0f", text.what, text.x, text.right(), other.what, other.x, other.right())
						}
					}
				}
			})
		}
	}
}

// A panel whose candidates all have one value has a sentence and no bars.
func TestPanelWithoutADifferenceSaysSo(t *testing.T) {
	same := shownPanel{panel{title: "Fetches"}, []bar{{label: "a", text: "1"}, {label: "b, whole", text: "1"}, {label: "c", text: "1"}}}
	if got, want := strings.Join(same.sentence(), "\n"), "1 each, the same for all: a, b, c."; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	same.bars[1].text = "2"
	if got := same.sentence(); got != nil {
		t.Errorf("with a difference: %q", got)
	}
	many := shownPanel{bars: make([]bar, 40)}
	for i := range many.bars {
		many.bars[i] = bar{label: "somebody's transport", text: "1"}
	}
	for _, line := range many.sentence() {
		if room(line) > chartWidth-2*margin {
			t.Errorf("%q is too long", line)
		}
	}
}

// A box is where something is, from the top left corner.
type box struct {
	what       string
	x, y, w, h float64
}

func (b box) right() float64 { return b.x + b.w }

func (b box) meets(o box) bool {
	return b.x < o.right() && o.x < b.right() && b.y < o.y+o.h && o.y < b.y+b.h
}

// boxesIn returns the size of a chart, where its texts are and where its bars: areas in
// one of the colours of bars.
func boxesIn(t *testing.T, path string, th theme, measure func(string) float64) (width, height float64, texts, bars []box) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	number := func(s string) float64 {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for d := xml.NewDecoder(file); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return width, height, texts, bars
		}
		if err != nil {
			t.Fatal(err)
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		attr := make(map[string]string)
		for _, a := range e.Attr {
			attr[a.Name.Local] = a.Value
		}
		switch fill := property(e, "fill"); {
		case e.Name.Local == "svg":
			size := strings.Fields(attr["viewBox"])
			width, height = number(size[2]), number(size[3])
		case e.Name.Local == "text":
			var text string
			if err := d.DecodeElement(&text, &e); err != nil {
				t.Fatal(err)
			}
			// The y of a text counts up from the bottom of the chart, with a minus; a line
			// of letters without the rare descender is 8 high.
			base := height + number(attr["y"])
			texts = append(texts, box{text, number(attr["x"]), base - 8, measure(text), 8})
		case fill == hex(th.ours), fill == hex(th.theirs), fill == hex(th.reference):
			var x0, y0, x1, y1, x2, y2 float64
			if _, err := fmt.Sscanf(attr["d"], "M%f,%fL%f,%fL%f,%f", &x0, &y0, &x1, &y1, &x2, &y2); err != nil {
				t.Fatalf("%s: %v", attr["d"], err)
			}
			bars = append(bars, box{"a bar", x0, height - y2, x1 - x0, y2 - y0})
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
