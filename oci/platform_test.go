package oci

import (
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func platform(t *testing.T, s string) Platform {
	t.Helper()
	p, err := v1.ParsePlatform(s)
	if err != nil {
		t.Fatalf("parse platform %q: %v", s, err)
	}
	return *p
}

func TestRank(t *testing.T) {
	for _, tc := range []struct {
		want string
		have []string
		best int // index into have, -1 for none
	}{
		{"linux/amd64", []string{"linux/arm64", "linux/amd64"}, 1},
		{"linux/amd64", []string{"linux/386", "linux/amd64"}, 1},
		{"linux/amd64", []string{"linux/386"}, 0},
		{"linux/amd64", []string{"windows/amd64", "linux/arm64"}, -1},
		{"linux/amd64", []string{"linux/amd64/v3"}, -1},
		{"linux/amd64/v3", []string{"linux/amd64", "linux/amd64/v2", "linux/amd64/v4"}, 1},
		{"linux/arm64", []string{"linux/arm/v7", "linux/arm64/v8"}, 1},
		{"linux/arm64/v8", []string{"linux/arm64"}, 0},
		{"linux/arm64", []string{"linux/arm/v6", "linux/arm/v7"}, 1},
		{"linux/arm", []string{"linux/arm/v6", "linux/arm/v7", "linux/arm/v8"}, 1},
		{"linux/arm/v6", []string{"linux/arm/v7", "linux/arm/v5"}, 1},
		{"linux/x86_64", []string{"linux/amd64"}, 0},
		{"linux/aarch64", []string{"linux/arm64/v8"}, 0},
		{"linux/riscv64", []string{"linux/amd64", "linux/riscv64"}, 1},
	} {
		best, bestRank := -1, -1
		for i, h := range tc.have {
			if r := rank(platform(t, tc.want), platform(t, h)); r >= 0 && (best < 0 || r < bestRank) {
				best, bestRank = i, r
			}
		}
		if best != tc.best {
			t.Errorf("%s of %v: got %d, want %d", tc.want, tc.have, best, tc.best)
		}
	}
}
