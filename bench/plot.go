package main

import (
	"errors"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// colours are told apart by most eyes (Okabe and Ito); fbuild has the first.
var colours = []color.RGBA{
	{0x00, 0x72, 0xb2, 0xff},
	{0xe6, 0x9f, 0x00, 0xff},
	{0x00, 0x9e, 0x73, 0xff},
	{0xcc, 0x79, 0xa7, 0xff},
	{0xd5, 0x5e, 0x00, 0xff},
	{0x56, 0xb4, 0xe9, 0xff},
	{0x99, 0x99, 0x99, 0xff},
	{0x33, 0x33, 0x33, 0xff},
}

// draw draws what there is into a directory, and says which plots.
func (r *results) draw(dir string) (map[string]bool, error) {
	drawn := map[string]bool{}
	if len(r.cells) == 0 {
		return drawn, nil
	}
	if err := openDirs(dir); err != nil {
		return nil, err
	}
	ok, err := r.drawSummary(filepath.Join(dir, "summary.svg"))
	if err != nil {
		return nil, err
	}
	drawn["summary"] = ok
	for _, g := range growths {
		ok, err := r.drawGrowth(g, filepath.Join(dir, g.name+".svg"))
		if err != nil {
			return nil, err
		}
		drawn[g.name] = ok
	}
	return drawn, nil
}

// drawSummary draws bars of the times from nothing to the registry.
func (r *results) drawSummary(file string) (bool, error) {
	sides := slices.DeleteFunc(r.sidesOfAll(), func(s string) bool { return !slices.Contains(append(mainSides, "kaniko"), s) })
	var shown []workload
	for _, w := range workloads {
		if len(r.endToEnd(w.name, fbuildSide)) > 0 {
			shown = append(shown, w)
		}
	}
	if len(shown) == 0 {
		return false, nil
	}
	p := plot.New()
	p.Title.Text = "From nothing to the registry (seconds; shorter is better)"
	p.Legend.Top, p.Legend.Padding = true, vg.Points(6)
	p.X.Min = 0
	const step = 1.0
	width := 0.8 * step / float64(len(sides))
	var labels []string
	for i, w := range slices.Backward(shown) {
		labels = append(labels, w.name+"   ")
		for k, s := range sides {
			v := values(r.endToEnd(w.name, s))
			if len(v) == 0 {
				continue
			}
			y := float64(len(shown)-1-i)*step + 0.4*step - (float64(k)+0.5)*width
			bar, err := plotter.NewPolygon(plotter.XYs{{X: 0, Y: y - width/2}, {X: median(v), Y: y - width/2}, {X: median(v), Y: y + width/2}, {X: 0, Y: y + width/2}})
			if err != nil {
				return false, fmt.Errorf("draw summary: %w", err)
			}
			bar.Color, bar.Width = colours[k%len(colours)], 0
			p.Add(bar)
		}
	}
	for k, s := range sides {
		p.Legend.Add(s+"          ", swatch{colours[k%len(colours)]}) // room for wider fonts
	}
	p.NominalY(labels...)
	p.X.Max *= 1.05
	p.Y.Tick.Label.Font.Size, p.X.Tick.Marker = vg.Points(9), plot.TickerFunc(wholeTicks)
	p.Y.Min, p.Y.Max = -0.6, float64(len(shown))-0.4
	return true, save(p, 22*vg.Centimeter, vg.Length(2+1.6*float64(len(shown)))*vg.Centimeter, file)
}

// swatch is the thumbnail of a bar.
type swatch struct{ c color.RGBA }

// Thumbnail fills the canvas of the legend.
func (s swatch) Thumbnail(c *draw.Canvas) {
	c.FillPolygon(s.c, []vg.Point{{X: c.Min.X, Y: c.Min.Y}, {X: c.Max.X, Y: c.Min.Y}, {X: c.Max.X, Y: c.Max.Y}, {X: c.Min.X, Y: c.Max.Y}})
}

// drawGrowth draws time and memory of a growth, one above the other.
func (r *results) drawGrowth(g growth, file string) (bool, error) {
	times, mem := plot.New(), plot.New()
	times.Title.Text = g.title
	times.Y.Label.Text, mem.Y.Label.Text, mem.X.Label.Text = "seconds", "peak MiB", g.unit
	some := false
	for k, s := range r.growthSides(g) {
		xs, ts, ms := r.series(g, s)
		if len(xs) < 2 {
			continue
		}
		some = true
		for _, one := range []struct {
			p  *plot.Plot
			ys []float64
		}{{times, ts}, {mem, ms}} {
			if err := addLine(one.p, s, xs, one.ys, colours[k%len(colours)]); err != nil {
				return false, fmt.Errorf("draw %s: %w", g.name, err)
			}
		}
	}
	if !some {
		return false, nil
	}
	wide := g.points[len(g.points)-1] >= 1000*g.points[0]
	for _, p := range []*plot.Plot{times, mem} {
		p.Legend.Top, p.Legend.Left = true, true
		if wide {
			p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
		} else {
			p.X.Min = 0
		}
		if wide && p == times { // a straight line at 45 degrees is proportional
			p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
			p.Y.Max *= 3
		} else {
			p.Y.Min = 0
			p.Y.Max *= 1.25
		}
		p.Add(plotter.NewGrid())
	}
	return true, saveBoth(times, mem, file)
}

func addLine(p *plot.Plot, name string, xs, ys []float64, c color.RGBA) error {
	pts := make(plotter.XYs, len(xs))
	for i := range xs {
		pts[i].X, pts[i].Y = xs[i], ys[i]
	}
	l, s, err := plotter.NewLinePoints(pts)
	if err != nil {
		return err
	}
	l.Color, l.Width, s.Color, s.Shape = c, vg.Points(1.5), c, draw.CircleGlyph{}
	p.Add(l, s)
	p.Legend.Add(name, l, s)
	return nil
}

// saveBoth writes two plots, one above the other.
func saveBoth(top, bottom *plot.Plot, file string) error {
	c := vgsvg.New(16*vg.Centimeter, 16*vg.Centimeter)
	dc := margins(draw.New(c))
	all := plot.Align([][]*plot.Plot{{top}, {bottom}}, draw.Tiles{Rows: 2, Cols: 1, PadY: vg.Points(8)}, dc)
	top.Draw(all[0][0])
	bottom.Draw(all[1][0])
	return writeSVG(c, file)
}

func save(p *plot.Plot, w, h vg.Length, file string) error {
	c := vgsvg.New(w, h)
	p.Draw(margins(draw.New(c)))
	return writeSVG(c, file)
}

// margins leave room for viewers whose fonts are wider than those that the plot
// was laid out with.
func margins(c draw.Canvas) draw.Canvas {
	return draw.Crop(c, vg.Centimeter, -vg.Centimeter/2, vg.Centimeter/4, -vg.Centimeter/2)
}

// wholeTicks are at numbers that people count with.
func wholeTicks(low, high float64) []plot.Tick {
	step := math.Pow(10, math.Floor(math.Log10(max(high-low, 1e-9))))
	for (high-low)/step < 4 {
		step /= 2
	}
	var out []plot.Tick
	for v := math.Ceil(low/step) * step; v <= high; v += step {
		out = append(out, plot.Tick{Value: v, Label: fmt.Sprintf("%g", v)})
	}
	return out
}

func writeSVG(c *vgsvg.Canvas, file string) error {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("write plot: %w", err)
	}
	_, err = c.WriteTo(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write plot: %w", err)
	}
	return nil
}
