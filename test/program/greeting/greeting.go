// Package greeting embeds a file, which takes a path of its own through the cache.
package greeting

import (
	_ "embed"
	"strings"
)

//go:embed greeting.txt
var template string

// For greets name.
func For(name string) string {
	if name == "" {
		name = "world"
	}
	return strings.Replace(strings.TrimSpace(template), "NAME", name, 1)
}
