package outfile_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/fbuild/fbuild/internal/outfile"
)

func say(text string, err error) func(io.Writer) error {
	return func(w io.Writer) error {
		_, werr := io.WriteString(w, text)
		return errors.Join(werr, err)
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "result")
	if err := outfile.Write(name, say("one", nil)); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if err := outfile.Write(name, say("tw", broken)); !errors.Is(err, broken) {
		t.Errorf("an error of the writer: got %v, want it", err)
	}
	if got, err := os.ReadFile(name); string(got) != "one" || err != nil {
		t.Errorf("after a failure: got %q, %v, want the file as it was", got, err)
	}
	if entries, err := os.ReadDir(dir); len(entries) != 1 || err != nil {
		t.Errorf("got %v, %v, want nothing but the result", entries, err)
	}
}

func TestWriteKeepsDevices(t *testing.T) {
	name := filepath.Join(t.TempDir(), "null")
	if err := os.Symlink(os.DevNull, name); err != nil {
		t.Fatal(err)
	}
	if err := outfile.Write(name, say("x", nil)); err != nil {
		t.Fatal(err)
	}
	if got, err := os.Readlink(name); got != os.DevNull || err != nil {
		t.Errorf("got %q, %v, want the name of the device to stay", got, err)
	}
}
