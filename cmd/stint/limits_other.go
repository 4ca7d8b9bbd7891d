//go:build !unix

package main

import "math"

// fileLimit is how many descriptors the process may have open: here nothing says.
func fileLimit() int { return math.MaxInt32 }
