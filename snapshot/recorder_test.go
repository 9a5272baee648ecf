package snapshot

import (
	"maps"
	"os"
	"testing"

	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/tree/recordertest"
)

func TestMain(m *testing.M) {
	children := recordertest.Children()
	maps.Copy(children, map[string]func() int{"materialize": materializeMain})
	os.Exit(testenv.InUserNS(m, children))
}

// LAWS 12, 13, 14, 16, 22, 24, 25, 26: see recordertest.
func TestWalkLaws(t *testing.T) {
	testenv.NeedUserNS(t)
	recordertest.All(t, func(*testing.T) recorder.Backend { return New(Options{}) })
}
