package oci

import (
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Platform is an operating system and an architecture with its variant.
type Platform = v1.Platform

// attestationKey marks a manifest that is about another one and no image.
const attestationKey = "vnd.docker.reference.type"

// Normalize writes a platform as containerd does: lower case, docker's names of
// architectures, no variant where it is the usual one but v7 for arm.
func Normalize(p Platform) Platform {
	p.OS = strings.ToLower(p.OS)
	if p.OS == "macos" {
		p.OS = "darwin"
	}
	arch, variant := strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	switch arch {
	case "i386":
		arch, variant = "386", ""
	case "x86_64", "x86-64":
		arch = "amd64"
	case "aarch64":
		arch = "arm64"
	case "armhf":
		arch, variant = "arm", "v7"
	case "armel":
		arch, variant = "arm", "v6"
	}
	switch {
	case arch == "amd64" && variant == "v1", arch == "arm64" && (variant == "8" || variant == "v8"):
		variant = ""
	case arch == "arm" && variant == "":
		variant = "v7"
	case arch == "arm" && len(variant) == 1:
		variant = "v" + variant
	}
	p.Architecture, p.Variant = arch, variant
	return p
}

// runnable lists what a machine of platform p can run, best first, as
// containerd orders it.
func runnable(p Platform) []Platform {
	p = Normalize(p)
	list := []Platform{p}
	add := func(arch, variant string) {
		list = append(list, Platform{OS: p.OS, Architecture: arch, Variant: variant})
	}
	level, err := strconv.Atoi(strings.TrimPrefix(p.Variant, "v"))
	if err != nil {
		level = 0
	}
	switch p.Architecture {
	case "amd64":
		for v := level - 1; v > 1; v-- {
			add("amd64", "v"+strconv.Itoa(v))
		}
		if level > 1 {
			add("amd64", "")
		}
		add("386", "")
	case "arm64":
		if p.Variant != "" {
			add("arm64", "")
		}
		for v := 8; v > 4; v-- {
			add("arm", "v"+strconv.Itoa(v))
		}
	case "arm":
		for v := level - 1; v > 4; v-- {
			add("arm", "v"+strconv.Itoa(v))
		}
	}
	return list
}

// rank says how well have serves a machine of platform want: 0 is best, -1 not
// at all. An operating system's version counts only where the caller gave one.
func rank(want, have Platform) int {
	have = Normalize(have)
	return slices.IndexFunc(runnable(want), func(p Platform) bool {
		return p.OS == have.OS && p.Architecture == have.Architecture && p.Variant == have.Variant &&
			(want.OSVersion == "" || want.OSVersion == have.OSVersion)
	})
}

// isAttestation reports whether an entry of an index is no image.
func isAttestation(d v1.Descriptor) bool {
	return d.Annotations[attestationKey] != "" ||
		d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}
