package trace

import "encoding/binary"

// EncodeQuestions returns sorted questions in a form of few bytes: a count of paths,
// then for each its root, the length of the prefix shared with the path before, the
// rest of the path, and the kinds as bits. ErrTooLarge is returned for what
// DecodeQuestions would not take.
func EncodeQuestions(list []Question) ([]byte, error) {
	body := make([]byte, 0, 16*len(list))
	paths, total := 0, 0
	prev := ""
	for i := 0; i < len(list); {
		q := list[i]
		if total += len(q.Path); len(q.Path) > maxPath || total > maxPaths || q.Root < 0 || q.Root >= maxRoot {
			return nil, ErrTooLarge
		}
		kinds := uint64(0)
		for ; i < len(list) && list[i].Root == q.Root && list[i].Path == q.Path; i++ {
			kinds |= 1 << (list[i].Kind - Entry)
		}
		shared := 0
		for shared < len(prev) && shared < len(q.Path) && prev[shared] == q.Path[shared] {
			shared++
		}
		body = binary.AppendUvarint(body, uint64(q.Root))
		body = binary.AppendUvarint(body, uint64(shared))
		body = binary.AppendUvarint(body, uint64(len(q.Path)-shared))
		body = append(body, q.Path[shared:]...)
		body = binary.AppendUvarint(body, kinds)
		prev = q.Path
		paths++
	}
	return append(binary.AppendUvarint(make([]byte, 0, len(body)+binary.MaxVarintLen64), uint64(paths)), body...), nil
}

// DecodeQuestions reads what EncodeQuestions wrote. Anything else gives ErrCorrupt.
func DecodeQuestions(b []byte) ([]Question, error) {
	d := decoder{s: string(b)}
	paths := d.count()
	list := make([]Question, 0, 2*paths)
	last, total := Question{}, 0
	for i := 0; i < paths && d.err == nil; i++ {
		q := d.question(last)
		if total += len(q.Path); total > maxPaths {
			d.fail("too many paths")
		}
		if i > 0 && d.err == nil && q.Compare(last) <= 0 {
			d.fail("paths out of order")
		}
		last = q
		kinds := d.uint()
		if kinds == 0 || kinds >= 1<<Time {
			d.fail("unknown kinds")
		}
		for k := Entry; k <= Time && d.err == nil; k++ {
			if kinds&(1<<(k-Entry)) != 0 {
				q.Kind = k
				list = append(list, q)
			}
		}
	}
	if d.err == nil && d.s != "" {
		d.fail("bytes behind the end")
	}
	if d.err != nil {
		return nil, d.err
	}
	return list, nil
}
