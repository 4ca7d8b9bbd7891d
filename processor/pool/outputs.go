package pool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"stint/processor"
)

// outputs are the pipes of a process in mode Exec. One that ends at once, as most do, has its input written before it starts
// and its outputs read when it has ended, by its handler. For one that lives longer, or whose input does not fit into a pipe,
// there are goroutines.
type outputs struct {
	pool  *Pool
	reply []byte
	tail  tail
	over  bool          // the reply is too long
	flood chan struct{} // closed when it becomes so while the process runs

	body          []byte // that has not been written
	in, out, said int    // our ends; -1: closed, or a goroutine's

	followed            bool
	fed, replied, told  chan struct{} // closed when a goroutine has ended
	inFile, outFile, sf *os.File
}

// plumb makes the pipes and adds the process's ends to the order. An item without a body has /dev/null to read.
func (p *Pool) plumb(body []byte, o *order) (*outputs, error) {
	f := &outputs{pool: p, body: body, in: -1, out: -1, said: -1, flood: make(chan struct{})}
	f.tail.out = p.o.Output
	ways := []*int{&f.out, &f.said, &f.in}
	if len(body) == 0 {
		ways = ways[:2]
	}
	for i, ours := range ways {
		var ends [2]int
		if err := newPipe(ends[:]); err != nil {
			o.close()
			f.close()
			return nil, processor.Retry(fmt.Errorf("making pipes for a child: %w", err), time.Second)
		}
		theirs := 1
		if ours == &f.in {
			theirs, o.Files[0] = 0, i
		}
		*ours = ends[1-theirs]
		o.files = append(o.files, ends[theirs])
		unblock(*ours)
	}
	if f.feed(); len(f.body) > 0 {
		f.follow()
	}
	return f, nil
}

// feed writes what fits.
func (f *outputs) feed() {
	if f.in < 0 {
		return
	}
	n, err := unix.Write(f.in, f.body)
	f.body = f.body[max(n, 0):]
	if len(f.body) == 0 || err != nil && !errors.Is(err, unix.EAGAIN) {
		f.body = nil
		closeFD(f.in)
		f.in = -1
	}
}

// follow starts the goroutines that read and write.
func (f *outputs) follow() {
	if f.followed {
		return
	}
	f.followed = true
	f.fed, f.replied, f.told = make(chan struct{}), make(chan struct{}), make(chan struct{})
	f.outFile, f.sf = os.NewFile(uintptr(f.out), "stdout"), os.NewFile(uintptr(f.said), "stderr")
	if f.in >= 0 {
		f.inFile = os.NewFile(uintptr(f.in), "stdin")
	}
	f.in, f.out, f.said = -1, -1, -1
	go func() {
		defer close(f.replied)
		f.readReply()
	}()
	go func() {
		defer close(f.told)
		f.tail.readAll(f.sf)
	}()
	go func() {
		defer close(f.fed)
		if f.inFile != nil {
			f.inFile.Write(f.body) //nolint:errcheck // a program need not read what it does not want
			f.inFile.Close()
		}
	}()
}

func (f *outputs) readReply() {
	b := bytes.NewBuffer(f.reply)
	_, err := b.ReadFrom(io.LimitReader(f.outFile, int64(f.pool.o.MaxOutput-b.Len())+1))
	f.reply, f.over = b.Bytes(), b.Len() > f.pool.o.MaxOutput
	if err == nil && f.over {
		f.outFile.Close() // its next write fails
		close(f.flood)
	}
}

// finish takes the rest of what the process has said. It has ended, and its group with it.
func (f *outputs) finish() {
	if !f.followed {
		if f.collect() {
			f.close()
			return
		}
		f.follow() // somebody else can still write
	}
	late := time.Now().Add(lastWords)
	f.outFile.SetReadDeadline(late) //nolint:errcheck // it may be closed
	f.sf.SetReadDeadline(late)      //nolint:errcheck // likewise
	if f.inFile != nil {
		f.inFile.SetWriteDeadline(time.Now()) //nolint:errcheck // likewise
	}
	<-f.replied
	<-f.told
	<-f.fed
	f.outFile.Close()
	f.sf.Close()
}

// collect reads what is in the pipes. It is false when an end has not come: there is a process that holds the other side.
func (f *outputs) collect() bool {
	said, end := drain(f.said, nil)
	f.tail.add(said)
	reply, ended := drain(f.out, nil)
	f.reply, f.over = reply, len(reply) > f.pool.o.MaxOutput
	if !end || !ended {
		return false
	}
	f.tail.pass(f.tail.part, true)
	return true
}

// drain reads to the end, or to what there is.
func drain(fd int, data []byte) ([]byte, bool) {
	for room := make([]byte, 512); ; room = make([]byte, readSize) {
		n, err := unix.Read(fd, room)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return data, !errors.Is(err, unix.EAGAIN)
		case n == 0:
			return data, true
		}
		data = append(data, room[:max(n, 0)]...)
	}
}

// close closes our ends.
func (f *outputs) close() {
	if f.followed {
		f.outFile.Close()
		f.sf.Close()
		if f.inFile != nil {
			f.inFile.Close()
		}
		return
	}
	for _, fd := range []int{f.in, f.out, f.said} {
		if fd >= 0 {
			closeFD(fd)
		}
	}
}
