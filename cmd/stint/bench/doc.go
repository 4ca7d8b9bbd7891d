// Package bench measures one and the same work through Stint and through its peers, in one run, in turns.
//
// # The work
//
// One sender process publishes items, with at most a window of them not yet accepted. Processor processes each hold up to
// their capacity of items and answer every one at once with the first 16 bytes of its body. An item is completed when that
// answer has come to the sender. What carries the items between them, the kind, runs in a process of its own:
//
//	stint           the broker as serve starts it, every queue persistent
//	stint-slow      the same with a delay at each fsync
//	relay           the same hops through the same NATS server with nothing remembered: the limit
//	jetstream       a JetStream work queue in files, as it is by default: an fsync every two minutes
//	jetstream-sync  the same with an fsync before each acknowledgement
//
// # One round
//
//	runner                     server        processors     sender
//	  ├─ start, all ────────────►│──────────────►│─────────────►│   new processes, new directory, free port
//	  │◄──────── ready ──────────┤               │              │
//	  ├─ connect ───────────────────────────────►│─────────────►│
//	  ├─ fill ─────────────────────────────────────────────────►│   drain and backlog only; not measured
//	  ├─ begin ─────────────────►│               │              │   profiles start, usage is read
//	  ├─ work ──────────────────────────────────►│              │   register; not for enqueue
//	  ├─ measure ──────────────────────────────────────────────►│
//	  │◄─────────────────────────────────────────────── result ─┤   usage is read again
//	  └─ kill, remove the directory
//
// Each child reads one JSON value per line on its standard input, the first of which says what it is to do, and writes
// events the same way. It ends when its input does. On Linux the kernel kills it with the runner. Should the runner itself
// be killed with SIGKILL, its directory stays behind.
//
// # What is fair
//
//   - Every kind has the same processes, the same number of connections, the same NATS server with the same options and
//     the same settings of the collector of garbage, which are Stint's. Rounds take turns and each begins with another
//     kind, so that a machine that slows down slows all of them.
//   - Each kind has its own client: with JetStream nats.go decodes every acknowledgement as JSON, with Stint and the relay
//     the sender reads every accept notice with package wire, as stint send does. With --decode-json it decodes the notices
//     as JSON, too, as a client may that knows nothing of how the broker writes them.
//   - Items have one header and one reply subject with every kind. A window is a set of slots that are filled again, each
//     with its subject, message and buffer, so that the sender itself is cheap.
//   - JetStream is used as its own client library has it: PublishAsync with callbacks and the same window; one durable
//     consumer with explicit acknowledgements, shared by the processors, which pull as much as their capacity. As many
//     acknowledgements may be missing as the processors have room.
//   - The relay keeps no item, but it keeps to the capacity, by tokens: without that it would pour everything into the
//     processors' buffers, and its round trips would measure those. Each item goes to the processor with a reply subject
//     that no other has, as with Stint and JetStream, since the NATS server has to look up each new subject: one subject for
//     all made the relay about a quarter faster, and would compare it with something that no broker can do. The sender's
//     reply subject travels within it.
//   - Passing a backlog, each kind adds as much as it completes: processors answer on credit, which the sender gives them in
//     small grants as it adds. A broker that serves processors first would otherwise be measured draining, one that serves
//     senders first filling.
//   - With --batch the sender puts what the window has free into one message, and what Stint gives and gets back goes in
//     batches too, as any client may do it. Peers are as ever: they have nothing like it.
//   - With a window of 1 the next item also waits for the reply of the one before. JetStream and the relay would have two
//     under way otherwise, where Stint often has one.
//
// # What is counted
//
// The sender numbers the items and the answers bring the numbers back: an answer that comes twice, or to nothing that was
// sent, fails the round, as does one that never comes. A rate is a number of items by the time from the first send (to drain:
// from the first answer) to the last notice or answer. Latencies are taken in the sender, from one clock. Processor time and
// bytes written are those of the server process between begin and result; memory is the largest anonymous part
// (RssAnon) seen in the round, since a mapped database counts in the rest and is page cache. They come from /proc and are
// left out elsewhere. Bytes count when the process gives them to the kernel, so that those of JetStream that no fsync has
// sent off yet are in.
//
// Ratios are made within each round and their median is taken: what the machine did in that round to one kind, it probably
// did to the other.
//
// # Rejected
//
//   - Goroutines in place of processes: they would share a collector and a scheduler, and cost the sender's work to the
//     broker.
//   - A fixed number of items by default: the slowest kind would need ten times as long as the fastest.
//   - A time limit for the whole run: rounds take as long as they must. What stands still for a while fails.
package bench
