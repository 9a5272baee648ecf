// Command gen makes the files of the workloads, the same bytes every time. It is in
// their base images as /bin/gen, and bench makes build contexts with the same rules.
//
//	gen files DIR COUNT MIN MAX   small files, a hundred to a directory, MIN to MAX bytes
//	gen big DIR COUNT BYTES       large files
//	gen work ROUNDS FILE          nothing but processor time: a chain of sha256; the sum goes to FILE
//
// Contents compress about as a tree of programs does, to some 40 per cent.
package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return errors.New("usage: gen files DIR COUNT MIN MAX | gen big DIR COUNT BYTES | gen work ROUNDS FILE")
	}
	nums := make([]int, 0, 3)
	for _, s := range args[1:] {
		if n, err := strconv.Atoi(s); err == nil {
			nums = append(nums, n)
		}
	}
	switch {
	case args[0] == "files" && len(nums) == 3:
		return files(args[1], nums[0], nums[1], nums[2])
	case args[0] == "big" && len(nums) == 2:
		return big(args[1], nums[0], int64(nums[1]))
	case args[0] == "work" && len(nums) == 1:
		return work(nums[0], args[2])
	}
	return fmt.Errorf("arguments %q: not understood", args)
}

func files(dir string, count, low, high int) error {
	src := source{rand.New(rand.NewPCG(7, uint64(count)))} //nolint:gosec // no secret
	buf := make([]byte, high)
	for i := range count {
		sub := filepath.Join(dir, fmt.Sprintf("d%04d", i/100))
		if i%100 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil { //nolint:gosec // as images have it
				return err
			}
		}
		data := buf[:low+i*7919%(high-low+1)]
		if _, err := src.Read(data); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("file%02d", i%100)), data, 0o644); err != nil { //nolint:gosec // as images have it
			return err
		}
	}
	return nil
}

func big(dir string, count int, size int64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // as images have it
		return err
	}
	for i := range count {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("big%02d", i)))
		if err != nil {
			return err
		}
		w := bufio.NewWriterSize(f, 1<<20)
		_, err = io.CopyN(w, source{rand.New(rand.NewPCG(11, uint64(i)))}, size) //nolint:gosec // no secret
		if err := errors.Join(err, w.Flush(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func work(rounds int, file string) error {
	sum := sha256.Sum256([]byte("work"))
	for range rounds {
		sum = sha256.Sum256(sum[:])
	}
	return os.WriteFile(file, fmt.Appendf(nil, "%x\n", sum), 0o644) //nolint:gosec // as images have it
}

// source is half random bytes, half text that repeats.
type source struct{ rng *rand.Rand }

const text = "the same words come again and again, as they do in programs; "

func (s source) Read(p []byte) (int, error) {
	for i := 0; i < len(p); {
		n := s.rng.Uint64()
		if n%4 == 0 {
			i += copy(p[i:], text[n>>8%16:])
			continue
		}
		for k := 0; k < 8 && i < len(p); k, i = k+1, i+1 {
			p[i] = byte(n >> (8 * k))
		}
	}
	return len(p), nil
}
