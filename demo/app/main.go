// Command peek shows the images in an OCI image layout: their layers, their
// sizes, what they run.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/dustin/go-humanize"
)

// version is set by the linker.
var version = "dev"

// The parts of the OCI image specification that peek shows.
type (
	descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        uint64            `json:"size"`
		Annotations map[string]string `json:"annotations"`
	}
	index struct {
		Manifests []descriptor `json:"manifests"`
	}
	manifest struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	config struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
		Config       struct {
			User       string   `json:"User"`
			Entrypoint []string `json:"Entrypoint"`
			Cmd        []string `json:"Cmd"`
		} `json:"config"`
		History []struct {
			CreatedBy  string `json:"created_by"`
			EmptyLayer bool   `json:"empty_layer"`
		} `json:"history"`
	}
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintf(os.Stderr, "peek %s\nusage: peek LAYOUT\n", version)
		os.Exit(2)
	}
	if err := peek(os.Stdout, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "peek:", err)
		os.Exit(1)
	}
}

func peek(w io.Writer, layout string) error {
	var idx index
	if err := read(filepath.Join(layout, "index.json"), &idx); err != nil {
		return err
	}
	for _, d := range idx.Manifests {
		var m manifest
		var c config
		if err := read(blob(layout, d.Digest), &m); err != nil {
			return err
		}
		if err := read(blob(layout, m.Config.Digest), &c); err != nil {
			return err
		}
		show(w, d, m, c)
	}
	return nil
}

func show(w io.Writer, d descriptor, m manifest, c config) {
	size := d.Size + m.Config.Size
	for _, l := range m.Layers {
		size += l.Size
	}
	name := d.Annotations["io.containerd.image.name"]
	if name == "" {
		name = d.Annotations["org.opencontainers.image.ref.name"]
	}
	fmt.Fprintf(w, "%s  %s/%s  %s in %d layers\n", name, c.OS, c.Architecture, humanize.Bytes(size), len(m.Layers))
	fmt.Fprintf(w, "  %-10s %s\n", "digest", d.Digest)
	fmt.Fprintf(w, "  %-10s %s\n", "runs", strings.Join(append(c.Config.Entrypoint, c.Config.Cmd...), " "))
	fmt.Fprintf(w, "  %-10s %s\n", "as user", c.Config.User)
	layers := m.Layers
	for _, h := range c.History {
		switch {
		case h.EmptyLayer:
			fmt.Fprintf(w, "  %10s %s\n", "-", h.CreatedBy)
		case len(layers) > 0:
			fmt.Fprintf(w, "  %10s %s\n", humanize.Bytes(layers[0].Size), h.CreatedBy)
			layers = layers[1:]
		}
	}
}

func blob(layout, digest string) string {
	algorithm, hex, _ := strings.Cut(digest, ":")
	return filepath.Join(layout, "blobs", algorithm, hex)
}

func read(name string, v any) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}
