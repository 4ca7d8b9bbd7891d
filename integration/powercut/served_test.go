//go:build linux && (amd64 || arm64)

package powercut

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// servedImages is how many images are given to the real program.
const servedImages = 6

// serveSome has the real program start from some images, at random points, the first of them within the first start, and
// finish what is in them.
func serveSome(t *testing.T, r *recording, binary string, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 3))
	for i := range servedImages {
		from, to := r.Phases[1].At, len(r.Ops)+1
		if i == 0 {
			from, to = 0, r.Phases[1].At
		}
		k := from + rng.IntN(to-from)
		label, img := randomImage(r, rng, k)
		if err := serveImage(t, r, binary, img, k); err != nil {
			t.Errorf("served after a cut at operation %d in the phase %q, %s: %v", k, r.phaseAt(k).Name, label, err)
		}
	}
	t.Logf("%d images served by the program itself", servedImages)
}

// randomImage is what one cut at k leaves.
func randomImage(r *recording, rng *rand.Rand, k int) (string, *image) {
	c := &cutter{rec: r, rng: rng, disk: newDisk(r)}
	c.disk.advance(k)
	pending := c.disk.pending()
	label, choose := c.choose(rng.IntN(8), pending)
	if choose == nil {
		label, choose = c.choose(0, pending)
	}
	return label, c.disk.image(choose)
}

// serveImage starts the program from an image, with a new processor, and goes on until all is done that had to be there.
func serveImage(t *testing.T, r *recording, binary string, img *image, k int) error {
	dir := t.TempDir()
	if err := img.store(dir); err != nil {
		return err
	}
	config, err := writeConfig(dir, filepath.Join(dir, dataDir), r.Facts.Queues)
	if err != nil {
		return err
	}
	p, err := startProgram(t, binary, "serve", "--config", config)
	if err != nil {
		return err
	}
	c := r.afterwards()
	err = c.finishAll(p.url, r, k)
	if c.nc != nil {
		c.nc.Close()
	}
	if err == nil {
		err = p.stop()
	}
	if err != nil {
		return fmt.Errorf("%w; the program said:\n%s", err, p.said())
	}
	return nil
}

// afterwards are clients that know what was sent, and have forgotten what became of it.
func (r *recording) afterwards() *clients {
	c := newClients(0, r.Facts.Queues, func() int { return 0 }, time.Now().Add(runTime/2))
	c.Items, c.again = append([]item(nil), r.Facts.Items...), true
	for n := range c.Items {
		c.byBody[string(c.Items[n].Body)] = n
	}
	return c
}

// finishAll works until each item that had to be there has come, has its final or is to come much later, and a new one
// is done; then it looks whether one has come that must not.
func (c *clients) finishAll(url string, r *recording, k int) error {
	if err := c.connect(url, noticePrefix+".>", "late.>"); err != nil {
		return err
	}
	for q := range c.Queues {
		if err := c.register(q, fmt.Sprintf("late.%d", q), 1000); err != nil {
			return err
		}
	}
	for q := range c.Queues {
		it := c.make(q, fateDone, false)
		if err := c.publish(it, it.Accepts[0]); err != nil {
			return err
		}
	}
	err := c.pump("what was accepted before the cut", func() bool {
		for n := range c.Items {
			if !c.settledAfter(r, n, k) {
				return false
			}
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("%w: %s", err, c.missing(r, k))
	}
	for n := range r.Facts.Items {
		if c.trials[n] > 0 && r.toldBy(r.Facts.Items[n].Reply, k) {
			return fmt.Errorf("item %d was delivered again after its final", n)
		}
	}
	return nil
}

func (c *clients) settledAfter(r *recording, n, k int) bool {
	it := &c.Items[n]
	isNew := n >= len(r.Facts.Items)
	switch {
	case !isNew && !it.due(r, k), c.finals[n] != nil:
		return true
	case it.Fate == fateLater || it.Fate == fateFail:
		return true // it may have an hour to wait
	case it.Fate == fateNever:
		return c.trials[n] > 0
	}
	return false
}

func (c *clients) missing(r *recording, k int) string {
	var s []string
	for n := range c.Items {
		if !c.settledAfter(r, n, k) {
			s = append(s, fmt.Sprint(n))
		}
	}
	return "nothing is known of the items " + strings.Join(s, ", ")
}

// program is a running one that is not traced.
type program struct {
	cmd    *exec.Cmd
	url    string
	stderr string
	ended  chan error
}

// startProgram starts a program that the kernel ends with the test.
func startProgram(t *testing.T, args ...string) (*program, error) {
	p := &program{stderr: filepath.Join(t.TempDir(), "stderr"), ended: make(chan error, 1)}
	stderr, err := os.Create(p.stderr)
	if err != nil {
		return nil, err
	}
	defer stderr.Close()
	out, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	p.cmd = exec.CommandContext(t.Context(), args[0], args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = w, stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, err
	}
	t.Cleanup(p.kill)
	if err := out.SetReadDeadline(time.Now().Add(runTime / 2)); err != nil {
		return nil, err
	}
	if p.url, err = readyURL(io.Reader(out)); err != nil {
		return nil, fmt.Errorf("%w; the program said:\n%s", err, p.said())
	}
	return p, nil
}

// run keeps the thread that the program's life hangs on until it has ended.
func (p *program) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err == nil {
		p.ended <- p.cmd.Wait()
		close(p.ended)
	}
}

// kill ends the program if it still runs.
func (p *program) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	for range p.ended {
	}
}

// stop asks the program to end and says how it did.
func (p *program) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	timeout := time.NewTimer(runTime / 2)
	defer timeout.Stop()
	select {
	case err := <-p.ended:
		return err
	case <-timeout.C:
		return fmt.Errorf("it does not stop")
	}
}

func (p *program) said() []byte {
	b, err := os.ReadFile(p.stderr)
	if err != nil {
		return []byte(err.Error())
	}
	return b
}
