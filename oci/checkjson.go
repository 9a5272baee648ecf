package oci

import "fmt"

// maxListed are the elements of one list, or the keys of one object, of a document that
// somebody else wrote; maxDepth is how deep they may be nested.
const (
	maxListed = 40_000
	maxDepth  = 100
)

// CheckJSON refuses a document that takes many times its size when it is decoded, as a
// list of a million empty descriptors does. It does not care whether it is JSON.
// Errors are ErrTooLarge.
func CheckJSON(raw []byte) error {
	var commas [maxDepth]int
	depth, quoted := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth == maxDepth {
				return fmt.Errorf("%w: lists nested %d deep", ErrTooLarge, depth)
			}
			commas[depth] = 0
		case c == '}' || c == ']':
			depth = max(depth-1, 0)
		case c == ',':
			if commas[depth]++; commas[depth] == maxListed {
				return fmt.Errorf("%w: a list of more than %d", ErrTooLarge, maxListed)
			}
		}
	}
	return nil
}
