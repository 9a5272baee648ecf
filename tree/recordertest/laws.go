package recordertest

import "slices"

// laws are all laws, each with a name of its own.
func laws() []law {
	return slices.Concat(fileLaws(), unlinkLaws(), contentLaws(), writeLaws(), renameLaws(), linkLaws(), dirLaws(), attrLaws(), xattrLaws(), kindLaws(), endLaws(), stubLaws())
}
