package recordertest

import "testing"

// An exception without a law would excuse nothing, and hide a law that got another name.
func TestExceptionsHaveLaws(t *testing.T) {
	for name := range exceptions {
		if _, err := findLaw(name); err != nil {
			t.Errorf("exception: %v", err)
		}
	}
}
