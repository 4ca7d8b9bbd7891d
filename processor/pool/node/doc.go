// Package node lets a pool of children host Node.js modules that were written for ewd-qoper8, Q-Oper8 or qworker, without a
// change to them. [Command] gives the command line and the environment of one child; the child speaks the lines protocol
// of a pool on the descriptors that STINT_IN and STINT_OUT name.
//
// # How the bootstrap reaches Node.js
//
// The program of the child is the text in host/, embedded here. It travels in the environment (STINT_NODE_HOST), with the
// options beside it (STINT_NODE_OPTIONS), and `node -e` runs a loader of one line that compiles it. So nothing is written to
// a disk: nothing has to be cleaned up, a read-only file system will do, a child that runs as another user needs no access
// to anything of the pool's, and a pool that is killed leaves nothing behind. The bootstrap takes both variables out of
// process.env, so that what a module starts does not inherit them. Node.js 18 or later is needed, and nothing else.
//
// # What holds
//
//   - One item at a time: the next handler is called after the one before has answered and returned.
//   - An answer belongs to the item whose handler was given the means to give it. A second answer is refused and logged,
//     and never becomes the answer of the next item. The one means that is given once for all items is the worker that
//     an ewd-qoper8 module is called with: a second answer through it, in a later turn, is told from the next item's only
//     by its type.
//   - A throw, or a promise that is rejected, fails its own item. What nobody can catch (a throw in a timer) fails the item in
//     hand, once and with its message, and ends the child with exit code 1, since the state of the module is unknown.
//   - What a module prints goes to standard output and standard error as they are, never into the protocol.
//   - What was answered has been written before the next item begins, so a pool that finds the child dead knows which
//     item it died of.
//
// # For the pool
//
// The line ready is always said before the first item begins. A child that ends without it has begun none: its module could
// not be loaded or started, exit code 1, with the reason in a log line and on standard error. The end of the input is the same
// as the line stop: everything read before is finished, stop listeners run, exit code 0. SIGTERM does not wait for the
// item in hand, and is answered with exit code 143; SIGINT is ignored.
//
// # Rejected
//
//   - A temporary file for the bootstrap: it needs a writable directory, rights for the child's user, and someone to
//     delete it after kill -9.
//   - The bootstrap as the argument of -e: every ps would print all of it.
//   - A descriptor of its own for the bootstrap: the pool would have one more file to hand to each child, and Node.js can
//     load a module from a path in /proc only with options that change how the user's modules are resolved.
//   - Asynchronous contexts (AsyncLocalStorage) to find the item of an answer: a database driver calls back in the context in
//     which it was connected, and right answers would be refused.
//   - Streams for the answers: they are written when the handler lets go of the event loop, which a hanging handler
//     never does; then an item that was answered would be taken for the one that hangs.
package node
