package bench

import (
	"math"
	"slices"
	"time"
)

// Figures are what a round has measured, by the keys of Metrics. A key that is not there was not measured or is not known.
type Figures map[string]float64

// Metric is a figure's name.
type Metric struct {
	Key   string
	Label string
	ratio bool // worth printing as a ratio
	show  func(float64) string
}

// Metrics are all figures of a round in the order in which they are printed. Latencies are in microseconds. The numbers of
// items are those of the whole round; what is put there first is in them.
func Metrics() []Metric {
	return []Metric{
		{"completed_per_s", "completed/s", true, count},
		{"accepted_per_s", "accepted/s", true, count},
		{"accept_p50_us", "accept p50", true, micros},
		{"accept_p99_us", "accept p99", true, micros},
		{"accept_p999_us", "accept p99.9", false, micros},
		{"roundtrip_p50_us", "round trip p50", true, micros},
		{"roundtrip_p99_us", "round trip p99", true, micros},
		{"roundtrip_p999_us", "round trip p99.9", false, micros},
		{"cpu_us_per_item", "broker CPU per item", true, micros},
		{"peak_memory_bytes", "broker peak memory", true, size},
		{"written_bytes_per_item", "bytes written per item", true, count},
		{"sent", "items sent", false, count},
		{"accepted", "items accepted", false, count},
		{"completed", "items completed", false, count},
	}
}

// measured is a round before it is made into figures.
type measured struct {
	result
	before, after usage
	memory        int64
}

func (m *measured) figures(s *spec) Figures {
	f := Figures{"sent": float64(m.Sent), "accepted": float64(m.Accepted)}
	if s.Mode != Enqueue {
		f["completed"] = float64(m.Completed)
		f.rate("completed_per_s", m.Finished, m.Finishing)
	}
	if s.Mode != Drain {
		f.rate("accepted_per_s", int64(m.Accept.Count), m.Accepting)
	}
	f.latency("accept", m.Accept)
	f.latency("roundtrip", m.Roundtrip)
	items := float64(m.items(s))
	if m.before.CPU >= 0 && m.after.CPU >= 0 && items > 0 {
		f["cpu_us_per_item"] = inMicros(m.after.CPU-m.before.CPU) / items
	}
	if m.before.Written >= 0 && m.after.Written >= 0 && items > 0 {
		f["written_bytes_per_item"] = float64(m.after.Written-m.before.Written) / items
	}
	if m.memory >= 0 {
		f["peak_memory_bytes"] = float64(m.memory)
	}
	return f
}

// items are those that the server's usage is shared among.
func (m *measured) items(s *spec) int64 {
	if s.Mode == Enqueue {
		return m.Accepted
	}
	return m.Completed
}

func (f Figures) rate(key string, n int64, in time.Duration) {
	if n > 0 && in > 0 {
		f[key] = float64(n) / in.Seconds()
	}
}

func (f Figures) latency(name string, l latency) {
	if l.Count == 0 {
		return
	}
	f[name+"_p50_us"], f[name+"_p99_us"], f[name+"_p999_us"] = inMicros(l.P50), inMicros(l.P99), inMicros(l.P999)
}

func inMicros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// Spread is a figure over several rounds.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf needs at least one value. The median of an even number of values is the mean of the two in the middle.
func spreadOf(values []float64) Spread {
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	return Spread{(values[(n-1)/2] + values[n/2]) / 2, values[0], values[n-1]}
}

// spreads are those of the figures that every round has.
func spreads(rounds []Figures) map[string]Spread {
	out := map[string]Spread{}
	for _, m := range Metrics() {
		var values []float64
		for _, f := range rounds {
			if v, ok := f[m.Key]; ok {
				values = append(values, v)
			}
		}
		if len(values) > 0 && len(values) == len(rounds) {
			out[m.Key] = spreadOf(values)
		}
	}
	return out
}

// ratios are made of the two kinds' figures of the same round.
func ratios(of, to []Figures) []Figures {
	out := make([]Figures, 0, len(of))
	for i := range min(len(of), len(to)) {
		f := Figures{}
		for _, m := range Metrics() {
			above, ok := of[i][m.Key]
			below, ok2 := to[i][m.Key]
			if q := above / below; ok && ok2 && m.ratio && !math.IsInf(q, 0) && !math.IsNaN(q) {
				f[m.Key] = q
			}
		}
		out = append(out, f)
	}
	return out
}
