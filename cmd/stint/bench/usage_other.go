//go:build !linux

package bench

import "syscall"

func readUsage(int) usage { return usage{CPU: -1, Written: -1} }

func anonymousMemory(int) int64 { return -1 }

func fileSystem(string) string { return "" }

func childAttr() *syscall.SysProcAttr { return nil }
