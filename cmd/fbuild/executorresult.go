package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/oci"
)

// digestFiles are the flags that name a file for the result.
var digestFiles = []string{"digest-file", "image-name-with-digest-file", "image-name-tag-with-digest-file"}

// forgetOld removes the files that a build writes, so that a failed one leaves
// none. One that the pod mounts, as /dev/termination-log, stays; and so do the
// blobs of a layout, whose index is written anew.
func (r *executorRun) forgetOld() error {
	var files []string
	for _, f := range digestFiles {
		if path := r.f.text(f); strings.Contains(path, "://") {
			return &hintError{usagef("--%s %s: only a file can be written", f, path), "write a file and send it with curl in a container that follows"}
		} else if path != "" {
			files = append(files, path)
		}
	}
	if dir := r.f.text("oci-layout-path"); dir != "" {
		files = append(files, filepath.Join(dir, "index.json"))
	}
	for _, path := range files {
		st, err := os.Lstat(path)
		if err != nil || !st.Mode().IsRegular() || strings.HasPrefix(path, "/dev/") {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, unix.EBUSY) {
			return usagef("write result: %w", err)
		}
	}
	return nil
}

// report writes the files that were asked for and says what was pushed.
func (r *executorRun) report(res *build.Result) error {
	for _, w := range res.Warnings {
		text := w.String()
		if w.Rule == "" {
			text = w.Text
		}
		r.log.warn("%s", text)
	}
	digest := res.Descriptor.Digest.String()
	var names, tags strings.Builder
	refs := make([]name.Reference, 0, len(r.names))
	for _, n := range r.names {
		ref, err := oci.ParseRef(n)
		if err != nil {
			return err
		}
		refs = append(refs, ref)
		fmt.Fprintf(&names, "%s@%s\n", ref.Context().Name(), digest)
		fmt.Fprintf(&tags, "%s:%s@%s\n", ref.Context().Name(), ref.Identifier(), digest)
	}
	for i, content := range []string{digest, names.String(), tags.String()} {
		if path := r.f.text(digestFiles[i]); path != "" {
			if err := writeExecutorFile(path, content); err != nil {
				return fmt.Errorf("write --%s: %w", digestFiles[i], err)
			}
		}
	}
	if r.f.on("no-push") {
		r.log.info("Skipping push to container registry due to --no-push flag")
		return nil
	}
	for _, ref := range refs {
		r.log.info("Pushed %s@%s", ref.Context().Name(), digest)
	}
	return writeBuilderOutput(refs, digest)
}

// writeExecutorFile writes into a file that may be mounted, and makes its directory.
func writeExecutorFile(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644) //nolint:gosec // others read it, as kaniko's
}

// writeBuilderOutput tells Google Cloud Build what was pushed, as kaniko does.
func writeBuilderOutput(refs []name.Reference, digest string) error {
	dir := os.Getenv("BUILDER_OUTPUT")
	if dir == "" {
		return nil
	}
	var b strings.Builder
	for _, ref := range refs {
		line, err := json.Marshal(struct {
			Name   string `json:"name"`
			Digest string `json:"digest"`
		}{ref.Name(), digest})
		if err != nil {
			return fmt.Errorf("write %s/images: %w", dir, err)
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	return os.WriteFile(filepath.Join(dir, "images"), []byte(b.String()), 0o644) //nolint:gosec // the builder's
}
