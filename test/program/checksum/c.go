//go:build cgo

package checksum

/*
#include <stdint.h>
#include <stdlib.h>

uint32_t checksum(const char *text) {
	uint32_t a = 1, b = 0;
	for (; *text; text++) {
		a = (a + (unsigned char)*text) % 65521;
		b = (b + a) % 65521;
	}
	return b << 16 | a;
}
*/
import "C"

import "unsafe"

// Of is the Adler-32 checksum of text.
func Of(text string) uint32 {
	c := C.CString(text)
	defer C.free(unsafe.Pointer(c))
	return uint32(C.checksum(c))
}
