package recordertest_test

import (
	"flag"
	"os"
	"testing"

	"github.com/fbuild/fbuild/fusefs"
	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/snapshot"
	"github.com/fbuild/fbuild/tree/recordertest"
)

// seeds is how many random runs are compared; firstSeed starts them elsewhere,
// for a longer search.
var (
	seeds     = flag.Int("seeds", 15, "random runs to compare")
	firstSeed = flag.Int64("first-seed", 1, "seed of the first run")
)

func TestMain(m *testing.M) { os.Exit(testenv.InUserNS(m, recordertest.Children())) }

func fuse(*testing.T) recorder.Backend    { return fusefs.New(fusefs.Options{}) }
func walk(*testing.T) recorder.Backend    { return snapshot.New(snapshot.Options{}) }
func overlay(*testing.T) recorder.Backend { return snapshot.NewOverlay(snapshot.Options{}) }

func seedList() []int64 {
	var list []int64
	for i := range *seeds {
		list = append(list, *firstSeed+int64(i))
	}
	return list
}

// LAWS 14: fuse and walk agree always.
func TestFuseAndWalkAgree(t *testing.T) {
	testenv.NeedFUSE(t)
	recordertest.Random(t, fuse, walk, seedList())
}

// LAWS 14: overlay agrees with both but for its exceptions.
func TestOverlayAgrees(t *testing.T) {
	testenv.NeedUserNS(t)
	recordertest.Random(t, walk, overlay, seedList(), recordertest.BreaksLinks, recordertest.NoDirRename)
}
