package cache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// The annotations of index.json that name an image: the OCI one, which skopeo
// and umoci look for, and containerd's. Both hold the whole name, because tags
// alone would collide.
const (
	refNameAnnotation    = "org.opencontainers.image.ref.name"
	containerdAnnotation = "io.containerd.image.name"
)

// Image is an image of the store that has a name.
type Image struct {
	Name string
	Desc v1.Descriptor
}

// Tag gives the image whose manifest is desc a name, which any other image that
// had it loses. The manifest must be in the store.
func (s *Store) Tag(name string, desc v1.Descriptor) error {
	if name == "" {
		return errors.New("tag image: no name")
	}
	if !s.HasBlob(tree.Digest(desc.Digest.String())) {
		return fmt.Errorf("tag image %s: manifest %s: %w", name, desc.Digest, ErrNotFound)
	}
	desc.Annotations = maps.Clone(desc.Annotations)
	if desc.Annotations == nil {
		desc.Annotations = map[string]string{}
	}
	desc.Annotations[refNameAnnotation] = name
	desc.Annotations[containerdAnnotation] = name
	err := s.editImages(func(list []v1.Descriptor) []v1.Descriptor {
		return append(withoutName(list, name), desc)
	})
	if err != nil {
		return fmt.Errorf("tag image %s: %w", name, err)
	}
	return nil
}

// Untag takes a name away. It returns ErrNotFound where no image has it.
func (s *Store) Untag(name string) error {
	found := false
	err := s.editImages(func(list []v1.Descriptor) []v1.Descriptor {
		kept := withoutName(list, name)
		found = len(kept) < len(list)
		return kept
	})
	if err == nil && !found {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("untag image %s: %w", name, err)
	}
	return nil
}

// ErrDamaged is returned where the list of images cannot be read: Verify removes
// it, and with it the names.
var ErrDamaged = errors.New("the store's list of images is damaged")

// Images lists the images by name.
func (s *Store) Images() ([]Image, error) {
	index, err := s.readImages()
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var out []Image
	for _, d := range index.Manifests {
		if name := imageName(d); name != "" {
			out = append(out, Image{Name: name, Desc: d})
		}
	}
	slices.SortStableFunc(out, func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func imageName(d v1.Descriptor) string {
	if name := d.Annotations[containerdAnnotation]; name != "" {
		return name
	}
	return d.Annotations[refNameAnnotation]
}

func withoutName(list []v1.Descriptor, name string) []v1.Descriptor {
	return slices.DeleteFunc(slices.Clone(list), func(d v1.Descriptor) bool { return imageName(d) == name })
}

func (s *Store) readImages() (*v1.IndexManifest, error) {
	empty := &v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	data, err := os.ReadFile(s.path("index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return nil, err
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("%w: read index.json: %w", ErrDamaged, err)
	}
	return &index, nil
}

// editImages replaces the list of index.json by what edit makes of it.
func (s *Store) editImages(edit func([]v1.Descriptor) []v1.Descriptor) error {
	unlock, err := lockFile(s.path("tmp", "locks", "images"), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	index, err := s.readImages()
	if err != nil {
		return err
	}
	before := slices.Clone(index.Manifests)
	index.Manifests = edit(index.Manifests)
	if reflect.DeepEqual(before, index.Manifests) && len(before) > 0 {
		return nil
	}
	if index.Manifests == nil {
		index.Manifests = []v1.Descriptor{}
	}
	data, err := json.Marshal(index)
	if err != nil {
		return fmt.Errorf("write index.json: %w", err)
	}
	if err := writeFile(s.lease.dir, s.path("index.json"), data, true); err != nil {
		return fmt.Errorf("write index.json: %w", err)
	}
	return nil
}
