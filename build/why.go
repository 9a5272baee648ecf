package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// Of Why.
var (
	ErrNoImage = errors.New("the store has no such image")
	ErrNoPath  = errors.New("the image has no such path")
)

// Made says where a path of an image comes from.
type Made struct {
	Image string // digest of the config
	Path  string // where it stands, symlinks resolved; without a leading slash
	Kind  tree.Kind
	Size  int64
	By    MadeBy   // the layer that it is from
	Older []MadeBy // layers below it that hold the path too, the newest first
	From  []MadeBy // where COPY --from took it, and where that came from
}

// MadeBy is a layer and the step that made it.
type MadeBy struct {
	DiffID  tree.Digest
	Path    string // in its stage, of Made.From
	Layer   int    // of the image, from 1; 0 of another stage
	Layers  int    // of it
	Command string // as the image's history has it
	// Step and Report are nil where no build that is remembered has made the layer: it is
	// of the base image.
	Step   *StepReport
	Report *Report
	Looked []trace.Question // of a RUN that was traced
}

// Why finds the step that made a path of an image, and what the step looked at. An
// image is a name in the store, a manifest's digest that has one, or the id that a
// build printed, or its first digits.
func Why(ctx context.Context, s *cache.Store, image, path string, p v1.Platform) (*Made, error) {
	img, err := findImage(ctx, s, image, p)
	if err != nil {
		return nil, err
	}
	layers := make([]tree.Changes, len(img.Layers))
	missing := 0
	for i, l := range img.Layers {
		if layers[i], err = s.Layer(l.DiffID); err != nil {
			layers[i], missing = nil, i+1
		}
	}
	m := &Made{Image: img.Manifest.Config.Digest.String(), Path: resolveIn(layers, missing, path)}
	var found []int
	for i := range layers {
		c := lookupChange(layers[i], m.Path)
		switch {
		case c == nil:
		case c.Node == nil && c.LinkTo == "":
			found = nil
		default:
			found = append(found, i)
			if c.Node != nil {
				m.Kind, m.Size = c.Node.Kind, c.Node.Size
			}
		}
	}
	if len(found) == 0 && missing > 0 {
		return nil, fmt.Errorf("%q: %w, or it is in one of the %d lowest layers, whose files are not in the store", "/"+m.Path, ErrNoPath, missing)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%q: %w", "/"+m.Path, ErrNoPath)
	}
	for _, i := range slices.Backward(found) {
		m.Older = append(m.Older, madeBy(s, img, i))
	}
	m.By, m.Older = m.Older[0], m.Older[1:]
	m.From = follow(s, m.By, m.Path, lookupChange(layers[found[len(found)-1]], m.Path))
	return m, nil
}

// resolveIn follows the symlinks of a path where all layers are known.
func resolveIn(layers []tree.Changes, missing int, path string) string {
	clean := tree.Clean(path)
	if missing > 0 {
		return clean
	}
	t := tree.Empty()
	for _, cs := range layers {
		var err error
		if t, err = t.Apply(cs); err != nil {
			return clean
		}
	}
	if p, n, err := t.ResolveParent(clean); err == nil && n != nil {
		return p // the symlink itself, where it is one
	}
	return clean
}

// lookupChange finds what a layer does to a path: its own entry, or the removal of
// something above it.
func lookupChange(cs tree.Changes, path string) *tree.Change {
	for p := path; ; {
		i, ok := slices.BinarySearchFunc(cs, p, func(c tree.Change, p string) int { return tree.Compare(c.Path, p) })
		if ok && hides(&cs[i], p == path) {
			return &cs[i]
		}
		if p == "" {
			return nil
		}
		p, _ = tree.Split(p)
	}
}

// hides says whether a change decides about a path: its own, or one below it.
func hides(c *tree.Change, own bool) bool {
	if own {
		return !c.Opaque || c.Node != nil // an opaque mark says nothing of the directory itself
	}
	return c.Whiteout() || c.Opaque
}

// madeBy finds the step of the i-th layer of an image.
func madeBy(s *cache.Store, img *oci.Image, i int) MadeBy {
	m := MadeBy{DiffID: img.Layers[i].DiffID, Layer: i + 1, Layers: len(img.Layers)}
	at := 0
	for _, h := range img.Config.History {
		if h.EmptyLayer {
			continue
		}
		if at == i {
			m.Command = h.CreatedBy
		}
		at++
	}
	m.Report, m.Step = stepOfLayer(s, m.DiffID)
	m.look(s)
	return m
}

// look adds what the step looked at.
func (m *MadeBy) look(s *cache.Store) {
	if m.Step == nil {
		return
	}
	if t := traceOf(s, m.Step.traceID(s)); t != nil {
		m.Looked, _ = looks(t)
	}
}

// maxFollow bounds how many stages a file is followed through.
const maxFollow = 8

// follow finds the steps of other stages that a file came from, where COPY --from
// brought it: the newest layer of the stage that has a file of the same contents below
// what was copied.
func follow(s *cache.Store, by MadeBy, path string, c *tree.Change) (out []MadeBy) {
	for len(out) < maxFollow && by.Step != nil && c != nil && c.Node != nil && c.Node.Kind == tree.File {
		stage, sources := copiedFrom(by.Step.Title)
		next := (*MadeBy)(nil)
		for _, step := range slices.Backward(by.Report.Steps) {
			if stage == "" || !strings.EqualFold(step.Stage, stage) {
				continue
			}
			cs := layerOf(s, step.Layer)
			if at := findCopied(cs, sources, path, c.Node); at != nil {
				next = &MadeBy{DiffID: tree.Digest(step.Layer), Path: at.Path, Report: by.Report, Step: &step}
				path, c = at.Path, at
				break
			}
		}
		if next == nil {
			return out
		}
		next.look(s)
		out, by = append(out, *next), *next
	}
	return out
}

// copiedFrom reads the stage and the sources out of a COPY --from; "" for none.
func copiedFrom(title string) (stage string, sources []string) {
	words := strings.Fields(strings.NewReplacer(`"`, " ", "[", " ", "]", " ", ",", " ").Replace(title))
	if len(words) < 3 || words[0] != "COPY" {
		return "", nil
	}
	for _, w := range words[1 : len(words)-1] {
		if v, ok := strings.CutPrefix(w, "--from="); ok {
			stage = v
		} else if !strings.HasPrefix(w, "--") {
			sources = append(sources, tree.Clean(w))
		}
	}
	if n, err := strconv.Atoi(stage); err == nil {
		stage = fmt.Sprintf("stage-%d", n)
	}
	return stage, sources
}

// findCopied finds a file of the same contents at or below one of the sources, the one
// whose path ends most like the given one.
func findCopied(cs tree.Changes, sources []string, path string, n *tree.Node) *tree.Change {
	var best *tree.Change
	most := -1
	for i := range cs {
		c := &cs[i]
		if c.Node == nil || c.Node.Kind != tree.File || c.Node.Size != n.Size || c.Node.Digest != n.Digest {
			continue
		}
		if !slices.ContainsFunc(sources, func(src string) bool {
			return src == "" || c.Path == src || strings.HasPrefix(c.Path, src+"/") || hasWildcard(src)
		}) {
			continue
		}
		if like := commonEnd(c.Path, path); like > most {
			best, most = c, like
		}
	}
	return best
}

func commonEnd(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[len(a)-1-n] == b[len(b)-1-n] {
		n++
	}
	return n
}

// eachReport calls fn with the reports that contain a text, the newest of each
// Dockerfile first, until it returns false.
func eachReport(s *cache.Store, text string, fn func(*Report) bool) {
	for _, rec := range s.Records(kindReport) {
		for _, k := range decodeReports(rec.Value) {
			var r Report
			if bytes.Contains(k.data, []byte(text)) && json.Unmarshal(k.data, &r) == nil && !fn(&r) {
				return
			}
		}
	}
}

// stepOfLayer finds the newest build with the step that a layer is of; rather the one
// that ran it, which knows more.
func stepOfLayer(s *cache.Store, diffID tree.Digest) (report *Report, step *StepReport) {
	eachReport(s, string(diffID), func(r *Report) bool {
		for i := range r.Steps {
			if r.Steps[i].Layer != string(diffID) {
				continue
			}
			if report == nil || r.Began.After(report.Began) {
				report, step = r, &r.Steps[i]
			}
		}
		return true
	})
	return report, step
}

// findImage finds an image by name, or by the digest of its config or manifest.
func findImage(ctx context.Context, s *cache.Store, image string, p v1.Platform) (*oci.Image, error) {
	named, err := s.Images()
	if err != nil {
		return nil, err
	}
	full := image
	if ref, err := oci.ParseRef(image); err == nil {
		full = oci.FullName(ref)
	}
	for _, i := range named {
		if i.Name == full || i.Name == image || i.Desc.Digest.String() == image {
			return oci.OpenLayout(ctx, s.Dir(), i.Desc.Digest.String(), p)
		}
	}
	if manifest := manifestOf(s, image, full); manifest != "" {
		return oci.OpenLayout(ctx, s.Dir(), manifest, p)
	}
	return nil, fmt.Errorf("%s: %w", image, ErrNoImage)
}

// manifestOf finds what a build made that did not name its image in the store, because
// it was pushed without its base, or not named at all.
func manifestOf(s *cache.Store, image, full string) string {
	id, best := "", (*Report)(nil)
	hex := strings.TrimPrefix(image, "sha256:")
	eachReport(s, "", func(r *Report) bool {
		byID := len(hex) >= 4 && strings.HasPrefix(strings.TrimPrefix(r.ImageID, "sha256:"), hex)
		if r.ImageID != "" && (byID || slices.Contains(r.Names, full)) && (best == nil || r.Began.After(best.Began)) {
			id, best = r.ImageID, r
		}
		return true
	})
	if id == "" {
		id = "sha256:" + hex
	}
	rec, err := s.Record(kindImage, strings.TrimPrefix(id, "sha256:"))
	if err != nil || len(rec.Blobs) == 0 {
		return ""
	}
	return string(rec.Blobs[0])
}
