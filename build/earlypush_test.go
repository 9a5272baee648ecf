package build

import (
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/tree"
)

// --verify-reproducible: nothing leaves the build before it was done twice.
func TestNothingEarlyBeforeVerification(t *testing.T) {
	o := Options{Outputs: []Output{{Type: OutputRegistry}}, Tags: []string{"registry.example/app:1"}, Remote: oci.NewRemote(oci.RemoteOptions{})}
	defer o.Remote.Close()
	if newEarlyPush(t.Context(), o, &dockerfile.Stage{}) == nil {
		t.Error("an ordinary push: nothing is sent early")
	}
	o.VerifyReproducible = true
	if newEarlyPush(t.Context(), o, &dockerfile.Stage{}) != nil {
		t.Error("a build that is to be verified sends layers before")
	}
}

// A layer can be sent before it is durable, and is the same after.
func TestBlobBeforeItIsDurable(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	l := &fsLayer{done: make(chan struct{}), written: make(chan struct{})}
	text := strings.Repeat("what a RUN wrote ", 10_000)
	p, extents := spooled(t, b, text)
	if err := p.Commit(); err != nil {
		t.Fatal(err)
	}
	read := func(when string) tree.Digest {
		t.Helper()
		known, blob, err := l.soon(t.Context(), b)
		if err != nil || known.how != "" || b.variantOf(known, Output{Type: OutputRegistry}) != nil {
			t.Fatalf("%s: got %+v, %v", when, known, err)
		}
		r, err := blob.Open(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		h := sha256.New()
		_, err = io.Copy(h, r)
		if err := errors.Join(err, r.Close()); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if got := blob.Desc.Digest.String(); got != string(sum(h)) {
			t.Errorf("%s: the descriptor says %s, the bytes are %s", when, got, sum(h))
		}
		return sum(h)
	}
	cs := tree.Changes{{Path: "f", Node: &tree.Node{Kind: tree.File, Mode: 0o644, Size: int64(len(text)), Extents: extents}}}
	var before tree.Digest
	wrote := l.wrote(b, Compression{})
	sealed, err := b.sealBlob(t.Context(), cs, layer.Options{}, func(s layer.Sealed, file string) {
		wrote(s, file)
		if b.store.HasBlob(s.Digest) {
			t.Error("it is in the store before it is durable")
		}
		before = read("before")
	})
	if err != nil {
		t.Fatal(err)
	}
	if after := read("after"); after != before || after != sealed.Digest {
		t.Errorf("got %s before, %s after, want %s", before, after, sealed.Digest)
	}
}

// A layer whose sealing fails is not waited for.
func TestBlobThatNeverComes(t *testing.T) {
	b := newWorld(t).builder()
	l := &fsLayer{done: make(chan struct{}), written: make(chan struct{}), err: errors.New("broken")}
	close(l.done)
	if _, _, err := l.soon(t.Context(), b); !errors.Is(err, l.err) {
		t.Errorf("got %v, want %v", err, l.err)
	}
}
