package store_test

import (
	"testing"

	"go.uber.org/goleak"

	"stint/store"
	"stint/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T, string) store.DB { return store.NewMemory(nil) }, storetest.Caps{})
}
