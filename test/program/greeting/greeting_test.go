package greeting

import "testing"

func TestForNamesTheGuest(t *testing.T) {
	if got := For("gopher"); got != "hello, gopher" {
		t.Fatalf("got %q", got)
	}
}
