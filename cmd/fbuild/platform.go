package main

import (
	"os"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/oci"
)

// architectures are those that Linux images are made for, by Go's names.
var architectures = []string{"386", "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc64", "ppc64le", "riscv64", "s390x"}

// thisHost is the platform of this machine.
func thisHost() v1.Platform {
	return oci.Normalize(v1.Platform{OS: "linux", Architecture: runtime.GOARCH})
}

// parsePlatforms reads --platform: several with commas between them, or the flag several
// times. Without one it is $DOCKER_DEFAULT_PLATFORM, else this host's.
func parsePlatforms(list []string) ([]v1.Platform, error) {
	flag, text := "--platform", strings.Join(list, ",")
	if text == "" {
		flag, text = "DOCKER_DEFAULT_PLATFORM", os.Getenv("DOCKER_DEFAULT_PLATFORM")
	}
	if text == "" {
		return []v1.Platform{thisHost()}, nil
	}
	var out []v1.Platform
	for word := range strings.SplitSeq(text, ",") {
		p, err := parsePlatform(flag, strings.TrimSpace(word))
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(out, p.Equals) {
			out = append(out, p)
		}
	}
	return out, nil
}

func parsePlatform(flag, word string) (v1.Platform, error) {
	host := thisHost()
	parts := strings.Split(word, "/")
	switch {
	case word == "local" || word == "linux":
		return host, nil
	case len(parts) == 1:
		parts = []string{"linux", word}
	}
	p, err := v1.ParsePlatform(strings.Join(parts, "/"))
	if err != nil {
		return host, usagef("%s: %w", flag, err)
	}
	n := oci.Normalize(*p)
	if n.OS != "linux" {
		return host, &hintError{usagef("%s %s: images for %s are not supported", flag, word, n.OS), "fbuild builds Linux images"}
	}
	if !slices.Contains(architectures, n.Architecture) {
		return host, &hintError{usagef("%s %s: unknown architecture %q", flag, word, n.Architecture), "there are " + strings.Join(architectures, ", ")}
	}
	return n, nil
}

// onePlatform reads --platform of what is for one platform.
func onePlatform(list []string) (v1.Platform, error) {
	out, err := parsePlatforms(list)
	if err != nil {
		return thisHost(), err
	}
	if len(out) > 1 {
		return out[0], usagef("%s are several platforms, where one is meant", platformNames(out))
	}
	return out[0], nil
}

func platformNames(list []v1.Platform) string {
	var names []string
	for _, p := range list {
		names = append(names, p.String())
	}
	return strings.Join(names, ", ")
}
