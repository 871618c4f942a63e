//go:build !cgo

package checksum

// Of is the Adler-32 checksum of text.
func Of(text string) uint32 {
	return InGo(text)
}
