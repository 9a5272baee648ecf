package build

import (
	"time"

	"github.com/fbuild/fbuild/trace"
)

// The verdicts on a step.
const (
	VerdictExact = "exact" // reused: nothing below it changed
	VerdictTrace = "trace" // reused: nothing that it looked at changed
	VerdictRun   = "run"   // done
)

// StepReport says why a step was done, or why not.
type StepReport struct {
	Stage   string // its label
	Title   string // the instruction, expanded
	Line    int    // in the Dockerfile
	Verdict string
	Source  string // the shared cache that the result came from; "" for the store
	// Why says in words what decided where Differences do not.
	Why string
	// Differences are, of a step that ran, what the newest trace saw otherwise, and of
	// one reused by trace what changed below it and was not looked at; at most
	// maxDifferences of Total.
	Differences []trace.Difference
	Total       int
	// Inputs are the names of what changed in the step's identity: "ARG X", "ENV Y", "command".
	Inputs []string

	Took        time.Duration // of the command; of a reused step, when it ran
	Ran         time.Time     // when the command ended
	UsedNetwork bool
	Doubt       string // why it has no trace; "" where it has one
	Questions   int    // how many the trace holds
	ReadBytes   int64  // contents that it looked at
	Entries     int    // changes in its layer
	Bytes       int64  // uncompressed contents of its layer
	Key         Key
	Identity    string
	Layer       string // diffID, "" where nothing changed
}

// maxDifferences bounds StepReport.Differences.
const maxDifferences = 50
