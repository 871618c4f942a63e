package main

import "testing"

func TestGreeting(t *testing.T) {
	if greeting() != "hello" {
		t.Error("not a greeting")
	}
}
