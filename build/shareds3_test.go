package build

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fbuild/fbuild/internal/s3/s3test"
)

func bucketSpec(srv *s3test.Server, attrs map[string]string) CacheSpec {
	all := map[string]string{
		"bucket": "cache", "region": "us-east-1", "endpoint_url": srv.URL, "use_path_style": "true", "prefix": "team/", "name": "app",
		"access_key_id": "id", "secret_access_key": "hidden",
	}
	maps.Copy(all, attrs)
	return CacheSpec{CacheS3, all}
}

func TestCacheInABucket(t *testing.T) {
	srv := s3test.New("cache")
	t.Cleanup(srv.Close)
	w := newWorld(t)
	w.write("a", "one")
	w.write("b", "two")
	to := func(o *Options) { o.CacheTo = []CacheSpec{bucketSpec(srv, map[string]string{"name": "app;main"})} }
	from := func(o *Options) { o.CacheFrom = []CacheSpec{bucketSpec(srv, map[string]string{"name": "other;app"})} }
	w.must(sharedFile, from, to)
	if !strings.Contains(w.out.String(), "there is no cache at") {
		t.Errorf("an empty bucket: got no word\n%s", w.out.String())
	}
	names := strings.Join(srv.Keys(), " ")
	for _, want := range []string{"team/manifests/app ", "team/manifests/main", "team/blobs/sha256:"} {
		if !strings.Contains(names+" ", want) {
			t.Errorf("objects: got %s, want one %s", names, want)
		}
	}
	srv.Forget()
	w.must(sharedFile, to)
	if n := srv.Count("PUT "); n != 0 {
		t.Errorf("an unchanged build: got %d objects sent, want none", n)
	}
	w.otherStore()
	w.must(sharedFile, from)
	if w.cached() != 5 {
		t.Errorf("another machine: %d cached, want 5\n%s", w.cached(), w.out.String())
	}
	// What somebody else stores again is asked for, and touched where it is old.
	for _, k := range srv.Keys() {
		srv.Age(k, 48*time.Hour)
	}
	srv.Forget()
	w.otherStore()
	w.must(sharedFile, func(o *Options) { o.CacheTo = []CacheSpec{bucketSpec(srv, map[string]string{"name": "third"})} })
	if heads, puts := srv.Count("HEAD team/blobs/"), srv.Count("PUT team/blobs/"); heads < 8 || puts != heads {
		t.Errorf("stored again: got %d questions and %d requests to store or touch, want as many", heads, puts)
	}

	// One that refuses costs nothing to read and the build to write.
	srv.Fail = func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "<Error><Code>AccessDenied</Code></Error>")
		return true
	}
	w.otherStore()
	w.must(sharedFile, from)
	if w.cached() != 0 || !strings.Contains(w.out.String(), "AccessDenied") {
		t.Errorf("refused: %d cached, want none and a word\n%s", w.cached(), w.out.String())
	}
	if _, err := w.build(sharedFile, to); err == nil || !strings.Contains(err.Error(), "AccessDenied") || strings.Contains(err.Error(), "hidden") {
		t.Errorf("refused to write: got %v, want AccessDenied and no secret", err)
	}
}

// A false object of a bucket is not used, and written again by the build that found out.
func TestFalseObjectIsWrittenAgain(t *testing.T) {
	srv := s3test.New("cache")
	t.Cleanup(srv.Close)
	w := newWorld(t)
	w.write("a", "one")
	w.write("b", "two")
	// Without directories that come into being: their times are those of the build.
	const file = "FROM scratch\nCOPY a /a\nCOPY b /b\n"
	both := func(o *Options) {
		o.CacheTo = []CacheSpec{bucketSpec(srv, nil)}
		o.CacheFrom = []CacheSpec{bucketSpec(srv, nil)}
	}
	w.must(file, both)
	good := map[string][]byte{}
	for _, k := range srv.Keys() {
		if data := srv.Get(k); strings.HasPrefix(k, "team/blobs/") && bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
			good[k] = data
			srv.Put(k, bytes.Repeat([]byte{7}, len(data)))
		}
	}
	if len(good) == 0 {
		t.Fatal("the bucket has no layer")
	}
	w.otherStore()
	w.must(file, both)
	if !strings.Contains(w.out.String(), "digest") {
		t.Errorf("a false layer: got no word of it\n%s", w.out.String())
	}
	repaired := 0
	for k, data := range good {
		if bytes.Equal(srv.Get(k), data) {
			repaired++
		}
	}
	if repaired == 0 {
		t.Errorf("%d false layers: none was written again\n%s", len(good), w.out.String())
	}
	for range good { // each build stops at the first that it finds
		w.otherStore()
		w.must(file, both)
	}
	w.otherStore()
	w.must(file, both)
	if w.cached() != 2 {
		t.Errorf("afterwards: %d cached, want 2\n%s", w.cached(), w.out.String())
	}
}
