package main

import (
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbuild/fbuild/build"
)

func TestParseOutputs(t *testing.T) {
	type list []output
	plain := func(o build.Output) output { return output{Output: o} }
	tests := []struct {
		name       string
		in         []string
		push, load bool
		want       list
		err, hint  string
	}{
		{name: "a path", in: []string{"out"}, want: list{plain(build.Output{Type: build.OutputLocal, Dest: "out"})}},
		{name: "a dash", in: []string{"-"}, want: list{plain(build.Output{Type: build.OutputTar, Dest: "-"})}},
		{name: "an archive", in: []string{"type=oci,dest=a.tar"}, want: list{plain(build.Output{Type: build.OutputOCI, Dest: "a.tar", Tar: true})}},
		{name: "a layout", in: []string{"type=oci,tar=false,dest=d"}, want: list{plain(build.Output{Type: build.OutputOCI, Dest: "d"})}},
		{name: "an archive on stdout", in: []string{"type=oci"}, want: list{plain(build.Output{Type: build.OutputOCI, Dest: "-", Tar: true})}},
		{name: "docker's archive", in: []string{"type=docker,dest=-"}, want: list{plain(build.Output{Type: build.OutputDocker, Dest: "-", Tar: true})}},
		{name: "docker's context", in: []string{"type=docker,context=far"}, want: list{{Output: build.Output{Type: build.OutputDocker, Tar: true}, context: "far"}}},
		{
			name: "names", in: []string{`type=image,"name=x,y:2",push=true`},
			want: list{{Output: build.Output{Type: build.OutputRegistry, Name: "docker.io/library/x:latest,docker.io/library/y:2", Tar: true}, tagged: "y:2"}},
		},
		{name: "a registry without TLS", in: []string{"type=registry,registry.insecure=true"}, want: list{{Output: build.Output{Type: build.OutputRegistry, Tar: true}, insecure: true}}},
		{
			name: "annotations", in: []string{"type=oci,dest=x,annotation.a.b=1,annotation-manifest.c=2"},
			want: list{plain(build.Output{Type: build.OutputOCI, Dest: "x", Tar: true, Annotations: []build.Annotation{{On: "manifest", Key: "a.b", Value: "1"}, {On: "manifest", Key: "c", Value: "2"}}})},
		},
		{name: "what happens anyway", in: []string{"type=registry,unpack=false,store=true"}, want: list{plain(build.Output{Type: build.OutputRegistry, Tar: true})}},
		{
			name: "compression", in: []string{"type=registry,compression=zstd,compression-level=9,force-compression=true", "type=oci,dest=x,compression=zstd:chunked,force-compression="},
			want: list{
				plain(build.Output{Type: build.OutputRegistry, Tar: true, Compression: build.Compression{Type: "zstd", Level: new(9), Force: true}}),
				plain(build.Output{Type: build.OutputOCI, Dest: "x", Tar: true, Compression: build.Compression{Type: "zstd:chunked", Force: true}}),
			},
		},
		{
			name: "by digest", in: []string{"type=image,name=x,push-by-digest=true,push=true,name-canonical="},
			want: list{plain(build.Output{Type: build.OutputRegistry, Name: "docker.io/library/x:latest", Tar: true, ByDigest: true, Canonical: true})},
		},
		{name: "by digest with a flag", in: []string{"type=image,name=x,push-by-digest=true"}, push: true, want: list{plain(build.Output{Type: build.OutputRegistry, Name: "docker.io/library/x:latest", Tar: true, ByDigest: true})}},
		{name: "by digest without a push", in: []string{"type=image,name=x,push-by-digest=true"}, err: "--output: push-by-digest=true pushes nothing", hint: byDigestHint},
		{name: "by digest under a tag", in: []string{"type=registry,name=r.example:5000/x:1,push-by-digest=true"}, err: "--output: r.example:5000/x:1 has a tag or a digest, and is to be pushed by digest", hint: byDigestHint},
		{name: "by digest without a name", in: []string{"type=registry,push-by-digest=true"}, err: "--output: push-by-digest=true needs a repository", hint: byDigestHint},
		{name: "push", push: true, want: list{plain(build.Output{Type: build.OutputRegistry})}},
		{name: "push of an image", in: []string{"type=image"}, push: true, want: list{plain(build.Output{Type: build.OutputRegistry, Tar: true})}},
		{name: "load", load: true, want: list{plain(build.Output{Type: build.OutputDocker})}},
		{name: "load twice", in: []string{"type=docker"}, load: true, want: list{plain(build.Output{Type: build.OutputDocker, Tar: true})}},
		{
			name: "load beside a file", in: []string{"type=docker,dest=x"}, load: true,
			want: list{plain(build.Output{Type: build.OutputDocker, Dest: "x", Tar: true}), plain(build.Output{Type: build.OutputDocker})},
		},
		{name: "quotes", in: []string{`"type=local","dest=a,b"`}, want: list{plain(build.Output{Type: build.OutputLocal, Dest: "a,b", Tar: true})}},

		{name: "no directory", in: []string{"type=oci,tar=false"}, err: `--output "type=oci,tar=false": tar=false needs dest=DIRECTORY`, hint: "for example -o type=oci,tar=false,dest=layout"},
		{name: "no dest", in: []string{"type=local"}, err: `--output "type=local": type=local needs dest=DIRECTORY`, hint: "for example -o type=local,dest=out"},
		{name: "two on stdout", in: []string{"type=tar", "type=oci"}, err: "only one output can go to stdout", hint: "give the others dest=FILE"},
		{name: "no such type", in: []string{"type=bogus"}, err: `--output "type=bogus": unknown type "bogus"`, hint: outputTypes},
		{name: "no such compression", in: []string{"type=oci,dest=x,compression=xz"}, err: `--output "type=oci,dest=x,compression=xz": unknown compression "xz"`, hint: compressionHint},
		{name: "no such level", in: []string{"type=image,compression-level=10"}, err: `--output "type=image,compression-level=10": gzip has levels 0 to 9, not 10`, hint: compressionHint},
		{name: "a level of nothing", in: []string{"type=image,compression=uncompressed,compression-level=1"}, err: `--output "type=image,compression=uncompressed,compression-level=1": compression=uncompressed has no level`, hint: compressionHint},
		{name: "a level that is no number", in: []string{"type=image,compression-level=best"}, err: `--output compression-level=best: want a number`},
		{name: "a tar with layers", in: []string{"type=tar,dest=x,compression=gzip"}, err: `--output "type=tar,dest=x,compression=gzip": type=tar has no layers to compress`, hint: "pipe a tar through the compressor of your choice: -o - | zstd"},
		{
			name: "no such key", in: []string{"type=oci,colour=red"}, err: `--output: "colour" is not supported`,
			hint: "there are type, dest, name, name-canonical, tar, push, push-by-digest, registry.insecure, rewrite-timestamp, oci-mediatypes, compression, compression-level, force-compression, annotation.KEY and context",
		},
		{name: "a directory for docker", in: []string{"type=docker,tar=false,dest=d"}, err: `--output "type=docker,tar=false,dest=d": nothing loads a directory, so tar=false is not supported`, hint: "-o type=oci,tar=false,dest=DIRECTORY writes an OCI layout"},
		{name: "an index", in: []string{"type=oci,dest=x,annotation-layer.a=1"}, err: `--output annotation of a: the type "layer" is not supported`, hint: annotationHint},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseOutputs(tt.in, tt.push, tt.load, io.Discard)
			if tt.err != "" {
				var usage *usageError
				if err == nil || err.Error() != tt.err || !errors.As(err, &usage) || hintOf(err) != tt.hint {
					t.Errorf("got error %v, hint %q\nwant the usage error %s, hint %q", err, hintOf(err), tt.err, tt.hint)
				}
				return
			}
			if d := cmp.Diff(tt.want, list(got), cmp.AllowUnexported(output{})); err != nil || d != "" {
				t.Errorf("%v, -want +got\n%s", err, d)
			}
		})
	}
}
