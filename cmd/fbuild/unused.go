package main

import (
	"context"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/cache"
)

func (a *app) explainUnused(_ context.Context, _ *cache.Store, _ *explainFlags, _ *build.Report) error {
	return usagef("--unused is not there")
}
