package checksum

import "testing"

func TestOfIsAdler32(t *testing.T) {
	if got, want := Of("some text"), InGo("some text"); got != want {
		t.Fatalf("got %x, want %x", got, want)
	}
}
