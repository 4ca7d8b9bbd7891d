// Backlog measures how throughput and memory depend on how many items wait, and draws it:
//
//	go run ./docs/figures -stint ./stint -out docs/figures
//
// It runs `stint bench --backlog N` for each size, keeps what it printed in backlog.json, and draws backlog.svg from that.
// With -draw it only draws.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "backlog:", err)
		os.Exit(1)
	}
}

func run() error {
	stint := flag.String("stint", "./stint", "the binary")
	out := flag.String("out", "docs/figures", "directory of backlog.json and backlog.svg")
	sizes := flag.String("sizes", "1000,10000,100000,1000000,10000000", "backlogs, in items")
	rounds := flag.Int("rounds", 1, "rounds of each")
	draw := flag.Bool("draw", false, "only draw what backlog.json holds")
	flag.Parse()
	file := filepath.Join(*out, "backlog.json")
	if !*draw {
		points, err := measureAll(*stint, strings.Split(*sizes, ","), *rounds)
		if err != nil {
			return err
		}
		if err := save(file, points); err != nil {
			return err
		}
	}
	points, err := load(file)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(*out, "backlog.svg"), []byte(picture(points)), 0o644)
}

// point is what was measured at one backlog, median of the rounds.
type point struct {
	Backlog   int     `json:"backlog"`
	Completed float64 `json:"completed_per_s"`
	Memory    float64 `json:"peak_memory_bytes"`
}

func measureAll(stint string, sizes []string, rounds int) (points []point, err error) {
	for _, text := range sizes {
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("-sizes: %w", err)
		}
		p, err := measure(stint, n, rounds)
		if err != nil {
			return nil, fmt.Errorf("backlog %d: %w", n, err)
		}
		fmt.Fprintf(os.Stdout, "%d: %.0f/s, %.0f MiB\n", p.Backlog, p.Completed, p.Memory/(1<<20))
		points = append(points, p)
	}
	return points, nil
}

func measure(stint string, backlog, rounds int) (point, error) {
	cmd := exec.Command(stint, "bench", "--json", "--backlog", strconv.Itoa(backlog), "--rounds", strconv.Itoa(rounds))
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return point{}, err
	}
	var result struct {
		Kinds []struct {
			Median map[string]struct{ Median float64 }
		}
	}
	if err := json.Unmarshal(text, &result); err != nil {
		return point{}, err
	}
	m := result.Kinds[0].Median
	return point{backlog, m["completed_per_s"].Median, m["peak_memory_bytes"].Median}, nil
}

func save(file string, points []point) error {
	text, err := json.MarshalIndent(points, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

func load(file string) (points []point, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &points); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(points) < 2 {
		return nil, fmt.Errorf("%s: a plot takes at least two points", file)
	}
	return points, nil
}

// Measures of the picture, in pixels.
const (
	width, height = 640, 240 // of a panel
	left, below   = 80, 40   // room for the axes
)

func picture(points []point) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, 2*height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, 2*height)
	panel(&b, 0, "completed/s", points, func(p point) float64 { return p.Completed })
	panel(&b, height, "peak memory, MiB", points, func(p point) float64 { return p.Memory / (1 << 20) })
	b.WriteString("</svg>\n")
	return b.String()
}

// panel draws one quantity over the backlog, on a logarithmic axis. The other axis begins at zero.
func panel(b *strings.Builder, top int, title string, points []point, of func(point) float64) {
	lowest, highest := math.Log10(float64(points[0].Backlog)), math.Log10(float64(points[len(points)-1].Backlog))
	most := 0.0
	for _, p := range points {
		most = max(most, of(p))
	}
	most *= 1.15
	x := func(p point) float64 {
		return left + (math.Log10(float64(p.Backlog))-lowest)/(highest-lowest)*(width-left-40)
	}
	y := func(v float64) float64 { return float64(top) + height - below - v/most*(height-below-30) }
	fmt.Fprintf(b, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", left, top+18, title)
	for i := range 5 {
		v := most * float64(i) / 4
		fmt.Fprintf(b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%.0f</text>`+"\n",
			left, y(v), width-30, left-8, y(v)+4, v)
	}
	line := "M"
	for i, p := range points {
		if i > 0 {
			line += "L"
		}
		line += fmt.Sprintf("%.1f %.1f", x(p), y(of(p)))
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="#06c"/><text x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n",
			x(p), y(of(p)), x(p), top+height-below+18, p.Backlog)
	}
	fmt.Fprintf(b, `<path d="%s" fill="none" stroke="#06c" stroke-width="2"/>`+"\n", line)
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">items waiting</text>`+"\n", width-30, top+height-6)
}
