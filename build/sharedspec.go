package build

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/internal/s3"
	"github.com/fbuild/fbuild/oci"
)

// The types of a CacheSpec.
const (
	CacheRegistry = "registry"
	CacheLocal    = "local"
	CacheInline   = "inline"
	CacheS3       = "s3"
)

// s3Attrs are the attributes that say where a bucket is and who asks.
var s3Attrs = []string{
	"region", "bucket", "name", "prefix", "manifests_prefix", "blobs_prefix", "endpoint_url", "use_path_style",
	"access_key_id", "secret_access_key", "session_token",
}

// exportAttrs say what is stored and how.
var exportAttrs = []string{
	"mode", "oci-mediatypes", "image-manifest", "compression", "force-compression", "ignore-error", "mounts", "keep",
}

// cacheAttrs are the attributes that each type of --cache-from and --cache-to takes.
var cacheAttrs = map[bool]map[string][]string{
	false: {
		CacheRegistry: {"ref"},
		CacheLocal:    {"src", "digest", "tag"},
		CacheS3:       s3Attrs,
	},
	true: {
		CacheRegistry: append([]string{"ref"}, exportAttrs...),
		CacheLocal:    append([]string{"dest", "tag"}, exportAttrs...),
		CacheInline:   {"mode"},
		CacheS3:       slices.Concat(s3Attrs, exportAttrs, []string{"touch_refresh", "upload_parallelism"}),
	},
}

// exportOptions are the attributes of a --cache-to, read.
type exportOptions struct {
	max, mounts, ignoreError bool
	form                     manifestForm
	keep                     time.Duration // of what others stored
	touch                    time.Duration
	parallel                 int
}

// defaultKeep is how long a shared cache keeps what no build stored or used again.
const defaultKeep = 7 * 24 * time.Hour

// Check reports whether a spec can be one of Options.CacheTo, or of CacheFrom.
func (s CacheSpec) Check(to bool) error {
	flag := "--cache-from"
	if to {
		flag = "--cache-to"
	}
	known, ok := cacheAttrs[to][s.Type]
	if !ok {
		return fmt.Errorf("%s type=%s is not supported", flag, s.Type)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Attrs)) {
		if !slices.Contains(known, name) {
			return fmt.Errorf("%s type=%s has no attribute %s: there are %s", flag, s.Type, name, strings.Join(known, ", "))
		}
	}
	_, err := s.export()
	if err == nil && s.Type != CacheInline {
		_, err = s.open(oci.NewRemote(oci.RemoteOptions{}), to)
	}
	if err != nil {
		return fmt.Errorf("%s type=%s: %w", flag, s.Type, err)
	}
	return nil
}

// yes reads an attribute that is true or false.
func (s CacheSpec) yes(name string, otherwise bool) (bool, error) {
	v, ok := s.Attrs[name]
	if !ok {
		return otherwise, nil
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, fmt.Errorf("%s=%s: want true or false", name, v)
	}
	return b, nil
}

// export reads the attributes of a --cache-to.
func (s CacheSpec) export() (exportOptions, error) {
	o := exportOptions{keep: defaultKeep, touch: 24 * time.Hour, parallel: 4}
	switch v := s.Attrs["mode"]; {
	case v == "max" && s.Type == CacheInline:
		return o, errors.New("mode=max: an image holds its own layers only; use type=registry")
	case v == "max":
		o.max = true
	case v != "" && v != "min":
		return o, fmt.Errorf("mode=%s: there are min and max", v)
	}
	oci, err1 := s.yes("oci-mediatypes", true)
	image, err2 := s.yes("image-manifest", oci)
	mounts, err3 := s.yes("mounts", false)
	ignore, err4 := s.yes("ignore-error", false)
	_, err5 := s.yes("force-compression", false) // layers have one compression, whoever made them
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return o, err
	}
	if image && !oci {
		return o, errors.New("image-manifest=true needs oci-mediatypes=true")
	}
	o.mounts, o.ignoreError, o.form = mounts, ignore, manifestForm{image: image, docker: !oci}
	if c := s.Attrs["compression"]; c != "" && c != "gzip" {
		return o, fmt.Errorf("compression=%s: layers are stored as the image has them, with gzip; records always with zstd", c)
	}
	for name, at := range map[string]*time.Duration{"keep": &o.keep, "touch_refresh": &o.touch} {
		if v, ok := s.Attrs[name]; ok {
			d, err := time.ParseDuration(v)
			if err != nil || d < 0 {
				return o, fmt.Errorf("%s=%s: want a duration as 168h", name, v)
			}
			*at = d
		}
	}
	if v, ok := s.Attrs["upload_parallelism"]; ok {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 64 {
			return o, fmt.Errorf("upload_parallelism=%s: want a number from 1 to 64", v)
		}
		o.parallel = n
	}
	return o, nil
}

// name is what people see.
func (s CacheSpec) name() string {
	switch s.Type {
	case CacheRegistry:
		return s.Attrs["ref"]
	case CacheLocal:
		return s.Attrs["src"] + s.Attrs["dest"]
	case CacheS3:
		return "s3://" + s.Attrs["bucket"] + "/" + s.Attrs["prefix"] + s.Attrs["name"]
	}
	return s.Type
}

// open returns where the cache lies. Nothing is asked yet.
func (s CacheSpec) open(r *oci.Remote, to bool) (cachePlace, error) {
	switch s.Type {
	case CacheRegistry:
		return s.openRegistry(r, to)
	case CacheLocal:
		return s.openLocal(to)
	case CacheS3:
		return s.openS3()
	}
	return nil, fmt.Errorf("type %s has no place", s.Type)
}

func (s CacheSpec) openRegistry(r *oci.Remote, to bool) (cachePlace, error) {
	ref := s.Attrs["ref"]
	if ref == "" {
		return nil, errors.New("ref is missing: ref=REGISTRY/NAME:TAG")
	}
	if to && strings.Contains(ref, "@") {
		return nil, fmt.Errorf("ref=%s: a digest is no name for something new", ref)
	}
	a, err := r.Artifact(ref)
	if err != nil {
		return nil, err
	}
	return a, nil
}

func (s CacheSpec) openLocal(to bool) (cachePlace, error) {
	dir, attr := s.Attrs["src"], "src"
	if to {
		dir, attr = s.Attrs["dest"], "dest"
	}
	if dir == "" {
		return nil, fmt.Errorf("%s is missing: %s=DIRECTORY", attr, attr)
	}
	name := s.Attrs["digest"]
	if name == "" {
		name = s.Attrs["tag"]
	} else if _, err := v1.NewHash(name); err != nil {
		return nil, fmt.Errorf("digest=%s: want sha256: and 64 hexadecimal digits", name)
	}
	if name == "" {
		name = "latest"
	}
	return oci.OpenLayoutArtifact(dir, name), nil
}

// openS3 fills in from the environment what AWS' own tools take from there.
func (s CacheSpec) openS3() (cachePlace, error) {
	get := func(attr string, env ...string) string {
		if v := s.Attrs[attr]; v != "" {
			return v
		}
		for _, name := range env {
			if v := os.Getenv(name); v != "" {
				return v
			}
		}
		return ""
	}
	o := s3.Options{
		Bucket: get("bucket", "AWS_BUCKET"), Region: get("region", "AWS_REGION", "AWS_DEFAULT_REGION"),
		Endpoint: get("endpoint_url", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), UserAgent: "fbuild",
		Credentials: s3.Credentials{
			AccessKeyID: get("access_key_id", "AWS_ACCESS_KEY_ID"), SecretAccessKey: get("secret_access_key", "AWS_SECRET_ACCESS_KEY"),
			SessionToken: get("session_token", "AWS_SESSION_TOKEN"),
		},
	}
	if o.Bucket == "" {
		return nil, errors.New("bucket is missing: bucket=NAME, or $AWS_BUCKET")
	}
	if o.Region == "" {
		return nil, errors.New("region is missing: region=NAME, or $AWS_REGION; servers of one's own often take us-east-1")
	}
	if o.Credentials.AccessKeyID == "" || o.Credentials.SecretAccessKey == "" {
		return nil, errors.New("no credentials: set $AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY, and $AWS_SESSION_TOKEN where they are for a time")
	}
	var err error
	if o.PathStyle, err = s.yes("use_path_style", false); err != nil {
		return nil, err
	}
	x, err := s.export()
	if err != nil {
		return nil, err
	}
	b, err := s3.Open(o)
	if err != nil {
		return nil, err
	}
	prefix := s.Attrs["prefix"]
	or := func(attr, without string) string {
		if v, ok := s.Attrs[attr]; ok {
			return v
		}
		return without
	}
	p := &bucketPlace{b: b, touch: x.touch, manifests: prefix + or("manifests_prefix", "manifests/"), blobs: prefix + or("blobs_prefix", "blobs/")}
	for n := range strings.SplitSeq(or("name", "fbuild"), ";") {
		if n == "" {
			return nil, errors.New("name is empty")
		}
		p.names = append(p.names, n)
	}
	return p, nil
}
