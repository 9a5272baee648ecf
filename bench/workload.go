package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// The phases of a round, in this order.
const (
	coldPhase     = "cold" // nothing in the builder's storage, the base in the registry
	pushPhase     = "push" // what cold made, to a repository that has none of it
	rePushPhase   = "push again"
	nothingPhase  = "nothing changed"
	sourcePhase   = "one source file"
	readmePhase   = "comment in README"
	manifestPhase = "manifest"
	sharedPhase   = "fresh machine, shared cache"
	docPhase      = "documentation in the base" // a new base that differs in /usr/share/doc
	droppedPhase  = "cold, page cache dropped"
	floorPhase    = "floor"
)

// workload is a Dockerfile of bench/workloads and what it needs.
type workload struct {
	name, title string
	about       string // for the report: what it is
	base        func(e *env, ctx context.Context) (base, error)
	context     func(e *env, ctx context.Context, dir string) error // nil: an empty one
	args        func(e *env) []string
	phases      []string
	edits       map[string]string // phase -> the file of the context that it changes
	short       bool              // every phase takes a second or so
	jobs        int               // concurrent builds; 0 is one
	rounds      int               // of the full profile
	limit       time.Duration
}

// base is the image that a workload starts from, in the registry and as directories.
type base struct {
	ref   string
	lower string // for an overlay mount: directories by colons
	env   []string
}

var (
	editPhases = []string{nothingPhase, sourcePhase, readmePhase, manifestPhase}
	pushPhases = []string{coldPhase, pushPhase, rePushPhase}
	nodePhases = slices.Concat(pushPhases, editPhases, []string{docPhase, sharedPhase, floorPhase})
	nodeEdits  = map[string]string{sourcePhase: "src/main.ts", readmePhase: "README.md", manifestPhase: "package.json"}
)

var workloads = []workload{
	{
		name: "steps", title: "COPY first, eight RUNs", about: "a small context copied first, then eight short RUNs that each read one file of it",
		base: (*env).toolsBase, context: (*env).stepsContext, rounds: 9, short: true,
		phases: slices.Concat(pushPhases, editPhases, []string{sharedPhase}),
		edits:  map[string]string{sourcePhase: "source", readmePhase: "README.md", manifestPhase: "manifest"},
	},
	{
		name: "files", title: "30,000 small files", about: "one RUN writes 30,000 files of 1 to 8 KiB", base: (*env).toolsBase,
		args:   func(e *env) []string { return []string{fmt.Sprintf("FILES=%d", e.scaled(30000))} },
		phases: slices.Concat(pushPhases, []string{nothingPhase, floorPhase}), rounds: 3,
	},
	{
		name: "copy", title: "COPY of 20,000 files, 300 MiB", about: "a large context", base: (*env).toolsBase, context: (*env).copyContext,
		phases: slices.Concat(pushPhases, []string{nothingPhase, sourcePhase, droppedPhase, floorPhase}), rounds: 3,
		edits: map[string]string{sourcePhase: "d0000/file07"},
	},
	{
		name: "node-wrong", title: "Node app, `COPY . .` first", about: "npm ci of 489 packages and webpack, the order that beginners write",
		base: (*env).nodeBase, context: (*env).nodeContext, phases: nodePhases, edits: nodeEdits, rounds: 3,
	},
	{
		name: "apt", title: "apt-get install, 15 packages", about: "from .debs that lie in the base", base: (*env).aptBase,
		phases: slices.Concat(pushPhases, []string{nothingPhase, docPhase, floorPhase}), rounds: 3,
	},
	{
		name: "big", title: "1 GiB in 8 files", about: "one RUN writes 1 GiB", base: (*env).toolsBase,
		args:   func(e *env) []string { return []string{fmt.Sprintf("BYTES=%d", e.scaled(128)<<20)} },
		phases: slices.Concat(pushPhases, []string{nothingPhase, floorPhase}), rounds: 3,
	},
	{
		name: "runs", title: "ten RUNs on a base of 2 GiB", about: "ten one-line RUNs; cold holds the pull of the base", base: (*env).runsBase,
		phases: slices.Concat(pushPhases, []string{nothingPhase}), rounds: 3,
	},
	{
		name: "meta", title: "60,000 files: chmod, chown, mv, rm", about: "each -R in a RUN of its own; cold holds the pull of the base", base: (*env).metaBase,
		phases: slices.Concat(pushPhases, []string{nothingPhase}), rounds: 3,
	},
	{
		name: "stages", title: "ten parallel stages", about: "ten stages that nothing orders, each of files and work", base: (*env).toolsBase,
		phases: slices.Concat(pushPhases, []string{nothingPhase}), rounds: 3,
	},
	{
		name: "monorepo", title: "20 services at once", about: "twenty processes on one store; a stage of 2,000 files that they share", base: (*env).toolsBase,
		context: (*env).monorepoContext, phases: []string{coldPhase, nothingPhase, sourcePhase}, rounds: 3, jobs: 20,
		edits: map[string]string{sourcePhase: "services/s3/source"},
	},
	{
		name: "go", title: "Go, two stages", about: "a program with modules, built in one stage and shipped from scratch", base: (*env).goBase,
		context: (*env).goContext, phases: slices.Concat(pushPhases, editPhases), rounds: 3,
		edits: map[string]string{sourcePhase: "main.go", readmePhase: "README.md", manifestPhase: "go.mod"},
	},
	{
		name: "node-right", title: "Node app, manifests first", about: "the same, in the order that documentation recommends",
		base: (*env).nodeBase, context: (*env).nodeContext, phases: slices.Concat(pushPhases, editPhases, []string{sharedPhase}), edits: nodeEdits, rounds: 3,
	},
	{
		name: "node-last", title: "Node app, `COPY . .` and then `npm ci` alone", about: "a program that is not compiled",
		base: (*env).nodeBase, context: (*env).nodeContext, phases: slices.Concat([]string{coldPhase}, editPhases), edits: nodeEdits, rounds: 3,
	},
}

// group is a workload with certain sides and rounds.
func (w workload) group(sides []string, first, rounds int) group {
	limit := w.limit
	if limit == 0 {
		limit = 5 * time.Minute
	}
	return group{
		name: w.name, title: w.title, rounds: rounds, first: first, phases: w.phases, sides: sides, limit: limit,
		open: func(ctx context.Context, e *env, g group) (*bench, error) { return e.openWorkload(ctx, g, w) },
	}
}

// open is a workload that is being measured.
type openedWorkload struct {
	workload
	env        *env
	dir        string // of the context
	base       base
	docBase    base // another one, which differs in /usr/share/doc; only where a phase needs it
	dockerfile string
}

// openWorkload makes base, context and builders.
func (e *env) openWorkload(ctx context.Context, g group, w workload) (_ *bench, err error) {
	o := &openedWorkload{workload: w, env: e, dir: filepath.Join(e.work, w.name+"-context")}
	o.dockerfile = filepath.Join(e.repo, "bench", "workloads", w.name, "Dockerfile")
	if o.base, err = w.base(e, ctx); err != nil {
		return nil, err
	}
	if slices.Contains(w.phases, docPhase) {
		if o.docBase, err = e.withDocs(ctx, o.base); err != nil {
			return nil, err
		}
	}
	if err := fresh(o.dir); err != nil {
		return nil, err
	}
	if w.context != nil {
		if err := w.context(e, ctx, o.dir); err != nil {
			return nil, fmt.Errorf("make context: %w", err)
		}
	}
	b := &bench{begin: o.begin}
	var closers []func() error
	b.close = func() error {
		errs := []error{os.RemoveAll(o.dir)}
		for _, c := range closers {
			errs = append(errs, c())
		}
		return errors.Join(errs...)
	}
	for _, name := range g.sides {
		if name == nativeSide {
			n := o.native()
			b.sides = append(b.sides, n.sides()...)
			closers = append(closers, n.close)
			continue
		}
		p := e.openPeer(ctx, name, w.name)
		if p.close != nil {
			closers = append(closers, p.close)
		}
		b.sides = append(b.sides, o.side(p))
	}
	return b, nil
}

// begin changes the file that a phase is about.
func (o *openedWorkload) begin(phase string, round int) error {
	file, ok := o.edits[phase]
	if !ok {
		return nil
	}
	return edit(filepath.Join(o.dir, file), fmt.Sprintf("%d-%s-%d", round, phase, time.Now().UnixNano()))
}

// side makes a builder a side of the workload.
func (o *openedWorkload) side(b *builder) side {
	s := side{name: b.name, version: b.version, settings: b.settings, skip: b.skip, daemon: b.daemon}
	if b.skip != "" {
		return s
	}
	if b.push == nil {
		for _, p := range o.phases {
			if p != pushPhase && p != rePushPhase {
				s.phases = append(s.phases, p)
			}
		}
	} else {
		s.phases = slices.Clone(o.phases)
	}
	s.phases = slices.DeleteFunc(s.phases, func(p string) bool { return p == floorPhase })
	s.reset = func(ctx context.Context, round int) error {
		err := b.reset(ctx)
		// What the round before pushed goes: a push finds nothing of its own.
		return errors.Join(err, o.env.registry.blobs.forget(o.repo(b, round-1)))
	}
	s.before = func(ctx context.Context, phase string, round int) error { return o.before(ctx, b, phase, round) }
	s.run = func(ctx context.Context, m meter, phase string, round int) (sample, error) {
		return o.run(ctx, b, m, phase, round)
	}
	return s
}

// repo is where a side pushes in a round.
func (o *openedWorkload) repo(b *builder, round int) string {
	return outRepo + b.name + "/" + strconv.Itoa(round) + "/" + o.name
}

// allJobs are the builds of a round.
func (o *openedWorkload) allJobs(b *builder, round int, extra string) []job {
	var out []job
	for i := range max(1, o.jobs) {
		repo := o.env.registry.addr + "/" + o.repo(b, round) + extra
		j := job{dockerfile: o.dockerfile, context: o.dir, ref: repo + ":1", cache: repo + "-cache", args: []string{"BASE=" + o.base.ref}}
		if o.args != nil {
			j.args = append(j.args, o.args(o.env)...)
		}
		if o.jobs > 0 {
			j.args = append(j.args, fmt.Sprintf("SERVICE=s%d", i))
			j.ref = fmt.Sprintf("%s-s%d:1", repo, i)
		}
		out = append(out, j)
	}
	return out
}

// before makes ready for the phases that need it.
func (o *openedWorkload) before(ctx context.Context, b *builder, phase string, round int) error {
	switch phase {
	case droppedPhase:
		return errors.Join(b.reset(ctx), dropPageCache(ctx))
	case sharedPhase:
		if b.share == nil {
			return notYetError{"not yet: " + b.note}
		}
		for _, j := range o.allJobs(b, round, "-shared") {
			cmd, err := o.env.commandOf(ctx, b, b.share, j)
			if err != nil {
				return err
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				return notYetError{fmt.Sprintf("not yet: filling the shared cache: %v: %s", err, tail(string(out), 2))}
			}
		}
		return b.reset(ctx)
	}
	return nil
}

// run does what a phase measures.
func (o *openedWorkload) run(ctx context.Context, b *builder, m meter, phase string, round int) (sample, error) {
	line, extra := b.build, ""
	switch phase {
	case pushPhase, rePushPhase:
		line = b.push
	case sharedPhase:
		line, extra = b.fetch, "-shared"
	case droppedPhase:
		extra = "-dropped"
	}
	jobs := o.allJobs(b, round, extra)
	if phase == docPhase {
		for i := range jobs {
			jobs[i].args[0] = "BASE=" + o.docBase.ref
		}
	}
	cmd, err := o.env.commandOf(ctx, b, line, jobs...)
	if err != nil {
		return sample{}, err
	}
	u, err := m.run(ctx, cmd)
	s := sample{usage: u}
	if err != nil {
		return s, err
	}
	if phase == pushPhase || phase == coldPhase && b.push == nil {
		if s.layers, err = o.layerBytes(ctx, jobs[0].ref); err != nil {
			return s, err
		}
	}
	if phase == coldPhase && b.setup != nil {
		took, err := b.setup(ctx)
		if err != nil {
			return s, err
		}
		s.setup = time.Duration(took * float64(time.Second))
	}
	return s, nil
}

// layerBytes adds up the layers of an image that its base does not have.
func (o *openedWorkload) layerBytes(ctx context.Context, ref string) (int64, error) {
	have := map[string]bool{}
	var sum int64
	for i, r := range []string{o.base.ref, ref} {
		tag, err := name.NewTag(r)
		if err != nil {
			return 0, err
		}
		img, err := remote.Image(tag, remote.WithContext(ctx))
		if err != nil {
			return 0, fmt.Errorf("look at what was pushed: %w", err)
		}
		man, err := img.Manifest()
		if err != nil {
			return 0, fmt.Errorf("look at what was pushed: %w", err)
		}
		for _, l := range man.Layers {
			if i == 0 {
				have[l.Digest.String()] = true
			} else if !have[l.Digest.String()] {
				sum += l.Size
			}
		}
	}
	return sum, nil
}
