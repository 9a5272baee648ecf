package exec

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
)

// testEcho copies what comes from descriptor 3 back to it, in upper case, and says on stderr who it is.
func testEcho() int {
	f := os.NewFile(3, "socket")
	data, err := io.ReadAll(f)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.Getwd()
	fmt.Fprintf(os.Stderr, "uid %d env %d dir %s %v", os.Getuid(), len(os.Environ()), dir, err)
	if bytes.Equal(data, []byte("fail")) {
		return 7
	}
	fmt.Fprintf(os.Stderr, " got %s", data)
	return 0
}

// testCaller is an A of its own: it runs a command in the root that its argument names and waits to be killed.
func testCaller() int {
	s, err := Open(context.Background(), Config{})
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	err = s.Run(context.Background(), Spec{
		Root: os.Args[1], Args: []string{"sh", "-c", "setsid sleep 998877 & echo running; sleep 998877"},
		Env: []string{"PATH=/bin"}, Stdout: os.Stdout, Stderr: os.Stdout,
	})
	fmt.Println("error:", err)
	return 1
}
