// The charts: bars that lie, grouped in panels, in one version for a light page
// and one for a dark one.

package main

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// A chart is two files, file-light.svg and file-dark.svg.
type chart struct {
	file, title string
	panels      []panel
}

// A panel shows one unit of one case, a bar for each candidate.
type panel struct {
	title      string
	name, unit string
	peer       string // the bars are ratios to this one's; "": values
	log        bool   // a logarithmic axis
	marks      []mark
	andUnit    string // a second one, whose value is written behind the bar; "": none
	impls      []string
}

// A mark is a line across the bars.
type mark struct {
	at   float64
	text string
}

var charts = []chart{
	{"live", "Time of a request with a live token, as a ratio", []panel{
		{
			title: "Logging off: time of a request, x/oauth2 = 1", name: liveOff + "serial", unit: seconds, peer: xoauth2,
			marks: []mark{{0.65, "goal 0.65"}},
			impls: []string{stack, authLayer, copied, xoauth2, cloud, smithy, assembled, failsafe, azure},
		},
		{
			title: "With a JSON log record: time of a request, slog + go-retryablehttp + x/oauth2 = 1", name: liveJSON + "serial", unit: seconds, peer: assembled,
			marks: []mark{{0.60, "goal 0.60"}},
			impls: []string{stack, copied, recorded, assembled},
		},
	}},
	{"storms", "Requests to the auth server when many callers need a token", []panel{
		{
			title: "1,000 callers without a token: requests to the auth server", name: "ColdHerd/steps=1", unit: "fetches", log: true,
			marks: []mark{{1000, "1,000 callers"}},
			impls: []string{stack, xoauth2, cloud, azure, smithy},
		},
		{
			title: "Three waves of 1,000 callers, the auth server fails: requests to it", name: "FailingAuthServer/waves=3", unit: "fetches", log: true,
			marks: []mark{{3000, "3,000 calls"}},
			impls: []string{authLayer, smithy, xoauth2, cloud, azure},
		},
		{
			title: "200 late refusals of one token: requests to the auth server", name: "LateRefusals", unit: "refetches", log: true, andUnit: "ok-answers",
			marks: []mark{{200, "200 callers"}},
			impls: []string{stack, openstack, oras, azure, xoauth2, smithy},
		},
		{
			title: "A deadline of 50 ms, the auth server takes 500 ms: when the caller returns", name: "Deadline/server=500ms", unit: seconds,
			marks: []mark{{hurry.Seconds(), "deadline"}},
			impls: []string{stack, smithy, xoauth2, cloud, azure},
		},
	}},
	{"bodies", "Memory for a request with a body of 64 MiB", []panel{
		{
			title: "64 MiB with GetBody: bytes allocated", name: "LargeBody/getbody=yes", unit: bytesUsed, log: true,
			impls: []string{bare, stack, xoauth2, retryable, assembled, failsafe},
		},
		{
			title: "64 MiB without GetBody: bytes allocated", name: "LargeBody/getbody=no", unit: bytesUsed, log: true,
			impls: []string{bare, stack, xoauth2, retryable, assembled, failsafe},
		},
	}},
	{"logins", "Logins of several steps", []panel{
		{
			title: "Three steps in a row, 50 ms each: time", name: "ColdLogin/shape=chain", unit: seconds,
			marks: []mark{{criticalPath.Seconds(), "critical path and sum"}},
			impls: []string{stack, xoauth2},
		},
		{
			title: "A diamond of four steps, 50 ms each: time", name: "ColdLogin/shape=diamond", unit: seconds,
			marks: []mark{{criticalPath.Seconds(), "critical path"}, {diamondSum.Seconds(), "sum"}},
			impls: []string{stack, xoauth2},
		},
		{
			title: "50 cold processes, a login of three steps: requests to the auth server", name: "ColdProcesses", unit: "fetches", log: true,
			impls: []string{shared, alone},
		},
	}},
}

// A theme is the colours of one version.
type theme struct {
	name                               string
	background, text, grid             color.NRGBA
	ours, theirs, reference, highlight color.NRGBA
}

// The backgrounds are GitHub's.
var themes = []theme{
	{
		name: "light", background: rgb(0xffffff), text: rgb(0x1f2328), grid: rgb(0xd1d9e0),
		ours: rgb(0x0969da), theirs: rgb(0x818b98), reference: rgb(0x9a6700), highlight: rgb(0xbc4c00),
	},
	{
		name: "dark", background: rgb(0x0d1117), text: rgb(0xe6edf3), grid: rgb(0x3d444d),
		ours: rgb(0x4493f8), theirs: rgb(0x7d8590), reference: rgb(0xd29922), highlight: rgb(0xf0883e),
	},
}

func rgb(c uint32) color.NRGBA {
	return color.NRGBA{R: uint8(c >> 16), G: uint8(c >> 8), B: uint8(c), A: 0xff}
}

// In points, of which a page that is shown at full size has 4/3 pixels.
const (
	chartWidth  vg.Length = 600
	labelWidth  vg.Length = 225
	titleHeight vg.Length = 25
	markHeight  vg.Length = 13
	axisHeight  vg.Length = 24
	rowHeight   vg.Length = 18
	barHeight   vg.Length = 11
	gap         vg.Length = 6
	margin      vg.Length = 8
	fontSize    vg.Length = 11
	lineHeight  vg.Length = 15
)

// widest is how much wider than Liberation Sans, or Arial, the font may be that a
// reader's machine has instead: DejaVu Sans and Verdana are by a fifth, and a little
// more in words of narrow letters. A text begins where it is put and grows to the right.
const widest = 1.3

// room is the width that a text may take.
func room(text string) vg.Length {
	return widest * style(color.Black, draw.XLeft, draw.YCenter).Width(text)
}

// drawCharts writes the files of all charts for which there are samples.
func drawCharts(all []sampleFile, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, c := range charts {
		for _, t := range themes {
			svg := c.draw(all, t)
			if svg == nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, c.file+"-"+t.name+".svg"), svg, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// A bar is what a panel shows of a candidate.
type bar struct {
	label, text string
	value       float64
	lo, hi      float64 // of the 95 % interval; equal: none is drawn
	color       color.Color
}

// A shownPanel is a panel with its bars.
type shownPanel struct {
	panel
	bars []bar
}

// shown are the panels for which there are samples.
func (c chart) shown(all []sampleFile, t theme) []shownPanel {
	var list []shownPanel
	for _, p := range c.panels {
		if bars := p.bars(all, t); len(bars) > 0 {
			list = append(list, shownPanel{p, bars})
		}
	}
	return list
}

// draw returns the chart as SVG, or nil if there is nothing to be drawn.
func (c chart) draw(all []sampleFile, t theme) []byte {
	panels := c.shown(all, t)
	if len(panels) == 0 {
		return nil
	}
	height := margin
	for _, p := range panels {
		height += p.height()
	}
	svg := vgsvg.NewWith(vgsvg.UseWH(chartWidth, height))
	canvas := draw.New(svg)
	canvas.FillPolygon(t.background, corners(canvas.Rectangle))
	top := height
	for _, p := range panels {
		bottom := top - p.height()
		p.draw(draw.Canvas{Canvas: svg, Rectangle: vg.Rectangle{
			Min: vg.Point{X: margin, Y: bottom},
			Max: vg.Point{X: chartWidth - margin, Y: top},
		}}, t)
		top = bottom
	}
	var file bytes.Buffer
	if _, err := svg.WriteTo(&file); err != nil {
		panic(err) // a buffer takes everything
	}
	// Where the font isn't installed, these have letters of the same width.
	return bytes.ReplaceAll(file.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
}

func (p shownPanel) height() vg.Length {
	if lines := p.sentence(); len(lines) > 0 {
		return titleHeight + vg.Length(len(lines))*lineHeight + gap
	}
	return p.titleHeight() + vg.Length(len(p.bars))*rowHeight + axisHeight + gap
}

// sentence is what is said instead of bars that are all of one length, in lines that
// fit into the chart; nil if the bars differ.
func (p shownPanel) sentence() []string {
	names := make([]string, len(p.bars))
	for i, b := range p.bars {
		names[i], _, _ = strings.Cut(b.label, ",")
		if b.text != p.bars[0].text {
			return nil
		}
	}
	if len(names) < 2 {
		return nil
	}
	text := fmt.Sprintf("%s each, the same for all: %s.", p.bars[0].text, strings.Join(names, ", "))
	lines := []string{""}
	for word := range strings.FieldsSeq(text) {
		line := strings.TrimSpace(lines[len(lines)-1] + " " + word)
		if room(line) > chartWidth-2*margin {
			lines = append(lines, word)
			continue
		}
		lines[len(lines)-1] = line
	}
	return lines
}

func (p panel) titleHeight() vg.Length {
	if len(p.marks) == 0 {
		return titleHeight
	}
	return titleHeight + markHeight
}

func (p panel) bars(all []sampleFile, t theme) []bar {
	c := findCase(all, p.name)
	if c == nil {
		return nil
	}
	var bars []bar
	for _, impl := range p.impls {
		values := c.values(impl, p.unit)
		if len(values) == 0 {
			continue
		}
		s := summarize(values)
		format := func(v float64) string { return formatValue(v, p.unit) }
		if p.peer != "" {
			s, format = c.ratio(impl, p.peer, p.unit), formatRatio
		}
		b := bar{label: labels[impl], text: format(s.Center), value: s.Center, lo: s.Lo, hi: s.Hi, color: t.theirs}
		if math.IsInf(b.hi, 0) {
			b.lo, b.hi = b.value, b.value
		}
		if p.andUnit != "" {
			b.text = fmt.Sprintf("%s for %.0f good answers", b.text, summarize(c.values(impl, p.andUnit)).Center)
		}
		switch impl {
		case stack, authLayer, shared:
			b.color = t.ours
		case copied, recorded, bare:
			b.color = t.reference
		}
		bars = append(bars, b)
	}
	return bars
}

// draw draws a panel. The axis is gonum's; the bars aren't, because theirs
// can't begin at a place where a logarithmic axis does.
func (p shownPanel) draw(c draw.Canvas, t theme) {
	c.FillText(style(t.text, draw.XLeft, draw.YTop), vg.Point{X: c.Min.X, Y: c.Max.Y - margin}, p.title)
	if lines := p.sentence(); len(lines) > 0 {
		for i, line := range lines {
			at := vg.Point{X: c.Min.X, Y: c.Max.Y - titleHeight - vg.Length(i)*lineHeight}
			c.FillText(style(t.text, draw.XLeft, draw.YTop), at, line)
		}
		return
	}
	bars := p.bars
	area := c
	area.Min.X += labelWidth
	area.Min.Y += gap
	area.Max.Y -= p.titleHeight()
	axis := plot.New()
	axis.BackgroundColor = nil // there is one already
	axis.HideY()
	axis.Y.Min, axis.Y.Max = -0.5, float64(len(bars))-0.5
	axis.X.Min, axis.X.Max = p.span(bars, area.Size().X)
	axis.X.Padding, axis.Y.Padding = 0, 0
	if p.log {
		axis.X.Scale = plot.LogScale{}
	}
	axis.X.Tick.Marker = p.ticks()
	axis.X.Tick.Label = style(t.text, draw.XCenter, draw.YTop)
	axis.X.Tick.Color, axis.X.LineStyle.Color = t.grid, t.grid

	axis.Draw(area)
	data := axis.DataCanvas(area)
	scale, y := axis.Transforms(&data)
	// A logarithmic axis has no place for a zero; it is an empty bar.
	x := func(v float64) vg.Length { return scale(max(v, axis.X.Min)) }

	for i, b := range bars {
		middle := y(float64(len(bars) - 1 - i))
		c.FillText(style(t.text, draw.XLeft, draw.YCenter), vg.Point{X: c.Min.X, Y: middle}, b.label)
		c.FillPolygon(b.color, corners(vg.Rectangle{
			Min: vg.Point{X: data.Min.X, Y: middle - barHeight/2},
			Max: vg.Point{X: x(b.value), Y: middle + barHeight/2},
		}))
	}
	for _, m := range p.marks {
		at := x(m.at)
		dashes := draw.LineStyle{Color: t.highlight, Width: 1.2, Dashes: []vg.Length{4, 3}}
		c.StrokeLine2(dashes, at, data.Min.Y, at, data.Max.Y+2)
		name := style(t.highlight, draw.XLeft, draw.YBottom)
		at = min(at-name.Width(m.text)/2, c.Max.X-room(m.text))
		c.FillText(name, vg.Point{X: at, Y: data.Max.Y + 3}, m.text)
	}
	for i, b := range bars {
		middle := y(float64(len(bars) - 1 - i))
		if b.lo < b.hi {
			line := draw.LineStyle{Color: t.text, Width: 1}
			lo, hi := x(b.lo), x(b.hi)
			c.StrokeLine2(line, lo, middle, hi, middle)
			for _, end := range []vg.Length{lo, hi} {
				c.StrokeLine2(line, end, middle-3, end, middle+3)
			}
		}
		written := style(t.text, draw.XLeft, draw.YCenter)
		at := vg.Point{X: x(b.hi) + 5, Y: middle}
		box := written.Rectangle(b.text).Add(at) // so that no line runs through it
		box.Min.X, box.Max.X = box.Min.X-2, box.Min.X+room(b.text)
		c.FillPolygon(t.background, corners(box))
		c.FillText(written, at, b.text)
	}
}

// span is the range of the axis: from zero or, if it is logarithmic, from below
// the smallest value, and so far that the text behind the longest bar fits into
// a width.
func (p panel) span(bars []bar, width vg.Length) (lo, hi float64) {
	least, most := math.Inf(1), 0.0
	var text vg.Length
	for _, b := range bars {
		least, most = min(least, b.value), max(most, b.hi)
		text = max(text, room(b.text))
	}
	for _, m := range p.marks {
		most = max(most, m.at)
	}
	part := float64((width - text - 12) / width) // of the width, for the longest bar
	if !p.log {
		return 0, most / part
	}
	lo = math.Pow(10, math.Floor(math.Log10(max(least, 1)))) / 2
	return lo, lo * math.Pow(most/lo, 1/part)
}

// ticks labels the axis: with round numbers or, if it is logarithmic, powers.
func (p panel) ticks() plot.Ticker {
	format := func(v float64) string {
		if p.peer != "" || v == 0 {
			return fmt.Sprintf("%g", v)
		}
		number, unit, spaced := strings.Cut(formatValue(v, p.unit), " ")
		if strings.Contains(number, ".") {
			number = strings.TrimRight(strings.TrimRight(number, "0"), ".")
		}
		if spaced {
			number += " " + unit
		}
		return number
	}
	return plot.TickerFunc(func(lo, hi float64) []plot.Tick {
		if p.log {
			step := 10.0
			if p.unit == bytesUsed {
				step = 16
			}
			var ticks []plot.Tick
			for v := 1.0; v <= hi; v *= step {
				if v >= lo {
					ticks = append(ticks, plot.Tick{Value: v, Label: format(v)})
				}
			}
			return ticks
		}
		ticks := plot.DefaultTicks{}.Ticks(lo, hi)
		for i := range ticks {
			if !ticks[i].IsMinor() {
				ticks[i].Label = format(ticks[i].Value)
			}
		}
		return ticks
	})
}

func style(c color.Color, x draw.XAlignment, y draw.YAlignment) text.Style {
	return text.Style{
		Color: c, Font: font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, fontSize),
		XAlign: x, YAlign: y, Handler: plot.DefaultTextHandler,
	}
}

// corners are the corners of r.
func corners(r vg.Rectangle) []vg.Point {
	return []vg.Point{r.Min, {X: r.Max.X, Y: r.Min.Y}, r.Max, {X: r.Min.X, Y: r.Max.Y}}
}
