package main

import (
	"encoding/csv"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/term"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/oci"
)

// output is one -o as it was written.
type output struct {
	build.Output
	context  string // docker's, of type=docker
	insecure bool   // registry.insecure: its registries may be asked without TLS
	tagged   string // a name that has a tag or a digest
	split    *bool  // platform-split; nil where it is not given
}

// loads says whether the image goes into a daemon.
func (o *output) loads() bool { return o.Type == build.OutputDocker && o.Dest == "" }

// parseOutputs reads -o as docker does: a list of key=value fields, or a path
// alone for type=local and "-" for a tar on stdout. --push and --load are short
// for outputs of their own.
func parseOutputs(list []string, push, load bool, stdout io.Writer) ([]output, error) {
	var outs []output
	for _, s := range list {
		o, err := parseOutput(s)
		if err != nil {
			return nil, err
		}
		outs = append(outs, o)
	}
	if push {
		i := slices.IndexFunc(outs, func(o output) bool { return o.Type == build.OutputImage || o.Type == build.OutputRegistry })
		if i >= 0 {
			outs[i].Type = build.OutputRegistry
		} else {
			outs = append(outs, output{Output: build.Output{Type: build.OutputRegistry}})
		}
	}
	for _, o := range outs {
		switch {
		case !o.ByDigest:
		case o.Type != build.OutputRegistry:
			return nil, &hintError{usagef("--output: push-by-digest=true pushes nothing"), byDigestHint}
		case o.tagged != "":
			return nil, &hintError{usagef("--output: %s has a tag or a digest, and is to be pushed by digest", o.tagged), byDigestHint}
		case o.Name == "":
			return nil, &hintError{usagef("--output: push-by-digest=true needs a repository"), byDigestHint}
		}
	}
	if load && !slices.ContainsFunc(outs, func(o output) bool { return o.loads() }) {
		outs = append(outs, output{Output: build.Output{Type: build.OutputDocker}})
	}
	return outs, checkStdout(outs, stdout)
}

// checkStdout lets one output at most go to stdout, and none to a terminal.
func checkStdout(outs []output, stdout io.Writer) error {
	n := 0
	for _, o := range outs {
		if o.Dest != "-" {
			continue
		}
		if n++; n > 1 {
			return &hintError{usagef("only one output can go to stdout"), "give the others dest=FILE"}
		}
		if f, ok := stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return &hintError{usagef("refusing to write an archive to a terminal"), "redirect stdout or give dest=FILE"}
		}
	}
	return nil
}

func writesStdout(outs []build.Output) bool {
	return slices.ContainsFunc(outs, func(o build.Output) bool { return o.Dest == "-" })
}

func parseOutput(s string) (output, error) {
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return output{}, usagef("--output %q: %w", s, err)
	}
	if len(fields) == 1 && !strings.HasPrefix(s, "type=") {
		if s == "-" {
			return output{Output: build.Output{Type: build.OutputTar, Dest: "-"}}, nil
		}
		return output{Output: build.Output{Type: build.OutputLocal, Dest: s}}, nil
	}
	o := output{Output: build.Output{Tar: true}}
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return o, &hintError{usagef("--output %q: want key=value in %q", s, f), outputHint}
		}
		if err := o.set(strings.TrimSpace(k), v); err != nil {
			return o, err
		}
	}
	err = o.check(s)
	return o, err
}

const (
	outputHint      = "for example -o type=docker,dest=app.tar, -o type=oci,dest=app.tar, -o type=registry or -o type=local,dest=out"
	compressionHint = "there are gzip and estargz with levels 0 to 9, zstd and zstd:chunked with 0 to 22, and uncompressed"

	byDigestHint = "for example -o type=image,name=REGISTRY/NAME,push-by-digest=true,push=true"

	outputTypes = "there are docker, oci, registry, image, tar, local and cacheonly"
	noImage     = "-o type=local, type=tar and type=cacheonly do not write"
)

// fixedKeys are keys of docker's outputs that say what fbuild does anyway: any
// other value is refused, with the reason.
var fixedKeys = map[string]struct{ value, hint string }{
	"unpack":       {"false", "fbuild never unpacks an image; what loads it does"},
	"store":        {"true", "images are always in fbuild's store; fbuild cache prune takes them away"},
	"oci-artifact": {"false", "attestations are not made"},
	"mode":         {"copy", "files are written over what is there; empty the directory first"},
}

// set takes one key=value.
func (o *output) set(key, value string) error {
	if kind, name, ok := annotationKey(key); ok {
		return o.annotate(kind, name, value)
	}
	key = strings.ToLower(key)
	if fixed, ok := fixedKeys[key]; ok {
		if on, err := strconv.ParseBool(value); value == fixed.value || err == nil && strconv.FormatBool(on) == fixed.value {
			return nil
		}
		return &hintError{usagef("--output: %s=%s is not supported", key, value), fixed.hint}
	}
	var err error
	switch key {
	case "platform-split":
		var split bool
		split, err = strconv.ParseBool(value)
		o.split = &split
	case "type":
		o.Type = build.OutputType(value)
	case "dest":
		o.Dest = value
	case "name":
		return o.name(value)
	case "context":
		o.context = value
	case "tar":
		o.Tar, err = strconv.ParseBool(value)
	case "push":
		var push bool
		if push, err = strconv.ParseBool(value); push {
			o.Type = build.OutputRegistry
		}
	case "push-by-digest":
		o.ByDigest, err = strconv.ParseBool(value)
	case "name-canonical":
		o.Canonical = true
		if value != "" {
			o.Canonical, err = strconv.ParseBool(value)
		}
	case "registry.insecure":
		o.insecure, err = strconv.ParseBool(value)
	case "rewrite-timestamp":
		o.RewriteTimestamp, err = strconv.ParseBool(value)
	case "compression":
		o.Compression.Type = value
		return nil
	case "compression-level":
		n, err := strconv.Atoi(value)
		if err != nil {
			return usagef("--output %s=%s: want a number", key, value)
		}
		o.Compression.Level = &n
		return nil
	case "force-compression":
		o.Compression.Force = true
		if value != "" {
			o.Compression.Force, err = strconv.ParseBool(value)
		}
	case "oci-mediatypes":
		var on bool
		on, err = strconv.ParseBool(value)
		o.DockerMediaTypes = !on
	default:
		return &hintError{
			usagef("--output: %q is not supported", key),
			"there are type, dest, name, name-canonical, tar, push, push-by-digest, registry.insecure, rewrite-timestamp, oci-mediatypes, compression, compression-level, force-compression, annotation.KEY and context",
		}
	}
	if err != nil {
		return usagef("--output %s=%s: want true or false", key, value)
	}
	return nil
}

// name takes the names of this output, several with commas between them.
func (o *output) name(value string) error {
	var full []string
	for n := range strings.SplitSeq(value, ",") {
		ref, err := oci.ParseRef(strings.TrimSpace(n))
		if err != nil {
			return &hintError{usagef("--output name=%s: %w", value, err), nameHint}
		}
		full = append(full, oci.FullName(ref))
		if text := strings.TrimSpace(n); strings.Contains(text[strings.LastIndex(text, "/")+1:], ":") {
			o.tagged = text
		}
	}
	o.Name = strings.Join(full, ",")
	return nil
}

// check finds what the keys together do not allow.
func (o *output) check(s string) error {
	bad := func(hint, format string, args ...any) error {
		return &hintError{usagef("--output %q: "+format, append([]any{s}, args...)...), hint}
	}
	if o.context != "" && o.Type != build.OutputDocker {
		return bad("context= names docker's context for -o type=docker", "type=%s has no context", o.Type)
	}
	if len(o.Annotations) > 0 && !o.Type.IsImage() {
		return bad("annotations are those of a manifest, which files do not have", "type=%s has no annotations", o.Type)
	}
	if o.Compression != (build.Compression{}) && !o.Type.IsImage() {
		return bad("pipe a tar through the compressor of your choice: -o - | zstd", "type=%s has no layers to compress", o.Type)
	}
	if err := o.Compression.Check(); err != nil {
		return bad(compressionHint, "%w", err)
	}
	switch o.Type {
	case build.OutputOCI:
		if o.Dest == "" && o.Tar {
			o.Dest = "-"
		}
		if !o.Tar && (o.Dest == "" || o.Dest == "-") {
			return bad("for example -o type=oci,tar=false,dest=layout", "tar=false needs dest=DIRECTORY")
		}
	case build.OutputDocker:
		if !o.Tar {
			return bad("-o type=oci,tar=false,dest=DIRECTORY writes an OCI layout", "nothing loads a directory, so tar=false is not supported")
		}
	case build.OutputTar:
		if o.Dest == "" {
			o.Dest = "-"
		}
	case build.OutputLocal:
		if o.Dest == "" || o.Dest == "-" {
			return bad("for example -o type=local,dest=out", "type=local needs dest=DIRECTORY")
		}
	case build.OutputImage, build.OutputRegistry, build.OutputCacheOnly:
		if o.Dest != "" {
			return bad("-o type=docker,dest=FILE and -o type=oci,dest=FILE write archives", "type=%s has no dest", o.Type)
		}
	default:
		return bad(outputTypes, "unknown type %q", o.Type)
	}
	return nil
}
