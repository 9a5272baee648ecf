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
)

// parseOutputs reads -o as docker does: a list of key=value fields, or a path
// alone for type=local and "-" for a tar on stdout.
func parseOutputs(list []string, push bool, stdout io.Writer) ([]build.Output, error) {
	var outs []build.Output
	for _, s := range list {
		o, err := parseOutput(s)
		if err != nil {
			return nil, err
		}
		outs = append(outs, o)
	}
	if push {
		i := slices.IndexFunc(outs, func(o build.Output) bool { return o.Type == build.OutputImage || o.Type == build.OutputRegistry })
		if i >= 0 {
			outs[i].Type = build.OutputRegistry
		} else {
			outs = append(outs, build.Output{Type: build.OutputRegistry})
		}
	}
	n := 0
	for _, o := range outs {
		if o.Dest != "-" {
			continue
		}
		if n++; n > 1 {
			return nil, usagef("only one output can go to stdout")
		}
		if f, ok := stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return nil, usagef("refusing to write an archive to a terminal: redirect stdout or give dest=FILE")
		}
	}
	return outs, nil
}

func writesStdout(outs []build.Output) bool {
	return slices.ContainsFunc(outs, func(o build.Output) bool { return o.Dest == "-" })
}

func parseOutput(s string) (build.Output, error) {
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return build.Output{}, usagef("--output %q: %w", s, err)
	}
	if len(fields) == 1 && !strings.HasPrefix(s, "type=") {
		if s == "-" {
			return build.Output{Type: build.OutputTar, Dest: "-"}, nil
		}
		return build.Output{Type: build.OutputLocal, Dest: s}, nil
	}
	o := build.Output{Tar: true}
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return o, usagef("--output %q: want key=value in %q", s, f)
		}
		if err := setOutput(&o, strings.ToLower(strings.TrimSpace(k)), v); err != nil {
			return o, err
		}
	}
	err = checkOutput(s, &o)
	return o, err
}

func setOutput(o *build.Output, key, value string) error {
	var err error
	switch key {
	case "type":
		o.Type = build.OutputType(value)
		if value == "docker" {
			return usagef("--output type=docker is not supported yet: use type=oci,dest=FILE and load that archive (podman load, skopeo copy, docker load)")
		}
	case "dest":
		o.Dest = value
	case "name":
		o.Name = value
	case "tar":
		o.Tar, err = strconv.ParseBool(value)
	case "push":
		var push bool
		if push, err = strconv.ParseBool(value); push {
			o.Type = build.OutputRegistry
		}
	case "rewrite-timestamp":
		o.RewriteTimestamp, err = strconv.ParseBool(value)
	case "oci-mediatypes":
		var on bool
		on, err = strconv.ParseBool(value)
		o.DockerMediaTypes = !on
	default:
		return usagef("--output: %q is not supported; there are type, dest, name, tar, push, rewrite-timestamp and oci-mediatypes", key)
	}
	if err != nil {
		return usagef("--output %s=%s: want true or false", key, value)
	}
	return nil
}

func checkOutput(s string, o *build.Output) error {
	switch o.Type {
	case build.OutputOCI:
		if o.Dest == "" && o.Tar {
			o.Dest = "-"
		}
		if !o.Tar && (o.Dest == "" || o.Dest == "-") {
			return usagef("--output %q: tar=false needs dest=DIRECTORY", s)
		}
	case build.OutputTar:
		if o.Dest == "" {
			o.Dest = "-"
		}
	case build.OutputLocal:
		if o.Dest == "" || o.Dest == "-" {
			return usagef("--output %q: type=local needs dest=DIRECTORY", s)
		}
	case build.OutputImage, build.OutputRegistry:
		if o.Dest != "" {
			return usagef("--output %q: type=%s has no dest", s, o.Type)
		}
	default:
		return usagef("--output %q: unknown type %q; there are oci, tar, local, image and registry", s, o.Type)
	}
	return nil
}
