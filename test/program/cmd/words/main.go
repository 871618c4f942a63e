// Command words is the small program.
package main

import (
	"fmt"
	"os"

	"example.org/program/checksum"
	"example.org/program/counter"
	"example.org/program/greeting"
)

func main() {
	text := greeting.For("words")
	for _, argument := range os.Args[1:] {
		text += " " + argument
	}
	fmt.Println(text, counter.Words(text), checksum.Of(text))
}
