// Package counter counts words.
package counter

import "strings"

// Words is the number of words in text.
func Words(text string) int {
	return len(strings.Fields(text))
}
