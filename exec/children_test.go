package exec

import (
	"bytes"
	"context"
	"errors"
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

// testNested runs a command from within a user namespace, as a rootless container would.
func testNested() int {
	s, err := Open(context.Background(), Config{})
	if err == nil {
		defer s.Close()
		err = s.Run(context.Background(), Spec{Root: os.Args[1], Args: []string{"id", "-u"}, Env: []string{"PATH=/bin"}, Stdout: os.Stdout, Stderr: os.Stdout})
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// testLimited opens a sandbox where no more user namespaces are allowed.
func testLimited() int {
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		fmt.Println(err)
		return 1
	}
	_, err := Open(context.Background(), Config{})
	fmt.Println(errors.Is(err, ErrUnavailable), err)
	fmt.Println(Probe(context.Background()).Err)
	return 0
}
