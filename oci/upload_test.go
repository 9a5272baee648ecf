package oci

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// uploads is the half of a registry that takes blobs, as the specification has it:
// what came before a connection broke is kept.
type uploads struct {
	mu       sync.Mutex
	have     []byte // of the one upload
	session  int
	blobs    map[string][]byte
	received int64
	patches  int

	cutAfter int64 // bytes after which a request is broken off, while cuts are left
	cuts     int
	largest  int64 // of a request; 0: no limit
	forget   bool  // an upload that broke is gone
	cancel   bool  // the same, and said when it is too late, as distribution 2 does
	noRange  bool  // nothing is said about how far it came
}

func (u *uploads) handle(w http.ResponseWriter, r *http.Request) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	at := fmt.Sprintf("/v2/a/app/blobs/uploads/%d", u.session)
	switch {
	case r.Method == http.MethodHead && strings.Contains(r.URL.Path, "/blobs/"):
		_, digest, _ := strings.Cut(r.URL.Path, "/blobs/")
		if b, ok := u.blobs[digest]; ok {
			w.Header().Set("Content-Length", fmt.Sprint(len(b)))
			w.WriteHeader(http.StatusOK)
		} else {
			w.WriteHeader(http.StatusNotFound)
		}
	case r.Method == http.MethodPost:
		u.session++
		u.have = nil
		u.answer(w, http.StatusAccepted)
	case strings.Contains(r.URL.Path, "/blobs/uploads/") && r.URL.Path != at:
		return regError(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "")
	case r.Method == http.MethodPatch:
		u.patch(w, r)
	case r.Method == http.MethodGet && r.URL.Path == at && u.cancel:
		u.session++
		w.WriteHeader(http.StatusOK)
	case r.Method == http.MethodGet && r.URL.Path == at:
		u.answer(w, http.StatusNoContent)
	case r.Method == http.MethodPut && r.URL.Path == at:
		data, err := io.ReadAll(r.Body)
		must2(err)
		u.have = append(u.have, data...)
		digest := fmt.Sprintf("sha256:%x", sha256.Sum256(u.have))
		if digest != r.URL.Query().Get("digest") {
			return regError(w, http.StatusBadRequest, "DIGEST_INVALID", "")
		}
		u.blobs[digest] = u.have
		w.WriteHeader(http.StatusCreated)
	default:
		return false
	}
	return true
}

func (u *uploads) answer(w http.ResponseWriter, status int) {
	w.Header().Set("Location", fmt.Sprintf("/v2/a/app/blobs/uploads/%d", u.session))
	if len(u.have) > 0 && !u.noRange {
		w.Header().Set("Range", fmt.Sprintf("0-%d", len(u.have)-1))
	}
	w.WriteHeader(status)
}

func (u *uploads) patch(w http.ResponseWriter, r *http.Request) {
	u.patches++
	if u.largest > 0 && r.ContentLength > u.largest {
		regError(w, http.StatusRequestEntityTooLarge, "SIZE_INVALID", "")
		return
	}
	if start := r.Header.Get("Content-Range"); start != "" && !strings.HasPrefix(start, fmt.Sprintf("%d-", len(u.have))) {
		regError(w, http.StatusRequestedRangeNotSatisfiable, "RANGE_INVALID", "")
		return
	}
	body := io.Reader(r.Body)
	cut := u.cuts > 0
	if cut {
		u.cuts--
		body = io.LimitReader(body, u.cutAfter)
	}
	data, err := io.ReadAll(body)
	must2(err)
	u.have, u.received = append(u.have, data...), u.received+int64(len(data))
	if !cut {
		u.answer(w, http.StatusAccepted)
		return
	}
	if u.forget {
		u.session++ // its address is not known any more
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	must2(err)
	must2(conn.Close())
}

// A large blob whose connection breaks goes on where it was; what cannot go on begins
// anew; a registry that takes no large requests gets small ones.
func TestUploadResumes(t *testing.T) {
	const size = 10 << 20
	data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(data))
	h, err := v1.NewHash(digest)
	must(t, err)
	for _, tt := range []struct {
		name    string
		u       *uploads
		most    int64 // bytes that the registry received
		patches int
		fails   bool
	}{
		{"nothing breaks", &uploads{}, size, 1, false},
		{"broken once", &uploads{cuts: 1, cutAfter: 3 << 20}, size, 2, false},
		{"broken again and again", &uploads{cuts: 6, cutAfter: 1 << 20}, size, 7, false},
		{"broken without getting further", &uploads{cuts: 100, cutAfter: 0}, 0, 0, true},
		{"broken and forgotten", &uploads{cuts: 1, cutAfter: 3 << 20, forget: true}, size + 3<<20, 2, false},
		{"broken and canceled", &uploads{cuts: 2, cutAfter: 3 << 20, cancel: true}, size + 6<<20, 3, false},
		{"parts of 4 MiB at most", &uploads{largest: 4 << 20}, size, 0, false},
		{"broken in parts", &uploads{largest: 4 << 20, cuts: 2, cutAfter: 1 << 20}, size, 0, false},
		{"no part small enough", &uploads{largest: 1000}, 0, 0, true},
		{"nothing is said about ranges", &uploads{noRange: true}, size, 1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newRegistry(t)
			u := tt.u
			u.blobs = map[string][]byte{}
			f.handle(u.handle)
			r := testRemote(t, RemoteOptions{})
			a, err := r.Artifact(f.host + "/a/app:v1")
			must(t, err)
			opened := 0
			err = a.Add(t.Context(), Blob{
				Desc: v1.Descriptor{MediaType: types.OCILayer, Size: size, Digest: h},
				Open: func(context.Context) (io.ReadCloser, error) {
					opened++
					return io.NopCloser(bytes.NewReader(data)), nil
				},
			}, nil)
			if (err != nil) != tt.fails {
				t.Fatalf("push: got %v, want an error: %v", err, tt.fails)
			}
			if tt.fails {
				return
			}
			if !bytes.Equal(u.blobs[digest], data) {
				t.Error("the registry has other bytes")
			}
			if u.received > tt.most {
				t.Errorf("sent: got %d bytes, want at most %d", u.received, tt.most)
			}
			if tt.patches > 0 && u.patches != tt.patches {
				t.Errorf("requests: got %d, want %d", u.patches, tt.patches)
			}
		})
	}
}

// A layer that is damaged on the disk never becomes a blob, however large it is.
func TestUploadOfDamagedLargeBlob(t *testing.T) {
	f := newRegistry(t)
	u := &uploads{blobs: map[string][]byte{}}
	f.handle(u.handle)
	a, err := testRemote(t, RemoteOptions{}).Artifact(f.host + "/a/app:v1")
	must(t, err)
	const size = 10 << 20
	h, err := v1.NewHash(fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("other"))))
	must(t, err)
	err = a.Add(t.Context(), Blob{
		Desc: v1.Descriptor{MediaType: types.OCILayer, Size: size, Digest: h},
		Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(make([]byte, size))), nil
		},
	}, nil)
	if !errors.Is(err, ErrDigest) || len(u.blobs) > 0 {
		t.Errorf("push: got %v and %d blobs, want ErrDigest and none", err, len(u.blobs))
	}
}

// An image that a registry has costs one question for each tag.
func TestPushOfWhatIsThere(t *testing.T) {
	f := newRegistry(t)
	var mu sync.Mutex
	var asked []string
	f.handle(func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.Method+" "+r.URL.Path)
		return false
	})
	r := testRemote(t, RemoteOptions{})
	b := build(t, layersOf(t, randomImage(t, 100, 3)), AssembleOptions{})
	names := []string{f.host + "/a/app:v1", f.host + "/a/app:v2"}
	_, err := r.Push(t.Context(), names, b, nil)
	must(t, err)
	asked = nil
	_, err = r.Push(t.Context(), names, b, nil)
	must(t, err)
	if len(asked) != 2 {
		t.Errorf("requests: got %q, want one for each tag", asked)
	}
	asked = nil
	_, err = r.Push(t.Context(), append(names, f.host+"/a/app:v3"), b, nil)
	must(t, err)
	if len(asked) != 4 { // three questions and a manifest
		t.Errorf("requests for one tag more: got %q, want four", asked)
	}
	asked = nil
	_, err = testRemote(t, RemoteOptions{}).Push(t.Context(), names[:1], b, nil)
	must(t, err)
	if len(asked) != 2 { // whether a password is wanted, and the tag
		t.Errorf("requests of a process of its own: got %q, want two", asked)
	}
}
