package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Rounds by default, so that all of them take some 25 minutes: what supports a claim of some 5 per cent where a run takes
// a second or so, and the fewest that give an interval of 95 % where it takes long.
const (
	shortRounds = 15
	longRounds  = 6
	pullRounds  = 9 // one run of the peer takes long, and the sides are far apart
	goRounds    = 5 // half a minute each: 93 %
	// infoRounds is for cells without a peer, and sides that are there for information.
	infoRounds = 3
)

// group measures one or several cells on the same sides. A cell is named
// GROUP or GROUP/PHASE.
type group struct {
	name   string
	title  string // what a row of the report is about
	rounds int
	phases []string // nil: one, without a name
	// every is how often memory is looked at, where the default is too seldom.
	every time.Duration
	// sides are those to measure; nil: all that open gives.
	sides []string
	first int           // number of the first round
	limit time.Duration // a run that takes longer is ended and reported as that; 0: none
	open  func(ctx context.Context, e *env, g group) (*bench, error)
}

// bench is an open group.
type bench struct {
	sides []side
	// begin is called before each phase of a round, once for all sides; may be nil.
	begin func(phase string, round int) error
	close func() error // may be nil
}

// side is one of the things compared.
type side struct {
	name, version string
	settings      string   // how it is called, for the report
	skip          string   // why it cannot be measured here
	daemon        int      // process id of its daemon, 0 if none
	phases        []string // the only ones that it takes part in; nil: all
	// before makes ready for a phase; not timed, may be nil. A notYetError skips the phase.
	before func(ctx context.Context, phase string, round int) error
	// reset makes it as it was before anything was built; not timed, may be nil.
	reset func(ctx context.Context, round int) error
	// run does what the phase measures.
	run func(ctx context.Context, m meter, phase string, round int) (sample, error)
}

// notYetError is why a side has no figure in one phase, which is no failure.
type notYetError struct{ why string }

func (n notYetError) Error() string { return n.why }

// takes says whether a side takes part in a phase.
func (s side) takes(phase string) bool {
	return s.phases == nil || slices.Contains(s.phases, phase)
}

// onceSides are measured in the first round only: for information.
var onceSides = []string{walkSide, volatileSide}

// onceOnly says whether a side is measured in the first round only.
func onceOnly(side string) bool {
	return slices.Contains(onceSides, side) || side == nativeSide || strings.HasPrefix(side, floorSide)
}

// sample is a run, and what of it the cell compares.
type sample struct {
	usage
	compared time.Duration // 0: all of it
	layers   int64         // bytes of the layers that were pushed beside those of the base; 0: not looked at
	setup    time.Duration // of the daemon, where a build needs its own; not in wall
	x        float64       // what a growth cell varies
}

// figureGroups are the cells of docs/figures.md.
var figureGroups = []group{
	{name: "small", title: "small context", rounds: shortRounds, phases: phases, open: openSmall},
	{name: "heavy", title: "COPY-heavy", rounds: longRounds, phases: phases, open: openHeavy},
	{name: "pull-20k", title: "base of 20,000 files", rounds: pullRounds, open: openPull},
	{name: "run-apt", title: "apt-get install", rounds: longRounds, open: openRun(aptInput)},
	{name: "run-npm-ci", title: "npm ci", rounds: longRounds, open: openRun(npmInput)},
	{name: "run-npm-build", title: "npm test, build, prune", rounds: longRounds, open: openRun(npmBuildInput)},
	{name: "run-go", title: "go vet, test, build", rounds: goRounds, open: openRun(goInput)},
	{name: "mem-run-fuse", title: "RUN writes 1 GiB, fuse", rounds: infoRounds, every: memoryEvery, open: openMemRun("fuse")},
	{name: "mem-run-walk", title: "RUN writes 1 GiB, walk", rounds: infoRounds, every: memoryEvery, open: openMemRun("walk")},
	{name: "mem-copy", title: "COPY of 1 GiB", rounds: infoRounds, every: memoryEvery, open: openMemCopy},
	{name: "mem-pull", title: "pull of a layer of 1 GiB", rounds: infoRounds, every: memoryEvery, open: openMemPull},
}

// Memory is looked at seldom where time is what counts: a look is some 2 ms.
const (
	speedEvery  = 100 * time.Millisecond
	memoryEvery = 20 * time.Millisecond
)

// cellName is the name of a phase's cell.
func (g group) cellName(phase string) string {
	if phase == "" {
		return g.name
	}
	return g.name + "/" + phase
}

// env is what all groups share.
type env struct {
	options
	work     string // below out: bases, contexts, stores
	run      string // a short path, for sockets; removed at the end
	home     string // HOME of what is started
	device   string // of work, as /proc/diskstats numbers it
	deadline time.Time
	lock     *os.File       // nobody else uses work
	gen      string         // what makes the files of the workloads
	self     string         // this program, where the ordinary user may run it
	hostd    *dockerBuilder // the daemon that runs containers of peers; nil until one needs it
	host     host
	journal  *journal
	registry *registryServer
}

func newEnv(ctx context.Context, o options) (_ *env, err error) {
	if os.Getuid() != 0 {
		return nil, errors.New("measuring needs root: for dockerd, and to drop caches and bases of every owner")
	}
	e := &env{options: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	for _, p := range []*string{&e.fbuild, &e.out, &e.repo, &e.workDir, &e.against} {
		if *p == "" {
			continue
		}
		if *p, err = filepath.Abs(*p); err != nil {
			return nil, err
		}
	}
	e.work = e.workDir
	if e.tiny {
		e.work += "-tiny"
	}
	if err := openDirs(e.out, e.work); err != nil {
		return nil, err
	}
	if e.lock, err = lockDir(e.work); err != nil {
		return nil, err
	}
	if e.run, err = os.MkdirTemp("", "fbench-"); err != nil {
		return nil, err
	}
	e.home = filepath.Join(e.run, "home")
	if err := errors.Join(os.Chmod(e.run, 0o755), openDirs(e.home)); err != nil { //nolint:gosec // the ordinary user passes through
		return nil, err
	}
	if e.host, err = lookAround(ctx, o, e.out); err != nil {
		return nil, err
	}
	if err := e.host.write(e.out); err != nil {
		return nil, err
	}
	if err := becomeReaper(); err != nil {
		return nil, err
	}
	if e.journal, err = openJournal(e.out, e.host.Versions["fbuild"], e.tiny); err != nil {
		return nil, err
	}
	if err := e.ownPrograms(); err != nil {
		return nil, err
	}
	e.device = deviceOf(e.work)
	e.registry, err = startRegistry(ctx, filepath.Join(e.work, "registry"))
	return e, err
}

// ownPrograms copies this program and fbuild to where the ordinary user may run
// them: a home directory may be closed to others.
func (e *env) ownPrograms() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	bin := filepath.Join(e.run, "bin")
	if err := openDirs(bin); err != nil {
		return err
	}
	for _, p := range []struct {
		from string
		to   *string
		name string
	}{{self, &e.self, "bench"}, {e.fbuild, &e.fbuild, "fbuild"}, {e.against, &e.against, oldSide}} {
		if p.from == "" {
			continue
		}
		data, err := os.ReadFile(p.from)
		if err != nil {
			return fmt.Errorf("read program: %w", err)
		}
		*p.to = filepath.Join(bin, p.name)
		if err := os.WriteFile(*p.to, data, 0o755); err != nil { //nolint:gosec // a program
			return fmt.Errorf("copy program: %w", err)
		}
	}
	return nil
}

// lockDir keeps a second bench out of a work directory. The lock ends with the process.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock work directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is in use by another bench: %w", dir, err), f.Close())
	}
	return f, nil
}

// openDirs makes directories that everybody may pass through.
func openDirs(dirs ...string) error {
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o755); err != nil { //nolint:gosec // the ordinary user passes through
			return fmt.Errorf("make directory: %w", err)
		}
	}
	return nil
}

// close ends and removes everything but the results and the prepared bases.
func (e *env) close() error {
	var errs []error
	if e.hostd != nil {
		errs = append(errs, e.hostd.stop())
	}
	if e.registry != nil {
		errs = append(errs, e.registry.close())
	}
	errs = append(errs, endAll())
	if e.journal != nil {
		errs = append(errs, e.journal.file.Close())
	}
	if e.lock != nil {
		errs = append(errs, e.lock.Close())
	}
	if e.run != "" {
		errs = append(errs, os.RemoveAll(e.run))
	}
	return errors.Join(errs...)
}

// scaled is n, or a twentieth of it with -tiny.
func (e *env) scaled(n int) int {
	if e.tiny {
		return max(1, n/20)
	}
	return n
}

// command prepares a program with nothing of the caller's environment.
func (e *env) command(ctx context.Context, argv []string, vars ...string) *osexec.Cmd {
	cmd := osexec.CommandContext(ctx, argv[0], argv[1:]...) //nolint:gosec // running commands is what this is for
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "HOME=" + e.home, "LC_ALL=C"}, vars...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// must runs a command that is not measured.
func (e *env) must(ctx context.Context, argv []string, vars ...string) error {
	out, err := e.command(ctx, argv, vars...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, tail(string(out), 15))
	}
	return nil
}

// fresh empties a directory.
func fresh(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("empty directory: %w", err)
	}
	return openDirs(dir)
}
