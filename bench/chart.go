package main

import (
	"fmt"
	"math"
	"strings"
)

// The place of the curves in their picture.
const (
	chartWidth, chartHeight = 640, 360
	chartLeft, chartRight   = 80, 620
	chartTop, chartBottom   = 50, 310
)

var chartColours = []string{"#1f77b4", "#888888"}

// draw returns the curves as SVG. The setting is on a logarithmic scale, and so is the speed
// if it spans more than a factor of 20.
func (d drawing) draw() string {
	low, high := math.Inf(1), 0.0
	for _, curve := range d.speeds {
		for _, v := range curve {
			low, high = min(low, v), max(high, v)
		}
	}
	scale, from := func(v float64) float64 { return v }, 0.0
	if high > 20*low {
		scale, from = math.Log, math.Log(low)
	}
	first, last := math.Log(float64(d.points[0])), math.Log(float64(d.points[len(d.points)-1]))
	x := func(at int) float64 {
		return chartLeft + (chartRight-chartLeft)*(math.Log(float64(at))-first)/(last-first)
	}
	y := func(v float64) float64 {
		return chartBottom - (chartBottom-chartTop)*(scale(v)-from)/(scale(high)-from)
	}

	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`, chartWidth, chartHeight)
	line(`<rect width="%d" height="%d" fill="white"/>`, chartWidth, chartHeight)
	line(`<text x="%d" y="20" font-size="14">%s</text>`, chartLeft, strings.TrimPrefix(d.name, "growth, "))
	line(`<path d="M%d %dV%dH%d" fill="none" stroke="black"/>`, chartLeft, chartTop, chartBottom, chartRight)
	for _, at := range d.points {
		line(`<text x="%.0f" y="%d" text-anchor="middle">%d</text>`, x(at), chartBottom+18, at)
	}
	line(`<text x="%d" y="%d" text-anchor="middle">%s</text>`, (chartLeft+chartRight)/2, chartBottom+38, d.over)
	for _, v := range marks(low, high, from > 0) {
		line(`<path d="M%d %.1fH%d" stroke="#dddddd"/>`, chartLeft, y(v), chartRight)
		line(`<text x="%d" y="%.1f" text-anchor="end">%s/s</text>`, chartLeft-6, y(v)+4, thousands(v))
	}
	for i, curve := range d.speeds {
		colour := chartColours[i]
		var path []string
		for p, v := range curve {
			path = append(path, fmt.Sprintf("%.1f,%.1f", x(d.points[p]), y(v)))
			line(`<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`, x(d.points[p]), y(v), colour)
		}
		line(`<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`, strings.Join(path, " "), colour)
		line(`<text x="%d" y="40" fill="%s">%s</text>`, chartLeft+180*i, colour, d.curves[i].name)
	}
	line(`</svg>`)
	return b.String()
}

// marks are the speeds that the scale names: powers of ten, or quarters of the highest one.
func marks(low, high float64, logarithmic bool) []float64 {
	var marks []float64
	if logarithmic {
		for v := math.Pow(10, math.Ceil(math.Log10(low))); v <= high; v *= 10 {
			marks = append(marks, v)
		}
		return marks
	}
	step := math.Pow(10, math.Floor(math.Log10(high)))
	if high/step < 4 {
		step /= 4
	}
	for v := step; v <= high; v += step {
		marks = append(marks, v)
	}
	return marks
}

// thousands shows a speed in few characters.
func thousands(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%g M", math.Round(v/1e4)/100)
	case v >= 1e3:
		return fmt.Sprintf("%g k", math.Round(v/10)/100)
	}
	return fmt.Sprintf("%g", math.Round(v))
}
