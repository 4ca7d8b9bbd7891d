// Package pool makes any program a processor: it runs supervised child processes and gives them the items of a queue. [Pool] is
// a [processor.Handler] behind [processor.Run], and what stands in package processor holds here too.
//
// # What holds
//
//   - A child handles one item at a time. What it does to itself (it exits, hangs, writes what is no answer, closes its pipes,
//     takes too much memory) costs the item in its hand one attempt, at most, and the pool never.
//   - An item is settled only when its child has answered or is gone, so that no other processor has it meanwhile.
//   - An item whose line no child has read, or that was handed out ahead of its turn, goes to another child without a counted
//     attempt. The kernel says how much of a pipe is unread.
//   - Children and all that they start are gone when the pool is, however it ends; so are a child's own when it ends.
//   - No answer reaches the wrong item. A second answer, or one with another item's id, ends the child.
//   - Everything is bounded: items by the capacity that the broker knows, lines by MaxOutput, what is kept of a child's
//     printing, the memory of items that end children, processes (twice Children and one), and log lines about deaths.
//
// # Who owns what
//
// One goroutine, the owner's, has all state of a pool that runs. Everybody else sends it events, which are functions: handlers
// (an item), readers (what a child said), writers (a buffer is free), the guard's reader (a process has started, or ended). It
// gathers what waits, steps, then hands what is to be written to the writers: one write for all that has gathered. It waits for
// nobody but the guard.
//
// The rules are in roster, a value without goroutine, clock or input and output. In mode Exec there are none to speak of: each
// item's handler drives its own process, and the guard sees to it that there are not more at once than Children.
//
// # The life of a child
//
//	starting ── ready, an answer, or a second of life ──► working ──► retiring ── holds nothing ──► stopping ──► gone
//	   │                                                    │  │  used up, too fat,     ▲  "stop", end of input,
//	   │                                                    │  │  replaced              │  then SIGTERM, then SIGKILL
//	   │                                                    │  └─ idle, pool stops ─────┘
//	   └───────────────────────────┬────────────────────────┘
//	                               ▼ fault, time limit
//	                             killed (SIGTERM, then SIGKILL) ──► gone
//
// A child begins as working, and gets its first item at once, unless it is a replacement on trial or children die and die. It is
// gone when its process has ended, its group has been killed, and all that it wrote has been read.
//
// # The guard
//
// Children are started by a process of their own, the guard: this program run again, see [Init]. It is a reaper of orphans
// (PR_SET_CHILD_SUBREAPER), so whatever a child starts and leaves behind, a daemon in a session of its own included, becomes the
// guard's child and can be found and killed. It learns the end of the pool from the end of a socket, which the kernel sees to
// also for kill -9. The children die with the guard by PR_SET_PDEATHSIG, which is tied to the thread that forked: the guard
// forks on one thread that it keeps. It reaps a child after its group has been killed, while its number is still its own.
// None of this takes a privilege.
//
// A process for each item is the guard's way, too: what it does there for one is most of what a pool adds to the machine's own
// time for a process. So it forks the next process without asking, from the starts that Ahead lets it have in hand; it tells of
// a process that ends within 2 ms once and not twice; and while it has starts enough for one more round, it keeps its reports
// for up to 8 ms and sends them together, which lets the pool answer several items in one message and the broker send several.
// Its pipes have no goroutine then either: what was written into one is read when the process has ended.
//
// What can still escape: a process with another user's rights (setuid), and, when pool and guard are killed in one instant, one
// that has left its child's group. Children of a pool's children that live as long as those are left alone; orphans are theirs
// as long as their environment says so (STINT_CHILD).
//
// # Rejected
//
//   - Forking in the pool: a parent with many threads must keep one for Pdeathsig, its grandchildren survive kill -9, and
//     reaping orphans takes other children of the same program away from those who wait for them.
//   - Control groups: they need a right to delegate, which is rare where pools run.
//   - A guard for each child: 5 ms and some megabytes each; one for the pool starts thousands of children per second.
//   - Threads of the guard that fork side by side: going from thread to thread takes longer than is won.
//   - Waiting for ready before work is sent: a child of a dozen lines would have to say it.
//   - A queue of items in the pool beyond what children may be handed: they would wait here while other pools are idle.
//   - Killing a child whose lease is lost: its answer may still be the first, and ending it would cost a start.
package pool
