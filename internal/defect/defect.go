// Package defect names the faults that a build can be given on purpose.
//
// A harness that hunts for lost items proves nothing until it has caught a broker that loses them. Each constant here
// is false in every ordinary build, so the compiler removes what it guards; a build tag of the same name, prefixed
// with "defect_", makes it true. Only the tests in integration use the tags.
package defect
