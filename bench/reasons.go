package main

// reasons say why fbuild is not first in a cell, or in a phase of any workload.
// Whoever finds out writes it down here; the report prints it beside the figures.
var reasons = map[string]string{}
