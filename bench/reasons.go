package main

// reasons say why fbuild is not first in a cell, or in a phase of any workload.
// Whoever finds out writes it down here; the report prints it beside the figures.
var reasons = map[string]string{
	coldPhase:         "fbuild compresses the layers in this phase and waits for them, BuildKit does so in *push*: the table from nothing to the registry compares the same work",
	"one source file": "as in cold, the changed layers are compressed in this phase and not in *push*",
	"push again":      "fbuild is measured with build --push, a whole build that finds everything cached, the context looked through, and then a push; the others only push",
	"runs/push":       "within what one pair of runs can tell",
	"files/cold":      "30,000 small files are compressed in this phase, and making each takes four requests to the file server",
	"big/cold":        "1 GiB is compressed in this phase on two processors; BuildKit has compressed nothing when it is done",
}
