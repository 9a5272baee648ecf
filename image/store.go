// Package image is the images of a store, for the commands that are no build: they
// are listed, named, pulled, pushed, saved, loaded, looked at and compared.
//
// Owns: what a name, an image ID or a digest means among the images of a store.
//
// Invariants: an image gets a name when everything that it consists of is in the
// store. Removing one takes its name; what nothing leads to is collected by Prune.
//
// Fails when: no image is meant (ErrNoImage), or several (ErrAmbiguous).
package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/oci"
)

// Errors that callers tell apart.
var (
	ErrNoImage   = errors.New("no such image in the store")
	ErrAmbiguous = errors.New("several images of the store are meant")
)

// Image is one image of the store with all its names.
type Image struct {
	oci.Built // of an image for several platforms this host's, else the first
	// Index is that of an image for several platforms, nil for others.
	Index *oci.Index
	Names []string // full, sorted; empty for one that All found without a name
}

// Whole is the image with all its platforms.
func (i *Image) Whole() oci.Writable {
	if i.Index != nil {
		return i.Index
	}
	return &i.Built
}

// ID is the digest of the config, as docker identifies images, or that of the index.
func (i *Image) ID() string {
	if i.Index != nil {
		return i.Index.Desc.Digest.String()
	}
	return i.Manifest.Config.Digest.String()
}

// Size is the sum of its compressed layers, in bytes; those of several platforms once.
func (i *Image) Size() int64 {
	var n int64
	seen := map[v1.Hash]bool{}
	for _, one := range i.Whole().Images() {
		for _, l := range one.Manifest.Layers {
			if i.Index == nil || !seen[l.Digest] {
				n += l.Size
			}
			seen[l.Digest] = true
		}
	}
	return n
}

// List returns the images that have names, the youngest first.
func List(ctx context.Context, s *cache.Store) ([]*Image, error) {
	named, err := s.Images()
	if err != nil {
		return nil, err
	}
	byDigest := map[v1.Hash]*Image{}
	var out []*Image
	for _, n := range named {
		if img := byDigest[n.Desc.Digest]; img != nil {
			img.Names = append(img.Names, n.Name)
			continue
		}
		img, err := open(ctx, s, n.Desc)
		if err != nil {
			return nil, damaged(n.Name, err)
		}
		img.Names = []string{n.Name}
		byDigest[n.Desc.Digest] = img
		out = append(out, img)
	}
	slices.SortStableFunc(out, byAge)
	return out, nil
}

func byAge(a, b *Image) int { return b.Config.Created.Compare(a.Config.Created.Time) }

// damaged says what to do about an image that cannot be opened.
func damaged(name string, err error) error {
	return fmt.Errorf("open image %s: %w (fbuild cache verify --remove takes damaged images out of the store)", name, err)
}

// open opens the image whose manifest is desc.
func open(ctx context.Context, s *cache.Store, desc v1.Descriptor) (*Image, error) {
	if !desc.MediaType.IsIndex() {
		found, err := oci.OpenLayout(ctx, s.Dir(), desc.Digest.String(), platformOf(desc))
		if err != nil {
			return nil, err
		}
		return &Image{Built: found.Built()}, nil
	}
	idx, err := oci.OpenIndex(ctx, s.Dir(), desc.Digest.String())
	if err != nil {
		return nil, err
	}
	return &Image{Built: *idx.For(host()), Index: idx}, nil
}

// host is the platform whose image stands for one of several.
func host() oci.Platform {
	return oci.Platform{OS: "linux", Architecture: runtime.GOARCH}
}

func platformOf(d v1.Descriptor) oci.Platform {
	if d.Platform == nil {
		return oci.Platform{}
	}
	return *d.Platform
}

// shortest is how many digits of an ID name an image at least.
const shortest = 4

// Find returns the image that a text means: a name as docker completes it, a name
// with a digest, an image ID or a manifest's digest, whole or its first digits. It
// returns ErrNoImage and ErrAmbiguous.
func Find(ctx context.Context, s *cache.Store, text string) (*Image, error) {
	if img, err := findName(ctx, s, text); img != nil || err != nil {
		return img, err
	}
	list, err := All(ctx, s)
	if err != nil {
		return nil, err
	}
	name, digest, _ := strings.Cut(text, "@")
	if digest == "" {
		name, digest = "", text
	}
	digits := strings.TrimPrefix(digest, "sha256:")
	if len(digits) < shortest || strings.Trim(digits, "0123456789abcdef") != "" {
		return nil, fmt.Errorf("%w: %s", ErrNoImage, text)
	}
	var found []*Image
	for _, img := range list {
		if !strings.HasPrefix(strings.TrimPrefix(img.ID(), "sha256:"), digits) && !strings.HasPrefix(img.Whole().Root().Digest.Hex, digits) {
			continue
		}
		if name == "" || slices.ContainsFunc(img.Names, func(n string) bool { return sameRepo(n, name) }) {
			found = append(found, img)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%w: %s", ErrNoImage, text)
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("%w: %s", ErrAmbiguous, text)
}

// findName returns the image that has a name, nil for none. Other images may be
// damaged.
func findName(ctx context.Context, s *cache.Store, text string) (*Image, error) {
	full, err := Name(text)
	if err != nil {
		return nil, nil //nolint:nilerr // it is no name
	}
	named, err := s.Images()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(named, func(n cache.Image) bool { return n.Name == full })
	if i < 0 {
		return nil, nil
	}
	img, err := open(ctx, s, named[i].Desc)
	if err != nil {
		return nil, damaged(full, err)
	}
	for _, n := range named {
		if n.Desc.Digest == named[i].Desc.Digest {
			img.Names = append(img.Names, n.Name)
		}
	}
	return img, nil
}

// Name completes a name as docker does: "app" is "docker.io/library/app:latest".
func Name(text string) (string, error) {
	if strings.Contains(text, "@") {
		return "", fmt.Errorf("name %q: it has a digest", text)
	}
	ref, err := oci.ParseRef(text)
	if err != nil {
		return "", err
	}
	return oci.FullName(ref), nil
}

// Repository is a name, which has a tag or a digest, without these.
func Repository(name string) string {
	if repo, _, ok := strings.Cut(name, "@"); ok {
		return repo
	}
	return name[:strings.LastIndex(name, ":")]
}

func sameRepo(full, repo string) bool {
	a, err1 := oci.ParseRef(full)
	b, err2 := oci.ParseRef(repo)
	return err1 == nil && err2 == nil && a.Context().Name() == b.Context().Name()
}

// Tag gives an image another name, which any other image that had it loses.
func Tag(s *cache.Store, img *Image, name string) error {
	full, err := Name(name)
	if err != nil {
		return err
	}
	return s.Tag(full, img.Whole().Root())
}

// add stores what an image consists of; layer stores one of its layers.
func add(ctx context.Context, s *cache.Store, b *oci.Built, layer func(ctx context.Context, l oci.Layer) error) error {
	for _, l := range b.Layers {
		if err := layer(ctx, l); err != nil {
			return fmt.Errorf("layer %s: %w", l.Desc.Digest, err)
		}
	}
	for _, raw := range [][]byte{b.RawConfig, b.RawManifest} {
		if _, err := s.PutBlob(bytes.NewReader(raw), ""); err != nil {
			return err
		}
	}
	return nil
}

// emptyConfig is what docker shows of what a config does not have; templates rely on it.
var emptyConfig = map[string]any{
	"Hostname": "", "Domainname": "", "User": "", "Image": "", "WorkingDir": "", "StopSignal": "",
	"AttachStdin": false, "AttachStdout": false, "AttachStderr": false, "Tty": false, "OpenStdin": false, "StdinOnce": false,
	"Env": []string(nil), "Cmd": []string(nil), "Entrypoint": []string(nil), "OnBuild": []string(nil), "Shell": []string(nil),
	"Volumes": map[string]any(nil), "ExposedPorts": map[string]any(nil), "Labels": map[string]string(nil),
	"Healthcheck": (*v1.HealthConfig)(nil),
}

// Inspect is what docker inspect shows of an image, with docker's names.
func (i *Image) Inspect() (map[string]any, error) {
	var cfg map[string]any
	if err := json.Unmarshal(i.RawConfig, &cfg); err != nil {
		return nil, fmt.Errorf("read config of %s: %w", i.ID(), err)
	}
	tags, digests := []string{}, []string{}
	for _, n := range i.Names {
		if !strings.Contains(n, "@") {
			tags = append(tags, Familiar(n))
		}
		digests = append(digests, Familiar(Repository(n))+"@"+i.Whole().Root().Digest.String())
	}
	slices.Sort(digests)
	layers := []string{}
	for _, l := range i.Layers {
		layers = append(layers, string(l.DiffID))
	}
	str := func(key string) string { text, _ := cfg[key].(string); return text }
	config, _ := cfg["config"].(map[string]any)
	if config == nil {
		config = map[string]any{}
	}
	for key, empty := range emptyConfig {
		if _, ok := config[key]; !ok {
			config[key] = empty
		}
	}
	out := map[string]any{
		"Parent": "", "Comment": str("comment"), "DockerVersion": str("docker_version"), "VirtualSize": i.Size(),
		"Id": i.ID(), "RepoTags": tags, "RepoDigests": slices.Compact(digests),
		"Created": str("created"), "Author": str("author"), "Architecture": str("architecture"), "Variant": str("variant"), "Os": str("os"),
		"Config": config, "Size": i.Size(), "RootFS": map[string]any{"Type": "layers", "Layers": layers},
		"Descriptor": i.Whole().Root(),
	}
	if i.Index != nil {
		out["Manifests"] = i.Index.Manifest.Manifests
	}
	return out, nil
}

// Familiar is a full name as docker shows it: without docker.io/library/.
func Familiar(full string) string {
	short := strings.TrimPrefix(full, "docker.io/")
	if short != full {
		short = strings.TrimPrefix(short, "library/")
	}
	return short
}
