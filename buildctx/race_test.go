//go:build race

package buildctx

const raceDetector = true
