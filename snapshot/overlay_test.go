package snapshot

import (
	"testing"

	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/tree/recordertest"
)

// overlayExceptions are the cases of LAWS 14.
var overlayExceptions = []recordertest.Exception{recordertest.BreaksLinks, recordertest.NoDirRename}

// LAWS 12, 13, 14, 16, 24, 25, 26: see recordertest.
func TestOverlayLaws(t *testing.T) {
	testenv.NeedUserNS(t)
	recordertest.All(t, func(*testing.T) recorder.Backend { return NewOverlay(Options{}) }, overlayExceptions...)
}
