package oci

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A part of a blob is the part that was asked for, to its end, or an error.
func TestOpenRange(t *testing.T) {
	blob := make([]byte, 100_000)
	for i := range blob {
		blob[i] = byte(i * 7 >> 3)
	}
	const off, n = 1000, 50_000
	part := func(w http.ResponseWriter, from, to int, send []byte) {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(blob)))
		w.Header().Set("Content-Length", fmt.Sprint(to-from+1))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(send)
		_ = http.NewResponseController(w).Flush()
	}
	asked := func(r *http.Request) (from, to int) {
		_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
		return from, to
	}
	for _, tt := range []struct {
		name  string
		serve func(w http.ResponseWriter, r *http.Request)
		want  error // nil for the bytes
	}{
		{"the part", func(w http.ResponseWriter, r *http.Request) {
			from, to := asked(r)
			part(w, from, to, blob[from:to+1])
		}, nil},
		{"cut again and again", func(w http.ResponseWriter, r *http.Request) {
			from, to := asked(r)
			part(w, from, to, blob[from:min(to+1, from+15_000)])
			panic(http.ErrAbortHandler)
		}, nil},
		{"all of it", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(blob) }, ErrNoRanges},
		{"another part", func(w http.ResponseWriter, _ *http.Request) { part(w, 0, n-1, blob[:n]) }, ErrRegistry},
		{"too little", func(w http.ResponseWriter, _ *http.Request) {
			part(w, off, off+n-2, blob[off:off+n-1])
		}, ErrRegistry},
		{"of a blob of another size", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/7", off, off+n-1))
			w.WriteHeader(http.StatusPartialContent)
		}, ErrRegistry},
		{"none", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }, ErrNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/blobs/") {
					tt.serve(w, r)
				}
			}))
			defer srv.Close()
			repo, err := name.NewRepository(strings.TrimPrefix(srv.URL, "http://") + "/base")
			if err != nil {
				t.Fatal(err)
			}
			remote := NewRemote(RemoteOptions{})
			remote.pace.waits = []time.Duration{0}
			defer remote.Close()
			h, _, err := v1.SHA256(bytes.NewReader(blob))
			if err != nil {
				t.Fatal(err)
			}
			var got []byte
			r, err := remote.openRange(t.Context(), repo, v1.Descriptor{Digest: h, Size: int64(len(blob))}, off, n)
			if err == nil {
				got, err = io.ReadAll(r)
				_ = r.Close()
			}
			switch {
			case tt.want == nil && (err != nil || !bytes.Equal(got, blob[off:off+n])):
				t.Errorf("got %d bytes, %v, want the part", len(got), err)
			case tt.want != nil && !errors.Is(err, tt.want):
				t.Errorf("got %d bytes, %v, want %v", len(got), err, tt.want)
			}
		})
	}
}
