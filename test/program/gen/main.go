// Command gen is run by go generate: a go command within a go command.
package main

//go:generate go run . generated.txt

import (
	"log"
	"os"

	"example.org/program/greeting"
)

func main() {
	if err := os.WriteFile(os.Args[1], []byte(greeting.For("generate")), 0o644); err != nil {
		log.Fatal(err)
	}
}
