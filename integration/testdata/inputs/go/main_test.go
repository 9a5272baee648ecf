package main

import "testing"

func TestCheck(t *testing.T) {
	if got, err := check(3); got != 3000 || err != nil {
		t.Errorf("check: got %d, %v, want 3000", got, err)
	}
}
