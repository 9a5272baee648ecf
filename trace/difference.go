package trace

// Difference is a question that another file system answers otherwise.
type Difference struct {
	Question
	Was, Is string // the answers, in words
}
