package build

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/dockerfile"
)

// historyComment marks history as BuildKit's Dockerfile frontend does, which
// tools look for.
const historyComment = "buildkit.dockerfile.v0"

// defaultPath is the PATH of an image that starts from scratch.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// emptyConfig is what a stage `FROM scratch` starts with.
func emptyConfig(p v1.Platform) v1.ConfigFile {
	return v1.ConfigFile{
		Architecture: p.Architecture, OS: p.OS, Variant: p.Variant, OSVersion: p.OSVersion,
		RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{WorkingDir: "/", Env: []string{"PATH=" + defaultPath}},
	}
}

// cloneConfig copies what instructions change.
func cloneConfig(c v1.ConfigFile) v1.ConfigFile {
	c.History = slices.Clone(c.History)
	c.RootFS.DiffIDs = slices.Clone(c.RootFS.DiffIDs)
	c.Config.Env = slices.Clone(c.Config.Env)
	c.Config.OnBuild = slices.Clone(c.Config.OnBuild)
	c.Config.Labels = maps.Clone(c.Config.Labels)
	c.Config.Volumes = maps.Clone(c.Config.Volumes)
	c.Config.ExposedPorts = maps.Clone(c.Config.ExposedPorts)
	return c
}

// setConfig carries an instruction that changes only the image's configuration
// into c. It reports whether it was one.
func setConfig(c *v1.ConfigFile, in dockerfile.Instruction) bool {
	cfg := &c.Config
	switch in := in.(type) {
	case *dockerfile.Env:
		for _, p := range in.Pairs {
			cfg.Env = setEnv(cfg.Env, p.Key, p.Value)
		}
	case *dockerfile.Label:
		for _, p := range in.Pairs {
			setLabel(cfg, p.Key, p.Value)
		}
	case *dockerfile.Expose:
		if cfg.ExposedPorts == nil {
			cfg.ExposedPorts = map[string]struct{}{}
		}
		for _, p := range in.Ports {
			cfg.ExposedPorts[p] = struct{}{}
		}
	case *dockerfile.Volume:
		if cfg.Volumes == nil {
			cfg.Volumes = map[string]struct{}{}
		}
		for _, p := range in.Paths {
			cfg.Volumes[p] = struct{}{}
		}
	case *dockerfile.User:
		cfg.User = in.User
	case *dockerfile.Cmd:
		cfg.Cmd, cfg.ArgsEscaped = in.Args, true
	case *dockerfile.Entrypoint:
		cfg.Entrypoint = in.Args
		if in.ResetsCmd {
			cfg.Cmd = nil
		}
	case *dockerfile.Shell:
		cfg.Shell = in.Args
	case *dockerfile.StopSignal:
		cfg.StopSignal = in.Signal
	case *dockerfile.Healthcheck:
		h := in.Health
		cfg.Healthcheck = &v1.HealthConfig{
			Test: h.Test, Interval: h.Interval, Timeout: h.Timeout,
			StartPeriod: h.StartPeriod, Retries: h.Retries,
		}
	case *dockerfile.OnBuild:
		cfg.OnBuild = append(cfg.OnBuild, in.Expression)
	case *dockerfile.Maintainer:
		c.Author = in.Author
	case *dockerfile.Arg:
	default:
		return false
	}
	return true
}

func setLabel(cfg *v1.Config, key, value string) {
	if cfg.Labels == nil {
		cfg.Labels = map[string]string{}
	}
	cfg.Labels[key] = value
}

// setEnv replaces or appends a variable.
func setEnv(env []string, key, value string) []string {
	for i, e := range env {
		if k, _, _ := strings.Cut(e, "="); k == key {
			env[i] = key + "=" + value
			return env
		}
	}
	return append(env, key+"="+value)
}

// addHistory appends an entry; created is nil for an instruction whose time is
// filled in when the image is assembled.
func addHistory(c *v1.ConfigFile, createdBy string, created *time.Time, empty bool) {
	h := v1.History{CreatedBy: createdBy, Comment: historyComment, EmptyLayer: empty}
	if created != nil {
		h.Created = v1.Time{Time: created.UTC()}
	}
	c.History = append(c.History, h)
}

// fillTimes gives the entries of metadata instructions the time of the step
// before them and the image the time of its last step, so that the same steps
// give the same image.
func fillTimes(c *v1.ConfigFile, fallback time.Time) {
	last := v1.Time{Time: fallback.UTC()}
	for _, h := range c.History {
		if !h.Created.IsZero() {
			last = h.Created
			break
		}
	}
	for i := range c.History {
		if c.History[i].Created.IsZero() {
			c.History[i].Created = last
		}
		last = c.History[i].Created
	}
	c.Created = last
}

// ParseAddHosts checks --add-host values: "name:ip" or "name=ip", IPv6 with or
// without brackets.
func ParseAddHosts(list []string) ([][2]string, error) {
	out := make([][2]string, 0, len(list))
	for _, s := range list {
		name, ip, ok := strings.Cut(s, "=")
		if !ok {
			name, ip, ok = strings.Cut(s, ":")
		}
		ip = strings.TrimSuffix(strings.TrimPrefix(ip, "["), "]")
		if ip == "host-gateway" { // RUN shares the host's network
			ip = "127.0.0.1"
		}
		if !ok || name == "" {
			return nil, fmt.Errorf("bad --add-host %q: want host:ip", s)
		}
		if !validIP(ip) {
			return nil, fmt.Errorf("bad --add-host %q: %q is not an IP address", s, ip)
		}
		out = append(out, [2]string{name, ip})
	}
	return out, nil
}
