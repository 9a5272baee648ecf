//go:build integration

package integration

import (
	"testing"
)

func TestLoadDocker(t *testing.T) {
	d := startDockerd(t)
	t.Log(d.docker("version"))
	t.Log(d.containerd("version"))
}
