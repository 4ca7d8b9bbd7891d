package node

import (
	"encoding/json"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Every way to cut a line with characters of two, three and four bytes. The child has read the first part before the
// second one is written.
func TestLinesCutAnywhere(t *testing.T) {
	c := worker(t, Options{}, echo)
	body := `{"type":"é€😀"}`
	data, err := json.Marshal(work("1", body))
	if err != nil {
		t.Fatal(err)
	}
	data = append(data, '\n')
	for cut := 1; cut < len(data); cut++ {
		for _, part := range [][]byte{data[:cut], data[cut:]} {
			if _, err := c.in.Write(part); err != nil {
				t.Fatal(err)
			}
			drained(t, c.in)
		}
		c.want(`done 1 {"type":"é€😀","finished":true,"message":` + body + `}`)
	}
}

// drained waits until all that was written to a pipe has been read.
func drained(t *testing.T, pipe *os.File) {
	t.Helper()
	raw, err := pipe.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; runtime.Gosched() {
		left := 0
		if e := raw.Control(func(fd uintptr) { left, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); e != nil || err != nil {
			t.Fatal(e, err)
		}
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d bytes are not read", left)
		}
	}
}

// A pool may hand down a pipe that does not block: answers are complete and in order also when it is full.
func TestLinesOutputThatDoesNotBlock(t *testing.T) {
	c := prepare(t, tree(t, map[string]string{"m.js": echo}), Options{Module: "m.js"})
	theirIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	c.start(in, out)
	if err := syscall.SetNonblock(int(theirOut.Fd()), true); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	c.send(line{Type: "start"})
	c.want("ready")
	body := `{"type":"t","text":"` + strings.Repeat("aé€😀", 100_000) + `"}`
	go c.send(work("1", body), work("2", body))
	for _, id := range []string{"1", "2"} {
		c.want(`done ` + id + ` {"type":"t","finished":true,"message":` + body + `}`)
	}
	c.stop()
}
