package oci

import (
	"errors"
	"strings"
	"testing"
)

const someHex = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseRef(t *testing.T) {
	for _, tc := range []struct{ name, in, want, wantErr string }{
		{"short", "alpine", "docker.io/library/alpine:latest", ""},
		{"tag", "alpine:3.19", "docker.io/library/alpine:3.19", ""},
		{"user", "bob/app", "docker.io/bob/app:latest", ""},
		{"hub by name", "docker.io/alpine", "docker.io/library/alpine:latest", ""},
		{"hub's old name", "index.docker.io/library/alpine", "docker.io/library/alpine:latest", ""},
		{"registry", "ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1", ""},
		{"port", "localhost:5000/app", "localhost:5000/app:latest", ""},
		{"port and tag", "127.0.0.1:5000/app:x_Y.z", "127.0.0.1:5000/app:x_Y.z", ""},
		{"localhost", "localhost/app", "localhost/app:latest", ""},
		{"IPv6", "[::1]:5000/app", "[::1]:5000/app:latest", ""},
		{"upper case registry", "Reg/app", "Reg/app:latest", ""},
		{"digest", "alpine@sha256:" + someHex, "docker.io/library/alpine@sha256:" + someHex, ""},
		{"digest wins over tag", "alpine:3@sha256:" + someHex, "docker.io/library/alpine@sha256:" + someHex, ""},
		{"separators", "a__b/c-d.e---f", "docker.io/a__b/c-d.e---f:latest", ""},
		{"empty", "", "", "no repository name"},
		{"upper case", "Alpine", "", "must be lowercase"},
		{"upper case path", "ghcr.io/A/b", "", "must be lowercase"},
		{"short digest", "alpine@sha256:abcd", "", "bad digest"},
		{"traversal in digest", "alpine@sha256:../../etc/passwd", "", "bad digest"},
		{"upper case digest", "alpine@sha256:" + strings.ToUpper(someHex), "", "bad digest"},
		{"no digest", "alpine@", "", "bad digest"},
		{"no tag", "alpine:", "", "invalid reference format"},
		{"bad tag", "alpine:-x", "", "bad tag"},
		{"long tag", "alpine:" + strings.Repeat("x", 129), "", "bad tag"},
		{"id", someHex, "", "64 hexadecimal digits"},
		{"scheme", "https://ghcr.io/a", "", "no scheme"},
		{"double slash", "ghcr.io//a", "", "invalid reference format"},
		{"dots", "ghcr.io/../a", "", "invalid reference format"},
		{"space", "al pine", "", "invalid reference format"},
		{"newline", "alpine\n", "", "invalid reference format"},
		{"long", strings.Repeat("a", 250), "", "not be more than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ref, err := ParseRef(tc.in)
			if tc.wantErr != "" {
				if !errors.Is(err, ErrRef) || !strings.Contains(err.Error(), tc.wantErr) {
					t.Fatalf("ParseRef(%q): got error %v, want ErrRef with %q", tc.in, err, tc.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatalf("ParseRef(%q): %v", tc.in, err)
			}
			if got := FullName(ref); got != tc.want {
				t.Errorf("ParseRef(%q): got %q, want %q", tc.in, got, tc.want)
			}
		})
	}
}

func TestParseLayoutRef(t *testing.T) {
	digest := "sha256:" + someHex
	for _, tc := range []struct {
		name, in string
		want     LayoutRef
		ok, bad  bool
	}{
		{"path", "oci-layout://./base", LayoutRef{"./base", ""}, true, false},
		{"tag", "oci-layout:///b/base:v1", LayoutRef{"/b/base", "v1"}, true, false},
		{"digest", "oci-layout://base@" + digest, LayoutRef{"base", digest}, true, false},
		{"tag and digest", "oci-layout://base:v1@" + digest, LayoutRef{"base", digest}, true, false},
		{"colon in a folder", "oci-layout://a:b/c", LayoutRef{"a:b/c", ""}, true, false},
		{"other scheme", "docker-image://alpine", LayoutRef{}, false, false},
		{"bad digest", "oci-layout://base@sha256:12", LayoutRef{}, true, true},
		{"bad tag", "oci-layout://base:a b", LayoutRef{}, true, true},
		{"no path", "oci-layout://", LayoutRef{}, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, ok, err := ParseLayoutRef(tc.in)
			if got != tc.want || ok != tc.ok || (err != nil) != tc.bad {
				t.Errorf("ParseLayoutRef(%q): got %v %v %v, want %v %v bad=%v", tc.in, got, ok, err, tc.want, tc.ok, tc.bad)
			}
		})
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"alpine", "a/b:c", "localhost:1/x@sha256:" + someHex, "[::1]:5/a", "A:b", "..", "a@b@c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := ParseRef(s)
		if err != nil {
			if !errors.Is(err, ErrRef) {
				t.Fatalf("ParseRef(%q): got %v, want ErrRef", s, err)
			}
			return
		}
		again, err := ParseRef(FullName(ref))
		if err != nil || FullName(again) != FullName(ref) {
			t.Fatalf("ParseRef(%q) is %q, which parses as %v, %v", s, FullName(ref), again, err)
		}
		if strings.Contains(FullName(ref), "..") {
			t.Fatalf("ParseRef(%q): %q holds ..", s, FullName(ref))
		}
	})
}
