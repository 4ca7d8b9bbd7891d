//go:build !defect_nosync

package defect

// NoSync leaves out every fsync of the bbolt engine.
const NoSync = false
