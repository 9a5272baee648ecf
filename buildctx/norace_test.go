//go:build !race

package buildctx

const raceDetector = false
