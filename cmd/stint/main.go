// Stint is a persistent work-queue broker in one program.
//
// Package main is the command line: it reads flags and the configuration, runs the NATS server, and hands everything
// else to the packages broker, store and wire. It holds no rule of a queue. Data goes to standard output, all else to
// standard error; nothing is coloured, so NO_COLOR changes nothing.
//
// Exit codes, the same for all commands:
//
//	0    done
//	1    an error; for send also an error as the item's reply
//	2    wrong usage: an unknown command or flag, or a wrong value of one
//	3    storage: the database cannot be used, or has failed
//	4    no answer within the time given
//	5    no connection, or no broker at the address
//	130  stopped by a signal before it was done
package main

import (
	"context"
	"os"

	"stint/processor/pool"
)

func main() {
	pool.Init() // it does not return in the guard process of a pool
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
