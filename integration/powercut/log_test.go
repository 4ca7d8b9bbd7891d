//go:build linux && (amd64 || arm64)

package powercut

import (
	"encoding/gob"
	"fmt"
	"os"
)

// opKind is what an operation does to the disk.
type opKind uint8

const (
	opCreate opKind = iota + 1 // Dir, Name, Node, IsDir
	opRename                   // Dir, Name, To, Node
	opUnlink                   // Dir, Name, Node
	opWrite                    // Node, Off, Data
	opSize                     // Node, Off: the new size
	opGrow                     // Node, Off: the least size
	opSync                     // Node, From
)

var opNames = [...]string{"", "create", "rename", "unlink", "write", "size", "grow", "sync"}

// op is one operation that has succeeded. Nodes are files and directories by number; 0 is the root. An inode that the
// kernel gives out again is a new node.
type op struct {
	Kind      opKind
	Node, Dir int
	IsDir     bool
	Name, To  string
	Off       int64
	Data      []byte
	From      int // opSync: what was in the log when it began is durable now
}

func (o *op) String() string {
	switch o.Kind {
	case opCreate, opUnlink:
		return fmt.Sprintf("%s %s in %d", opNames[o.Kind], o.Name, o.Dir)
	case opRename:
		return fmt.Sprintf("rename %s to %s in %d", o.Name, o.To, o.Dir)
	case opWrite:
		return fmt.Sprintf("write %d bytes at %d of file %d", len(o.Data), o.Off, o.Node)
	case opSize, opGrow:
		return fmt.Sprintf("%s of file %d: %d", opNames[o.Kind], o.Node, o.Off)
	}
	return fmt.Sprintf("%s of %d", opNames[o.Kind], o.Node)
}

// recording is all that is known of a run.
type recording struct {
	Ops    []op
	Nodes  int
	Told   map[string]int // subject of a notice: operations in the log when it left
	Phases []phase
	Facts  facts
	Stops  int // of the traced program
}

// phase is a part of the run that begins at an operation.
type phase struct {
	Name  string
	At    int
	Every bool // to be cut at every point, if not all are
}

// facts is what the clients did and were told, apart from when.
type facts struct {
	Items  []item
	Regs   []regFact
	Queues []string // collections, in the database of Path
	Path   string   // of the database below the root
}

// at is the number of operations when a notice left; false: it never did.
func (r *recording) at(subject string) (int, bool) {
	k, ok := r.Told[subject]
	return k, ok && subject != ""
}

// toldBy says whether a notice had left when the log had k operations.
func (r *recording) toldBy(subject string, k int) bool {
	at, ok := r.at(subject)
	return ok && at <= k
}

// phaseAt is the part of the run that the operation before a cut belongs to.
func (r *recording) phaseAt(k int) (at phase) {
	at.Name, at.Every = "before the start", true
	for _, p := range r.Phases {
		if p.At < k {
			at = p
		}
	}
	return at
}

func (r *recording) save(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := gob.NewEncoder(f).Encode(r); err != nil {
		f.Close()
		return fmt.Errorf("write the recording: %w", err)
	}
	return f.Close()
}

func loadRecording(path string) (*recording, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := &recording{}
	if err := gob.NewDecoder(f).Decode(r); err != nil {
		return nil, fmt.Errorf("read the recording: %w", err)
	}
	return r, nil
}
