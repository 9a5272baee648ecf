package exec

import (
	"slices"
	"strings"
	"testing"
)

// LAWS 12: however many processes a command leaves behind, and whatever they
// ignore, Run waits for none of them to end by itself and returns when all are
// gone.
func TestRunLeavesNobodyBehind(t *testing.T) {
	f := newFixture(t)
	f.sh("trap '' HUP TERM INT; i=0; while test $i -lt 300; do setsid sleep 887765 </dev/null >/dev/null 2>&1 & i=$((i+1)); done; echo started")
	if running(t, "887765") {
		t.Error("processes left behind: got some running after Run, want none")
	}
}

// LAWS 19: nodev also for what is mounted into the root: a bind mount from
// outside may hold device nodes.
func TestRunMountsAreNodev(t *testing.T) {
	f := newFixture(t)
	spec := f.spec("sh", "-c", "grep -E ' /(work|tmp) ' /proc/self/mountinfo | cut -d' ' -f5,6 | sort")
	spec.Mounts = []Mount{
		{Type: "bind", Source: t.TempDir(), Target: "/work"},
		{Type: "tmpfs", Target: "/tmp", Options: "size=1m"},
	}
	out, err := f.run(spec)
	if err != nil {
		t.Fatal(err)
	}
	if got := noDevices(out); len(got) != 2 || !got["/tmp"] || !got["/work"] {
		t.Errorf("mounts with nodev: got %v in %q, want /tmp and /work", got, out)
	}
}

// noDevices tells of each mount point in lines of "PATH FLAGS" whether it has
// nodev.
func noDevices(lines string) map[string]bool {
	got := map[string]bool{}
	for line := range strings.Lines(lines) {
		at, flags, _ := strings.Cut(strings.TrimSpace(line), " ")
		got[at] = slices.Contains(strings.Split(flags, ","), "nodev")
	}
	return got
}
