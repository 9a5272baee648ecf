package main

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPrivileged(t *testing.T) {
	all := uint64(1)<<41 - 1
	if flags, missing := privileged(all); len(missing) > 0 || !slices.Equal(flags, []string{"--privileged"}) {
		t.Errorf("all capabilities: got %q, missing %q, want --privileged", flags, missing)
	}
	flags, missing := privileged(all &^ (1 << 24))
	if d := cmp.Diff([]string{"SYS_RESOURCE"}, missing); d != "" {
		t.Errorf("missing (-want +got):\n%s", d)
	}
	if !slices.Contains(flags, "--cap-add=SYS_ADMIN") || slices.Contains(flags, "--cap-add=SYS_RESOURCE") || slices.Contains(flags, "--privileged") {
		t.Errorf("flags: got %q, want each capability but SYS_RESOURCE", flags)
	}
}
