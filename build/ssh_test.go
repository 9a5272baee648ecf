package build

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ssh/agent"

	"github.com/fbuild/fbuild/internal/testenv"
)

// An agent that asks a person before it signs keeps no build that was ended.
func TestAgentServerEndsWithAnAgentThatIsSilent(t *testing.T) {
	name := filepath.Join(t.TempDir(), "agent")
	silent, err := new(net.ListenConfig).Listen(t.Context(), "unix", name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }() // only listens
	srv, err := serveAgent(t.Context(), t.TempDir(), dialAgent("default", name))
	if err != nil {
		t.Fatal(err)
	}
	c, err := new(net.Dialer).DialContext(t.Context(), "unix", srv.path)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := agent.NewClient(c).List()
		answered <- err
	}()
	upstream, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = upstream.Close() }() // only read
	if _, err := upstream.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() {
		srv.close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(testenv.Patience):
		t.Fatal("close: got none")
	}
	if err := <-answered; err == nil {
		t.Error("the client: got an answer, want an error")
	}
}
