//go:build !defect_earlyaccept

package defect

// EarlyAccept says accepted when an item is taken in, before its commit.
const EarlyAccept = false
