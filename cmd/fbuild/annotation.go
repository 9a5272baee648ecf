package main

import (
	"regexp"
	"slices"
	"strings"

	"github.com/fbuild/fbuild/build"
)

const (
	annotationHint = "for example --annotation org.opencontainers.image.source=URL, or index:KEY=VALUE; there are manifest, manifest-descriptor, index and index-descriptor"
	noIndexHint    = "there is an index where --platform names several; of one platform there is one manifest"
)

var (
	annotationFlagRE = regexp.MustCompile(`^(?:([a-z,-]+)(?:\[([A-Za-z0-9_/-]+)\])?:)?(\S+)$`)
	annotationKeyRE  = regexp.MustCompile(`^annotation(?:-([a-z-]+))?(?:\[([A-Za-z0-9_/-]+)\])?\.(\S+)$`)
)

// parseAnnotations reads --annotation [TYPE[,TYPE][[PLATFORM]]:]KEY=VALUE as docker does.
func parseAnnotations(list []string) ([]build.Annotation, error) {
	var out []build.Annotation
	for _, text := range list {
		key, value, ok := strings.Cut(text, "=")
		parts := annotationFlagRE.FindStringSubmatch(key)
		if !ok || parts == nil {
			return nil, &hintError{usagef("--annotation %q: want KEY=VALUE", text), annotationHint}
		}
		more, err := annotations("--annotation "+text, parts[1], parts[2], parts[3], value)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
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
	more, err := annotations("--output annotation of "+name, kind, platform, name, value)
	o.Annotations = append(o.Annotations, more...)
	return err
}

// annotationKinds are docker's types.
var annotationKinds = []string{build.AnnotationManifest, build.AnnotationDescriptor, build.AnnotationIndex, build.AnnotationIndexDescriptor}

// annotations makes one annotation for each of the types.
func annotations(what, kinds, platform, key, value string) ([]build.Annotation, error) {
	if kinds == "" {
		kinds = build.AnnotationManifest
	}
	if platform != "" {
		p, err := parsePlatform(what, platform)
		if err != nil {
			return nil, err
		}
		platform = p.String()
	}
	var out []build.Annotation
	for kind := range strings.SplitSeq(kinds, ",") {
		if !slices.Contains(annotationKinds, kind) {
			return nil, &hintError{usagef("%s: the type %q is not supported", what, kind), annotationHint}
		}
		if platform != "" && kind != build.AnnotationManifest && kind != build.AnnotationDescriptor {
			return nil, &hintError{usagef("%s: %s has no platform", what, kind), "an index is of all platforms"}
		}
		out = append(out, build.Annotation{On: kind, Platform: platform, Key: key, Value: value})
	}
	return out, nil
}

// checkAnnotations refuses annotations of what is not written.
func checkAnnotations(list []build.Annotation, o *build.Options) error {
	platforms := []string{o.Platform.String()}
	for _, p := range o.Platforms {
		platforms = append(platforms, p.Platform.String())
	}
	for _, a := range list {
		if len(o.Platforms) == 0 && a.On != build.AnnotationManifest {
			return &hintError{usagef("annotation %s: there is no %s", a.Key, a.On), noIndexHint}
		}
		if a.Platform != "" && !slices.Contains(platforms, a.Platform) {
			return &hintError{usagef("annotation %s: the image is not for %q", a.Key, a.Platform), "--platform names what it is for"}
		}
	}
	return nil
}
