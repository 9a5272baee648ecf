package oci

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
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

// A part that a mirror gives wrong, and then everything of that blob, is asked for elsewhere.
func TestRangesPastAFalseMirror(t *testing.T) {
	blob := bytes.Repeat([]byte("right"), 1000)
	h, _, err := v1.SHA256(bytes.NewReader(blob))
	must(t, err)
	d := v1.Descriptor{Digest: h, Size: int64(len(blob))}
	var asked [2]atomic.Int32
	place := func(i int, bytes []byte, cut int) name.Reference {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.URL.Path, "/blobs/") {
				return
			}
			asked[i].Add(1)
			var from, to int
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(blob)))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(bytes[from : to+1-cut])
		}))
		t.Cleanup(srv.Close)
		ref, err := ParseRef(strings.TrimPrefix(srv.URL, "http://") + "/base:1")
		must(t, err)
		return ref
	}
	for what, cut := range map[string]int{"false bytes": 0, "too few": 7} {
		t.Run(what, func(t *testing.T) {
			for i := range asked {
				asked[i].Store(0)
			}
			remote := testRemote(t, RemoteOptions{})
			open := remote.rangesAnywhere([]name.Reference{place(0, bytes.Repeat([]byte("WRONG"), 1000), cut), place(1, blob, 0)})
			read := func() (io.Reader, []byte, error) {
				body, err := open(t.Context(), d, 10, 100)
				must(t, err)
				defer func() { _ = body.Close() }()
				got, err := io.ReadAll(body)
				return body, got, err
			}
			body, got, err := read()
			if err == nil && string(got[:5]) == "WRONG" {
				err = Distrust(&labelled{body.(io.ReadCloser), nil}, errors.New("not what the table says"))
			}
			if !OtherCopy(err) {
				t.Fatalf("got %v, want that another place is asked", err)
			}
			for range 2 {
				body, got, err = read()
				if err != nil || !bytes.Equal(got, blob[10:110]) {
					t.Fatalf("from elsewhere: got %d bytes, %v", len(got), err)
				}
			}
			if err := Distrust(body, io.ErrNoProgress); OtherCopy(err) {
				t.Errorf("the last place: got %v, want that it counts", err)
			}
			if one, two := asked[0].Load(), asked[1].Load(); two != 2 || cut == 0 && one != 1 {
				t.Errorf("requests: got %d and %d, want 1 and 2", one, two)
			}
		})
	}
}
