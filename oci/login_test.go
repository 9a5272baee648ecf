package oci

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLogin(t *testing.T) {
	bearer := func(f *fakeRegistry) func(http.ResponseWriter, *http.Request) bool {
		return (&bearerAuth{f: f, uses: 5, left: map[string]int{}}).handle
	}
	for _, tt := range []struct {
		name, password string
		auth           func(f *fakeRegistry) func(http.ResponseWriter, *http.Request) bool
		want           error
	}{
		{"basic", testPassword, func(*fakeRegistry) func(http.ResponseWriter, *http.Request) bool { return basicAuth }, nil},
		{"basic, refused", "wrong", func(*fakeRegistry) func(http.ResponseWriter, *http.Request) bool { return basicAuth }, ErrUnauthorized},
		{"token", testPassword, bearer, nil},
		{"token, refused", "wrong", bearer, ErrUnauthorized},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newRegistry(t)
			f.handle(tt.auth(f))
			dir := filepath.Join(t.TempDir(), "docker")
			r := testRemote(t, RemoteOptions{ConfigDir: dir})
			host := f.host
			where, err := r.Login(t.Context(), host, testUser, tt.password)
			if !errors.Is(err, tt.want) {
				t.Fatalf("login: got %v, want %v", err, tt.want)
			}
			file := filepath.Join(dir, "config.json")
			if tt.want != nil {
				if strings.Contains(err.Error(), tt.password) {
					t.Errorf("error %q has the password", err)
				}
				if _, err := os.Stat(file); err == nil {
					t.Error("refused credentials were kept")
				}
				return
			}
			fi, err := os.Stat(file)
			if err != nil || where != file || fi.Mode().Perm() != 0o600 {
				t.Errorf("config.json: got %v, %v in %s, want it closed to others", fi, err, where)
			}
			if known, err := r.Logout(host); !known || err != nil {
				t.Errorf("logout: got %v, %v", known, err)
			}
			if known, err := r.Logout(host); known || err != nil {
				t.Errorf("logout again: got %v, %v", known, err)
			}
		})
	}
}

func TestRegistryHost(t *testing.T) {
	for text, want := range map[string]string{
		"": "docker.io", "docker.io": "docker.io", "https://index.docker.io/v1/": "docker.io", "r.example:5000": "r.example:5000",
		"https://r.example/v2/": "r.example", "a b": "", "-x": "",
	} {
		got, err := RegistryHost(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
}

// Several images in one archive are listed, and each is found by what the list says;
// one that is compressed is read once for all of them.
func TestListArchive(t *testing.T) {
	a := build(t, nil, AssembleOptions{Annotations: map[string]string{"name": "a"}})
	b := build(t, nil, AssembleOptions{Annotations: map[string]string{"name": "b"}})
	file := filepath.Join(t.TempDir(), "images.tar")
	f, err := os.Create(file)
	must(t, err)
	must(t, WriteDockerArchive(t.Context(), f, Saved{a, []string{"docker.io/library/a:1", "docker.io/library/a:2"}}, Saved{b, nil}))
	must(t, f.Close())
	packed := gzipFile(t, file)
	for _, name := range []string{file, packed} {
		list, err := ListArchive(t.Context(), name)
		if err != nil || len(list) != 2 || len(list[0].Names) != 2 || len(list[1].Names) != 0 {
			t.Fatalf("images: got %+v, %v, want one of two names and one of none", list, err)
		}
		if name == packed {
			must(t, os.Remove(packed)) // nobody needs it any more
		}
		for i, want := range []*Built{a, b} {
			img, err := list[i].Open(t.Context(), Platform{})
			if err != nil || img.Desc.Digest != want.Desc.Digest {
				t.Errorf("image %d: got %v, %v, want %s", i, img, err, want.Desc.Digest)
			}
		}
	}
}
