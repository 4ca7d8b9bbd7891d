// Package integration tests the broker as its users have it: the binary in a process of its own, NATS clients around it,
// and kill -9. It knows the wire, NATS and the command line, nothing else.
package integration

import (
	"testing"

	"stint/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
