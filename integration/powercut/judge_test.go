//go:build linux && (amd64 || arm64)

package powercut

import "fmt"

// verdict is a promise that an image does not keep.
type verdict struct {
	kind string
	text string
}

// The kinds of verdict. The letters are those of the properties that a work queue must have.
const (
	flawed     = "not as it must be"                        // it opens, and nothing in it is damaged, doubled or invented
	lost       = "accepted but missing"                     // accepted, no final yet: the item or its reply is there
	revived    = "to be delivered again after its final"    // once the final has left, never again
	forgotten  = "registered but missing"                   // answered ok
	stays      = "registered although taken back"           // the end was answered ok
	reaccepted = "message id accepted but not remembered"   // it would be accepted twice
	unburied   = "dead letter told but missing"             // the sender was told that it is kept
	reusedIDs  = "an id that was told would be given again" // the epoch did not grow
)

// judge compares an image with what clients had been told when the log had k operations. An image of that point may come
// from any moment between the end of operation k-1 and the beginning of what follows; so a duty stands if it stood at the
// beginning of that time or at its end, and a final excuses only if it had left by then in both.
func judge(r *recording, f *found, k int) (vs []verdict) {
	add := func(kind, format string, args ...any) {
		vs = append(vs, verdict{kind, fmt.Sprintf(format, args...)})
	}
	for _, flaw := range f.Flaws {
		add(flawed, "%s", flaw)
	}
	if len(f.Dead) < len(r.Facts.Queues) {
		return vs // it could not be read; a flaw says so
	}
	judgeItems(r, f, k, add)
	judgeRegistrations(r, f, k, add)
	return vs
}

func judgeItems(r *recording, f *found, k int, add func(kind, format string, args ...any)) {
	dead := make([]int, len(r.Facts.Queues))
	for n := range r.Facts.Items {
		it, at := &r.Facts.Items[n], f.Items[n]
		waits := at&(inReady|inDelayed) != 0
		if it.due(r, k) && !waits && at&inReply == 0 {
			add(lost, "item %d of queue %s", n, r.Facts.Queues[it.Queue])
		}
		if r.toldBy(it.Reply, k) {
			if waits {
				add(revived, "item %d of queue %s", n, r.Facts.Queues[it.Queue])
			}
			if it.Fate == fateDead {
				dead[it.Queue]++
			}
		}
		if it.acceptedBy(r, k) && it.MsgID != "" && at&inDedup == 0 {
			add(reaccepted, "item %d of queue %s", n, r.Facts.Queues[it.Queue])
		}
		if it.acceptedBy(r, k) && it.ID>>idEpochShift >= f.Epoch {
			add(reusedIDs, "item %d has id %x, the epoch is %d", n, it.ID, f.Epoch)
		}
	}
	for q, n := range dead {
		if f.Dead[q] < n {
			add(unburied, "queue %s has %d dead letters, %d senders were told of theirs", r.Facts.Queues[q], f.Dead[q], n)
		}
	}
}

// idEpochShift is where in an id the epoch is.
const idEpochShift = 40

// acceptedBy says whether the item's acceptance had been said.
func (it *item) acceptedBy(r *recording, k int) bool {
	for _, a := range it.Accepts {
		if r.toldBy(a, k) {
			return true
		}
	}
	return false
}

// due says whether the item, or its reply, had to be there at some moment of point k.
func (it *item) due(r *recording, k int) bool {
	return it.acceptedBy(r, k) && !r.toldBy(it.Reply, k) || it.acceptedBy(r, k-1) && !r.toldBy(it.Reply, k-1)
}

func judgeRegistrations(r *recording, f *found, k int, add func(kind, format string, args ...any)) {
	for i := range r.Facts.Regs {
		reg := &r.Facts.Regs[i]
		capacity, there := f.Regs[reg.Queue][reg.Processor]
		asked := reg.GoneAt >= 0 && reg.GoneAt < k
		switch {
		case r.toldBy(reg.OK, k) && !asked && capacity != reg.Capacity:
			add(forgotten, "%s, capacity %d instead of %d", reg.Processor, capacity, reg.Capacity)
		case r.toldBy(reg.GoneOK, k) && there:
			add(stays, "%s", reg.Processor)
		}
	}
}
