package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/fbuild/fbuild/tree"
)

// Built is an image ready to be written: every byte of config and manifest is
// fixed, layers open when they are needed.
type Built struct {
	Desc        v1.Descriptor // of the manifest, with the platform
	Manifest    *v1.Manifest
	RawManifest []byte
	Config      *v1.ConfigFile
	RawConfig   []byte
	Layers      []Layer
}

// AssembleOptions choose what a manifest says beside its layers.
type AssembleOptions struct {
	Annotations map[string]string // of the manifest
	// DockerMediaTypes writes a docker schema 2 manifest (oci-mediatypes=false).
	DockerMediaTypes bool
	// StartInterval is the health check's, which v1.HealthConfig lacks.
	StartInterval time.Duration
}

// layerTypes are the layers that can be read, with their names in OCI and docker
// manifests. Docker has no zstd, BuildKit writes this all the same.
var layerTypes = map[types.MediaType]struct{ oci, docker types.MediaType }{
	types.OCILayer:                {types.OCILayer, types.DockerLayer},
	types.DockerLayer:             {types.OCILayer, types.DockerLayer},
	types.OCIUncompressedLayer:    {types.OCIUncompressedLayer, types.DockerUncompressedLayer},
	types.DockerUncompressedLayer: {types.OCIUncompressedLayer, types.DockerUncompressedLayer},
	types.OCILayerZStd:            {types.OCILayerZStd, dockerZstd},
	dockerZstd:                    {types.OCILayerZStd, dockerZstd},
	dockerLayerOld:                {types.OCILayer, types.DockerLayer},
}

const (
	dockerZstd     types.MediaType = "application/vnd.docker.image.rootfs.diff.tar.zstd"
	dockerLayerOld types.MediaType = "application/vnd.docker.image.rootfs.diff.tar+gzip"
)

// Assemble joins a config and layers, bottom first, into an image. cfg's rootfs
// comes from the layers; its history must have one entry that is not empty for
// each of them.
func Assemble(cfg v1.ConfigFile, layers []Layer, o AssembleOptions) (*Built, error) {
	cfg.RootFS = v1.RootFS{Type: "layers", DiffIDs: make([]v1.Hash, 0, len(layers))}
	descs := make([]v1.Descriptor, 0, len(layers))
	for i, l := range layers {
		diffID, err := v1.NewHash(string(l.DiffID))
		if err != nil {
			return nil, fmt.Errorf("assemble image: layer %d: bad diff id %q", i+1, l.DiffID)
		}
		if err := checkLayer(l.Desc); err != nil {
			return nil, fmt.Errorf("assemble image: layer %d: %w", i+1, err)
		}
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, diffID)
		d := l.Desc
		d.MediaType, d.Data = layerTypes[d.MediaType].oci, nil
		if o.DockerMediaTypes {
			d.MediaType = layerTypes[d.MediaType].docker
		}
		descs = append(descs, d)
	}
	full := 0
	for _, h := range cfg.History {
		if !h.EmptyLayer {
			full++
		}
	}
	if full != len(layers) {
		return nil, fmt.Errorf("assemble image: history has %d layers, the image %d", full, len(layers))
	}
	rawConfig, err := marshalConfig(&cfg, o.StartInterval)
	if err != nil {
		return nil, fmt.Errorf("assemble image: write config: %w", err)
	}
	return seal(&cfg, rawConfig, descs, layers, o)
}

func seal(cfg *v1.ConfigFile, rawConfig []byte, descs []v1.Descriptor, layers []Layer, o AssembleOptions) (*Built, error) {
	m := &v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: describe(rawConfig, types.OCIConfigJSON), Layers: descs, Annotations: o.Annotations,
	}
	if o.DockerMediaTypes {
		m.MediaType, m.Config.MediaType = types.DockerManifestSchema2, types.DockerConfigJSON
	}
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("assemble image: write manifest: %w", err)
	}
	b := &Built{
		Desc: describe(raw, m.MediaType), Manifest: m, RawManifest: raw,
		Config: cfg, RawConfig: rawConfig, Layers: layers,
	}
	b.Desc.Platform = &Platform{OS: cfg.OS, Architecture: cfg.Architecture, Variant: cfg.Variant, OSVersion: cfg.OSVersion}
	return b, nil
}

// describe returns the descriptor of bytes in memory.
func describe(raw []byte, mt types.MediaType) v1.Descriptor {
	sum := sha256.Sum256(raw)
	return v1.Descriptor{
		MediaType: mt, Size: int64(len(raw)),
		Digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])},
	}
}

// Digest is the digest of the image's manifest.
func (b *Built) Digest() tree.Digest { return tree.Digest(b.Desc.Digest.String()) }

// imageJSON is a config as BuildKit writes it: keys of the top level sorted,
// those of "config" in docker's order.
type imageJSON struct {
	Architecture string        `json:"architecture"`
	Author       string        `json:"author,omitempty"`
	Config       configJSON    `json:"config"`
	Created      *time.Time    `json:"created,omitempty"`
	History      []historyJSON `json:"history,omitempty"`
	OS           string        `json:"os"`
	OSFeatures   []string      `json:"os.features,omitempty"`
	OSVersion    string        `json:"os.version,omitempty"`
	RootFS       v1.RootFS     `json:"rootfs"`
	Variant      string        `json:"variant,omitempty"`
}

type configJSON struct {
	User         string              `json:"User,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	Volumes      map[string]struct{} `json:"Volumes,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`
	ArgsEscaped  bool                `json:"ArgsEscaped,omitempty"`
	Healthcheck  *healthJSON         `json:"Healthcheck,omitempty"`
	OnBuild      []string            `json:"OnBuild,omitempty"`
	Shell        []string            `json:"Shell,omitempty"`
}

type healthJSON struct {
	Test          []string      `json:",omitempty"`
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}

type historyJSON struct {
	Created    *time.Time `json:"created,omitempty"`
	CreatedBy  string     `json:"created_by,omitempty"`
	Author     string     `json:"author,omitempty"`
	Comment    string     `json:"comment,omitempty"`
	EmptyLayer bool       `json:"empty_layer,omitempty"`
}

func marshalConfig(c *v1.ConfigFile, startInterval time.Duration) ([]byte, error) {
	in := c.Config
	out := imageJSON{
		Architecture: c.Architecture, Author: c.Author, OS: c.OS, OSFeatures: c.OSFeatures, OSVersion: c.OSVersion,
		RootFS: c.RootFS, Variant: c.Variant, Created: timeJSON(c.Created),
		Config: configJSON{
			User: in.User, ExposedPorts: in.ExposedPorts, Env: in.Env, Entrypoint: in.Entrypoint, Cmd: in.Cmd,
			Volumes: in.Volumes, WorkingDir: in.WorkingDir, Labels: in.Labels, StopSignal: in.StopSignal,
			ArgsEscaped: in.ArgsEscaped, OnBuild: in.OnBuild, Shell: in.Shell,
		},
	}
	if h := in.Healthcheck; h != nil {
		out.Config.Healthcheck = &healthJSON{h.Test, h.Interval, h.Timeout, h.StartPeriod, startInterval, h.Retries}
	}
	for _, h := range c.History {
		out.History = append(out.History, historyJSON{timeJSON(h.Created), h.CreatedBy, h.Author, h.Comment, h.EmptyLayer})
	}
	return json.Marshal(out)
}

func timeJSON(t v1.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	utc := t.UTC()
	return &utc
}
