package fusefs

import (
	"testing"

	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/tree/recordertest"
)

// TestLaws holds the recorder to the laws of all recorders.
func TestLaws(t *testing.T) {
	testenv.NeedFUSE(t)
	recordertest.All(t, func(*testing.T) recorder.Backend {
		return told{New(Options{check: checkChanges, give: worldGive(), tells: 1})}
	})
}
