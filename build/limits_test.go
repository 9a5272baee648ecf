package build

import (
	"fmt"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/exec"
)

// LAWS 8: the limits that a build asks for, which a command can see, are in its
// key, and those who ask for none have the key of before.
func TestRunKeyHoldsTheLimits(t *testing.T) {
	s := &state{scope: dockerfile.NewScope(&dockerfile.File{}, dockerfile.ScopeOptions{})}
	run := &dockerfile.Run{Args: []string{"x"}}
	seen := map[Key]string{}
	for _, o := range []Options{
		{},
		{ShmSize: 1 << 20},
		{ShmSize: 2 << 20},
		{Limits: []exec.Limit{{Resource: unix.RLIMIT_NOFILE, Soft: 1, Hard: 2}}},
		{Limits: []exec.Limit{{Resource: unix.RLIMIT_NOFILE, Soft: 2, Hard: 2}}},
		{Limits: []exec.Limit{{Resource: unix.RLIMIT_NOFILE, Soft: 1, Hard: 3}}},
		{Limits: []exec.Limit{{Resource: unix.RLIMIT_CORE, Soft: 1, Hard: 2}}},
	} {
		what := fmt.Sprintf("%v, %d", o.Limits, o.ShmSize)
		o.Platform = v1.Platform{OS: "linux", Architecture: "amd64"}
		key := (&builder{opts: o}).runKey(s, run, "host")
		if other, ok := seen[key]; ok {
			t.Errorf("limits %s: got the key of %s, want one of their own", what, other)
		}
		seen[key] = what
	}
}
