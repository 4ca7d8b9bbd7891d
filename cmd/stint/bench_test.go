package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"stint/cmd/stint/bench"
)

// runBench runs real processes: this test binary, which is stint where its name says so.
func runBench(t *testing.T, args ...string) *bench.Report {
	t.Helper()
	dir := t.TempDir()
	args = append([]string{"bench", "--json", "--rounds=1", "--dir", dir}, args...)
	var stdout, stderr bytes.Buffer
	if code := run(context.Background(), args, nil, &stdout, &stderr); code != 0 {
		t.Fatalf("%v exits with %d: %s", args, code, &stderr)
	}
	if stderr.Len() > 0 {
		t.Errorf("standard error has: %s", &stderr)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("in the directory of the data there is still %v (%v)", left, err)
	}
	var r bench.Report
	dec := json.NewDecoder(&stdout)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		t.Fatal(err)
	}
	return &r
}

// checkCounts looks at what each kind counted, and that figures are there or not; -1 means not there.
func checkCounts(t *testing.T, r *bench.Report, kinds []bench.Kind, want map[string]float64) {
	t.Helper()
	var got []bench.Kind
	for _, k := range r.Kinds {
		got = append(got, k.Kind)
		if len(k.Rounds) != 1 {
			t.Errorf("%s has %d rounds", k.Kind, len(k.Rounds))
			continue
		}
		for key, n := range want {
			v, ok := k.Rounds[0][key]
			if ok != (n >= 0) || ok && n > 0 && v != n {
				t.Errorf("%s: %s is %v (%v), want %v", k.Kind, key, v, ok, n)
			}
		}
	}
	if !slices.Equal(got, kinds) {
		t.Errorf("the kinds are %v, want %v", got, kinds)
	}
	if len(r.Ratios) != len(kinds)-1 {
		t.Errorf("there are %d ratios of %d kinds", len(r.Ratios), len(kinds))
	}
}

func TestBenchRoundtripOfEveryKind(t *testing.T) {
	r := runBench(t, "--items=300", "--window=16", "--capacity=4", "--queues=2", "--slow-sync=1ms",
		"--peer=relay,jetstream", "--peer=jetstream-sync")
	checkCounts(t, r, []bench.Kind{bench.Stint, bench.StintSlow, bench.Relay, bench.JetStream, bench.JetStreamSync},
		map[string]float64{
			"sent": 300, "accepted": 300, "completed": 300,
			"completed_per_s": 0, "accepted_per_s": 0, "accept_p50_us": 0, "roundtrip_p999_us": 0,
		})
	if !strings.HasPrefix(r.Work, "One sender process publishes 300 items of 128 bytes to 2 queues") {
		t.Errorf("the work is %q", r.Work)
	}
}

func TestBenchInBatches(t *testing.T) {
	counts := map[string]float64{"sent": 300, "accepted": 300, "completed": 300}
	for _, args := range [][]string{
		{"--batch=8", "--window=20", "--queues=2", "--capacity=4", "--peer=jetstream"},
		{"--batch=1000", "--window=1"},
		{"--batch=7", "--window=16", "--mode=drain"},
	} {
		r := runBench(t, append(args, "--items=300")...)
		kinds := []bench.Kind{bench.Stint, bench.JetStream}
		checkCounts(t, r, kinds[:len(r.Kinds)], counts)
	}
	r := runBench(t, "--items=600", "--batch=64", "--window=32", "--backlog=200", "--capacity=16")
	checkCounts(t, r, []bench.Kind{bench.Stint}, map[string]float64{"sent": 0, "completed_per_s": 0})
}

func TestBenchEnqueue(t *testing.T) {
	r := runBench(t, "--mode=enqueue", "--items=100", "--window=1", "--decode-json", "--peer=jetstream", "--peer=relay")
	checkCounts(t, r, []bench.Kind{bench.Stint, bench.JetStream, bench.Relay},
		map[string]float64{"sent": 100, "accepted": 100, "accepted_per_s": 0, "completed": -1, "roundtrip_p50_us": -1})
}

// Windows and capacities of one are where a wait for something that is not coming would show.
func TestBenchDrain(t *testing.T) {
	r := runBench(t, "--mode=drain", "--items=100", "--peer=jetstream", "--capacity=1")
	checkCounts(t, r, []bench.Kind{bench.Stint, bench.JetStream},
		map[string]float64{"sent": 100, "accepted": 100, "completed": 100, "accepted_per_s": -1, "accept_p50_us": -1})
}

func TestBenchOneAtATime(t *testing.T) {
	r := runBench(t, "--window=1", "--capacity=1", "--processors=1", "--items=50", "--peer=jetstream", "--peer=relay")
	checkCounts(t, r, []bench.Kind{bench.Stint, bench.JetStream, bench.Relay},
		map[string]float64{"sent": 50, "accepted": 50, "completed": 50})
}

func TestBenchBehindABacklog(t *testing.T) {
	const backlog, added = 400, 300
	r := runBench(t, "--backlog=400", "--items=300", "--window=1", "--peer=jetstream")
	checkCounts(t, r, []bench.Kind{bench.Stint, bench.JetStream},
		map[string]float64{"sent": backlog + added, "accepted": backlog + added, "accepted_per_s": 0, "roundtrip_p50_us": -1})
	for _, k := range r.Kinds {
		if n := k.Rounds[0]["completed"]; n < added || n > backlog+added {
			t.Errorf("%s: %v are completed", k.Kind, n)
		}
	}
}

func TestBenchForATimeWithProfiles(t *testing.T) {
	cpu, mem := filepath.Join(t.TempDir(), "cpu"), filepath.Join(t.TempDir(), "mem")
	r := runBench(t, "--seconds=0.2", "--peer=relay", "--cpuprofile", cpu, "--memprofile", mem)
	for _, file := range []string{cpu, mem, cpu + ".relay", mem + ".relay"} {
		if info, err := os.Stat(file); err != nil || info.Size() == 0 {
			t.Errorf("the profile %s: %v", file, err)
		}
	}
	f := r.Kinds[0].Rounds[0]
	if r.Seconds != 0.2 || f["sent"] < 1 || f["sent"] != f["accepted"] || f["sent"] != f["completed"] {
		t.Errorf("in %v seconds it counted %v", r.Seconds, f)
	}
}

func TestBenchUsage(t *testing.T) {
	for _, c := range []struct {
		args string
		want string
	}{
		{"--peer redis", `--peer must be one of jetstream, jetstream-sync, relay, not "redis"`},
		{"--mode both", "--mode must be roundtrip, enqueue or drain"},
		{"--seconds NaN", "--seconds must be above 0"},
		{"--seconds 1e300", "--seconds must be above 0"},
		{"--mode drain --peer relay", "leave it out, or measure the round trip"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(context.Background(), append([]string{"bench"}, strings.Fields(c.args)...), nil, &stdout, &stderr)
		if code != exitUsage || !strings.Contains(stderr.String(), c.want) || stdout.Len() > 0 {
			t.Errorf("%s: exit %d, %s", c.args, code, &stderr)
		}
	}
}

func TestBenchWithoutADirectory(t *testing.T) {
	var stdout, stderr bytes.Buffer
	missing := filepath.Join(t.TempDir(), "missing")
	code := run(context.Background(), []string{"bench", "--items=1", "--dir", missing}, nil, &stdout, &stderr)
	if code != exitError || !strings.Contains(stderr.String(), "round 1, stint: making a directory for the data") {
		t.Errorf("exit %d, %s", code, &stderr)
	}
}

// A run that is stopped leaves neither files nor, as the end of the test run checks, goroutines.
func TestBenchIsStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	dir := t.TempDir()
	type outcome struct {
		code   int
		stderr string
	}
	done := make(chan outcome, 1)
	go func() {
		var stdout, stderr bytes.Buffer
		code := run(ctx, []string{"bench", "--seconds=600", "--dir", dir}, nil, &stdout, &stderr)
		done <- outcome{code, stderr.String()}
	}()
	for !hasDatabase(dir) {
		select {
		case o := <-done:
			t.Fatalf("it ended with %+v", o)
		default:
		}
	}
	cancel()
	if o := <-done; o.code != exitInterrupt || !strings.Contains(o.stderr, "stopped before it was done") {
		t.Errorf("it ended with %+v", o)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("there is still %v (%v)", left, err)
	}
}

func hasDatabase(dir string) bool {
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.db"))
	return err == nil && len(files) > 0
}
