package main

import (
	"encoding/csv"
	"errors"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/fbuild/fbuild/build"
)

// Where a type of docker is not there, what to do instead.
var cacheHints = map[string]string{
	"gha":    "GitHub's own cache takes no layers from outside its actions: use type=registry,ref=ghcr.io/OWNER/NAME:cache, or type=local with actions/cache",
	"azblob": "use type=registry with the registry of the same cloud, or type=s3 with a gateway",
	"inline": "an image that was built with --cache-to type=inline is read with --cache-from type=registry,ref=IMAGE",
}

const cacheHint = "there are type=registry,ref=NAME, type=local,src=DIR (or dest=DIR), type=s3,bucket=NAME and, to write, type=inline; docs/cache.md has the attributes"

var secretAttrs = regexp.MustCompile(`(?i)\b(access_key_id|secret_access_key|session_token)(\s*=)[^,]*`)

// withoutSecrets is what is shown of the attributes of a cache.
func withoutSecrets(text string) string { return secretAttrs.ReplaceAllString(text, "$1${2}xxxxx") }

// parseCaches reads --cache-from or --cache-to as docker does: attributes with commas
// between them, or nothing but names of images.
func parseCaches(flag string, list []string) ([]build.CacheSpec, error) {
	var out []build.CacheSpec
	for _, text := range list {
		lines := csv.NewReader(strings.NewReader(text))
		fields, err := lines.Read()
		if _, more := lines.Read(); err != nil || !errors.Is(more, io.EOF) {
			return nil, &hintError{usagef("--%s %q: want attributes with commas between them, on one line", flag, withoutSecrets(text)), cacheHint}
		}
		if !slices.ContainsFunc(fields, func(f string) bool { return strings.Contains(f, "=") }) {
			for _, ref := range fields {
				out = append(out, build.CacheSpec{Type: build.CacheRegistry, Attrs: map[string]string{"ref": ref}})
			}
			continue
		}
		spec := build.CacheSpec{Attrs: map[string]string{}}
		for _, f := range fields {
			name, value, ok := strings.Cut(f, "=")
			name = strings.ToLower(strings.TrimSpace(name))
			if !ok {
				return nil, &hintError{usagef("--%s %q: %q is no attribute", flag, withoutSecrets(text), f), cacheHint}
			}
			if name == "type" {
				spec.Type = value
				continue
			}
			spec.Attrs[name] = value
		}
		if spec.Type == "" {
			return nil, &hintError{usagef("--%s %q: type is missing", flag, withoutSecrets(text)), cacheHint}
		}
		out = append(out, spec)
	}
	for _, s := range out {
		if err := s.Check(flag == "cache-to"); err != nil {
			hint := cacheHints[s.Type]
			if hint == "" {
				hint = cacheHint
			}
			return nil, &hintError{&usageError{err}, hint}
		}
	}
	return out, nil
}

// caches reads the flags of shared caches.
func (f *buildFlags) caches(o *build.Options) (err error) {
	if o.CacheFrom, err = parseCaches("cache-from", f.cacheFrom); err != nil {
		return err
	}
	if o.CacheTo, err = parseCaches("cache-to", f.cacheTo); err != nil {
		return err
	}
	inline := func(s build.CacheSpec) bool { return s.Type == build.CacheInline }
	if inlineArg(f.args) && !slices.ContainsFunc(o.CacheTo, inline) {
		o.CacheTo = append(o.CacheTo, build.CacheSpec{Type: build.CacheInline})
	}
	if f.cacheKey == "" {
		return nil
	}
	if len(f.cacheFrom)+len(f.cacheTo) == 0 {
		return &hintError{usagef("--cache-key is given without --cache-from and --cache-to"), "it is for entries of shared caches"}
	}
	if err := build.CheckCacheKey(f.cacheKey, len(f.cacheTo) > 0); err != nil {
		return &hintError{&usageError{err}, "openssl genpkey -algorithm ed25519 -out cache.pem makes one; openssl pkey -in cache.pem -pubout -out cache.pub makes what readers need"}
	}
	o.CacheKey = f.cacheKey
	return nil
}

// needImage refuses an inline cache where no image leaves the build.
func needImage(o *build.Options) error {
	inline := slices.ContainsFunc(o.CacheTo, func(s build.CacheSpec) bool { return s.Type == build.CacheInline })
	image := len(o.Outputs) == 0 || slices.ContainsFunc(o.Outputs, func(out build.Output) bool {
		return out.Type.IsImage()
	})
	if inline && !image {
		return &hintError{usagef("--cache-to type=inline needs an image"), "the cache is in the manifest of an image, which " + noImage}
	}
	return nil
}

// inlineArg is docker's old way to ask for an inline cache.
func inlineArg(args []string) bool {
	for _, a := range args {
		name, value, ok := strings.Cut(a, "=")
		if !ok {
			value = os.Getenv(name)
		}
		if on, err := strconv.ParseBool(value); name == "BUILDKIT_INLINE_CACHE" && err == nil && on {
			return true
		}
	}
	return false
}
