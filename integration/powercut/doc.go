// Package powercut cuts the power at every point of a broker's life and looks whether it kept its word.
//
// # How
//
// A tracer (the test binary started again) runs the real program under ptrace and writes down, in order, every change
// it makes to the files below its data directory, every fsync, and the moment at which each notice leaves for a client:
// the write to the socket that carries it. Senders and processors live in the tracer and know the wire only.
//
// Afterwards, in the test, the log is replayed into a model of a disk (see disk_test.go) and cut after each
// operation. What an fsync covered is there; of the rest nothing, everything, any part, and torn pieces of 512 bytes may be
// there. Each such image is opened with the real engine, in a process of its own that may die of it, and read to the last
// record, to be judged by what clients had been told when the power went (see judge_test.go). Some are served by the
// real program, which must finish what is in them. A compaction, which needs a large file, is recorded with the engine alone.
//
// -cuts=N makes more cuts than the ordinary run, -seed=N chooses what is chosen at random.
//
// # What it never does
//
// It does not ask the program for help: no hook, no failing file system inside the process, so nothing is believed of
// how the store works. It does not sleep, and it never waits without a deadline. No process outlives the test: the
// kernel kills the traced program with its tracer, and the tracer with the test.
//
// # Why it can be believed
//
// The replayed log, with nothing lost, must equal the real files byte for byte, or the recording is refused. An
// operation on the files that the recorder does not know (a shared writable mapping, say) also ends it. Two builds that
// are wrong on purpose (no fsync; accepted before the commit) are run through the same harness, which must find them out.
//
// # The model
//
// It is harsher than ext4. Names are durable only with an fsync of their directory, even if the file was synced; names
// that were not synced may be kept or lost in any combination, as may each write and each change of size. It is kinder in
// one point: a sector of 512 bytes is never torn, which disks promise and bbolt's meta pages need.
//
// Rejected: a disk below the file system (dm-log-writes) needs root and a kernel module; a Go interface in the place of
// the files would leave out bbolt's own calls and the order in which the kernel got them; noting when a client received a
// notice, and not when it left, would make the verdict depend on how busy the machine is.
package powercut
