package main

import (
	"slices"
	"strings"
)

// suggest names the known word that was most likely meant, or all of them.
func suggest(word string, known []string) string {
	best, least := "", min(3, len(word)/2+1) // more than two slips, or half of a short word, are no typing error
	for _, k := range known {
		if d := distance(plain(word), plain(k)); d < least {
			best, least = k, d
		}
	}
	if best != "" {
		return `did you mean "` + best + `"?`
	}
	sorted := slices.Clone(known)
	slices.Sort(sorted)
	return "known here are " + strings.Join(sorted, ", ")
}

// plain makes processTimeout, process-timeout and process_timeout the same.
func plain(s string) string {
	return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(clip(s)))
}

// distance counts the bytes to insert, remove, replace or swap with their neighbour to turn a into b.
func distance(a, b string) int {
	before, last, row := []int(nil), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, make([]int, len(b)+1)
	}
	return last[len(b)]
}
