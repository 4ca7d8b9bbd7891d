package processor

import (
	"errors"
	"fmt"
	"time"
)

// Causes for the end of a handler's context (context.Cause tells which). The first two are also what the methods of
// [Work] return from then on.
var (
	// ErrLeaseLost: the process timeout passed without a sign of life, the broker gave the item to a processor anew, or
	// the connection was closed.
	ErrLeaseLost = errors.New("the lease of the item is lost")
	// ErrTooLong: the handler has had the item for Options.MaxHandle.
	ErrTooLong = errors.New("the handler took longer than MaxHandle")
	// ErrShutdown: Options.DrainTimeout has passed since the context of Run ended. An error that the handler returns
	// now gives the item back and is not counted as a failure.
	ErrShutdown = errors.New("the processor is shutting down")
)

// ErrSettled is returned by the methods of a [Work] whose outcome has left, and of one that did not come from [Run].
var ErrSettled = errors.New("the item has no lease here any more")

// Errors of [Run].
var (
	// ErrClosed: the connection was closed while the processor was at work.
	ErrClosed = errors.New("the connection to the server is closed")
	// ErrUnfinished: items in hand were given back, or could not be answered, since their handlers did not end in time.
	// Nothing is lost: the broker gives them to another processor.
	ErrUnfinished = errors.New("handlers did not end in time")
)

// RegisterError is the broker's refusal of the registration, returned by [Run]. Refusals that pass by themselves (the
// broker is shutting down, its disk is full) are not returned; Run goes on trying.
type RegisterError struct {
	Address string
	Code    string // a stable machine word
	Message string // what to change, for a person
}

func (e *RegisterError) Error() string {
	return fmt.Sprintf("processor: the queue %q refused the registration: %s (%s)", e.Address, e.Message, e.Code)
}

// outcome is an error that stands for an answer other than a plain failure.
type outcome struct {
	kind  outcomeKind
	err   error // nil only for release
	delay time.Duration
}

type outcomeKind uint8

const (
	retry outcomeKind = iota
	reject
	release
)

func (o *outcome) Error() string {
	if o.err == nil {
		return "the item is given back"
	}
	return o.err.Error()
}

func (o *outcome) Unwrap() error { return o.err }

// Retry makes err a failure after which the item is given out again in delay (whole milliseconds, rounded up) and not
// after the queue's backoff. The attempt counts: an item that has spent its attempts becomes a dead letter. A nil err
// stays nil.
func Retry(err error, delay time.Duration) error {
	if err == nil {
		return nil
	}
	return &outcome{kind: retry, err: err, delay: max(delay, 0)}
}

// Reject makes err final: the item becomes a dead letter at once, with the error's text as the reason. For items that
// no attempt can ever complete. A nil err stays nil.
func Reject(err error) error {
	if err == nil {
		return nil
	}
	return &outcome{kind: reject, err: err}
}

// Release gives the item back for another processor, now or after delay. No attempt is counted, so a handler that
// always releases keeps its item going round; give it a delay.
func Release(delay time.Duration) error {
	return &outcome{kind: release, delay: max(delay, 0)}
}
