package build

import (
	"errors"
	"testing"
)

// What one platform of a build finds wrong with a cache is wrong for the others too: else
// a build for four platforms begins anew four times, and the first one, which stores what
// all made, takes for stored what the cache lost.
func TestFaultsOfSharedCachesAreOfAllPlatforms(t *testing.T) {
	spec := CacheSpec{CacheLocal, map[string]string{"src": t.TempDir()}}
	bucket := CacheSpec{CacheS3, map[string]string{"bucket": "b", "region": "r", "name": "app", "access_key_id": "id", "secret_access_key": "hidden"}}
	open := func() *sharedCaches {
		s, err := openShared(&Options{CacheFrom: []CacheSpec{spec, bucket}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first, second := open(), open()
	second.join(first)
	second.doubt.Store(true)
	if !first.doubt.Load() {
		t.Error("a doubt of the second platform: got none of the first, want it to ask for what its caches list")
	}
	second.from[1].place.(*bucketPlace).lies.add("object")
	if !first.lies.has("object") {
		t.Error("a false object that the second platform found: got nothing of it for the first, want that it is sent anew")
	}
	lied := &sharedLayerError{err: errors.New("gone"), source: second.from[0]}
	for _, s := range []*sharedCaches{first, second} {
		s.distrust(lied)
		if got, want := [2]bool{s.from[0].off.Load(), s.from[1].off.Load()}, [2]bool{true, false}; got != want {
			t.Errorf("off after the first cache lied: got %v, want %v", got, want)
		}
	}
}
