//go:build integration

package integration

import (
	"fmt"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/rogpeppe/go-internal/testscript"
)

// cmdIndex is `index IMAGE`: the index of an image for several platforms, which must be
// valid down to its layers: its digest, its annotations, and a line for each platform.
func cmdIndex(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: index IMAGE")
	}
	ref := args[0]
	if !strings.Contains(ref, ":") {
		ref = ts.MkAbs(ref)
	}
	idx, err := openIndex(ref, scriptHome(ts).store)
	if err == nil {
		err = validate.Index(idx)
	}
	if neg {
		if err == nil {
			ts.Fatalf("%s is an index", args[0])
		}
		return
	}
	ts.Check(err)
	digest, err := idx.Digest()
	ts.Check(err)
	m, err := idx.IndexManifest()
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%s %s %v\n", digest, m.MediaType, m.Annotations)
	for _, d := range m.Manifests {
		img, err := idx.Image(d.Digest)
		ts.Check(err)
		cfg, err := img.ConfigFile()
		ts.Check(err)
		fmt.Fprintf(ts.Stdout(), "%s %s/%s %s %v env=%v\n", d.Platform, cfg.OS, cfg.Architecture, d.Digest, d.Annotations, cfg.Config.Env)
	}
}

// openIndex returns the index that a script means, as openImage does images.
func openIndex(ref, store string) (v1.ImageIndex, error) {
	if n, ok := strings.CutPrefix(ref, "registry:"); ok {
		at, err := name.ParseReference(suite.reg.host()+"/"+n, name.Insecure)
		if err != nil {
			return nil, err
		}
		return remote.Index(at, remote.WithTransport(inner{suite.reg.handler}))
	}
	want := ""
	if n, ok := strings.CutPrefix(ref, "store:"); ok {
		ref, want = store, n
	} else if st, err := os.Stat(ref); err != nil {
		return nil, err
	} else if !st.IsDir() {
		dir, err := os.MkdirTemp(suite.dir, "archive-")
		if err != nil {
			return nil, err
		}
		if err := untar(ref, dir); err != nil {
			return nil, err
		}
		ref = dir
	}
	all, err := layout.ImageIndexFromPath(ref)
	if err != nil {
		return nil, err
	}
	m, err := all.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, d := range m.Manifests {
		if d.MediaType.IsIndex() && (want == "" || d.Annotations["io.containerd.image.name"] == want) {
			return all.ImageIndex(d.Digest)
		}
	}
	return nil, fmt.Errorf("%s: no index %s in it", ref, want)
}
