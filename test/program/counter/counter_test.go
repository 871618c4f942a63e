package counter_test

import (
	"fmt"
	"os"
	"testing"

	"example.org/program/counter"
)

func TestWords(t *testing.T) {
	if got := counter.Words("one two  three"); got != 3 {
		t.Fatalf("got %d", got)
	}
}

// A test that reads a file is cached together with what it read.
func TestWordsOfAFile(t *testing.T) {
	text, err := os.ReadFile("testdata/poem.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got := counter.Words(string(text)); got != 6 {
		t.Fatalf("got %d", got)
	}
}

func ExampleWords() {
	fmt.Println(counter.Words("a b"))
	// Output: 2
}
