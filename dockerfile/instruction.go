package dockerfile

import (
	"time"
)

// Location is a range of lines, both ends included, counted from 1.
type Location struct{ Start, End int }

// Instruction is one instruction of a stage: *Run, *Copy, *Add, *Env, *Arg, *Workdir, *User, *Label, *Expose, *Volume,
// *Cmd, *Entrypoint, *Shell, *StopSignal, *Healthcheck, *OnBuild or *Maintainer.
type Instruction interface {
	// Location is where the instruction stands; for an ONBUILD trigger, where the FROM stands that brought it.
	Location() Location
	// Original is the source text on one line, continuations joined, as written.
	Original() string
	// Keyword is the instruction's name in capitals.
	Keyword() string
	// Trigger says that the instruction came from an ONBUILD of the base.
	Trigger() bool

	head() *meta
}

// Heredoc is a document that stands in the Dockerfile itself.
type Heredoc struct {
	Name   string // the word after <<
	Data   string
	Expand bool // the word was not quoted: variables in Data are replaced
	Chomp  bool // the form was <<-: leading tabs are dropped where the document is read
}

// KeyValue is a name and its value.
type KeyValue struct{ Key, Value string }

// ArgValue is one name of an ARG instruction.
type ArgValue struct {
	Key   string
	Value string
	Set   bool // there is a value: a default as written or, after Scope.Expand, the value in force
}

// Transfer is what COPY and ADD share.
type Transfer struct {
	Sources  []string  // paths and patterns, in order
	Heredocs []Heredoc // documents copied under their names, after Sources
	Dest     string    // as written
	Target   string    // Dest made absolute by Scope.Expand; a trailing slash (or "/.") is kept, it means a directory
	Chown    string    // user[:group], names or numbers; "" is 0:0
	Chmod    string    // octal or symbolic, see ParseMode; "" keeps the mode
	Link     bool      // --link: copy without a look at the files that are there
	Parents  bool      // --parents: keep the directories above what a source names; COPY only
	Exclude  []string  // --exclude: patterns as in .dockerignore, relative to each source
}

type meta struct {
	loc      Location
	original string
	keyword  string
	name     string // the keyword as written
	comments []string
	trigger  bool
	mounts   *mountFlags // of a RUN with --mount
}

func (m *meta) Location() Location { return m.loc }
func (m *meta) Original() string   { return m.original }
func (m *meta) Keyword() string    { return m.keyword }
func (m *meta) Trigger() bool      { return m.trigger }

// Run is RUN.
type Run struct {
	meta
	Shell    bool      // shell form
	Args     []string  // as written (shell form: one element); after Scope.Expand the argv to execute, shell included
	Heredocs []Heredoc // as written
	Network  string    // "default", "none" or "host"
	Script   *Script   // set by Scope.Expand: the file that must exist, read-only, while Args run; most often nil
	Mounts   []Mount   // of --mount
	Exact    bool      // "# fbuild: cache=exact" stands above it: its trace is not used
}

// Script is the body of a RUN heredoc that starts with "#!": it is executed as a file.
type Script struct {
	Path string // absolute: "/dev/pipes/EOF"
	Data string
	Mode uint32 // 0755
}

// Copy is COPY.
type Copy struct {
	meta
	Transfer
	From      string // --from as written; "" is the build context
	FromStage *Stage // the stage From means, or nil: an image or a named context
}

// Add is ADD: of local files, and of what SourceKind tells apart from them.
type Add struct {
	meta
	Transfer
	Checksum   string // of the one remote source: a digest of a URL, (the start of) a commit of a repository
	KeepGitDir *bool  // of repositories; nil: as the URL says
	Unpack     *bool  // of archives; nil: those of the build context only
}

// Env is ENV.
type Env struct {
	meta
	Pairs  []KeyValue
	legacy bool // ENV key value
}

// Arg is ARG.
type Arg struct {
	meta
	Args []ArgValue
}

// Workdir is WORKDIR. After Scope.Expand Path is absolute, though not cleaned: the image config holds it as docker writes it.
type Workdir struct {
	meta
	Path string
}

// User is USER.
type User struct {
	meta
	User string // user[:group]
}

// Label is LABEL.
type Label struct {
	meta
	Pairs  []KeyValue
	legacy bool
}

// Expose is EXPOSE. After Scope.Expand each port is "80/tcp" and ranges are spelled out.
type Expose struct {
	meta
	Ports []string
}

// Volume is VOLUME.
type Volume struct {
	meta
	Paths []string
}

// Cmd is CMD. After Scope.Expand Args holds the shell too where the shell form was used.
type Cmd struct {
	meta
	Shell bool
	Args  []string
}

// Entrypoint is ENTRYPOINT. After Scope.Expand Args holds the shell too where the shell form was used; nil clears the base's.
type Entrypoint struct {
	meta
	Shell bool
	Args  []string
	// ResetsCmd is set by Scope.Expand: the stage had no CMD before this, so the one of the base image goes.
	ResetsCmd bool
}

// Shell is SHELL.
type Shell struct {
	meta
	Args []string
}

// StopSignal is STOPSIGNAL.
type StopSignal struct {
	meta
	Signal string
}

// Health is the image config's health check; zero values mean the engine's defaults.
type Health struct {
	Test          []string // {"NONE"}, {"CMD", args...} or {"CMD-SHELL", line}
	Interval      time.Duration
	Timeout       time.Duration
	StartPeriod   time.Duration
	StartInterval time.Duration
	Retries       int
}

// Healthcheck is HEALTHCHECK.
type Healthcheck struct {
	meta
	Health Health
}

// OnBuild is ONBUILD.
type OnBuild struct {
	meta
	Expression string // the trigger as the image config holds it
}

// Maintainer is MAINTAINER.
type Maintainer struct {
	meta
	Author string
}
