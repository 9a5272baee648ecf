package build

import (
	"time"

	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// The verdicts on a step.
const (
	VerdictExact = "exact" // reused: nothing below it changed
	VerdictTrace = "trace" // reused: nothing that it looked at changed
	VerdictRun   = "run"   // done
	// VerdictMay is a step of a plan above one that would run: whether it runs depends
	// on what that one gives.
	VerdictMay = "may"
)

// StepReport says why a step was done, or why not. The stage's goroutine begins one for
// each RUN, COPY, ADD and WORKDIR (stageRun.rep); whoever decides about the step fills
// in what it knows.
type StepReport struct {
	Stage   string `json:",omitempty"` // its label
	Number  int    `json:",omitempty"` // within the stage, as progress prints it: 3 of [build 3/7]
	Steps   int    `json:",omitempty"` // 7 of it
	Title   string `json:",omitempty"` // the instruction, expanded
	Line    int    `json:",omitempty"` // in the Dockerfile
	Verdict string `json:",omitempty"`
	Source  string `json:",omitempty"` // the shared cache that the result came from; "" for the store
	// Why says in words what decided where Differences and Inputs do not.
	Why string `json:",omitempty"`
	// Differences are, of a step that ran, what the newest trace saw otherwise, and of
	// one reused by trace what changed below it and was not looked at; at most
	// maxDifferences of Total.
	Differences []trace.Difference `json:",omitempty"`
	Total       int                `json:",omitempty"`
	// Inputs are the names of what changed in the step's identity: "ARG X", "ENV Y", "command".
	Inputs []string `json:",omitempty"`
	// Parts are digests of what the identity is made of, by the names of Inputs; the
	// next build compares them.
	Parts []ReportPart `json:",omitempty"`
	// Below is the step's key below, which says whether anything under it changed.
	Below Key `json:",omitempty"`

	Spent       time.Duration `json:",omitempty"` // on the step, in this build
	Took        time.Duration `json:",omitempty"` // of the command; of a reused step, when it ran
	Ran         time.Time     `json:",omitzero"`  // when the command ended
	UsedNetwork bool          `json:",omitempty"`
	Doubt       string        `json:",omitempty"` // why it has no trace; "" where it has one
	Trace       string        `json:",omitempty"` // id of the trace, the key of its record; "" for none
	Questions   int           `json:",omitempty"` // how many the trace holds
	ReadBytes   int64         `json:",omitempty"` // contents that it looked at
	Entries     int           `json:",omitempty"` // changes in its layer
	Bytes       int64         `json:",omitempty"` // uncompressed contents of its layer
	Key         Key           `json:",omitempty"`
	Identity    string        `json:",omitempty"`
	Layer       string        `json:",omitempty"` // diffID, "" where nothing changed
	Error       string        `json:",omitempty"` // of the step that failed

	begun   time.Time
	changes tree.Changes // of a planned step, whose layer nobody made
}

// ReportPart is one part of a step's identity.
type ReportPart struct {
	Name string // "command", "ARG X", "ENV Y", ...
	Sum  string // a digest, never the value: reports are for reading and may be passed on
}

// Report is what is kept of a build.
type Report struct {
	Dockerfile string        `json:",omitempty"` // absolute, or the address where it came from
	Target     string        `json:",omitempty"`
	Version    string        `json:",omitempty"` // of fbuild
	Began      time.Time     `json:",omitzero"`
	Took       time.Duration `json:",omitempty"`
	ImageID    string        `json:",omitempty"` // "" of a build that failed
	Names      []string      `json:",omitempty"`
	Platform   string        `json:",omitempty"`
	Bases      []string      `json:",omitempty"` // images that it starts or copies from, as the Dockerfile names them
	Error      string        `json:",omitempty"`
	Setup      ReportSetup
	Stages     int `json:",omitempty"` // of the Dockerfile
	// Config is a digest of all that makes the image but times: equal ones are of equal
	// images. "" where a layer is not known.
	Config string       `json:",omitempty"`
	Steps  []StepReport `json:",omitempty"` // in the order of the Dockerfile
}

// ReportSetup is how the build was called, as far as a later plan needs it.
type ReportSetup struct {
	Context     string            `json:",omitempty"` // absolute directory, or address
	Contexts    map[string]string `json:",omitempty"`
	BuildArgs   map[string]string `json:",omitempty"` // but the proxies, which may hold passwords
	Network     string            `json:",omitempty"`
	AddHosts    []string          `json:",omitempty"`
	Limits      []string          `json:",omitempty"` // RESOURCE=SOFT:HARD, in numbers
	ShmSize     int64             `json:",omitempty"`
	Isolation   string            `json:",omitempty"`
	Trace       string            `json:",omitempty"`
	TraceNetTTL time.Duration     `json:",omitempty"`
	CacheTimes  bool              `json:",omitempty"`
}

// Origin says whose build this is, for its report.
type Origin struct {
	Dockerfile string // absolute path or address; "" keeps no report
	Context    string
	Version    string
	BuildArgs  map[string]string
}

// maxDifferences bounds StepReport.Differences.
const maxDifferences = 50
