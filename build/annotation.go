package build

// What an Annotation is of.
const (
	AnnotationManifest        = "manifest"
	AnnotationDescriptor      = "manifest-descriptor" // the manifest's entry in the index
	AnnotationIndex           = "index"
	AnnotationIndexDescriptor = "index-descriptor" // the entry of the index in a layout
)

// Annotation is one that an image gets.
type Annotation struct {
	On         string // AnnotationManifest or one of the others
	Platform   string // of which images; "" is all of them
	Key, Value string
}

// note collects the annotations of one kind of the image of this platform, those of the
// output before those of the build. nil for none.
func (b *builder) note(on string, o Output) map[string]string {
	var m map[string]string
	for _, list := range [][]Annotation{b.opts.Annotations, o.Annotations} {
		for _, a := range list {
			if a.On != on || a.Platform != "" && a.Platform != b.opts.Platform.String() {
				continue
			}
			if m == nil {
				m = map[string]string{}
			}
			m[a.Key] = a.Value
		}
	}
	return m
}
