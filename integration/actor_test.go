//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// testUser is the ordinary user that .ci/user makes.
const testUser = "fbuild-test"

// actor is somebody who runs fbuild.
type actor struct {
	name     string // "root" or "user"
	uid, gid int
}

// findActors returns who runs the tests: root and an ordinary user, or the
// ordinary user that this process is.
func findActors() ([]actor, error) {
	self := actor{name: "user", uid: os.Getuid(), gid: os.Getgid()}
	if self.uid != 0 {
		return []actor{self}, nil
	}
	self.name = "root"
	u, err := user.Lookup(testUser)
	if errors.As(err, new(user.UnknownUserError)) {
		if msg, cerr := osexec.CommandContext(context.Background(), "../.ci/user").CombinedOutput(); cerr != nil {
			return nil, fmt.Errorf("create user %s: %w\n%s", testUser, cerr, msg)
		}
		u, err = user.Lookup(testUser)
	}
	if err != nil {
		return nil, err
	}
	a := actor{name: "user"}
	if a.uid, err = strconv.Atoi(u.Uid); err != nil {
		return nil, err
	}
	if a.gid, err = strconv.Atoi(u.Gid); err != nil {
		return nil, err
	}
	return []actor{self, a}, nil
}

// leg is one way to run a test: who, and with which recorder.
type leg struct {
	actor
	recorder string
}

func (l leg) String() string { return l.name + "-" + l.recorder }

var recorders = []string{"fuse", "overlay", "walk"}

// covering are the recorders of the covering matrix, overlaid the tests that have one
// leg more, with overlay.
var (
	covering = []string{"fuse", "walk"}
	overlaid = []string{"run_layers.txtar", "run_mount_bind.txtar", "TestFullDisk", "TestLaw12EndOfRun", "a_RUN_that_writes"}
)

// legs are those of coveringLegs, or with FBUILD_MATRIX=ci one of them: overlay where
// it is there, else the one that the name chooses.
func legs(name string) []leg {
	out := coveringLegs(name)
	if os.Getenv("FBUILD_MATRIX") != "ci" {
		return out
	}
	at := len(out) - 1
	if out[at].recorder != "overlay" {
		at = len(name) % len(out)
	}
	return out[at : at+1]
}

// coveringLegs is the covering matrix of a test, by its name: both users, and the covering
// recorders, not each with each, root first. FBUILD_MATRIX=all is the whole product.
func coveringLegs(name string) []leg {
	var out []leg
	if os.Getenv("FBUILD_MATRIX") == "all" || len(suite.actors) == 1 {
		for _, a := range suite.actors {
			for _, r := range recorders {
				out = append(out, leg{a, r})
			}
		}
		return out
	}
	sum := 0
	for _, b := range []byte(name) {
		sum += int(b)
	}
	for i, a := range suite.actors {
		out = append(out, leg{a, covering[(sum+i)%len(covering)]})
	}
	if slices.Contains(overlaid, filepath.Base(name)) {
		out = append(out, leg{suite.actors[sum%len(suite.actors)], "overlay"})
	}
	return out
}

// lastLeg is one of the legs of a test that needs no more: the ordinary user's where
// there are two users.
func lastLeg(t *testing.T) leg {
	list := coveringLegs(t.Name())
	return list[len(list)-1]
}

// eachLeg runs fn as a subtest for every leg.
func eachLeg(t *testing.T, fn func(t *testing.T, h *home)) {
	t.Helper()
	for _, l := range legs(t.Name()) {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			fn(t, newHome(t, l))
		})
	}
}

// eachActor is eachLeg where the recorder does not matter.
func eachActor(t *testing.T, fn func(t *testing.T, h *home)) {
	t.Helper()
	for _, l := range legs(t.Name()) {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			fn(t, newHome(t, l))
		})
	}
}

// give makes everything at and below a directory the actor's.
func (a actor) give(dir string) error {
	if os.Getuid() != 0 || a.uid == 0 {
		return nil
	}
	return filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, a.uid, a.gid)
	})
}
