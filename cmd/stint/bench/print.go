package bench

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Print writes the report as text.
func (r *Report) Print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", r.Work)
	m := r.Machine
	fmt.Fprintf(&b, "%s/%s, %s, %s, nats-server %s", m.OS, m.Arch, plural(m.CPUs, "CPU", "CPUs"), m.Go, m.NATSServer)
	if m.FileSystem != "" {
		fmt.Fprintf(&b, ", data on %s", m.FileSystem)
	}
	fmt.Fprintf(&b, "\n%s, median (min-max)\n\n", plural(r.Options.Rounds, "round", "rounds"))
	r.printKinds(&b)
	r.printRatios(&b)
	for _, note := range r.notes() {
		fmt.Fprintf(&b, "\nNote: %s\n", note)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) printKinds(b *strings.Builder) {
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, k := range r.Kinds {
		fmt.Fprintf(t, "\t%s", k.Kind)
	}
	fmt.Fprintln(t)
	for _, m := range Metrics() {
		fmt.Fprint(t, m.Label)
		for _, k := range r.Kinds {
			fmt.Fprintf(t, "\t%s", showSpread(k.Median, m.Key, m.show))
		}
		fmt.Fprintln(t)
	}
	_ = t.Flush() // a strings.Builder takes everything
}

func (r *Report) printRatios(b *strings.Builder) {
	if len(r.Ratios) == 0 {
		return
	}
	fmt.Fprint(b, "\nRatios within each round, median (min-max)\n\n")
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, q := range r.Ratios {
		fmt.Fprintf(t, "\t%s / %s", q.Of, q.To)
	}
	fmt.Fprintln(t)
	for _, m := range Metrics() {
		if !m.ratio {
			continue
		}
		fmt.Fprint(t, m.Label)
		for _, q := range r.Ratios {
			fmt.Fprintf(t, "\t%s", showSpread(q.Median, m.Key, quotient))
		}
		fmt.Fprintln(t)
	}
	_ = t.Flush() // a strings.Builder takes everything
}

// notes are what a reader must know to read the figures right.
func (r *Report) notes() []string {
	var out []string
	if r.Machine.FileSystem == inMemory {
		out = append(out, "the data lies in memory (tmpfs), where an fsync costs nothing: name a directory on a disk with --dir.")
	}
	if r.Options.DecodeJSON {
		out = append(out, "the sender decodes accept notices as any JSON.")
	}
	if r.Options.SlowSync > 0 {
		out = append(out, fmt.Sprintf("in stint-slow each fsync takes %s longer: the delay stands before an append to the log, and twice before a commit "+
			"of the file, which has two. Peers are not slowed.", r.Options.SlowSync))
	}
	if r.Options.CPUProfile != "" || r.Options.MemProfile != "" {
		out = append(out, "the profiles are those of the last round; taking them costs some speed.")
	}
	return out
}

func showSpread(all map[string]Spread, key string, show func(float64) string) string {
	s, ok := all[key]
	if !ok {
		return "n/a"
	}
	return fmt.Sprintf("%s (%s-%s)", show(s.Median), show(s.Min), show(s.Max))
}

func count(v float64) string { return thousands(int64(math.Round(v))) }

func quotient(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }

// micros shows microseconds in the unit that reads best.
func micros(v float64) string {
	switch {
	case v >= 1e6:
		return strconv.FormatFloat(v/1e6, 'f', 2, 64) + "s"
	case v >= 1e4:
		return strconv.FormatFloat(v/1e3, 'f', 1, 64) + "ms"
	case v >= 1e3:
		return strconv.FormatFloat(v/1e3, 'f', 2, 64) + "ms"
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + "us"
}

func size(v float64) string { return strconv.FormatFloat(v/(1<<20), 'f', 1, 64) + " MiB" }

// thousands puts commas into a number.
func thousands(n int64) string {
	if n < 0 {
		return "-" + thousands(-n)
	}
	text := strconv.FormatInt(n, 10)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// liveLine is one line that is written over and over, for a terminal. It has no colours.
type liveLine struct {
	out    io.Writer // nil: nobody looks
	rounds int
	head   string
	width  int // of what stands there
}

func (l *liveLine) start(round int, kind Kind) {
	l.head = fmt.Sprintf("round %d of %d, %s", round, l.rounds, kind)
	l.write(l.head)
}

func (l *liveLine) show(e event) {
	l.write(fmt.Sprintf("%s: %s accepted, %s completed", l.head, thousands(e.Accepted), thousands(e.Completed)))
}

func (l *liveLine) clear() {
	l.write("")
	if l.out != nil {
		fmt.Fprint(l.out, "\r")
	}
}

func (l *liveLine) write(text string) {
	if l.out == nil {
		return
	}
	fmt.Fprintf(l.out, "\r%-*s", l.width, text)
	l.width = len(text)
}
