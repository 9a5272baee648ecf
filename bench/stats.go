package main

import (
	"math"
	"slices"
)

// confidence is what an interval shall have; fewer than six values cannot.
const confidence = 0.95

// median is the middle of the values, of two middles their mean.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// interval is a confidence interval of the median by order statistics, which
// suppose nothing about the distribution: of n values in order, the k-th from
// either end. The number of values below the true median is binomial (n, 1/2),
// so that coverage is 1 - 2 P(B < k). The narrowest that has the confidence is
// taken, or else all of the range, with less.
func interval(values []float64) (low, high, coverage float64) {
	n := len(values)
	if n == 0 {
		return math.NaN(), math.NaN(), 0
	}
	s := slices.Sorted(slices.Values(values))
	tail := math.Pow(0.5, float64(n)) // P(B <= 0), and then P(B <= k)
	term, k := tail, 0
	for k+1 < n-1-k {
		next := term * float64(n-k) / float64(k+1)
		if 1-2*(tail+next) < confidence {
			break
		}
		term, tail, k = next, tail+next, k+1
	}
	return s[k], s[n-1-k], max(0, 1-2*tail)
}

// ratios divides the values of rounds that both sides have.
func ratios(num, den map[int]float64) []float64 {
	var out []float64
	for round, v := range num {
		if d, ok := den[round]; ok && d > 0 {
			out = append(out, v/d)
		}
	}
	slices.Sort(out)
	return out
}
