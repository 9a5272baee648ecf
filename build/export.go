package build

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/outfile"
	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/snapshot"
	"github.com/fbuild/fbuild/tree"
)

// OutputType says what leaves a build.
type OutputType string

// The types of -o.
const (
	OutputImage    OutputType = "image"    // into the store only
	OutputOCI      OutputType = "oci"      // an OCI layout, as a tar or a directory
	OutputTar      OutputType = "tar"      // the root file system as a tar
	OutputLocal    OutputType = "local"    // the root file system as files
	OutputRegistry OutputType = "registry" // pushed
	OutputDocker   OutputType = "docker"   // an archive that docker load, podman load and ctr image import read
	// OutputCacheOnly is nothing: the stages are built, and what they made is in the cache.
	OutputCacheOnly OutputType = "cacheonly"
)

// IsImage says whether an image leaves the build: not its files, and not nothing.
func (t OutputType) IsImage() bool {
	return t != OutputTar && t != OutputLocal && t != OutputCacheOnly
}

// Output is one -o.
type Output struct {
	Type             OutputType
	Dest             string // file or directory; "-" is stdout
	Name             string // instead of the build's tags; several with commas between them
	Tar              bool   // of OutputOCI: a tar, else a directory
	RewriteTimestamp bool   // times in our layers are at most SOURCE_DATE_EPOCH
	DockerMediaTypes bool
	// ByDigest pushes without tags: Name is repositories then. Canonical names the image
	// in the store with its digest as well.
	ByDigest, Canonical bool
	Compression         Compression  // of an image
	Annotations         []Annotation // beside the ones of the build
	// Load takes the archive of an OutputDocker that has no Dest. It calls write
	// once, with where the archive goes, and returns when its reader has taken it.
	Load func(ctx context.Context, step *progress.Step, write func(io.Writer) error) error
}

// checkOutputs finds out before the first step whether the outputs can be
// written, so that a long build does not end with one of two.
func checkOutputs(outs []Output) error {
	for _, o := range outs {
		if o.Dest == "" || o.Dest == "-" {
			continue
		}
		dir := filepath.Dir(o.Dest)
		if o.Type == OutputLocal || o.Type == OutputOCI && !o.Tar {
			for dir = o.Dest; ; dir = filepath.Dir(dir) { // it is made where it is missing
				if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
					break
				}
			}
		}
		st, err := os.Stat(dir)
		if err == nil && !st.IsDir() {
			err = fmt.Errorf("%s is not a directory", dir)
		}
		if err == nil {
			err = unix.Access(dir, unix.W_OK)
		}
		if err != nil {
			return fmt.Errorf("output %s: %w", o.Dest, err)
		}
	}
	return nil
}

// export waits for the layers, assembles the image and writes the outputs.
func (b *builder) export(ctx context.Context, s *state) (*Result, error) {
	if b.opts.SingleSnapshot {
		var err error
		if s, err = b.squash(ctx, s); err != nil {
			return nil, err
		}
	}
	outs := b.opts.Outputs
	if len(outs) == 0 {
		outs = []Output{{Type: OutputImage}}
	}
	res := &Result{Pushed: map[string]string{}}
	var images int
	for _, o := range outs {
		switch o.Type {
		case OutputTar, OutputLocal:
			if err := b.exportFiles(ctx, s, o); err != nil {
				return nil, err
			}
		case OutputCacheOnly:
		default:
			images++
		}
	}
	if images == 0 {
		return res, nil
	}
	step := b.opts.Progress.Step("exporting to image")
	step.Start()
	err := b.exportImages(ctx, s, outs, res, step)
	step.Done(err)
	return res, err
}

func (b *builder) exportImages(ctx context.Context, s *state, outs []Output, res *Result, step *progress.Step) error {
	if err := s.fs.wait(ctx); err != nil {
		return err
	}
	layers := s.fs.layers()
	step.Status("exporting layers", 0, 0, true)
	for _, o := range outs {
		if !o.Type.IsImage() {
			continue
		}
		img, err := b.assemble(ctx, s, layers, o)
		if err != nil {
			return err
		}
		if err := b.keep(ctx, img, layers, o, res, step); err != nil {
			return err
		}
		if err := b.write(ctx, img, o, res, step); err != nil {
			return err
		}
		if err := b.name(ctx, img, o, res, step); err != nil {
			return err
		}
	}
	return nil
}

// assemble makes config and manifest of an output.
func (b *builder) assemble(ctx context.Context, s *state, layers []*fsLayer, o Output) (*oci.Built, error) {
	cfg := cloneConfig(s.cfg)
	for k, v := range b.opts.Labels {
		setLabel(&cfg.Config, k, v)
	}
	fallback, err := b.imageTime(s, &cfg)
	if err != nil {
		return nil, err
	}
	if b.opts.Epoch != nil {
		for i := s.baseHistory; i < len(cfg.History); i++ {
			cfg.History[i].Created = v1.Time{Time: b.opts.Epoch.UTC()}
		}
	}
	fillTimes(&cfg, fallback)
	var list []oci.Layer
	for _, l := range layers {
		ol := oci.Layer{Desc: l.desc, DiffID: l.diffID}
		ol.Repo = b.shared.repoName()
		if l.src != nil {
			ol.Repo = l.src.Repo
		}
		if v := b.variantOf(l, o); v != nil {
			if ol, err = b.made(ctx, l, v); err != nil {
				return nil, err
			}
		}
		if ol.Open == nil {
			ol.Open = b.layerOpener(l, ol.Desc)
		}
		list = append(list, ol)
	}
	b.keepImage(list)
	annotations, err := b.withInline(ctx, s, b.note(AnnotationManifest, o))
	if err != nil {
		return nil, err
	}
	return oci.Assemble(cfg, list, oci.AssembleOptions{Annotations: annotations, DockerMediaTypes: o.DockerMediaTypes, StartInterval: s.startInterval})
}

// layerOpener reads a layer's blob from the store, fetching it first where only
// a registry has it.
func (b *builder) layerOpener(l *fsLayer, desc v1.Descriptor) func(context.Context) (io.ReadCloser, error) {
	return func(ctx context.Context) (io.ReadCloser, error) {
		if desc.Digest == l.desc.Digest {
			if err := l.ensureBlob(ctx, b); err != nil {
				return nil, err
			}
		}
		return b.store.OpenBlob(tree.Digest(desc.Digest.String()))
	}
}

// imageTime is the creation time of an image none of whose steps has one: that
// of the first time when the same image was built.
func (b *builder) imageTime(s *state, cfg *v1.ConfigFile) (time.Time, error) {
	for _, h := range cfg.History {
		if !h.Created.IsZero() {
			return h.Created.Time, nil
		}
	}
	if b.opts.Epoch != nil {
		return *b.opts.Epoch, nil
	}
	data, err := json.Marshal(cfg)
	if err != nil {
		return time.Time{}, fmt.Errorf("encode config: %w", err)
	}
	key := newKey("image time").str(string(s.key)).str(string(data)).sum()
	var t time.Time
	if !b.opts.NoCache && b.getJSON(kindImage, string(key), &t) {
		return t, nil
	}
	t = time.Now().UTC()
	return t, b.putJSON(kindImage, string(key), t, nil, nil)
}

// keep stores the image itself; for the store alone, complete with the layers of
// its base.
func (b *builder) keep(ctx context.Context, img *oci.Built, layers []*fsLayer, o Output, res *Result, step *progress.Step) error {
	if o.Type == OutputImage {
		for _, l := range layers {
			if err := l.ensureBlob(ctx, b); err != nil {
				return err
			}
		}
	}
	refs := []tree.Digest{}
	for _, raw := range [][]byte{img.RawManifest, img.RawConfig} {
		d, err := b.store.PutBlob(bytes.NewReader(raw), "")
		if err != nil {
			return fmt.Errorf("store image: %w", err)
		}
		refs = append(refs, d)
	}
	for _, l := range img.Layers {
		refs = append(refs, tree.Digest(l.Desc.Digest.String()))
	}
	id := img.Manifest.Config.Digest.String()
	if err := b.putJSON(kindImage, img.Manifest.Config.Digest.Hex, id, refs, nil); err != nil {
		return err
	}
	step.Status("writing image "+id, 0, 0, true)
	res.ImageID, res.Descriptor = id, img.Desc
	return nil
}

// name gives the image its names in the store, unless a layer of its base was
// never fetched: pushed images need not have theirs here.
func (b *builder) name(ctx context.Context, img oci.Writable, o Output, res *Result, step *progress.Step) error {
	for _, one := range img.Images() {
		for _, l := range one.Layers {
			if !b.hasBlob(ctx, l.Desc.Digest) {
				return nil
			}
		}
	}
	names := b.finalNames(o, img)
	if o.Canonical && !o.ByDigest {
		names = append(slices.Clone(names), byDigest(names, img)...)
	}
	for _, name := range names {
		if err := b.store.Tag(name, img.Root()); err != nil {
			return err
		}
		if !slices.Contains(res.Names, name) {
			res.Names = append(res.Names, name)
		}
		step.Status("naming to "+name, 0, 0, true)
	}
	return nil
}

func (b *builder) names(o Output) []string { return outputNames(o, b.opts.Tags) }

// finalNames are names, or the digest in their repositories.
func (b *builder) finalNames(o Output, img oci.Writable) []string {
	if o.ByDigest {
		return byDigest(b.names(o), img)
	}
	return b.names(o)
}

func byDigest(names []string, img oci.Writable) []string {
	var out []string
	for _, n := range names {
		if ref, err := oci.ParseRef(n); err == nil {
			n = strings.TrimSuffix(oci.FullName(ref), ":"+ref.Identifier()) + "@" + img.Root().Digest.String()
		}
		out = append(out, n)
	}
	return out
}

// outputNames are the names that an image gets in an output.
func outputNames(o Output, tags []string) []string {
	if o.Name != "" {
		return strings.Split(o.Name, ",")
	}
	return tags
}

// write sends the image where an output says.
func (b *builder) write(ctx context.Context, img oci.Writable, o Output, res *Result, step *progress.Step) error {
	switch {
	case o.Type == OutputRegistry:
		b.early.wait()
		names := b.finalNames(o, img)
		d, err := b.opts.Remote.Push(ctx, names, img, func(st oci.Status) {
			showPush(step, st)
		})
		if err != nil {
			return err
		}
		res.Names = append(res.Names, names...)
		for _, name := range names {
			res.Pushed[name] = string(d)
			step.Status("pushing manifest for "+strings.TrimSuffix(name, "@"+string(d))+"@"+string(d), 0, 0, true)
		}
		return nil
	case o.Type == OutputOCI && !o.Tar:
		return oci.WriteLayout(ctx, o.Dest, b.names(o), img)
	case o.Type == OutputOCI:
		return b.toFile(o.Dest, func(w io.Writer) error { return oci.WriteArchive(ctx, w, b.names(o), img) })
	case o.Type == OutputDocker:
		return b.writeDocker(ctx, img, o, step)
	}
	return nil
}

// showPush shows what happens to a blob.
func showPush(step *progress.Step, st oci.Status) {
	if st.Manifest {
		return
	}
	id := "pushing layer " + string(st.Digest)[:min(19, len(st.Digest))] + st.Note()
	step.Status(id, st.Current, st.Total, st.State != oci.Pushing)
}

// toFile writes a file, or the caller's stdout.
func (b *builder) toFile(name string, fn func(io.Writer) error) error {
	if name == "-" {
		return fn(b.opts.Stdout)
	}
	if err := outfile.Write(name, fn); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// exportFiles writes the root file system itself.
func (b *builder) exportFiles(ctx context.Context, s *state, o Output) (err error) {
	step := b.opts.Progress.Step("exporting to " + string(o.Type))
	step.Start()
	defer func() { step.Done(err) }()
	if _, err := s.fs.chainID(ctx); err != nil { // a build whose layers fail has no output
		return err
	}
	if o.Type == OutputLocal {
		t, err := s.fs.Tree(ctx, b)
		if err != nil {
			return err
		}
		return snapshot.Materialize(ctx, t, b.store.Packs(), o.Dest, snapshot.MaterializeOptions{NoOwners: true, Overwrite: true, Skipped: func(path, what string) { step.Warn(path + ": " + what) }})
	}
	cs, err := b.allFiles(ctx, s)
	if err != nil {
		return err
	}
	return b.writeTar(ctx, cs, o)
}

// allFiles are the files of a stage as one difference.
func (b *builder) allFiles(ctx context.Context, s *state) (tree.Changes, error) {
	if _, err := s.fs.chainID(ctx); err != nil {
		return nil, err
	}
	t, err := s.fs.Tree(ctx, b)
	if err != nil {
		return nil, err
	}
	return tree.Diff(tree.Empty(), t, nil)
}

// writeTar writes files as the tar of an output.
func (b *builder) writeTar(ctx context.Context, cs tree.Changes, o Output) error {
	opts := layer.Options{Compression: "uncompressed"}
	if o.RewriteTimestamp && b.opts.Epoch != nil {
		clamp := tree.TimeOf(*b.opts.Epoch)
		opts.ClampMtime = &clamp
	}
	return b.toFile(o.Dest, func(w io.Writer) error { return layer.WriteTar(ctx, w, cs, b.store.Packs(), opts) })
}
