// Package harness runs the broker's binary and processors as processes of their own, breaks them, and judges what came
// of it. The tests in package integration are built on it.
//
// It knows the wire, NATS and the binary's command line, and nothing of the broker's insides: what it finds is what any
// client could have found.
//
// # Processes
//
// [Main] builds nothing by itself; [Binary] builds the broker once for each set of build tags. A [Broker] keeps its port
// and its data directory over any number of kills and starts. A [Processor] is the test binary run again, which [Main]
// turns into a plain NATS client that does what each item says (see [Order]). Every process is killed when its test
// ends, and on Linux also when the test process itself dies.
//
// # Judging
//
// A [Sender] gives each item an id of its own and notes everything that is said about it; processors report each
// delivery on their standard output, where a kill -9 does not lose it. After the faults have ended and everything has
// been drained, [Judge] reads the whole history at once. A send has one of three outcomes: accepted, rejected, or
// unknown, when the broker was killed before it said anything. From the outcomes follows what must and what must not be
// there. The judge is itself tested on histories made by hand, and the campaigns on builds that are known to be wrong.
//
// # Why it is so
//
// Ports lie below the range from which the system takes the source ports of connections: a client that tries again and
// again to reach a broker that is down may otherwise meet itself, and hold the port the broker wants back.
//
// A sender and all of its notes belong to one goroutine, so that there is nothing to lock and the order of what it saw
// is the order in which it was told.
package harness
