package main

import "math"

// line is y = a + b x, by least squares.
type line struct{ a, b float64 }

func fit(xs, ys []float64) line {
	n := float64(len(xs))
	if len(xs) < 2 {
		return line{math.NaN(), math.NaN()}
	}
	var sx, sy, sxx, sxy float64
	for i := range xs {
		sx, sy, sxx, sxy = sx+xs[i], sy+ys[i], sxx+xs[i]*xs[i], sxy+xs[i]*ys[i]
	}
	d := n*sxx - sx*sx
	if d == 0 {
		return line{math.NaN(), math.NaN()}
	}
	b := (n*sxy - sx*sy) / d
	return line{(sy - b*sx) / n, b}
}

// power is the exponent of the growth, the slope between logarithms over the
// larger half of the points: 1 is proportional, 0 is constant, 2 is quadratic.
func power(xs, ys []float64) float64 {
	var lx, ly []float64
	for i := len(xs) / 2; i < len(xs); i++ {
		if xs[i] > 0 && ys[i] > 0 {
			lx, ly = append(lx, math.Log(xs[i])), append(ly, math.Log(ys[i]))
		}
	}
	return fit(lx, ly).b
}
