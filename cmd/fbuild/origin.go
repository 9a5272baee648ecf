package main

import (
	"path/filepath"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/fetch"
)

// origin says whose build one of the given context and -f is: what `fbuild explain`
// finds it by. A context from stdin has no name, so nothing is kept of its builds.
func origin(context, file string) build.Origin {
	o := build.Origin{Version: version}
	switch {
	case context == "-":
	case build.IsRemoteContext(context):
		o.Context = fetch.Redact(context)
		if file == "" {
			file = "Dockerfile"
		}
		o.Dockerfile = o.Context + " " + file
	default:
		dir, err := filepath.Abs(context)
		if err != nil {
			return o
		}
		name := filepath.Join(dir, "Dockerfile")
		switch file {
		case "":
		case "-":
			name = filepath.Join(dir, "-")
		default:
			if name, err = filepath.Abs(file); err != nil {
				return o
			}
		}
		o.Context, o.Dockerfile = dir, name
	}
	return o
}
