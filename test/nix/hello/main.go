// hello is a program that is quick to compile: it imports nothing.
package main

func greeting() string { return "hello" }

func main() { println(greeting()) }
