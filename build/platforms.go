package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/tree"
)

// PlatformFile is the Dockerfile as it is for one platform, whose names its ARGs hold.
type PlatformFile struct {
	Platform v1.Platform
	File     *dockerfile.File
}

// platformBuild is one platform of a build for several.
type platformBuild struct {
	*builder
	target   *dockerfile.Stage
	shared   *sharedCaches
	opts     Options
	final    *state
	warnings []dockerfile.Warning
}

// buildPlatforms builds an image for each platform, side by side, and joins them in an
// index. Steps that are the same for several, as those of a stage FROM
// --platform=$BUILDPLATFORM, are done once: by their key, whose lock one builder holds.
func buildPlatforms(ctx context.Context, o Options) (*Result, error) {
	if o.SingleSnapshot {
		return nil, errors.New("a single snapshot is of one platform")
	}
	var parts []*platformBuild
	var caches []*sharedCaches
	for _, p := range o.Platforms {
		part := &platformBuild{opts: o}
		part.opts.File, part.opts.Platform, part.opts.Platforms = p.File, p.Platform, nil
		part.opts.titles = p.Platform.String()
		var err error
		if part.target, err = p.File.Target(o.Target); err != nil {
			return nil, err
		}
		if part.shared, err = openShared(&part.opts); err != nil {
			return nil, err
		}
		if len(caches) > 0 {
			part.shared.join(caches[0])
		}
		parts, caches = append(parts, part), append(caches, part.shared)
	}
	return retrying(ctx, o, caches, func() (*Result, error) { return buildIndex(ctx, parts) })
}

// buildIndex is one try of a build for several platforms.
func buildIndex(ctx context.Context, parts []*platformBuild) (*Result, error) {
	stepCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f := newFamily()
	f.claimed = map[Key]bool{}
	for _, p := range parts {
		f.platforms = append(f.platforms, p.opts.Platform)
	}
	var err error
	var begun []*platformBuild
	for _, p := range parts {
		if p.builder, err = newBuilder(ctx, stepCtx, cancel, p.opts, p.target, p.shared, f); err != nil {
			break
		}
		begun = append(begun, p)
	}
	var res *Result
	if err == nil {
		res, err = joined(stepCtx, parts)
	}
	if err != nil {
		cancel(err)
	}
	for _, p := range slices.Backward(begun) { // the first platform's report is the newest
		err = p.end(ctx, res, err)
	}
	if len(begun) > 0 {
		f.close(begun[0].builder)
	}
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		res.Layers.Add(p.frames.stats)
	}
	return res, nil
}

// joined does the steps of all platforms and writes what leaves the build.
func joined(ctx context.Context, parts []*platformBuild) (*Result, error) {
	g, gctx := errgroup.WithContext(ctx)
	for _, p := range parts {
		g.Go(func() (err error) {
			p.final, p.warnings, err = p.steps(gctx, p.target)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	first := parts[0]
	var warnings []dockerfile.Warning
	seen := map[string]bool{}
	for _, p := range parts {
		for _, w := range p.warnings {
			if text := w.String() + w.Text; !seen[text] {
				seen[text] = true
				warnings = append(warnings, w)
			}
		}
	}
	if first.final == nil { // a plan, or lint
		return &Result{Warnings: warnings}, nil
	}
	res, err := exportPlatforms(ctx, parts)
	if err != nil {
		return nil, err
	}
	var finals []*state
	for _, p := range parts {
		p.background.Wait() // until every record is in the store
		if err := p.firstError(nil); err != nil {
			return nil, err
		}
		finals = append(finals, p.final)
	}
	if err := first.exportCaches(ctx, finals...); err != nil {
		return nil, err
	}
	res.Warnings = warnings
	return res, nil
}

// exportPlatforms writes the outputs of several platforms.
func exportPlatforms(ctx context.Context, parts []*platformBuild) (*Result, error) {
	b := parts[0].builder
	outs := b.opts.Outputs
	if len(outs) == 0 {
		outs = []Output{{Type: OutputImage}}
	}
	res := &Result{Pushed: map[string]string{}}
	images := false
	for _, o := range outs {
		var err error
		switch o.Type {
		case OutputLocal:
			err = exportDirs(ctx, parts, o)
		case OutputTar:
			err = exportDirTar(ctx, parts, o)
		case OutputCacheOnly:
		case OutputImage, OutputOCI, OutputRegistry, OutputDocker:
			images = true
		}
		if err != nil {
			return nil, err
		}
	}
	if !images {
		return res, nil
	}
	step := b.opts.Progress.Step("exporting to image")
	step.Start()
	err := exportIndexes(ctx, parts, outs, res, step)
	step.Done(err)
	return res, err
}

func exportIndexes(ctx context.Context, parts []*platformBuild, outs []Output, res *Result, step *progress.Step) error {
	for _, p := range parts {
		if err := p.final.fs.wait(ctx); err != nil {
			return err
		}
	}
	step.Status("exporting layers", 0, 0, true)
	for _, o := range outs {
		if !o.Type.IsImage() {
			continue
		}
		var images []*oci.Built
		var entries []map[string]string
		for _, p := range parts {
			layers := p.final.fs.layers()
			img, err := p.assemble(ctx, p.final, layers, o)
			if err == nil {
				err = p.keep(ctx, img, layers, o, res, step)
			}
			if err == nil {
				err = p.label(img)
			}
			if err != nil {
				return fmt.Errorf("image for %s: %w", p.opts.Platform, err)
			}
			images = append(images, img)
			entries = append(entries, p.note(AnnotationDescriptor, o))
		}
		b := parts[0].builder
		idx, err := oci.AssembleIndex(images, oci.IndexOptions{Annotations: b.note(AnnotationIndex, o), Entries: entries, DockerMediaTypes: o.DockerMediaTypes})
		if err != nil {
			return err
		}
		idx.Desc.Annotations = b.note(AnnotationIndexDescriptor, o)
		if err := b.keepIndex(idx, res, step); err != nil {
			return err
		}
		for _, p := range parts {
			p.early.wait()
		}
		if err := b.write(ctx, idx, o, res, step); err != nil {
			return err
		}
		if err := b.name(ctx, idx, o, res, step); err != nil {
			return err
		}
	}
	return nil
}

// label says in the image's descriptor which platform it was made for: configs often lack
// a variant.
func (p *platformBuild) label(img *oci.Built) error {
	want := p.opts.Platform
	if img.Config.OS != want.OS || img.Config.Architecture != want.Architecture {
		return fmt.Errorf("its last stage is %s/%s: leave --platform away from the FROM of that stage, and keep it for stages that are only copied from", img.Config.OS, img.Config.Architecture)
	}
	img.Desc.Platform = &want
	return nil
}

// keepIndex stores an index; its images are there.
func (b *builder) keepIndex(idx *oci.Index, res *Result, step *progress.Step) error {
	d, err := b.store.PutBlob(bytes.NewReader(idx.Raw), "")
	if err != nil {
		return fmt.Errorf("store image: %w", err)
	}
	refs := []tree.Digest{d}
	for _, img := range idx.Images() {
		refs = append(refs, img.Digest(), tree.Digest(img.Manifest.Config.Digest.String()))
		for _, l := range img.Layers {
			refs = append(refs, tree.Digest(l.Desc.Digest.String()))
		}
	}
	id := idx.Desc.Digest.String()
	if err := b.putJSON(kindImage, idx.Desc.Digest.Hex, id, refs, nil); err != nil {
		return err
	}
	step.Status("exporting manifest list "+id, 0, 0, true)
	res.ImageID, res.Descriptor = id, idx.Desc
	return nil
}

// folder is where an output of several platforms puts the files of this one.
func (p *platformBuild) folder() string {
	return strings.ReplaceAll(p.opts.Platform.String(), "/", "_")
}

// exportDirs writes the root file systems, each into a folder of its own.
func exportDirs(ctx context.Context, parts []*platformBuild, o Output) error {
	for _, p := range parts {
		own := o
		own.Dest = filepath.Join(o.Dest, p.folder())
		if err := p.exportFiles(ctx, p.final, own); err != nil {
			return err
		}
	}
	return nil
}

// exportDirTar writes one tar with a folder for each platform.
func exportDirTar(ctx context.Context, parts []*platformBuild, o Output) (err error) {
	b := parts[0].builder
	step := b.opts.Progress.Step("exporting to " + string(o.Type))
	step.Start()
	defer func() { step.Done(err) }()
	var all tree.Changes
	for _, p := range slices.SortedFunc(slices.Values(parts), func(x, y *platformBuild) int { return strings.Compare(x.folder(), y.folder()) }) {
		cs, err := p.allFiles(ctx, p.final)
		if err != nil {
			return err
		}
		all = append(all, inFolder(p.folder(), cs)...)
	}
	return b.writeTar(ctx, all, o)
}

// inFolder puts changes of a whole file system below a directory.
func inFolder(dir string, cs tree.Changes) tree.Changes {
	out := tree.Changes{{Path: dir, Node: &tree.Node{Kind: tree.Dir, Mode: 0o755}}}
	for _, c := range cs {
		if c.Path == "" { // the root's attributes are the folder's
			out[0].Node = c.Node
			continue
		}
		c.Path = tree.Join(dir, c.Path)
		if c.LinkTo != "" {
			c.LinkTo = tree.Join(dir, c.LinkTo)
		}
		out = append(out, c)
	}
	return out
}
