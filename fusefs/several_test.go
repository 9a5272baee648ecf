package fusefs

import (
	"testing"

	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/tree/recordertest"
)

// TestLawsOfSeveralWorkers: on machines with more processors more than one thread answers.
func TestLawsOfSeveralWorkers(t *testing.T) {
	t.Parallel()
	testenv.NeedFUSE(t)
	recordertest.All(t, func(*testing.T) recorder.Backend {
		return told{New(Options{Workers: 4, check: checkChanges, give: worldGive(), tells: 1})}
	})
}
