package pool

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// memoryEvery is how often memory is measured when it is limited.
const memoryEvery = time.Second

// maxBelow bounds how many processes below a child are looked at.
const maxBelow = 1000

// memoryOf is the resident memory of a process and of all below it, in bytes. Pages that they share are counted for each. 0:
// it is gone, or the system does not say.
func memoryOf(pid int) (sum int64) {
	pids := []int{pid}
	for i := 0; i < len(pids) && i < maxBelow; i++ {
		sum += resident(pids[i])
		pids = append(pids, below(pids[i])...)
	}
	return sum
}

func resident(pid int) int64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// below lists the children of a process, of all its threads.
func below(pid int) (pids []int) {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	threads, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, t := range threads {
		text, err := os.ReadFile(dir + "/" + t.Name() + "/children")
		if err != nil {
			continue
		}
		for field := range strings.FieldsSeq(string(text)) {
			if n, err := strconv.Atoi(field); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}

// watchMemory measures every child as long as the pool runs, if it has a limit.
func (p *Pool) watchMemory() {
	if p.o.MaxMemory == 0 {
		return
	}
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.over:
			return
		case <-tick.C:
		}
		for n, pid := range p.pids() {
			size := memoryOf(pid)
			p.post(func(own *owner, now time.Time) { own.measured(now, n, size) })
		}
	}
}

// pids are the processes that run, by number.
func (p *Pool) pids() map[int]int {
	reply := make(chan map[int]int, 1)
	p.post(func(own *owner, _ time.Time) {
		pids := make(map[int]int, len(own.procs))
		for n, proc := range own.procs {
			if proc.pid > 0 {
				pids[n] = proc.pid
			}
		}
		reply <- pids
	})
	select {
	case pids := <-reply:
		return pids
	case <-p.over:
		return nil
	}
}

func (own *owner) measured(now time.Time, n int, size int64) {
	p := own.procs[n]
	switch {
	case p == nil:
	case p.child != nil:
		own.roster.measured(now, p.child, size)
	case size > own.pool.o.MaxMemory:
		select {
		case p.run.tooBig <- size:
		default:
		}
	}
}
