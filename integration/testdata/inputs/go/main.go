// Command pack compresses and checks what it has compressed.
package main

import (
	"bytes"
	"fmt"
	"os"

	"github.com/klauspost/compress/zstd"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

func main() {
	root := &cobra.Command{Use: "pack", SilenceUsage: true}
	root.AddCommand(&cobra.Command{Use: "check", Short: "Compress and compare", RunE: func(cmd *cobra.Command, _ []string) error {
		n, err := check(4)
		fmt.Fprintf(cmd.OutOrStdout(), "checked %d bytes as uid %d\n", n, os.Getuid())
		return err
	}})
	if root.Execute() != nil {
		os.Exit(1)
	}
}

// check round-trips several texts at once and returns how many bytes they had.
func check(workers int) (int, error) {
	var g errgroup.Group
	sizes := make([]int, workers)
	for i := range workers {
		g.Go(func() error {
			text := bytes.Repeat([]byte{byte('a' + i)}, 1000)
			enc, err := zstd.NewWriter(nil)
			if err != nil {
				return err
			}
			dec, err := zstd.NewReader(nil)
			if err != nil {
				return err
			}
			defer dec.Close()
			got, err := dec.DecodeAll(enc.EncodeAll(text, nil), nil)
			if err == nil && !bytes.Equal(got, text) {
				err = fmt.Errorf("worker %d: got %d bytes, want %d", i, len(got), len(text))
			}
			sizes[i] = len(got)
			return err
		})
	}
	err := g.Wait()
	n := 0
	for _, s := range sizes {
		n += s
	}
	return n, err
}
