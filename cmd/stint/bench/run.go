package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// Report is everything a run has measured.
type Report struct {
	Work     string   `json:"work"`
	Options  Options  `json:"options"`
	Seconds  float64  `json:"seconds,omitempty"`      // of a round's sending; 0: by items
	SlowSync float64  `json:"slow_sync_ms,omitempty"` // added to each fsync of stint-slow
	Machine  Machine  `json:"machine"`
	Kinds    []Result `json:"kinds"`
	Ratios   []Ratio  `json:"ratios"`
}

// Machine is where it was measured.
type Machine struct {
	OS         string `json:"os"`
	Arch       string `json:"arch"`
	CPUs       int    `json:"cpus"`
	Go         string `json:"go"`
	NATSServer string `json:"nats_server"`
	FileSystem string `json:"file_system,omitempty"` // of the data
}

// Result is one kind.
type Result struct {
	Kind   Kind              `json:"kind"`
	Rounds []Figures         `json:"rounds"`
	Median map[string]Spread `json:"median"`
}

// Ratio is one kind's figures divided by another's, round by round.
type Ratio struct {
	Of     Kind              `json:"of"`
	To     Kind              `json:"to"`
	Rounds []Figures         `json:"rounds"`
	Median map[string]Spread `json:"median"`
}

// Run measures. live is where a line tells how far it is; nil: nowhere.
func Run(ctx context.Context, o Options, live io.Writer) (*Report, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("looking up this program's own file: %w", err)
	}
	kinds := o.kinds()
	rounds := map[Kind][]Figures{}
	line := liveLine{out: live, rounds: o.Rounds}
	defer line.clear()
	for n := range o.Rounds {
		for i := range kinds {
			kind := kinds[(i+n)%len(kinds)] // each round begins with another one
			line.start(n+1, kind)
			r := round{exe: exe, spec: o.spec(kind), progress: line.show}
			r.spec.Live = live != nil
			f, err := r.run(ctx, o.Dir)
			if err != nil {
				return nil, fmt.Errorf("round %d, %s: %w", n+1, kind, err)
			}
			rounds[kind] = append(rounds[kind], f)
		}
	}
	return o.report(rounds), nil
}

func (o *Options) report(rounds map[Kind][]Figures) *Report {
	r := &Report{
		Work: o.Work(), Options: *o, Machine: o.machine(),
		SlowSync: o.SlowSync.Seconds() * 1000,
		Ratios:   []Ratio{},
	}
	if r.Options.Peers == nil {
		r.Options.Peers = []Kind{}
	}
	if o.Items == 0 {
		r.Seconds = o.Duration.Seconds()
	}
	for _, kind := range o.kinds() {
		r.Kinds = append(r.Kinds, Result{kind, rounds[kind], spreads(rounds[kind])})
	}
	for _, kind := range o.kinds()[1:] {
		of, to := Stint, kind
		if kind == StintSlow {
			of, to = to, of // what is left of the speed
		}
		each := ratios(rounds[of], rounds[to])
		r.Ratios = append(r.Ratios, Ratio{of, to, each, spreads(each)})
	}
	return r
}

func (o *Options) machine() Machine {
	dir := o.Dir
	if dir == "" {
		dir = os.TempDir()
	}
	return Machine{
		OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), Go: runtime.Version(),
		NATSServer: natsserver.VERSION, FileSystem: fileSystem(dir),
	}
}
