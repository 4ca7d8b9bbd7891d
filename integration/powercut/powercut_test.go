//go:build linux && (amd64 || arm64)

package powercut

import (
	"math/rand/v2"
	"os"
	"testing"
)

// ordinaryCuts is how many cuts the ordinary run makes, wrongCuts how many at each build that is wrong on purpose.
const (
	ordinaryCuts = 12000
	wrongCuts    = 600
)

func TestPowerCut(t *testing.T) {
	seed := chosenSeed(t)
	binary := build(t, "")
	r := recorded(t, "broker", binary, seed)
	for i, p := range r.Phases {
		t.Logf("%5d operations before %d %s", p.At, i+1, p.Name)
	}
	if rep := cutAll(t, r, seed, cutsOr(ordinaryCuts)); len(rep.kinds) > 0 {
		t.Error("the broker broke its word: see the verdicts above")
	}
	serveSome(t, r, binary, seed)
}

// TestWrongBuildsAreCaught is the proof that the cuts find what they are made to find.
func TestWrongBuildsAreCaught(t *testing.T) {
	for _, tag := range []string{"defect_nosync", "defect_earlyaccept"} {
		t.Run(tag, func(t *testing.T) {
			seed := chosenSeed(t)
			rep := cutAll(t, recorded(t, "brief", build(t, tag), seed), seed, wrongCuts)
			if rep.kinds[lost] == 0 {
				t.Errorf("no accepted item was missed at any of %d cuts; this build loses items", rep.cuts)
			}
		})
	}
}

func cutAll(t *testing.T, r *recording, seed uint64, cuts int) *report {
	t.Helper()
	rep := cutEverywhere(r, imageDir(t), seed, cuts)
	if rep.err != nil {
		t.Fatal(rep.err)
	}
	rep.log(t, r)
	return rep
}

// cutsOr is the number of cuts that was asked for on the command line, or n.
func cutsOr(n int) int {
	if *cutsFlag > 0 {
		return *cutsFlag
	}
	return n
}

func chosenSeed(t *testing.T) uint64 {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64N(1e9) + 1
	}
	t.Logf("run again with -seed=%d (what the kernel does in between is not the same again)", seed)
	return seed
}

// imageDir is where images are opened: in memory if there is such a place, since what is in them is what counts.
func imageDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "stint-powercut-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
