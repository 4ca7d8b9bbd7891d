//go:build !defect_noleasetimer

package defect

// NoLeaseTimer lets the process timeout pass unnoticed.
const NoLeaseTimer = false
