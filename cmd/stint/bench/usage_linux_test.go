package bench

import (
	"os"
	"testing"
	"time"
)

func TestCPUOfAProcessWithAnOddName(t *testing.T) {
	const stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 123 77 0 0 20 0 9 0 100 0 0"
	if got := parseCPU([]byte(stat)); got != 2*time.Second {
		t.Errorf("got %s", got)
	}
	for _, bad := range []string{"", "42 (a) S 1", "42 (a) S 1 42 42 0 -1 4194304 100 0 0 0 x 77 0 0"} {
		if got := parseCPU([]byte(bad)); got != -1 {
			t.Errorf("%q gives %s", bad, got)
		}
	}
}

func TestField(t *testing.T) {
	const text = "VmHWM:\t  9 kB\nRssAnon:\t  4096 kB\nbad:\n"
	for name, want := range map[string]int64{"RssAnon:": 4096, "VmHWM:": 9, "none:": -1, "bad:": -1} {
		if got := field([]byte(text), name); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
}

func TestUsageOfThisProcess(t *testing.T) {
	if u := readUsage(os.Getpid()); u.CPU < 0 {
		t.Errorf("got %+v", u)
	}
	if anonymousMemory(os.Getpid()) <= 0 {
		t.Error("this process has no memory")
	}
	const nobody = 1 << 30 // above the largest id there is
	if u := readUsage(nobody); u != (usage{-1, -1}) || anonymousMemory(nobody) != -1 {
		t.Errorf("a process that is not there has %+v", u)
	}
}
