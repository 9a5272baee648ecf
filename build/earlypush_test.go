package build

import (
	"testing"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/oci"
)

// --verify-reproducible: nothing leaves the build before it was done twice.
func TestNothingEarlyBeforeVerification(t *testing.T) {
	o := Options{Outputs: []Output{{Type: OutputRegistry}}, Tags: []string{"registry.example/app:1"}, Remote: oci.NewRemote(oci.RemoteOptions{})}
	defer o.Remote.Close()
	if newEarlyPush(t.Context(), o, &dockerfile.Stage{}) == nil {
		t.Error("an ordinary push: nothing is sent early")
	}
	o.VerifyReproducible = true
	if newEarlyPush(t.Context(), o, &dockerfile.Stage{}) != nil {
		t.Error("a build that is to be verified sends layers before")
	}
}
