package dockerfile

import (
	"fmt"
	"regexp"
	"runtime"
	"strings"
)

// platform is os/architecture[/variant], normalised.
type platform struct{ os, arch, variant string }

var platformPart = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// parsePlatform reads "linux/arm64", "linux/arm/v7", or the short forms "linux" and "arm64", as docker does.
func parsePlatform(s string) (platform, error) {
	parts := strings.Split(s, "/")
	for _, p := range parts {
		if !platformPart.MatchString(p) {
			return platform{}, fmt.Errorf("%q is an invalid component of platform %q", p, s)
		}
	}
	host := hostPlatform()
	switch len(parts) {
	case 1:
		if name := strings.ToLower(parts[0]); isOS(name) {
			if name == host.os {
				return host, nil
			}
			return platform{os: name, arch: host.arch}, nil
		}
		p := normal(platform{os: host.os, arch: parts[0]})
		if !isArch(p.arch) {
			return platform{}, fmt.Errorf("%q: unknown operating system or architecture", s)
		}
		return p, nil
	case 2:
		return normal(platform{os: parts[0], arch: parts[1]}), nil
	case 3:
		return normal(platform{os: parts[0], arch: parts[1], variant: parts[2]}), nil
	}
	return platform{}, fmt.Errorf("%q: cannot parse platform specifier", s)
}

func hostPlatform() platform {
	return normal(platform{os: "linux", arch: runtime.GOARCH})
}

// normal applies the aliases that containerd knows.
func normal(p platform) platform {
	p.os, p.arch, p.variant = strings.ToLower(p.os), strings.ToLower(p.arch), strings.ToLower(p.variant)
	if p.os == "macos" {
		p.os = "darwin"
	}
	switch p.arch {
	case "i386":
		p.arch, p.variant = "386", ""
	case "x86_64", "x86-64", "amd64":
		p.arch = "amd64"
		if p.variant == "v1" {
			p.variant = ""
		}
	case "aarch64", "arm64":
		p.arch = "arm64"
		if p.variant == "8" || p.variant == "v8" {
			p.variant = ""
		}
	case "armhf":
		p.arch, p.variant = "arm", "v7"
	case "armel":
		p.arch, p.variant = "arm", "v6"
	case "arm":
		switch p.variant {
		case "", "7":
			p.variant = "v7"
		case "5", "6", "8":
			p.variant = "v" + p.variant
		}
	}
	return p
}

func isOS(s string) bool {
	switch s {
	case "linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "dragonfly", "solaris", "plan9", "aix", "android":
		return true
	}
	return false
}

func isArch(s string) bool {
	switch s {
	case "386", "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc64", "ppc64le", "riscv64", "s390x", "wasm":
		return true
	}
	return false
}

func (p platform) String() string {
	s := p.os + "/" + p.arch
	if p.variant != "" {
		s += "/" + p.variant
	}
	return s
}
