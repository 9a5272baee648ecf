package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/fbuild/fbuild/buildctx"
	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/oci"
)

// What a change does to an image.
const (
	StatusSame       = "same"      // every byte would be as it is; steps of other stages may run
	StatusChanges    = "changes"   // it would be another image, or may be
	StatusNeverBuilt = "unknown"   // the store has no build of it, and the change is in its reach
	StatusUntouched  = "untouched" // nothing that changed is in its reach
	StatusBroken     = "broken"    // it cannot be built: Error says why
)

// AffectedOptions say what changed and where to look.
type AffectedOptions struct {
	Store       *cache.Store
	Dir         string   // below which Dockerfiles are looked for; absolute
	Dockerfiles []string // instead; absolute
	// Changed are the files that changed, absolute and sorted; nil: whatever differs
	// from the last build.
	Changed  []string
	All      bool // there is no list: everything counts
	Platform v1.Platform
}

// Affected is what a change does to the image of one Dockerfile and target.
type Affected struct {
	Dockerfile string
	Target     string
	Platform   string   // "" is the usual one
	Names      []string // of the image, when it was built last
	Status     string
	Why        string   // where the steps do not say it
	Touches    []string // of what changed, the files in its reach
	Plan       *Report  // what a build would do; nil where that was not asked
	Last       *Report  // the last build; nil for none
}

// Hit says whether the image is, or may be, another one.
func (a *Affected) Hit() bool {
	return a.Status == StatusChanges || a.Status == StatusNeverBuilt || a.Status == StatusBroken
}

// FindAffected says for each image of a repository what a change does to it. Nothing
// is built, fetched or stored.
func FindAffected(ctx context.Context, o AffectedOptions) ([]Affected, error) {
	files := o.Dockerfiles
	if len(files) == 0 {
		var err error
		if files, err = findDockerfiles(o.Dir); err != nil {
			return nil, err
		}
	}
	lists := make([][]Affected, len(files))
	g, each := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for i, name := range files {
		g.Go(func() error {
			var err error
			lists[i], err = o.one(each, name)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	out := slices.Concat(lists...)
	spread(out)
	return out, nil
}

// findDockerfiles looks for files that are called as Dockerfiles are.
func findDockerfiles(dir string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		name := d.Name()
		switch {
		case err != nil && p == dir:
			return err
		case err != nil:
			return nil //nolint:nilerr // what cannot be read cannot be built
		case d.IsDir() && (name == ".git" || name == "node_modules") && p != dir:
			return filepath.SkipDir
		case d.IsDir() || strings.HasSuffix(name, ".dockerignore"):
		case name == "Dockerfile", strings.HasPrefix(name, "Dockerfile."), strings.HasSuffix(name, ".Dockerfile"), strings.HasSuffix(name, ".dockerfile"):
			out = append(out, p)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for Dockerfiles: %w", err)
	}
	return out, nil
}

// one answers for one Dockerfile: for each target that was built.
func (o *AffectedOptions) one(ctx context.Context, name string) ([]Affected, error) {
	reports, err := Reports(o.Store, name)
	if err != nil {
		return nil, err
	}
	var out []Affected
	seen := map[string]bool{}
	for i := range reports {
		r := &reports[i]
		if seen[r.slot()] || r.Error != "" {
			continue
		}
		seen[r.slot()] = true
		a := Affected{Dockerfile: name, Target: r.Target, Platform: r.otherThan(o.Platform), Names: r.Names, Last: r}
		if err := o.built(ctx, &a); err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	if len(out) > 0 {
		return out, nil
	}
	a := Affected{Dockerfile: name, Status: StatusNeverBuilt, Why: "no build of it is remembered"}
	guess := o.guess(name)
	if a.Touches, err = o.touches(name, guess); err == nil && !o.All && len(a.Touches) == 0 {
		a.Status, a.Why = StatusUntouched, ""
	}
	return []Affected{a}, nil
}

// guess is how a Dockerfile that was never built is probably built: with its own
// directory as the context, or the one that was given where a source is only there.
func (o *AffectedOptions) guess(name string) *ReportSetup {
	own := &ReportSetup{Context: filepath.Dir(name)}
	file, err := parseLike(name, &Report{Setup: *own}, o.Platform)
	if err != nil || o.Dir == "" {
		return own
	}
	for _, st := range file.Stages {
		for _, in := range st.Instructions {
			var t *dockerfile.Transfer
			switch in := in.(type) {
			case *dockerfile.Copy:
				if in.From == "" {
					t = &in.Transfer
				}
			case *dockerfile.Add:
				t = &in.Transfer
			}
			if t == nil {
				continue
			}
			for _, src := range t.Sources {
				if dockerfile.SourceKind(src) != "" || hasWildcard(src) {
					continue
				}
				if _, err := os.Lstat(filepath.Join(own.Context, src)); errors.Is(err, fs.ErrNotExist) {
					return &ReportSetup{Context: o.Dir}
				}
			}
		}
	}
	return own
}

// built answers for an image that was built before.
func (o *AffectedOptions) built(ctx context.Context, a *Affected) error {
	setup := &a.Last.Setup
	if IsRemoteContext(setup.Context) {
		a.Status, a.Why = StatusUntouched, "its context is not here"
		return nil
	}
	err := o.plan(ctx, a, setup)
	if ctx.Err() != nil {
		return err
	}
	switch {
	case err != nil:
		a.Status, a.Why = StatusBroken, err.Error()
		return nil //nolint:nilerr // it is an answer about this image
	case a.Plan == nil:
		a.Status = StatusUntouched
		return nil
	}
	a.Status = StatusSame
	if a.Plan.Config == "" || a.Plan.Config != a.Last.Config {
		a.Status = StatusChanges
	}
	return nil
}

// plan finds what changed in the reach of an image, and plans its build where anything
// did.
func (o *AffectedOptions) plan(ctx context.Context, a *Affected, setup *ReportSetup) (err error) {
	if a.Touches, err = o.touches(a.Dockerfile, setup); err != nil || !o.All && len(a.Touches) == 0 {
		return err
	}
	opts, err := o.again(a)
	if err != nil {
		return err
	}
	a.Plan, err = Plan(ctx, *opts)
	return err
}

// touches lists what changed that the Dockerfile's builds can see: the Dockerfile, its
// ignore file, and files of its contexts that are not ignored.
func (o *AffectedOptions) touches(name string, setup *ReportSetup) ([]string, error) {
	ignore, _, err := buildctx.FindIgnore(setup.Context, name)
	if err != nil {
		return nil, err
	}
	var out []string
	own := []string{name, name + ".dockerignore", filepath.Join(setup.Context, ".dockerignore")}
	dirs := []string{setup.Context}
	ignores := [][]byte{ignore}
	for _, where := range setup.Contexts {
		if isImageContext(where) || IsRemoteContext(where) {
			continue
		}
		data, err := readIgnore(where)
		if err != nil {
			return nil, err
		}
		dirs, ignores = append(dirs, where), append(ignores, data)
	}
	for i, dir := range dirs {
		excluded, err := buildctx.Excluder(ignores[i])
		if err != nil {
			return nil, err
		}
		for _, c := range o.Changed {
			rel, below := strings.CutPrefix(c, strings.TrimSuffix(dir, "/")+"/")
			if !below || slices.Contains(own, c) {
				continue
			}
			if left, err := excluded(rel); err != nil {
				return nil, err
			} else if !left {
				out = append(out, c)
			}
		}
	}
	for _, c := range o.Changed {
		if slices.Contains(own, c) {
			out = append(out, c)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// again are the options of the last build, for the files of now.
func (o *AffectedOptions) again(a *Affected) (*Options, error) {
	setup, platform := a.Last.Setup, o.Platform
	if p, err := v1.ParsePlatform(a.Last.Platform); err == nil && a.Last.Platform != "" {
		platform = *p
	}
	file, err := parseLike(a.Dockerfile, a.Last, platform)
	if err != nil {
		return nil, err
	}
	ignore, _, err := buildctx.FindIgnore(setup.Context, a.Dockerfile)
	if err != nil {
		return nil, err
	}
	limits, err := parseLimits(setup.Limits)
	if err != nil {
		return nil, err
	}
	opts := &Options{
		File: file, Target: a.Target, ContextDir: setup.Context, Ignore: ignore, Contexts: setup.Contexts, Platform: platform,
		AddHosts: setup.AddHosts, Network: setup.Network, Limits: limits, ShmSize: setup.ShmSize, Isolation: setup.Isolation,
		Trace: setup.Trace, TraceNetTTL: setup.TraceNetTTL, CacheTimes: setup.CacheTimes, Store: o.Store,
		Origin: Origin{Dockerfile: a.Dockerfile, Context: setup.Context},
	}
	if epoch, ok, err := file.Epoch(); err != nil {
		return nil, err
	} else if ok {
		opts.Epoch = &epoch
	}
	return opts, nil
}

// parseLike parses a Dockerfile as an earlier build did.
func parseLike(name string, last *Report, p v1.Platform) (*dockerfile.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read Dockerfile: %w", err)
	}
	src, err := io.ReadAll(io.LimitReader(f, dockerfile.MaxSize+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read Dockerfile: %w", err)
	}
	opts := dockerfile.Options{BuildArgs: last.Setup.BuildArgs, Target: last.Target, TargetPlatform: p.String()}
	for c := range last.Setup.Contexts {
		opts.Contexts = append(opts.Contexts, c)
	}
	return dockerfile.Parse(name, src, opts)
}

// otherThan is the platform of a report that is not the usual one, "" where it is.
func (r *Report) otherThan(usual v1.Platform) string {
	if r.Platform == usual.String() {
		return ""
	}
	return r.Platform
}

// spread makes what is built on an image that changes change as well.
func spread(list []Affected) {
	for again := true; again; {
		again = false
		for i := range list {
			a := &list[i]
			if a.Hit() || a.Last == nil {
				continue
			}
			for j := range list {
				if b := &list[j]; b.Hit() && i != j && startsFrom(a.Last, b.Names) {
					a.Status, a.Why, again = StatusChanges, "it is built on "+b.Names[0], true
					break
				}
			}
		}
	}
}

// startsFrom says whether one of the images that a build takes from has one of the names.
func startsFrom(r *Report, names []string) bool {
	return slices.ContainsFunc(r.Bases, func(base string) bool {
		ref, err := oci.ParseRef(base)
		return err == nil && slices.Contains(names, oci.FullName(ref))
	})
}

// SortAffected puts what is hit first, then what is the same, then what is untouched.
func SortAffected(list []Affected) {
	rank := []string{StatusBroken, StatusChanges, StatusNeverBuilt, StatusSame, StatusUntouched}
	slices.SortStableFunc(list, func(a, b Affected) int {
		return cmp.Or(cmp.Compare(slices.Index(rank, a.Status), slices.Index(rank, b.Status)), cmp.Compare(a.Dockerfile, b.Dockerfile), cmp.Compare(a.Target, b.Target))
	})
}
