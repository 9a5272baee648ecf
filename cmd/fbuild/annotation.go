package main

import (
	"regexp"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const annotationHint = "for example --annotation org.opencontainers.image.source=URL; fbuild writes one manifest and no index, so manifest: is the only type"

var (
	annotationFlagRE = regexp.MustCompile(`^(?:([a-z,-]+)(?:\[([A-Za-z0-9_/-]+)\])?:)?(\S+)$`)
	annotationKeyRE  = regexp.MustCompile(`^annotation(?:-([a-z-]+))?(?:\[([A-Za-z0-9_/-]+)\])?\.(\S+)$`)
)

// parseAnnotations reads --annotation [manifest[PLATFORM]:]KEY=VALUE as docker
// does. The types of an index are refused: there is none.
func parseAnnotations(list []string) (map[string]string, error) {
	var m map[string]string
	for _, text := range list {
		key, value, ok := strings.Cut(text, "=")
		parts := annotationFlagRE.FindStringSubmatch(key)
		if !ok || parts == nil {
			return nil, &hintError{usagef("--annotation %q: want KEY=VALUE", text), annotationHint}
		}
		if err := checkAnnotation("--annotation "+text, parts[1], parts[2]); err != nil {
			return nil, err
		}
		if m == nil {
			m = map[string]string{}
		}
		m[parts[3]] = value
	}
	return m, nil
}

// annotationKey takes an output's key annotation[-TYPE][[PLATFORM]].KEY apart.
func annotationKey(key string) (kind, name string, ok bool) {
	parts := annotationKeyRE.FindStringSubmatch(key)
	if parts == nil {
		return "", "", false
	}
	if parts[2] != "" {
		parts[1] += "[" + parts[2] + "]"
	}
	return parts[1], parts[3], true
}

func (o *output) annotate(kind, name, value string) error {
	kind, platform, _ := strings.Cut(strings.TrimSuffix(kind, "]"), "[")
	if err := checkAnnotation("--output annotation of "+name, kind, platform); err != nil {
		return err
	}
	if o.Annotations == nil {
		o.Annotations = map[string]string{}
	}
	o.Annotations[name] = value
	return nil
}

func checkAnnotation(what, kinds, platform string) error {
	if kinds != "" {
		for kind := range strings.SplitSeq(kinds, ",") {
			if kind != "manifest" {
				return &hintError{usagef("%s: the type %q is not supported", what, kind), annotationHint}
			}
		}
	}
	if platform == "" {
		return nil
	}
	p, err := v1.ParsePlatform(platform)
	if err != nil || p.OS != "linux" || p.Architecture != runtime.GOARCH {
		return &hintError{usagef("%s: the image is not for %q", what, platform), "leave the platform away: there is one"}
	}
	return nil
}
