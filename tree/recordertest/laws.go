package recordertest

import "slices"

// laws are all laws, each with a name of its own.
func laws() []law {
	return slices.Concat(fileLaws(), contentLaws(), renameLaws(), linkLaws(), dirLaws(), attrLaws(), kindLaws(), endLaws(), stubLaws())
}
