package wire

import "strconv"

// idBase is the base of an item's id in text: the digits and then the lower-case letters, short enough for a subject.
const idBase = 36

// maxIDLen is the length of the largest id in text.
const maxIDLen = 13

// FormatID gives the text form of an item's id: base 36, lower case, no leading zero.
func FormatID(id uint64) string { return strconv.FormatUint(id, idBase) }

// ParseID reads an id in exactly the form FormatID writes. Capitals, leading zeros, signs and numbers above 64 bits are
// refused, so that one item has one name.
func ParseID(s string) (uint64, bool) {
	if !canonical(s, maxIDLen) {
		return 0, false
	}
	var id uint64
	for i := range len(s) {
		digit, ok := idDigit(s[i])
		if !ok || id > (1<<64-1-digit)/idBase {
			return 0, false
		}
		id = id*idBase + digit
	}
	return id, true
}

func idDigit(c byte) (uint64, bool) {
	switch {
	case c >= '0' && c <= '9':
		return uint64(c - '0'), true
	case c >= 'a' && c <= 'z':
		return uint64(c-'a') + 10, true
	}
	return 0, false
}

// canonical says whether s can be a number with one spelling: not empty, not too long, no leading zero.
func canonical(s string, maxLen int) bool {
	return s != "" && len(s) <= maxLen && (s[0] != '0' || len(s) == 1)
}

// parseDecimal reads a plain decimal number of at most 18 digits: no sign, space or point. Leading zeros are allowed.
func parseDecimal(s string) (uint64, bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	var n uint64
	for i := range len(s) {
		c := s[i] - '0'
		if c > 9 {
			return 0, false
		}
		n = n*10 + uint64(c)
	}
	return n, true
}

// parseCount reads a canonical decimal uint32.
func parseCount(s string) (uint32, bool) {
	n, ok := parseDecimal(s)
	if !ok || !canonical(s, 10) || n > 1<<32-1 {
		return 0, false
	}
	return uint32(n), true
}
