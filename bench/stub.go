package main

import (
	"context"
	"io"
)

func writeYardstick(dir, into string, w io.Writer) error      { return nil }
func reportCommand(ctx context.Context, args []string) error  { return nil }
func compareCommand(ctx context.Context, args []string) error { return nil }
func innerCommand(ctx context.Context, args []string) error   { return nil }
